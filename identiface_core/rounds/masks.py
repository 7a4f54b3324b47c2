"""Where a part round may redraw. A round without a mask never repaints the whole face silently: it says so
and is skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from identiface_core.imaging import resize

if TYPE_CHECKING:
    from torch import Tensor

ADDABLE = ("glasses", "beard", "hair")
"""Parts that words may add to a face which has none."""


@dataclass(frozen=True)
class RoundMask:
    """A mask, or the reason why there is none."""

    mask: Tensor | None
    """(1, 1, S, S) in [0, 1], 1 where the face is redrawn."""
    kind: str
    """"part seen", "part template", or "" without a mask."""
    reason: str = ""


def round_mask(portrait: Tensor, part: str, said: Mapping[str, str], segmenter: Any) -> RoundMask:
    """The mask of `part` on `portrait` (3, S, S), in its size.

    A part that is not visible is skipped, unless words may add it: then a template of where it would be is
    redrawn. `segmenter` may say in `side` at how many pixels it looks (else 128). `said` is what the text encoder
    understood of the part's words (attribute -> value).
    """
    from identiface_core.faces.alignment import PORTRAIT_SIDE
    from identiface_core.faces.segmenter import part_mask, part_template

    side = portrait.shape[-1]
    looked = getattr(segmenter, "side", PORTRAIT_SIDE)
    with torch.no_grad():
        mask = part_mask(segmenter(resize(portrait[None], looked, looked)), part)
    if float(mask.max()) > 0.5:
        return RoundMask(resize(mask, side, side), "part seen")
    if part not in ADDABLE:
        return RoundMask(None, "", f"skipped: no {part} visible on the face drawn so far")
    if said.get(part) == "none":
        return RoundMask(None, "", f"skipped: the words say no {part}, and the face drawn so far has none")
    return RoundMask(resize(part_template(part), side, side), "part template")
