"""How a witness might put it: attribute values -> English in the published bracket format, much varied.

Every draw comes from the generator passed in. Words are from `evidence.lexicon`, sentences from here.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..evidence.description import PART_TAGS, Description, Segment, sentence
from ..evidence.lexicon import ATTRIBUTES, SLOTS, UNSAID, Attribute, Count, attributes_of, slot, with_article
from ..parts import PARTS

Item = tuple[int, int]
"""Slot of an attribute and place of its value."""

_SEX, _AGE, _GLASSES, _BEARD = slot("sex"), slot("age"), slot("glasses"), slot("beard")
_UPPER, _LOWER = slot("upper lip"), slot("lower lip")
_YEARS = ((18, 29), (30, 44), (45, 59), (60, 79))
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy")
_ONES = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUMBER_WORDS: tuple[str, ...] = (*_TENS, *_ONES[1:])
"""Words in which ages are told."""
_INTENSIFIERS = ("rather ", "quite ", "fairly ", "noticeably ", "clearly ", "really ")
_NO_INTENSIFIER = {slot("hair length"), slot("brow shape"), slot("skin tone"), slot("lip colour")}

FILLERS: tuple[str, ...] = (
    "looks at the camera against a plain wall",
    "seen from the front under even light",
    "I only saw the face briefly",
    "the light was bad",
    "neutral expression",
    "smiling a little",
    "with a closed mouth",
    "wearing a blue jacket",
    "in a dark green coat",
    "with a red scarf around the neck",
    "the background is grey",
    "wearing a white shirt",
    "looking slightly to the left",
    "looking to the right",
    "I am not sure about the rest",
    "wearing a black cap",
    "there is nothing special about the rest",
    "a portrait photo",
    "a photo of a face",
    "seen at a distance",
    "the person seemed calm",
    "the head is turned a little",
    "I cannot recall more",
    "small silver earrings",
    "under a long brown coat",
    "in front of a wide window",
    "a low-resolution photo",
    "seen late in the evening",
)
"""Words that witnesses add and that say nothing about any attribute."""


@dataclass(frozen=True)
class Said:
    """What was said: the words, and the value stated for each of SLOTS attributes (-1: unsaid)."""

    description: Description
    stated: tuple[int, ...]

    @property
    def text(self) -> str:
        """The published bracket format."""
        return self.description.to_text()


@dataclass(frozen=True)
class Speaker:
    """How the person is referred to."""

    subject: str
    have: str
    are: str
    possessive: str

    @classmethod
    def of(cls, sex: int, rng: random.Random) -> Speaker:
        """A pronoun that gives away no more than `sex` (UNSAID, 0 woman, 1 man)."""
        if sex == UNSAID or rng.random() < 0.15:
            return rng.choice(
                (
                    cls("the person", "has", "is", "the"),
                    cls("they", "have", "are", "their"),
                    cls("the witness saw someone who", "has", "is", "the"),
                    cls("the face", "has", "is", "the"),
                )
            )
        return cls(("she", "he")[sex], "has", "is", rng.choice((("her", "his")[sex], "the")))


def describe(
    values: Tensor | Sequence[int],
    generator: torch.Generator,
    omit: float = 0.3,
    wrong: float = 0.1,
    filler: float = 0.15,
) -> Said:
    """Words about one person, as an opening sentence and segments in a random order.

    values: SLOTS places of the true values (UNSAID is never spoken of). Each attribute is left out with
    probability `omit`; of those spoken of a share `wrong` is given another value. `filler` is the chance of
    words that say nothing. One attribute is always said, for an empty description is none.
    """
    rng = _rng(generator)
    stated = _remember([int(v) for v in values], rng, omit, wrong)
    speaker = Speaker.of(stated[_SEX], rng)
    opening = _opening(stated, rng, filler)
    parts = [part for part in PARTS if part != "overview"]
    rng.shuffle(parts)
    segments = []
    for part in parts:
        text = _part_text(_items(stated, part), speaker, rng)
        if text:
            segments.append(Segment(part, _tags(part, rng), text))
    return Said(Description(opening, tuple(segments)), tuple(stated))


def part_text(values: Tensor | Sequence[int], part: str, generator: torch.Generator | None = None) -> str:
    """Words about one part alone with nothing omitted and nothing wrong; "" if `values` says nothing of it.

    Without a generator the plainest words are always the same ones.
    """
    stated = [int(v) for v in values]
    items = _items(stated, part)
    if generator is None:
        return _plain(items)
    rng = _rng(generator)
    if part == "overview":
        return _opening(stated, rng, 0.0) if items else ""
    return _part_text(items, Speaker.of(UNSAID, rng), rng)


def retell(said: Said, generator: torch.Generator) -> str:
    """The same facts as plain prose without brackets: clauses of all parts, shuffled, some joined."""
    rng = _rng(generator)
    stated = list(said.stated)
    speaker = Speaker.of(stated[_SEX], rng)
    items = [(i, v) for i, v in enumerate(stated) if v != UNSAID and ATTRIBUTES[i].part != "overview"]
    rng.shuffle(items)
    early = {i for i, _ in items[: rng.randint(0, 4)]}
    phrases = [_noun_phrase(i, v, rng) for i, v in items if i in early]
    texts = [_opening(stated, rng, 0.15, phrases)]
    parts = [part for part in PARTS if part != "overview"]
    rng.shuffle(parts)
    for part in parts:
        later = [one for one in items if one[0] not in early and ATTRIBUTES[one[0]].part == part]
        texts += filter(None, [_part_text(later, speaker, rng)])
    if rng.random() < 0.2:
        texts = texts[1:] + texts[:1]
    return " ".join(sentence(text) for text in texts)


def _rng(generator: torch.Generator) -> random.Random:
    return random.Random(int(torch.randint(2**62, (1,), generator=generator)))


def _remember(values: list[int], rng: random.Random, omit: float, wrong: float) -> list[int]:
    stated = [UNSAID] * SLOTS
    known = [i for i, v in enumerate(values) if v != UNSAID]
    kept = [i for i in known if rng.random() >= omit] or (rng.sample(known, 1) if known else [])
    for i in kept:
        others = [v for v in range(len(ATTRIBUTES[i].values)) if v != values[i]]
        stated[i] = rng.choice(others) if rng.random() < wrong else values[i]
    return stated


def _items(stated: Sequence[int], part: str) -> list[Item]:
    return [(i, stated[i]) for i in attributes_of(part) if stated[i] != UNSAID]


def _tags(part: str, rng: random.Random) -> tuple[str, ...]:
    tags = PART_TAGS[part]
    return tags if rng.random() < 0.7 else tags[:1] if rng.random() < 0.5 else (part,)


def _join(words: Sequence[str], rng: random.Random) -> str:
    if len(words) < 2:
        return "".join(words)
    last = rng.choice((" and ", " and ", ", ", ", and "))
    return ", ".join(words[:-1]) + last + words[-1]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# -- the opening -------------------------------------------------------------------------------------------


def _age_words(value: int, possessive: str, rng: random.Random) -> tuple[str, bool]:
    """How old, and whether it stands before the noun."""
    attribute = ATTRIBUTES[_AGE].values[value]
    draw = rng.random()
    if draw < 0.40:
        return rng.choice(attribute.adjectives), True
    if draw < 0.58:
        return rng.choice(attribute.phrases).replace(
            "in the ", f"in {rng.choice(('the', possessive))} "
        ), False
    years = rng.randint(*_YEARS[value])
    number = (
        str(years)
        if rng.random() < 0.6 or years < 20
        else f"{_TENS[years // 10 - 2]} {_ONES[years % 10]}".strip()
    )
    decade, within = years // 10, years % 10
    if draw < 0.75 and decade > 1 and not 4 <= within <= 6:
        when = rng.choice(("early ", "early to mid ") if within < 4 else ("late ",))
        return f"in {rng.choice(('the', possessive))} {when}{_decade(decade)}", False
    if rng.random() < 0.3:
        return f"{number.replace(' ', '-')}-year-old", True
    frames = ("about {} years old", "around {}", "aged {}", "{} years old", "roughly {} years of age")
    return rng.choice(frames).format(number), False


def _decade(decade: int) -> str:
    word = _TENS[decade - 2]
    return word[:-1] + "ies"


def _opening(stated: Sequence[int], rng: random.Random, filler: float, more: Iterable[str] = ()) -> str:
    sex, age = stated[_SEX], stated[_AGE]
    noun = "person" if sex == UNSAID else rng.choice(ATTRIBUTES[_SEX].values[sex].phrases)
    if sex == UNSAID and rng.random() < 0.2:
        noun = rng.choice(("someone", "face", "individual"))
    possessive = "their" if sex == UNSAID else ("her", "his")[sex]
    before, after = "", ""
    if age != UNSAID:
        words, front = _age_words(age, possessive, rng)
        before, after = (words + " ", "") if front else ("", words)
    if noun == "someone" and before:
        noun = "person"
    rest = [(i, v) for i, v in _items(stated, "overview") if i not in (_SEX, _AGE)]
    rng.shuffle(rest)
    phrases = [*_noun_phrases(rest, rng), *more]
    article = noun if noun == "someone" else with_article(before + noun)
    style = rng.random()
    if style < 0.55:
        text = article + (rng.choice((" ", ", ")) + after if after else "")
        if phrases:
            text += rng.choice((" with ", " who has ", ", ")) + _join(phrases, rng)
    elif style < 0.75:
        text = ", ".join([before + noun, *filter(None, [after]), *phrases])
    else:
        speaker = Speaker.of(sex, rng)
        verb = rng.choice(("the person is", "it was", "I saw", "this is"))
        text = f"{verb} {article}" + (f" {after}" if after else "")
        if phrases:
            text += f". {_capital(speaker.subject)} {speaker.have} {_join(phrases, rng)}"
    if rng.random() < filler:
        text += rng.choice((", ", ". ")) + rng.choice(FILLERS)
    return sentence(_capital(text))


# -- the parts ---------------------------------------------------------------------------------------------


def _noun_phrase(place: int, value: int, rng: random.Random) -> str:
    return _vary_negation(rng.choice(ATTRIBUTES[place].noun_phrases(value)), rng)


def _vary_negation(phrase: str, rng: random.Random) -> str:
    if phrase.startswith("no ") and rng.random() < 0.3:
        return rng.choice(("without ", "without any ")) + phrase[3:]
    return phrase


def _lead(phrases: Sequence[str], lead: str) -> str:
    return "" if phrases[0].startswith("without") else lead


@dataclass(frozen=True)
class _Group:
    """Attributes that are said of one noun."""

    noun: str
    count: Count
    items: tuple[Item, ...]


def _groups(items: Sequence[Item], rng: random.Random) -> list[_Group]:
    """Items by noun; lips of one kind are now and then spoken of together."""
    left = list(items)
    groups: list[_Group] = []
    lips = [one for one in left if one[0] in (_UPPER, _LOWER)]
    if len(lips) == 2 and lips[0][1] == lips[1][1] and rng.random() < 0.7:
        left = [one for one in left if one not in lips]
        colour = [one for one in left if ATTRIBUTES[one[0]].noun == "lips"]
        left = [one for one in left if one not in colour]
        groups.append(_Group("lips", "many", (lips[0], *colour)))
    nouns: dict[str, list[Item]] = {}
    for one in left:
        attribute = ATTRIBUTES[one[0]]
        alone = not attribute.noun or rng.random() < 0.2
        nouns.setdefault(f"{attribute.noun}/{one[0]}" if alone else attribute.noun, []).append(one)
    for members in nouns.values():
        attribute = ATTRIBUTES[members[0][0]]
        rng.shuffle(members)
        groups.append(_Group(attribute.noun, attribute.count, tuple(members)))
    rng.shuffle(groups)
    return groups


def _split_words(group: _Group, rng: random.Random) -> tuple[list[str], list[str]]:
    """(adjectives, complete noun phrases) for the members of one group."""
    adjectives, phrases = [], []
    for place, value in group.items:
        chosen = ATTRIBUTES[place].values[value]
        together = group.noun != ATTRIBUTES[place].noun
        if chosen.adjectives and (together or not chosen.phrases or rng.random() < 0.7):
            word = rng.choice(chosen.adjectives)
            plain = place in _NO_INTENSIFIER or rng.random() > 0.12
            adjectives.append(word if plain else rng.choice(_INTENSIFIERS) + word)
        else:
            phrases.append(_vary_negation(rng.choice(chosen.phrases), rng))
    return adjectives, phrases


def _compose(adjectives: Sequence[str], group: _Group, rng: random.Random) -> str:
    return with_article(rng.choice((" ", " ", ", ")).join(adjectives) + f" {group.noun}", group.count)


def _noun_phrases(items: Sequence[Item], rng: random.Random) -> list[str]:
    said: list[str] = []
    for group in _groups(items, rng):
        adjectives, phrases = _split_words(group, rng)
        said += ([_compose(adjectives, group, rng)] if adjectives else []) + phrases
    return said


def _be(group: _Group) -> str:
    return "are" if group.count == "many" else "is"


def _part_text(items: Sequence[Item], speaker: Speaker, rng: random.Random) -> str:
    """One segment: sentences that state `items` and nothing else."""
    if not items:
        return ""
    if items[0][0] in (_GLASSES, _BEARD) and rng.random() < 0.5:
        return _worn(items[0], speaker, rng)
    if rng.random() < 0.35:
        has = f"{speaker.subject} {speaker.have} "
        phrases = _noun_phrases(items, rng)
        return _capital(_lead(phrases, rng.choice(("", has, "one sees ", "with "))) + _join(phrases, rng))
    clauses = [_clause(group, speaker, rng) for group in _groups(items, rng)]
    between = rng.choice((". ", ". ", ", ", "; "))
    return _capital(between.join(map(_capital, clauses) if between == ". " else clauses))


def _clause(group: _Group, speaker: Speaker, rng: random.Random) -> str:
    has = f"{speaker.subject} {speaker.have} "
    adjectives, phrases = _split_words(group, rng)
    if not adjectives:
        return _lead(phrases, rng.choice(("", has, "one notices ", "I remember "))) + _join(phrases, rng)
    style = rng.random()
    if style < 0.35:
        text = has + _compose(adjectives, group, rng)
    elif style < 0.70:
        text = f"{rng.choice((speaker.possessive, 'the'))} {group.noun} {_be(group)} {_join(adjectives, rng)}"
        if phrases:
            return f"{text} with {_join(phrases, rng)}"
    elif style < 0.85:
        text = _compose(adjectives, group, rng) if rng.random() < 0.6 else " ".join([*adjectives, group.noun])
    else:
        text = f"{group.noun}: {', '.join(adjectives)}"
    return text + (rng.choice((", ", " and ")) + _join(phrases, rng) if phrases else "")


def _worn(item: Item, speaker: Speaker, rng: random.Random) -> str:
    place, value = item
    phrases = ATTRIBUTES[place].values[value].phrases
    subject = _capital(speaker.subject)
    not_ = "do not" if speaker.have == "have" else "does not"
    if place == _GLASSES and value == 0:
        thing = rng.choice(("glasses", "spectacles"))
        return rng.choice(
            (
                f"without {thing}",
                f"{subject} {not_} wear {thing}",
                f"no {thing}",
                f"wears no {thing}",
                f"not wearing {thing}",
                f"{thing}: none",
            )
        )
    if place == _GLASSES:
        thing = rng.choice(phrases)
        wear = "wear" if speaker.have == "have" else "wears"
        return rng.choice(
            (f"{subject} {wear} {thing}", f"wearing {thing}", f"with {thing}", f"wears {thing}")
        )
    if value == 0:
        return rng.choice(
            (
                f"{subject} {not_} have a beard",
                "clean-shaven",
                "without a beard",
                "beardless",
                "shaved chin",
                f"{subject} {speaker.are} clean-shaven",
                "without beard or moustache",
                "no facial hair at all",
                "beard: none",
            )
        )
    thing = rng.choice(phrases)
    wear = rng.choice((speaker.have, "wear" if speaker.have == "have" else "wears"))
    return rng.choice((f"{subject} {wear} {thing}", f"with {thing}", thing))


def _plain(items: Sequence[Item]) -> str:
    """The first phrasing of every value: the same words for the same values."""
    texts = [sentence(_capital(_first(ATTRIBUTES[place], value))) for place, value in items]
    return " ".join(texts)


def _first(attribute: Attribute, value: int) -> str:
    chosen = attribute.values[value]
    if chosen.adjectives and attribute.noun:
        return with_article(f"{chosen.adjectives[0]} {attribute.noun}", attribute.count)
    return chosen.phrases[0]
