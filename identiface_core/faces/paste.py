"""From the portrait back into the picture that it was cut from: masks, and the face itself."""

from __future__ import annotations

import torch
from torch import Tensor

from identiface_core.faces.alignment import invert_similarity, warp_antialiased
from identiface_core.imaging import resize

EDGE = 0.08
"""Width of the soft rim of a pasted portrait, as a share of its side."""


def mask_to_picture(mask: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask in portrait framing, where it lies in the picture: `(B, 1, S, S)` -> `(B, 1, height, width)`.

    matrix: `(B, 2, 3)` from pixels of the picture to those of the portrait (`similarity_from_points`). size: (height, width) of
    the picture. 0 outside the portrait.
    """
    return warp_antialiased(mask, invert_similarity(matrix).to(mask), size, padding="zeros")


def paste_back(
    picture: Tensor, portrait: Tensor, matrix: Tensor, mask: Tensor | None = None, *, edge: float = EDGE
) -> Tensor:
    """The picture `(3, H, W)` with the portrait `(3, S, S)` back in its place: `(3, H, W)`.

    matrix: `(1, 2, 3)` from pixels of the picture to those of the portrait of S px. mask: `(1, S, S)` or `(S, S)` in [0, 1],
    what of the portrait is pasted; any size, brought to S. Without one, all but a soft rim of `edge` times S. Where the
    weight is 0 the picture stays as it is, to the last bit.
    """
    size = (picture.shape[-2], picture.shape[-1])
    side = portrait.shape[-1]
    weight = rim(side, edge) if mask is None else resize(mask.reshape(1, *mask.shape[-2:]), side, side)
    placed = warp_antialiased(portrait[None], invert_similarity(matrix).to(portrait), size)[0]
    share = mask_to_picture(weight[None].to(portrait), matrix, size)[0]
    return torch.where(share > 0, picture + share * (placed - picture), picture).clamp(0, 1)


def rim(side: int, edge: float = EDGE) -> Tensor:
    """Weights `(1, side, side)`: 1 inside, falling to 0 at the sides of a square, smooth (half a cosine)."""
    axis = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    near = torch.minimum(axis, 1 - axis).div(max(edge, 1e-6)).clamp(0, 1)
    ramp = 0.5 - 0.5 * torch.cos(torch.pi * near)
    return (ramp[:, None] * ramp)[None]
