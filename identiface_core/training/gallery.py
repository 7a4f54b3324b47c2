"""The shipped gallery: a thousand synthetic people, one picture each, enrolled like anybody's folder of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from identiface_core.evaluation.probes import GALLERY_PEOPLE, GALLERY_PICTURE, pictures
from identiface_core.faces.finder import portrait_of
from identiface_core.gallery import Gallery, enrol
from identiface_core.weights.files import load_tensors, save_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from identiface_core.embedded import EmbeddedModel

PEOPLE = 1000


def gallery_pictures(cache: Path, people: int = PEOPLE) -> Tensor:
    """(people, 3, 128, 128) uint8: the pictures, drawn once and kept in the file `cache`."""
    if cache.exists():
        tensors, _ = load_tensors(cache, "gallery-pictures")
        if len(tensors["pictures"]) == people:
            return tensors["pictures"]
    drawn = [
        (pictures(GALLERY_PEOPLE, first, min(100, people - first), GALLERY_PICTURE) * 255 + 0.5).to(
            torch.uint8
        )
        for first in range(0, people, 100)
    ]
    config: dict[str, Any] = {"people": people}
    save_tensors(cache, {"pictures": torch.cat(drawn)}, "gallery-pictures", config)
    return torch.cat(drawn)


def build_gallery(
    model: EmbeddedModel,
    cache: Path,
    on_progress: Callable[[int, int, str], None] | None = None,
    people: int = PEOPLE,
) -> Gallery:
    """Enrol the people of the shipped gallery with both matchers, through the finder, as a folder of pictures would be."""
    drawn = gallery_pictures(cache, people)
    names = [f"S{number + 1:04d}" for number in range(len(drawn))]

    def portraits() -> Iterator[tuple[str, Tensor]]:
        for name, picture in zip(names, drawn, strict=True):
            yield name, portrait_of(picture.float() / 255, model.finder, 0, name=name)

    matchers = (model.matcher_a, model.matcher_b)
    return enrol(
        portraits(), matchers, on_progress, origins=dict.fromkeys(names, "generated"), total=len(names)
    )
