"""Enrolment: faces in, a gallery out. A picture that cannot be used is listed with the reason, never
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
from identiface_core.matchers.probe import embed_face, portrait_in, reads_photographs

from .folder import oddities, pictures_of
from .store import ORIGINS, Gallery, encode_thumbnail

if TYPE_CHECKING:
    from identiface_core.faces.choice import FaceChoice
    from identiface_core.matchers.base import Matcher

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


CROP = "Crop the picture to the one that is meant"
"""What to do with several faces where nobody can be asked which."""


@dataclass(frozen=True)
class Skipped:
    """A picture that was not enrolled."""

    path: Path
    reason: str
    """Why, without the name of the picture."""


def left_out(path: Path, error: Exception) -> Skipped:
    """A picture that was left out for this error."""
    return Skipped(path, str(error).removeprefix(f"{path}: ").removeprefix(f"{path.name}: "))


@dataclass(frozen=True)
class Enrolment:
    """The gallery made from a folder, and the pictures that did not get in."""

    gallery: Gallery
    skipped: tuple[Skipped, ...]
    several: tuple[tuple[Path, str], ...] = ()
    """Pictures with several faces of which one was taken, and which."""
    oddities: tuple[str, ...] = ()
    """What is odd about the folder, in sentences."""


def fingerprint(matcher: Matcher) -> str:
    """Hash of a matcher's weights: its own `fingerprint` where it has one, else sha256 over the network's
    tensors."""
    own = getattr(matcher, "fingerprint", None)
    if isinstance(own, str):
        return own
    net = matcher if isinstance(matcher, torch.nn.Module) else getattr(matcher, "net", None)
    return digest_of(net if isinstance(net, torch.nn.Module) else torch.nn.Identity())


class Enroller:
    """Takes faces one by one and makes a gallery of them.

    Several pictures of a person become one template: the mean of the normalised embeddings, normalised again. For a matcher of
    photographs each counts as far as that matcher trusts the picture; for the embedded ones all count the same, so that a case
    made again finds the gallery that it names.
    """

    def __init__(self, matchers: Sequence[Matcher]) -> None:
        self.matchers = tuple(dict.fromkeys(matchers))  # one matcher may stand in both places
        self.thumbnails: dict[str, bytes] = {}
        self.sums: dict[str, dict[str, Tensor]] = {matcher.name: {} for matcher in self.matchers}
        self.waiting: list[tuple[str, Tensor]] = []

    def add(self, person: str, picture: Tensor, points: Tensor | None = None) -> None:
        """A picture (3, H, W) in [0, 1] of `person` and where the five points of the face lie in it (5, 2); without points it is
        a portrait, of any side. The first one is the thumbnail. If this raises InputError, nobody has been added.
        """
        seen = {
            matcher.name: embed_face(matcher, picture, points)
            for matcher in self.matchers
            if reads_photographs(matcher)
        }
        portrait = portrait_in(picture, points)
        self.thumbnails.setdefault(person, encode_thumbnail(portrait))
        for name, face in seen.items():
            # A person all of whose pictures are bad is enrolled all the same.
            self._count(name, person, face.vectors[0] * face.quality[0].clamp(min=1e-3))
        self.waiting.append((person, portrait))
        if len(self.waiting) == BATCH:
            self._embed_waiting()

    def gallery(self, origins: Mapping[str, str] | None = None) -> Gallery:
        """Everybody who was added, in the order of their first pictures. origins: person -> "captured" (default), "edited",
        "generated". Raises `GalleryError` when there is nobody, or a template is not finite."""
        self._embed_waiting()
        people = tuple(self.thumbnails)
        if not people:
            raise GalleryError("nobody to enrol: give at least one portrait of one person")
        templates = {
            name: torch.nn.functional.normalize(torch.stack([kept[p] for p in people]), dim=1)
            for name, kept in self.sums.items()
        }
        for name, rows in templates.items():
            if not torch.isfinite(rows).all():
                raise GalleryError(f"matcher {name!r} gave embeddings that are not finite: check its weights")
        known = origins or {}
        return Gallery(
            people,
            templates,
            tuple(self.thumbnails.values()),
            tuple(known.get(p, "captured") for p in people),
            {matcher.name: fingerprint(matcher) for matcher in self.matchers},
        )

    def _embed_waiting(self) -> None:
        if not self.waiting:
            return
        batch = torch.stack([portrait for _, portrait in self.waiting])
        for matcher in self.matchers:
            if reads_photographs(matcher):
                continue
            with torch.no_grad():
                rows = torch.nn.functional.normalize(matcher.embed(batch).float().cpu(), dim=1)
            for (person, _), row in zip(self.waiting, rows, strict=True):
                self._count(matcher.name, person, row)
        self.waiting.clear()

    def _count(self, matcher: str, person: str, row: Tensor) -> None:
        kept, row = self.sums[matcher], row.detach().float().cpu()
        kept[person] = kept[person] + row if person in kept else row


def enrol(
    pairs: Iterable[tuple[str, Tensor]],
    matchers: Sequence[Matcher],
    on_progress: Progress | None = None,
    *,
    origins: Mapping[str, str] | None = None,
    total: int | None = None,
) -> Gallery:
    """A gallery of `pairs`: person, and a portrait (3, S, S) in [0, 1] of any side, see `Enroller`.

    Raises `GalleryError` when there is nobody, or a template is not finite; InputError for a portrait that is none.
    """
    enroller = Enroller(matchers)
    for done, (person, portrait) in enumerate(pairs, start=1):
        enroller.add(person, portrait)
        if on_progress is not None:
            on_progress(done, total if total is not None else done, person)
    return enroller.gallery(origins)


def enrol_folder(
    path: str | Path,
    model: EnrolmentModel,
    on_progress: Progress | None = None,
    choice: FaceChoice | Literal["largest", "whole"] = None,
    *,
    several: str = CROP,
    otherwise: str = "",
) -> Enrolment:
    """Enrol a folder of pictures with both matchers of `model`, each face cut from its picture as `matchers.probe` says.

    `choice` says which face of a picture with several is meant (as in `faces.choice`; without it such a picture is skipped with
    the reason); "whole" takes every picture as a portrait that is cropped already. several, otherwise: what such reasons tell to
    do, as in `faces.choice`.
    Raises `GalleryError` when no picture is left.
    """
    from identiface_core.faces.choice import selection_by
    from identiface_core.imaging import read_image
    from identiface_core.provenance import read_origin

    found = pictures_of(path)
    enroller = Enroller((model.matcher_a, model.matcher_b))
    skipped: list[Skipped] = []
    chosen: list[tuple[Path, str]] = []
    origins: dict[str, str] = {}
    for place, (person, file) in enumerate(found, start=1):
        try:
            image, points, seen = read_image(file), None, None
            if choice != "whole":
                seen = selection_by(
                    image, model.finder, choice, name=file.name, several=several, otherwise=otherwise
                )
                points = seen.points
            enroller.add(person, image, points)
        except InputError as error:
            skipped.append(left_out(file, error))
        else:
            if seen is not None and len(seen.faces) > 1:
                chosen.append((file, seen.reason))
            claimed = read_origin(file)
            origin = "captured" if claimed is None else claimed.value
            # One generated picture among several makes the template partly generated: it says so.
            origins[person] = max(origins.get(person, origin), origin, key=ORIGINS.index)
        if on_progress is not None:
            on_progress(place, len(found), str(file.relative_to(path)))
    if not origins:
        raise GalleryError(
            f"{path}: none of {len(found)} pictures could be enrolled; the first: "
            f"{skipped[0].path.name}: {skipped[0].reason}"
        )
    return Enrolment(enroller.gallery(origins), tuple(skipped), tuple(chosen), oddities(path, found))
