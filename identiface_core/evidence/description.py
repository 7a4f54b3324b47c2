"""What the witness says: an opening sentence and segments that each speak of a part of the face.

The written form is the published one (IdentiFace, arXiv 2605.00526; rules of the released code):
``A man with an oval face. ['hair'] Short dark hair. ['l_eye', 'r_eye'] Narrow brown eyes.``
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InputError
from ..parts import PARTS, TAGS

MAX_CHARACTERS = 4000
"""Longest description that is read."""

ROUND_TAGS: tuple[frozenset[str], ...] = (
    frozenset({"overview"}),
    frozenset({"l_eye", "r_eye"}),
    frozenset({"l_brow", "r_brow"}),
    frozenset({"u_lip", "l_lip", "mouth"}),
    frozenset({"nose"}),
    frozenset({"l_ear", "r_ear"}),
    frozenset({"hair"}),
)
"""Published order of the rounds; any other tag comes after these."""

PART_TAGS: dict[str, tuple[str, ...]] = {
    "overview": ("overview",), "eyes": ("l_eye", "r_eye"), "brows": ("l_brow", "r_brow"),
    "mouth": ("u_lip", "l_lip", "mouth"), "nose": ("nose",), "ears": ("l_ear", "r_ear"), "hair": ("hair",),
    "glasses": ("eye_g",), "beard": ("beard",), "skin": ("skin",),
}  # fmt: skip
"""Tags under which each part is written."""

_ASPECT = re.compile(r"--(?:aspect_ratio|ar|hw)\b.*", re.DOTALL)
_BRACKET = re.compile(r"\[([^\]]*)\]")


@dataclass(frozen=True)
class Segment:
    """One part's words. `tags` as written; `part` is one of `parts.PARTS`, "" for foreign tags."""

    part: str
    tags: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Round:
    """One round of a split text: its prompt (opening + segment) and the tags of its segment."""

    prompt: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class SplitPrompt:
    """A long prompt split by the published rules: `rounds` are in the order in which they are drawn."""

    opening: str
    segments: tuple[Segment, ...]
    rounds: tuple[Round, ...]


def normalise_tag(tag: str) -> str:
    """A tag in lower case with nothing but a-z, 0-9 and underscore."""
    return re.sub(r"[^a-z0-9_]", "", tag.lower())


def sentence(text: str) -> str:
    """`text` stripped and ended with a full stop if it has none."""
    text = text.strip()
    return text if text.endswith(".") else text + "."


def _read_tags(inside: str) -> tuple[str, ...]:
    """Tags inside a bracket pair, without their quotes; spaces within the quotes stay."""
    return tuple(tag for tag in (piece.strip().strip("'\"") for piece in inside.split(",")) if tag)


def _round_place(tags: tuple[str, ...]) -> int:
    names = {normalise_tag(tag) for tag in tags}
    return next((i for i, known in enumerate(ROUND_TAGS) if known & names), len(ROUND_TAGS))


def _part_of(tags: tuple[str, ...]) -> str:
    """The part that comes first in round order among the tags' parts; "" for tags without one."""
    parts = [TAGS[name] for name in map(normalise_tag, tags) if name in TAGS]
    return min(parts, key=PARTS.index, default="")


def split_long_prompt(text: str) -> SplitPrompt:
    """Split a long prompt as the released code does, never refusing any text.

    Everything from `--aspect_ratio`, `--ar` or `--hw` on is cut. The opening ends at the first ``['``; after
    it any bracket pair starts a segment; empty segments are dropped. Rounds are sorted, stably, by the first
    known part of their tags. Without a bracket each later sentence is a round of its own and the piece after
    the last full stop is lost (a lone sentence is one round, used as is).
    """
    text = _ASPECT.sub("", text).strip()
    start = text.find("['")
    if start < 0:
        return _split_sentences(text)
    opening = text[:start].strip()
    pieces = _BRACKET.split(text[start:])[1:]
    tagged = [(_read_tags(inside), body.strip()) for inside, body in zip(pieces[::2], pieces[1::2])]  # noqa: B905
    segments = tuple(Segment(_part_of(tags), tags, body) for tags, body in tagged if body)
    ordered = sorted(segments, key=lambda segment: _round_place(segment.tags))
    rounds = tuple(Round(f"{sentence(opening)} {sentence(one.text)}", one.tags) for one in ordered)
    return SplitPrompt(opening, segments, rounds)


def _split_sentences(text: str) -> SplitPrompt:
    sentences = [piece.strip() + "." for piece in text.split(".")[:-1] if piece.strip()]
    if len(sentences) < 2:
        return SplitPrompt(text, (), (Round(text, ()),))
    opening, *rest = sentences
    rounds = tuple(Round(f"{opening} {one}", ()) for one in rest)
    return SplitPrompt(opening, tuple(Segment("", (), one) for one in rest), rounds)


@dataclass(frozen=True)
class Description:
    """A witness's words: `overview` (the opening, about the whole face) and `segments`, one or more per part.

    Build it with `parse` or `from_mapping`; both raise InputError for an empty text, one that is longer than
    MAX_CHARACTERS, and a tag that names no part of a face.
    """

    overview: str
    segments: tuple[Segment, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "segments", tuple(self.segments))
        for one in self.segments:
            if one.part not in PARTS:
                raise _unknown(one.part)
            if "[" in one.text or "]" in one.text:
                raise InputError(f"words about the {one.part} must hold no brackets, got '{one.text[:60]}'")
        if not self.overview.strip() and not any(one.text.strip() for one in self.segments):
            raise InputError(
                "the description is empty; say something about the face, for example \"A young man. ['hair'] "
                'Short dark hair.", or leave the description out altogether'
            )
        _check_length(self.to_text())

    @classmethod
    def parse(cls, text: str) -> Description:
        """Read the published bracket form, or plain text, which is all overview."""
        _check_length(text)
        text = _ASPECT.sub("", text).strip()
        opening, start, rest = text.partition("['")
        _refuse_other_notations(opening)
        if not start:
            return cls(opening)
        if rest.count("[") + 1 != rest.count("]"):
            raise InputError(f"a bracket is not closed in the description: '{(start + rest)[:60]}'")
        return cls(opening.strip(), tuple(_checked(one) for one in split_long_prompt(text).segments))

    @classmethod
    def from_mapping(cls, words: Mapping[str, str]) -> Description:
        """Read the structured form: {"overview": "...", part or tag: what is said of it}."""
        overview: list[str] = []
        segments: list[Segment] = []
        for tag, text in words.items():
            if not isinstance(text, str):
                raise InputError(f"description part '{tag}' must be text, got {type(text).__name__}")
            part = TAGS.get(normalise_tag(str(tag)), "")
            if not part:
                raise _unknown(tag)
            if not text.strip():
                continue
            if part == "overview":
                overview.append(text.strip())
            else:
                tags = PART_TAGS[part] if tag in PARTS else (tag,)
                segments.append(Segment(part, tags, text.strip()))
        return cls(" ".join(overview), tuple(segments))

    def parts(self) -> tuple[str, ...]:
        """Parts that are spoken of, in the order of rounds: the published order, then ours (`parts.PARTS`).

        "overview" is always the first: round 0 draws the whole face.
        """
        said = {one.part for one in self.segments}
        return tuple(part for part in PARTS if part == "overview" or part in said)

    def segment_text(self, part: str) -> str:
        """All that is said of one part, as sentences, or "". InputError for an unknown part."""
        if part not in PARTS:
            raise _unknown(part)
        return " ".join(sentence(one.text) for one in self.segments if one.part == part)

    def prompt(self, part: str) -> str:
        """What a round about `part` is drawn from: opening and that part's segments (published rule).

        For "overview" that is the opening and segments tagged so; for a part nobody spoke of, the opening.
        """
        return f"{self._opening()} {self.segment_text(part)}".strip()

    def full_prompt(self) -> str:
        """The opening and all segments in round order, without tags."""
        return " ".join(filter(None, [self._opening(), *(self.segment_text(part) for part in PARTS)]))

    def _opening(self) -> str:
        return sentence(self.overview) if self.overview.strip() else ""

    def with_part(self, part: str, text: str) -> Description:
        """A copy in which `part` is described by `text` alone (corrected or added; "" removes it)."""
        words = self.to_mapping()
        words[part] = text
        return Description.from_mapping(words)

    def to_text(self) -> str:
        """The published bracket form; `parse` reads it back to the same parts and words."""
        pieces = [self.overview.strip()] if self.overview.strip() else []
        for one in self.segments:
            tags = ", ".join(f"'{tag}'" for tag in one.tags or PART_TAGS[one.part])
            pieces.append(f"[{tags}] {one.text.strip()}")
        return " ".join(pieces)

    def to_mapping(self) -> dict[str, str]:
        """The structured form, in round order, said parts only: {"overview": opening, part: words}."""
        words = {part: self.segment_text(part) for part in PARTS if part != "overview"}
        return {part: text for part, text in {"overview": self.prompt("overview"), **words}.items() if text}


def _checked(segment: Segment) -> Segment:
    for tag in segment.tags:
        if normalise_tag(tag) not in TAGS:
            raise _unknown(tag)
    if not segment.part:
        raise InputError(
            f"a pair of brackets before '{segment.text[:40]}' names no part; write for instance "
            "['hair'] before what is said of the hair"
        )
    return segment


def _check_length(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"the description has {len(text)} characters, at most {MAX_CHARACTERS} are read; shorten it to "
            "what tells this face from others"
        )


def _unknown(tag: str) -> InputError:
    names = sorted({*PARTS, *TAGS})
    close = difflib.get_close_matches(normalise_tag(str(tag)), names, 1, cutoff=0.6)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return InputError(f"unknown part '{tag}' in the description; {hint}known are: {', '.join(names)}")


def _refuse_other_notations(opening: str) -> None:
    """Tags in another notation would silently become plain words: say so instead."""
    for inside in _BRACKET.findall(opening):
        names = [normalise_tag(tag) for tag in _read_tags(inside)]
        if names and ('"' in inside or all(name in TAGS for name in names)):
            raise InputError(f"part tags are written with single quotes, as ['{names[0]}'], got [{inside}]")
    if "[" in opening:
        found = opening[opening.index("[") :][:40]
        raise InputError(f"a bracket starts a part, as in ['nose'] A long nose. This one does not: {found}")
