"""Enrolment: portraits in, a gallery out. A picture that cannot be used is listed with the reason, never
dropped silently."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from identiface_core.errors import GalleryError, InputError

from .store import ORIGINS, Gallery, encode_thumbnail

if TYPE_CHECKING:
    from identiface_core.faces.finder import FaceChoice
    from identiface_core.matchers.base import Matcher

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
BATCH = 32

Progress = Callable[[int, int, str], None]
"""Called with (done, total, name of what is being worked on)."""


class EnrolmentModel(Protocol):
    """What enrolling a folder needs of a model; `EmbeddedModel` fits."""

    @property
    def finder(self) -> Any: ...
    @property
    def matcher_a(self) -> Matcher: ...
    @property
    def matcher_b(self) -> Matcher: ...


@dataclass(frozen=True)
class Skipped:
    """A picture that was not enrolled."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Enrolment:
    """The gallery made from a folder, and the pictures that did not get in."""

    gallery: Gallery
    skipped: tuple[Skipped, ...]


def fingerprint(matcher: Matcher) -> str:
    """Hash of a matcher's weights: its own `fingerprint` where it has one, else sha256 over the network's
    tensors."""
    own = getattr(matcher, "fingerprint", None)
    if isinstance(own, str):
        return own
    net = matcher if isinstance(matcher, torch.nn.Module) else getattr(matcher, "net", None)
    digest = hashlib.sha256()
    if isinstance(net, torch.nn.Module):
        for name, tensor in net.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def enrol(
    pairs: Iterable[tuple[str, Tensor]],
    matchers: Sequence[Matcher],
    on_progress: Progress | None = None,
    *,
    origins: Mapping[str, str] | None = None,
    total: int | None = None,
) -> Gallery:
    """A gallery of `pairs` (person, portrait (3, 128, 128) in [0, 1]).

    Several portraits of a person become one template: each embedding is normalised, the mean of them is
    normalised again. The first portrait is the thumbnail. `origins`: person -> "captured" (default),
    "edited", "generated". Raises `GalleryError` when there is nobody, or a template is not finite.
    """
    sums: dict[str, dict[str, Tensor]] = {matcher.name: {} for matcher in matchers}
    thumbnails: dict[str, bytes] = {}
    waiting: list[tuple[str, Tensor]] = []

    def embed_waiting() -> None:
        if not waiting:
            return
        batch = torch.stack([portrait for _, portrait in waiting])
        for matcher in matchers:
            with torch.no_grad():
                rows = torch.nn.functional.normalize(matcher.embed(batch).detach().float().cpu(), dim=1)
            for (person, _), row in zip(waiting, rows, strict=True):
                kept = sums[matcher.name]
                kept[person] = kept[person] + row if person in kept else row
        waiting.clear()

    for done, (person, portrait) in enumerate(pairs, start=1):
        thumbnails.setdefault(person, encode_thumbnail(portrait))
        waiting.append((person, portrait))
        if len(waiting) == BATCH:
            embed_waiting()
        if on_progress is not None:
            on_progress(done, total if total is not None else done, person)
    embed_waiting()
    people = tuple(thumbnails)
    if not people:
        raise GalleryError("nobody to enrol: give at least one portrait of one person")
    templates = {
        name: torch.nn.functional.normalize(torch.stack([kept[p] for p in people]), dim=1)
        for name, kept in sums.items()
    }
    for name, rows in templates.items():
        if not torch.isfinite(rows).all():
            raise GalleryError(f"matcher {name!r} gave embeddings that are not finite: check its weights")
    known = origins or {}
    return Gallery(
        people,
        templates,
        tuple(thumbnails.values()),
        tuple(known.get(p, "captured") for p in people),
        {matcher.name: fingerprint(matcher) for matcher in matchers},
    )


def pictures_of(folder: str | Path) -> list[tuple[str, Path]]:
    """(person, picture) of every picture in a folder, by name: a sub-folder is a person, so is the stem of a
    loose file.

    Raises `GalleryError` when the folder is missing, is no folder, or holds no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise GalleryError(
            f"{folder}: {'not a' if folder.exists() else 'no such'} folder: give a folder of pictures, "
            "one file or one sub-folder per person"
        )
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix.lower() in PICTURES and not path.name.startswith("."):
            inside = path.relative_to(folder)
            found.append((inside.parts[0] if len(inside.parts) > 1 else path.stem, path))
    if not found:
        raise GalleryError(
            f"{folder}: no pictures ({', '.join(PICTURES)}): put one file or one sub-folder per person there"
        )
    return found


def enrol_folder(
    path: str | Path,
    model: EnrolmentModel,
    on_progress: Progress | None = None,
    choice: FaceChoice | Literal["whole"] = None,
) -> Enrolment:
    """Enrol a folder of pictures with both matchers of `model`.

    `choice` says which face of a picture with several is meant (as in `faces.finder`; without it such a
    picture is skipped with the reason); "whole" takes every picture as a portrait that is cropped already.
    Raises `GalleryError` when no picture is left.
    """
    from identiface_core.faces.finder import portrait_of
    from identiface_core.imaging import read_image, resize
    from identiface_core.provenance import read_origin

    found = pictures_of(path)
    skipped: list[Skipped] = []
    origins: dict[str, str] = {}

    def portraits() -> Iterable[tuple[str, Tensor]]:
        for place, (person, file) in enumerate(found, start=1):
            try:
                image = read_image(file)
                if choice == "whole":
                    portrait = resize(image, 128, 128)
                else:
                    portrait = portrait_of(image, model.finder, choice, name=file.name)
            except InputError as error:
                skipped.append(Skipped(file, str(error)))
            else:
                claimed = read_origin(file)
                origin = "captured" if claimed is None else claimed.value
                # One generated picture among several makes the template partly generated: it says so.
                origins[person] = max(origins.get(person, origin), origin, key=ORIGINS.index)
                yield person, portrait
            if on_progress is not None:
                on_progress(place, len(found), file.name)

    try:
        gallery = enrol(portraits(), (model.matcher_a, model.matcher_b), origins=origins)
    except GalleryError as error:
        if skipped and not origins:
            raise GalleryError(
                f"{path}: none of {len(found)} pictures could be enrolled; the first: "
                f"{skipped[0].path.name}: {skipped[0].reason}"
            ) from error
        raise
    return Enrolment(gallery, tuple(skipped))
