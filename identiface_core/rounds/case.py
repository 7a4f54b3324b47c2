"""The case file: everything that was given, drawn, scored and found, as one value and one `case.json`.

It holds no absolute path and no clock outside `times`, so the same case run twice gives the same bytes apart
from there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from identiface_core.diffusion.guidance.check import Check
from identiface_core.errors import CaseError
from identiface_core.weights.files import write_atomic

if TYPE_CHECKING:
    from identiface_core.gallery.values import Candidates

SCHEMA_VERSION = 1
FILE = "case.json"
STATE = "case.safetensors"
"""Beside the case file: the tensors that a case needs to go on."""
MAX_BYTES = 64 << 20
DIGITS = 6
"""Decimal places of every number kept: beyond that processors differ."""

BY_EVIDENCE, BY_GENERATED, BY_BOTH = "evidence query", "generated consensus", "both"
LISTS = (BY_EVIDENCE, BY_GENERATED, BY_BOTH)

NOTICE = (
    "This is an investigative lead, not an identification. The candidates are people of one gallery whose "
    "stored pictures resemble the evidence by a computer's measure; the person sought may not be among them. "
    "The faces shown as rounds are generated pictures, not photographs of anyone. A trained examiner must "
    "compare independent evidence before anybody acts on this."
)


@dataclass(frozen=True)
class ListedCandidate:
    """One line of a candidate list, as it is kept."""

    rank: int
    person: str
    score: float
    fpir: float | None
    generated: bool = False


@dataclass(frozen=True)
class Judge:
    """What the second matcher, which took no part in the search, says of the first candidate."""

    person: str
    matcher_a: float
    """Cosine of the generated consensus with that person's template in the searching matcher's space."""
    matcher_b: float
    """The same in the judging matcher's space."""
    gap: float
    """matcher_a - matcher_b: a wide gap means that the faces please the searching matcher only."""
    rank_b: int
    """The person's rank if the judging matcher searched."""


@dataclass(frozen=True)
class RoundRecord:
    """One round as it is kept."""

    index: int
    parent: int | None
    part: str
    prompt: str
    seed: int | None
    """Seed of the chosen face; None for a skipped round."""
    image: str | None
    """File name of the chosen face, beside the case file."""
    evidence_score: float | None
    evidence_terms: dict[str, float]
    agreement: float | None
    """Mean cosine between the seeds' embeddings; None for one seed."""
    candidates: tuple[ListedCandidate, ...]
    accepted: bool
    skipped: bool
    reason: str
    mask: str
    """Where the face was redrawn: "whole face", "part seen", "part template" or "" for a skipped round."""
    chosen_by: str
    seeds: tuple[int, ...]
    seed_scores: tuple[float, ...]
    judge: Judge | None
    led: Check | None = None
    """What guidance did to the seeds, where the drawing was guided."""


@dataclass(frozen=True)
class Case:
    """A whole case. Numbers are rounded to `DIGITS`; file names are relative to the case's folder."""

    evidence: dict[str, Any]
    settings: dict[str, Any]
    gallery: dict[str, Any]
    models: dict[str, str]
    lists: dict[str, tuple[ListedCandidate, ...]]
    """The three candidate lists by name (`LISTS`), each kept apart; one that could not be made is empty."""
    rounds: tuple[RoundRecord, ...] = ()
    face: str | None = None
    """File name of the face that stands."""
    agreement: float | None = None
    """Mean cosine between the seeds of the whole face; those of part rounds are near copies of one face."""
    stopped: bool = False
    stop_reason: str = ""
    warnings: tuple[str, ...] = ()
    times: dict[str, Any] = field(default_factory=dict)
    """The only entry that differs between two runs of the same case."""

    @property
    def candidates(self) -> tuple[ListedCandidate, ...]:
        """The list by both queries."""
        return self.lists[BY_BOTH]

    def to_json(self) -> str:
        """The text of `case.json`."""
        content: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "notice": NOTICE,
            "stopped": self.stopped,
            "stop_reason": self.stop_reason,
            "face": self.face,
            "agreement": self.agreement,
            "warnings": self.warnings,
            "candidates": [dataclasses.asdict(one) for one in self.candidates],
            "candidate_lists": {
                name: [dataclasses.asdict(one) for one in self.lists[name]] for name in LISTS
            },
            "rounds": [dataclasses.asdict(one) for one in self.rounds],
            "evidence": self.evidence,
            "settings": self.settings,
            "gallery": self.gallery,
            "models": self.models,
            "times": self.times,
        }
        return json.dumps(rounded(content), ensure_ascii=False, indent=1, allow_nan=False) + "\n"

    def save(self, folder: str | Path) -> Path:
        """Write `case.json` into `folder`, whole or not at all. Raises `OutputError`."""
        path = Path(folder) / FILE
        write_atomic(path, self.to_json().encode())
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Case:
        """Read the `case.json` of a folder (or its path). Raises `CaseError` for one that is missing, damaged
        or newer."""
        path = Path(folder)
        path = path if path.suffix == ".json" else path / FILE
        try:
            if path.stat().st_size > MAX_BYTES:
                raise CaseError(f"more than {MAX_BYTES:,} bytes, so this is no case file")
            return cls.parse(path.read_text(encoding="utf-8"))
        except OSError as error:
            reason = error.strerror or error
            raise CaseError(f"{path}: cannot be read ({reason}): give the folder of a case") from error
        except CaseError as error:
            raise CaseError(f"{path}: {error}: run the case again") from error
        except UnicodeDecodeError as error:
            raise CaseError(f"{path}: damaged ({error}): run the case again") from error

    @classmethod
    def parse(cls, text: str) -> Case:
        """What `to_json` wrote. Raises `CaseError` for a text that is damaged, incomplete, or of another
        version."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CaseError(f"damaged ({error})") from error
        found = content.get("schema_version") if isinstance(content, dict) else None
        if found != SCHEMA_VERSION:
            raise CaseError(f"schema_version {found!r}, this program reads {SCHEMA_VERSION}")
        try:
            return cls._from_content(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CaseError(f"an entry is missing or of the wrong kind ({error})") from error

    @classmethod
    def _from_content(cls, content: Mapping[str, Any]) -> Case:
        return cls(
            evidence=dict(content["evidence"]),
            settings=dict(content["settings"]),
            gallery=dict(content["gallery"]),
            models=dict(content["models"]),
            lists={name: _listed(content["candidate_lists"][name]) for name in LISTS},
            rounds=tuple(_round(one) for one in content["rounds"]),
            face=content["face"],
            agreement=content["agreement"],
            stopped=bool(content["stopped"]),
            stop_reason=str(content["stop_reason"]),
            warnings=tuple(map(str, content["warnings"])),
            times=dict(content["times"]),
        )


def kept(candidates: Candidates | None) -> tuple[ListedCandidate, ...]:
    """A candidate list as it is kept; () for None."""
    if candidates is None:
        return ()
    return tuple(
        ListedCandidate(one.rank, one.person, rounded(one.score), rounded(one.fpir), one.generated)
        for one in candidates.entries
    )


def rounded(value: Any) -> Any:
    """`value` with every float rounded to `DIGITS`, also inside of lists, tuples and mappings."""
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0  # no -0.0
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(rounded(one) for one in value)
    return value


def _listed(entries: Any) -> tuple[ListedCandidate, ...]:
    return tuple(ListedCandidate(**one) for one in entries)


def _round(entry: Mapping[str, Any]) -> RoundRecord:
    judge, led = entry["judge"], entry.get("led")
    parts = {
        **entry,
        "candidates": _listed(entry["candidates"]),
        "seeds": tuple(entry["seeds"]),
        "seed_scores": tuple(entry["seed_scores"]),
        "judge": None if judge is None else Judge(**judge),
        "led": None if led is None else Check(**led),
    }
    return RoundRecord(**parts)
