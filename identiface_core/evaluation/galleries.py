"""The galleries that are searched: the shipped one, a larger one with more people of the same kind, and the look-alikes.

What does not ship is drawn once and kept as embeddings in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.embedded import FILES, load_demo_gallery, load_embedded
from identiface_core.errors import IdentiFaceError
from identiface_core.faces.choice import portrait_of
from identiface_core.gallery import Gallery
from identiface_core.gallery.enrolment import fingerprint
from identiface_core.synthesis.identity import FAMILY, RENDERER_VERSION, sample_nuisance
from identiface_core.weights.files import load_tensors, save_tensors

from .pool import spread
from .probes import GALLERY_PEOPLE, GALLERY_PICTURE, LOOK_ALIKES, people_of, pictures

if TYPE_CHECKING:
    from identiface_core.embedded import EmbeddedModel

SHIPPED = 1000
SIZES = (SHIPPED, 10_000)
FAMILIES = 10
"""Of `FAMILY` people each, in the look-alike gallery."""
KIND = "evaluation-embeddings"
VERSION = f"renderer {RENDERER_VERSION}"
PIECE = 50
"""People per piece of work."""

Progress = Callable[[int, int], None]
"""Called with (people enrolled, people)."""


def cache_folder() -> Path:
    """Where embeddings are kept between runs: `identiface/evaluation` in XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "identiface" / "evaluation"


def gallery_of(
    model: EmbeddedModel, people: int, *, processes: int = 1, progress: Progress | None = None
) -> Gallery:
    """The gallery of 1,000 people that ships, or a larger one of whom these are the first."""
    shipped = load_demo_gallery()
    if people == len(shipped):
        return shipped
    return shipped.add(_enrolled(model, GALLERY_PEOPLE, len(shipped), people, "S", processes, progress))


def look_alike_gallery(
    model: EmbeddedModel, *, processes: int = 1, progress: Progress | None = None
) -> Gallery:
    """Ten families of twenty people each; within a family all but the shapes is the same."""
    return _enrolled(model, LOOK_ALIKES, 0, FAMILIES * FAMILY, "L", processes, progress)


def look_alike_order(number: int) -> int:
    """Which person of the look-alike gallery is probe `number`: one of each family in turn."""
    return number % FAMILIES * FAMILY + number // FAMILIES


def _enrolled(
    model: EmbeddedModel,
    group: int,
    first: int,
    end: int,
    letter: str,
    processes: int,
    progress: Progress | None,
) -> Gallery:
    """People first .. end - 1 of a group, one picture each, enrolled as the shipped gallery was; from the cache if there."""
    matchers = {matcher.name: fingerprint(matcher) for matcher in (model.matcher_a, model.matcher_b)}
    seen = hashlib.sha256("|".join([*matchers.values(), model.hashes[FILES["finder"]], VERSION]).encode())
    for numbers in (people_of(group, first, end - first), sample_nuisance(end, GALLERY_PICTURE)):
        seen.update(numbers.contiguous().numpy().tobytes())
    key = seen.hexdigest()[:16]
    path = cache_folder() / f"people-{group}-{first}-{end}-{key}.safetensors"
    count = end - first
    templates = _cached(path, matchers, count)
    if templates is None:
        starts = range(first, end, PIECE)
        pieces: dict[int, dict[str, Tensor]] = {}
        jobs = [(group, start, min(PIECE, end - start)) for start in starts]
        _MODEL[:] = [model]
        for place, made in spread(_enrol, jobs, processes, _open):
            pieces[place] = {name: torch.tensor(rows) for name, rows in made.items()}
            if progress is not None:
                progress(min(len(pieces) * PIECE, count), count)
        templates = {name: torch.cat([pieces[i][name] for i in range(len(jobs))]) for name in matchers}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, templates, KIND, {"people": count})
    people = tuple(f"{letter}{number + 1:04d}" for number in range(first, end))
    return Gallery(people, templates, (b"",) * count, ("generated",) * count, matchers)


def _cached(path: Path, matchers: dict[str, str], count: int) -> dict[str, Tensor] | None:
    """The kept embeddings; None if there are none, or none that can be used."""
    if not path.is_file():
        return None
    try:
        tensors, _ = load_tensors(path, KIND)
    except IdentiFaceError:
        return None
    if set(tensors) != set(matchers) or any(len(rows) != count for rows in tensors.values()):
        return None
    return tensors


_MODEL: list[EmbeddedModel] = []
"""The model of this worker process."""


def _open() -> None:
    if not _MODEL:
        _MODEL.append(load_embedded())


@torch.no_grad()
def _enrol(job: tuple[int, int, int]) -> dict[str, list[list[float]]]:
    """Templates by matcher of (group, first person, how many)."""
    model, (group, first, count) = _MODEL[0], job
    drawn = (pictures(group, first, count, GALLERY_PICTURE) * 255 + 0.5).to(torch.uint8).float() / 255
    portraits = torch.stack([portrait_of(one, model.finder, 0) for one in drawn])
    matchers = (model.matcher_a, model.matcher_b)
    return {m.name: F.normalize(m.embed(portraits).float().cpu(), dim=1).tolist() for m in matchers}
