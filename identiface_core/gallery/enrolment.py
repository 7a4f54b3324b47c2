"""Enrolment: portraits in, a gallery out. A picture that cannot be used is listed with the reason, never
dropped silently."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from identiface_core.errors import GalleryError, InputError
from identiface_core.matchers.base import digest_of

from .store import ORIGINS, Gallery, encode_thumbnail

if TYPE_CHECKING:
    from identiface_core.faces.choice import FaceChoice
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
    return digest_of(net if isinstance(net, torch.nn.Module) else torch.nn.Identity())


def enrol(
    pairs: Iterable[tuple[str, Tensor]],
    matchers: Sequence[Matcher],
    on_progress: Progress | None = None,
    *,
    origins: Mapping[str, str] | None = None,
    total: int | None = None,
    by_quality: bool = False,
) -> Gallery:
    """A gallery of `pairs` (person, portrait (3, S, S) in [0, 1], all of one side; 128 for the embedded matchers).

    Several portraits of a person become one template: each embedding is normalised, the mean of them is
    normalised again; with `by_quality` each counts as far as its matcher trusts the picture. The first portrait is the
    thumbnail. `origins`: person -> "captured" (default), "edited", "generated". Raises `GalleryError` when there is
    nobody, portraits differ in size, or a template is not finite.
    """
    sums: dict[str, dict[str, Tensor]] = {matcher.name: {} for matcher in matchers}
    thumbnails: dict[str, bytes] = {}
    waiting: list[tuple[str, Tensor]] = []

    def embed_waiting() -> None:
        if not waiting:
            return
        sides = {tuple(portrait.shape) for _, portrait in waiting}
        if len(sides) > 1:
            raise GalleryError(
                f"portraits of one size are wanted, these are of {sorted(sides)}: bring them to one size"
            )
        batch = torch.stack([portrait for _, portrait in waiting])
        for matcher in matchers:
            with torch.no_grad():
                rows = weighted(matcher, batch) if by_quality else matcher.embed(batch)
                rows = rows.detach().float().cpu()
                rows = rows if by_quality else torch.nn.functional.normalize(rows, dim=1)
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


def weighted(matcher: Matcher, portraits: Tensor) -> Tensor:
    """(B, D) embeddings as long as their quality says, at least a thousandth, so that their sum is the weighted template."""
    found = matcher.embed_with_quality(portraits)
    return found.vectors * found.quality.clamp_min(1e-3)[:, None].to(found.vectors)


def portrait_side(matchers: Sequence[Matcher]) -> int:
    """Side of portraits that are fine enough for all of `matchers`: a face fills half of a portrait, and all of a matcher's
    crop."""
    wanted = 2 * max(getattr(matcher, "side", 0) for matcher in matchers)
    return 128 if wanted <= 128 else 256


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
    """Enrol a folder of pictures with both matchers of `model`, from portraits of as many pixels as these can use.

    `choice` says which face of a picture with several is meant (as in `faces.choice`; without it such a
    picture is skipped with the reason); "whole" takes every picture as a portrait that is cropped already.
    Raises `GalleryError` when no picture is left.
    """
    from identiface_core.faces.choice import portrait_of
    from identiface_core.imaging import read_image, resize
    from identiface_core.provenance import read_origin

    found = pictures_of(path)
    side = portrait_side((model.matcher_a, model.matcher_b))
    skipped: list[Skipped] = []
    origins: dict[str, str] = {}

    def portraits() -> Iterable[tuple[str, Tensor]]:
        for place, (person, file) in enumerate(found, start=1):
            try:
                image = read_image(file)
                if choice == "whole":
                    portrait = resize(image, side, side)
                else:
                    portrait = portrait_of(image, model.finder, choice, size=side, name=file.name)
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
        # One matcher may stand in both places.
        gallery = enrol(
            portraits(), tuple(dict.fromkeys((model.matcher_a, model.matcher_b))), origins=origins
        )
    except GalleryError as error:
        if skipped and not origins:
            raise GalleryError(
                f"{path}: none of {len(found)} pictures could be enrolled; the first: "
                f"{skipped[0].path.name}: {skipped[0].reason}"
            ) from error
        raise
    return Enrolment(gallery, tuple(skipped))
