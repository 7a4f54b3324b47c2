"""CASE.toml: what a user writes to start a case. Unknown keys are errors, so that a typo never becomes a
default.

    gallery = "people/"              # a folder of pictures, a .safetensors gallery, or "embedded"

    [evidence]
    lq = "camera.png"
    sketch = "drawing.png"
    face = 0                         # which face of lq: index, [x0, y0, x1, y1] or "whole"

    [description]                    # by part, or all in one as text = "..."
    overview = "A man in the fifties"
    eyes = "blue eyes"

    [run]
    seeds = 4
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from identiface_core.errors import CaseError, IdentiFaceError, InputError
from identiface_core.evidence.description import Description
from identiface_core.toml import parse_toml

MAX_BYTES = 1 << 20

FaceChoice = int | tuple[float, float, float, float] | Literal["whole"] | None


@dataclass(frozen=True)
class Settings:
    """How a case is run; the keys of `[run]`."""

    seed: int = 42
    """First seed; everything random follows from it."""
    seeds: int = 4
    """Faces sampled per round."""
    steps: int = 4
    """Sampling steps; a few are enough to search with."""
    guidance_scale: float = 2.0
    """Weight of the words against no words; 1 is none."""
    photo_guidance: float = 1.0
    """The same for whole faces that an LQ photo steers: more makes them types."""
    strength: float = 1.0
    """Strength of the control branch (sketch and LQ photo), [0, 2]."""
    estimate: bool = True
    """Whether whole faces are drawn towards what the evidence encoder makes of all evidence."""
    identity_guidance: float = 0.0
    """How far each look moves a whole face towards the same, as a share of the prediction, [0, 1]; 0: no guidance."""
    rounds: int = 12
    """At most so many rounds, the whole face included."""
    candidates: int = 10
    """Length of the candidate lists."""
    evidence_weight: float = 0.95
    """Share of the evidence query in the fused query, [0, 1]."""
    margin: float = 0.01
    """A round is accepted if its evidence score drops by at most this."""
    stable_top: int = 10
    stable_rounds: int = 3
    """The case ends when the first `stable_top` candidates stayed the same over so many accepted rounds; 0:
    never."""
    exclude: tuple[str, ...] = ()
    """People of the gallery who do not take part."""

    def __post_init__(self) -> None:
        bounds: dict[str, tuple[float, float]] = {
            "seed": (0, 2**31 - 1),
            "seeds": (1, 64),
            "steps": (1, 200),
            "guidance_scale": (0, 30),
            "photo_guidance": (0, 30),
            "strength": (0, 2),
            "identity_guidance": (0, 1),
            "rounds": (1, 100),
            "candidates": (1, 1000),
            "evidence_weight": (0, 1),
            "margin": (0, 1),
            "stable_top": (1, 1000),
            "stable_rounds": (0, 100),
        }
        for name, (low, high) in bounds.items():
            value, wanted = getattr(self, name), type(getattr(Settings, name))
            number = isinstance(value, int if wanted is int else (int, float)) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                kind = "a whole number" if wanted is int else "a number"
                raise InputError(f"run.{name} must be {kind} from {low:g} to {high:g}, got {value!r}")
        if not isinstance(self.estimate, bool):
            raise InputError(f"run.estimate must be true or false, got {self.estimate!r}")
        if isinstance(self.exclude, str) or not all(isinstance(person, str) for person in self.exclude):
            raise InputError(
                f'run.exclude must be a list of names, such as ["Ann", "Bob"], got {self.exclude!r}'
            )
        object.__setattr__(self, "exclude", tuple(self.exclude))

    def guidance(self, *, words: bool, photo: bool, part: bool) -> float:
        """Guidance scale of a drawing: with words or without, with an LQ photo or without, of a part or of the whole face."""
        if not words:
            return 1.0
        return self.photo_guidance if photo and not part else self.guidance_scale


@dataclass(frozen=True)
class CaseInput:
    """One case before it is run: files, words, settings."""

    lq: Path | None = None
    sketch: Path | None = None
    face: FaceChoice = None
    """Which face of `lq`, as in `evidence.lq.prepare_lq`."""
    description: Description | None = None
    gallery: Path | None = None
    """A folder of pictures or a gallery file; None: the embedded gallery."""
    settings: Settings = Settings()

    def __post_init__(self) -> None:
        if self.lq is None and self.sketch is None and self.description is None:
            raise InputError(
                "the case has no evidence: give lq = or sketch = in [evidence], or words in [description]"
            )


def read_case(path: str | Path) -> CaseInput:
    """Read a CASE.toml; paths in it count from its folder.

    Raises `CaseError` naming the file for a missing or broken file, an unknown key (with the nearest known
    one), a value of the wrong type, or a case without evidence. The pictures themselves are not opened here.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CaseError(f"{path}: more than {MAX_BYTES:,} bytes: this is no CASE.toml")
        tables = parse_toml(path.read_bytes())
    except OSError as error:
        raise CaseError(
            f"{path}: cannot be read ({error.strerror or error}): give the path of a CASE.toml"
        ) from error
    except UnicodeDecodeError as error:
        raise CaseError(
            f"{path}: not valid TOML, this is no text file: give the path of a CASE.toml, which names the pictures"
        ) from error
    except ValueError as error:
        raise CaseError(
            f"{path}: not valid TOML ({error}): texts need quotes, tables look like [evidence]"
        ) from error
    try:
        return parse_case(tables, path.parent)
    except IdentiFaceError as error:
        raise CaseError(f"{path}: {error}") from error


def parse_case(tables: Mapping[str, Any], folder: Path) -> CaseInput:
    """The case in parsed TOML `tables`, paths counted from `folder`. Errors as `read_case`, without the
    file's name."""
    _check_keys(tables, ("gallery", "evidence", "description", "run"), "")
    evidence, words, run = (_table(tables, name) for name in ("evidence", "description", "run"))
    _check_keys(evidence, ("lq", "sketch", "face"), "evidence")
    if "description" in tables and not words:
        raise CaseError(
            '[description] is empty: say something in it, such as overview = "a man", or take it out'
        )
    _check_keys(run, [field.name for field in dataclasses.fields(Settings)], "run")
    gallery = tables.get("gallery", "embedded")
    if not isinstance(gallery, str) or not gallery:
        raise CaseError(f'gallery must be a folder, a .safetensors file or "embedded", got {gallery!r}')
    return CaseInput(
        lq=_path(evidence, "lq", folder),
        sketch=_path(evidence, "sketch", folder),
        face=_face(evidence.get("face")),
        description=_description(words),
        gallery=None if gallery == "embedded" else folder / gallery,
        settings=Settings(**run),
    )


def _check_keys(table: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
            raise CaseError(f"unknown key {key!r}{f' in [{where}]' if where else ''}: {hint}")


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, Mapping):
        raise CaseError(f"[{name}] must be a table of keys, got {name} = {table!r}")
    return table


def _path(table: Mapping[str, Any], key: str, folder: Path) -> Path | None:
    value = table.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise CaseError(f"evidence.{key} must be the path of a picture, got {value!r}")
    return folder / value


def _face(value: Any) -> FaceChoice:
    if value is None or value == "whole" or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, list) and len(value) == 4 and all(isinstance(v, (int, float)) for v in value):
        return (float(value[0]), float(value[1]), float(value[2]), float(value[3]))
    raise CaseError(
        f'evidence.face must be an index (0 is the first), a box [x0, y0, x1, y1] or "whole", got {value!r}'
    )


def _description(words: Mapping[str, Any]) -> Description | None:
    if not words:
        return None
    if "text" in words:
        others = sorted(set(words) - {"text"})
        if others or not isinstance(words["text"], str):
            also = f" together with {others[0]!r}" if others else ""
            raise CaseError(
                f"description.text must be the whole description as one text{also}: use text or parts"
            )
        return Description.parse(words["text"])
    return Description.from_mapping(words)
