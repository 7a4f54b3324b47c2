"""What a witness gives, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from identiface_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from identiface_core.evidence.description import Description

SKETCH_SIDE = 128


@dataclass(frozen=True)
class Evidence:
    """LQ photo, sketch and description of one face. Any may be missing, not all three.

    Raises InputError for no evidence at all, and for tensors of another shape, type or range than stated.
    """

    lq: Tensor | None = None
    """`(3, h, w)` float in [0, 1], RGB: the LQ photo in canonical portrait framing, at its own resolution."""
    sketch: Tensor | None = None
    """`(1, 128, 128)` float in [0, 1]: paper 1, lines dark (`sketch.clean_sketch`)."""
    description: Description | None = None
    """What the witness said."""
    fine_sketch: Tensor | None = None
    """`(1, n, n)` float in [0, 1]: the same sketch with more pixels, for models that see more than 128."""

    def __post_init__(self) -> None:
        if self.lq is None and self.sketch is None and self.description is None:
            raise InputError(
                "no evidence: give an LQ photo, a sketch or a description (one of them is enough)"
            )
        if self.lq is not None:
            _check("LQ photo", self.lq, (3, None, None))
        if self.sketch is not None:
            _check("sketch", self.sketch, (1, SKETCH_SIDE, SKETCH_SIDE))
        if self.fine_sketch is not None:
            _check("fine sketch", self.fine_sketch, (1, None, None))

    @property
    def finest_sketch(self) -> Tensor | None:
        """The sketch with the most pixels there are."""
        return self.sketch if self.fine_sketch is None else self.fine_sketch

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds that are there, in the order `lq`, `sketch`, `words`."""
        there = {"lq": self.lq, "sketch": self.sketch, "words": self.description}
        return tuple(name for name, value in there.items() if value is not None)


def _check(name: str, image: Tensor, shape: tuple[int, int | None, int | None]) -> None:
    fits = image.dim() == 3 and all(w in (None, n) for w, n in zip(shape, image.shape, strict=True))
    if not fits or image.numel() == 0:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise InputError(
            f"the {name} must be a tensor ({wanted}), this one is {tuple(image.shape)}; "
            "prepare it with prepare_lq or clean_sketch"
        )
    if not image.is_floating_point():
        raise InputError(
            f"the {name} must hold floats in [0, 1], this one holds {image.dtype}; use imaging.from_uint8"
        )
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):  # also catches nan
        raise InputError(
            f"the {name} must hold values in [0, 1], this one holds {low:g} to {high:g}; scale or clamp it"
        )
