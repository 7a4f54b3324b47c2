"""What words can say about a face: the attributes, their ordered values, and the English for each value.

One attribute is one slot of the text encoder; one value is one bin of what the synthetic portraits can show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Count = Literal["one", "many", "mass"]


@dataclass(frozen=True)
class Value:
    """One thing that can be said.

    `phrases` are complete noun phrases ("a hooked nose", "no beard"); `adjectives` stand before the
    attribute's noun ("a broad nose") or after it ("the nose is broad").
    """

    name: str
    phrases: tuple[str, ...] = ()
    adjectives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attribute:
    """One thing that a description may say about a face; `values` go from small to large, few to many."""

    name: str
    part: str
    values: tuple[Value, ...]
    noun: str = ""
    count: Count = "one"

    def index(self, value: str) -> int:
        """Place of the value called `value`; raises KeyError."""
        for place, known in enumerate(self.values):
            if known.name == value:
                return place
        known_names = ", ".join(known.name for known in self.values)
        raise KeyError(f"{self.name} has no value {value!r}; it has {known_names}")

    def noun_phrases(self, value: int) -> tuple[str, ...]:
        """All noun phrases for one value, with article: complete ones and adjective + noun."""
        chosen = self.values[value]
        built = (with_article(f"{word} {self.noun}", self.count) for word in chosen.adjectives)
        return chosen.phrases + tuple(built)


def with_article(words: str, count: Count = "one") -> str:
    """`words` with "a" or "an" where English wants one."""
    if count != "one":
        return words
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _said(name: str, *phrases: str, be: str = "") -> Value:
    """A value; `be` lists its adjectives, comma separated."""
    return Value(name, phrases, tuple(word.strip() for word in be.split(",") if word.strip()))


# fmt: off
ATTRIBUTES: tuple[Attribute, ...] = (
    # overview
    Attribute("sex", "overview", (
        _said("woman", "woman", "lady", "female", "female person"),
        _said("man", "man", "guy", "male", "male person", "gentleman"),
    )),
    Attribute("age", "overview", (
        _said("young", "in the twenties", "in the early twenties", be="young, youthful"),
        _said("adult", "in the thirties", "in the early forties", "in the early thirties", be="adult"),
        _said("middle-aged", "in the fifties", "in the late forties", "in middle age", be="middle-aged"),
        _said("old", "in the sixties", "in the seventies", "of advanced age", be="old, elderly, aged"),
    ), "person"),
    Attribute("skin tone", "overview", (
        _said("fair", "a pale complexion", be="fair, pale, light, white"),
        _said("tan", "an olive complexion", be="tan, tanned, olive, medium, light brown"),
        _said("brown", "a brown complexion", be="brown, medium brown"),
        _said("dark", "a dark complexion", be="dark, dark brown, deep brown, black"),
    ), "skin", "mass"),
    Attribute("face width", "overview", (
        _said("narrow", "narrow features", be="narrow, slim, thin, lean"),
        _said("average", "a face of average width", "a face neither narrow nor wide", be="medium-wide"),
        _said("wide", be="wide, broad, round"),
    ), "face"),
    Attribute("face length", "overview", (
        _said("short", be="short, compact, squat"),
        _said("average", "a face of average length", "a face neither short nor long", be="medium-long"),
        _said("long", be="long, elongated, tall"),
    ), "face"),
    Attribute("jaw", "overview", (
        _said("narrow", be="narrow, slender, tapering, slim"),
        _said("average", "a jaw of average width", be="average, medium, normal, regular"),
        _said("broad", "a strong jawline", be="broad, square, strong, wide, heavy"),
    ), "jaw"),
    Attribute("chin", "overview", (
        _said("pointed", be="pointed, narrow, small, pointy"),
        _said("rounded", be="rounded, round, average, medium, normal"),
        _said("broad", be="broad, wide, blunt, square"),
    ), "chin"),
    Attribute("build", "overview", (
        _said("lean", "hollow cheeks", "sunken cheeks", be="lean, slim, gaunt, bony"),
        _said("average", "cheeks of average fullness", be="average, medium, normal"),
        _said("heavy", "full cheeks", "chubby cheeks", be="heavy, stout, fleshy, plump"),
    ), "build"),
    # eyes
    Attribute("eye colour", "eyes", (
        _said("dark brown", be="dark, dark brown, deep brown, almost black"),
        _said("brown", be="brown, hazel, light brown, amber"),
        _said("green", be="green, greenish, grey-green"),
        _said("blue", be="blue, light blue, pale blue, grey-blue, grey"),
    ), "eyes", "many"),
    Attribute("eye opening", "eyes", (
        _said("narrow", "heavy eyelids", be="narrow, half-closed, squinting, small"),
        _said("average", "eyes of average size", be="average-sized, medium-sized, normally open"),
        _said("wide", be="wide-open, large, big, wide"),
    ), "eyes", "many"),
    Attribute("eye spacing", "eyes", (
        _said("close", "eyes close together", "eyes near each other", be="close-set"),
        _said("average", "eyes a normal distance apart", "eyes of average spacing", be="evenly spaced"),
        _said("far", "eyes far apart", "eyes wide apart", be="wide-set, widely spaced"),
    ), "eyes", "many"),
    Attribute("eye tilt", "eyes", (
        _said("down", "eyes that droop at the outer corners", "eyes slanting down", be="downturned, droopy"),
        _said("level", "eyes that lie level", "level corners of the eyes", be="level, horizontal"),
        _said("up", "eyes that rise at the outer corners", "eyes slanting up", be="upturned, almond-shaped"),
    ), "eyes", "many"),
    # brows
    Attribute("brow thickness", "brows", (
        _said("thin", be="thin, narrow, fine, sparse"),
        _said("average", "eyebrows of average thickness", be="medium-thick, average, normal"),
        _said("thick", be="thick, bushy, heavy, dense"),
    ), "eyebrows", "many"),
    Attribute("brow shape", "brows", (
        _said("straight", be="straight, flat, unarched"),
        _said("curved", be="slightly arched, gently curved, softly curved, curved"),
        _said("arched", be="arched, strongly arched, highly arched, sharply arched"),
    ), "eyebrows", "many"),
    Attribute("brow height", "brows", (
        _said("low", "eyebrows close to the eyes", "eyebrows just above the eyes", be="low, low-set"),
        _said("average", "eyebrows at a normal height", "eyebrows of average height", be="medium-high"),
        _said("high", "eyebrows far above the eyes", "eyebrows well above the eyes", be="high, high-set"),
    ), "eyebrows", "many"),
    # nose
    Attribute("nose width", "nose", (
        _said("narrow", be="narrow, thin, slim, fine"),
        _said("average", "a nose of average width", "a nose neither narrow nor broad", be="medium-wide"),
        _said("wide", "wide nostrils", be="wide, broad, flat, fleshy"),
    ), "nose"),
    Attribute("nose length", "nose", (
        _said("short", be="short, small, little"),
        _said("average", "a nose of average length", "a nose neither short nor long", be="medium-long"),
        _said("long", be="long, big, large"),
    ), "nose"),
    Attribute("nose bridge", "nose", (
        _said("hollow", "a hollow nose bridge", "a dip in the bridge", be="snub, upturned, concave, scooped"),
        _said("straight", "a straight nose bridge", "a straight profile", be="straight"),
        _said("humped", "a bump on the bridge", "a slight bump", be="hooked, humped, aquiline, curved"),
    ), "nose"),
    # mouth
    Attribute("mouth width", "mouth", (
        _said("narrow", be="narrow, small, little"),
        _said("average", "a mouth of average width", be="medium-wide, average, medium-sized"),
        _said("wide", be="wide, broad, large, big"),
    ), "mouth"),
    Attribute("upper lip", "mouth", (
        _said("thin", be="thin, narrow, fine"),
        _said("average", be="average, medium, medium-full, normal"),
        _said("full", be="full, thick, fleshy, plump"),
    ), "upper lip"),
    Attribute("lower lip", "mouth", (
        _said("thin", be="thin, narrow, fine"),
        _said("average", be="average, medium, medium-full, normal"),
        _said("full", be="full, thick, fleshy, plump"),
    ), "lower lip"),
    Attribute("lip colour", "mouth", (
        _said("pale", "lips without colour", be="pale, colourless, light"),
        _said("pink", "lips of a natural colour", be="pink, rosy, natural-coloured"),
        _said("red", "lips of a strong red", be="red, deep red, dark red, bright red"),
    ), "lips", "many"),
    # ears
    Attribute("ear size", "ears", (
        _said("small", be="small, little, tiny, flat"),
        _said("average", "ears of average size", be="medium-sized, average, normal"),
        _said("large", "ears that stick out", be="large, big, prominent, protruding"),
    ), "ears", "many"),
    # hair
    Attribute("hair colour", "hair", (
        _said("black", be="black, jet-black, raven"),
        _said("brown", be="brown, dark brown, chestnut, brunette, dark"),
        _said("red", be="red, ginger, auburn, copper, reddish"),
        _said("blond", be="blond, blonde, fair, light blond, golden"),
        _said("grey", be="grey, gray, white, silver, greying"),
    ), "hair", "mass"),
    Attribute("hair length", "hair", (
        _said("very short", "a shaved head", "a crew cut", be="very short, cropped, close-cropped"),
        _said("short", "hair that ends above the ears", be="short, short-cut"),
        _said("medium", "hair that covers the ears", "a bob", be="medium-length, chin-length, half-long"),
        _said("long", "hair that falls to the shoulders", be="long, shoulder-length, very long"),
    ), "hair", "mass"),
    Attribute("hair texture", "hair", (
        _said("straight", be="straight, sleek, smooth"),
        _said("wavy", "waves in the hair", be="wavy, slightly curly, loosely waved"),
        _said("curly", "tight curls", "curls", be="curly, frizzy, very curly, kinky"),
    ), "hair", "mass"),
    Attribute("hairline", "hair", (
        _said("low", "a low forehead", "hair growing low on the forehead", be="low"),
        _said("average", "a forehead of average height", be="average, normal, medium-high"),
        _said("receding", "a high forehead", "thin hair above the temples", be="receding, high, retreating"),
        _said("bald", "a bald head", "a bald crown", "no hair on top of the head", "hardly any hair on top"),
    ), "hairline"),
    Attribute("fringe", "hair", (
        _said("none", "no fringe", "no bangs", "hair brushed back", "hair combed back"),
        _said("partial", "a side fringe", "side-swept bangs", "hair swept to the side", "a light fringe"),
        _said("full", "a full fringe", "bangs", "a fringe over the forehead", "hair over the forehead"),
    ), "fringe"),
    # worn and grown
    Attribute("glasses", "glasses", (
        _said("none", "no glasses", "no spectacles", "nothing over the eyes"),
        _said("glasses", "glasses", "spectacles", "eyeglasses", "dark-rimmed glasses"),
    ), "glasses", "many"),
    Attribute("beard", "beard", (
        _said("none", "no beard", "no facial hair", "a clean-shaven face", "a smooth chin without a beard",
              "no beard or moustache"),
        _said("moustache", "a moustache", "only a moustache", "a moustache but no beard", "a mustache"),
        _said("stubble", "stubble", "a stubbly beard", "a short beard", "a trimmed beard"),
        _said("full", "a full beard", "a beard", "a thick beard", "a bushy beard", "a beard and moustache"),
    ), "beard"),
    # marks
    Attribute("freckles", "skin", (
        _said("none", "no freckles", "skin without freckles", "unfreckled skin"),
        _said("freckles", "freckles", "freckled skin", "many freckles", "freckles on the cheeks"),
    ), "freckles", "many"),
    Attribute("mole", "skin", (
        _said("none", "no mole", "no moles", "no birthmark"),
        _said("mole", "a mole", "a small mole", "a dark mole", "a birthmark", "a beauty spot"),
    ), "mole"),
)
# fmt: on
"""All attributes. Their order is the order of the text encoder's slots: append, never reorder."""

SLOTS = len(ATTRIBUTES)
"""How many things words can say, and so how many slots the text encoder gives (32)."""

UNSAID = -1
"""Value index of an attribute about which nothing was said."""

_BY_NAME = {attribute.name: place for place, attribute in enumerate(ATTRIBUTES)}


def slot(name: str) -> int:
    """Slot of the attribute called `name`; raises KeyError."""
    return _BY_NAME[name]


def attributes_of(part: str) -> tuple[int, ...]:
    """Slots of the attributes that belong to one part, in order; () where words know nothing."""
    return tuple(place for place, attribute in enumerate(ATTRIBUTES) if attribute.part == part)
