"""Masked part rounds: only the masked part is made anew, everything else stays (IdentiFace, section 3.4).

The released code blends after each step, so its first prediction sees noise everywhere. Here the known
latent, noised with the same noise, is put back *before* each prediction, and the result is exactly the known
latent outside the mask.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from .autoencoder import FACTOR
from .sampling import Denoiser

FEATHER = 4
"""Pixels over which a new part fades into the picture before it."""


def blend(new: Tensor, known: Tensor, mask: Tensor) -> Tensor:
    """`new` where mask is 1, exactly `known` where it is 0: (B, C, H, W) twice, mask (B or 1, 1, H, W) in
    [0, 1]."""
    return (new * mask + known * (1 - mask)).where(mask > 0, known)


def blend_before(denoise: Denoiser, known: Tensor, noise: Tensor, mask: Tensor) -> Denoiser:
    """A denoiser that first replaces x outside the mask by the known latent at that noise level.

    known, noise: (B, C, H, W), the noise the sampling started from. mask: (B or 1, 1, H, W), 1 = to be made.
    What it returns is the known latent outside the mask, so that every sampler ends there.
    """

    def masked(x: Tensor, sigma: Tensor) -> Tensor:
        return blend(denoise(blend(x, known + sigma * noise, mask), sigma), known, mask)

    return masked


def latent_mask(mask: Tensor) -> Tensor:
    """Mask of a picture (B, 1, 8h, 8w) -> (B, 1, h, w) binary: a cell is made anew if any of its pixels is
    more than half masked."""
    if mask.ndim != 4 or mask.shape[1] != 1 or mask.shape[-1] % FACTOR or mask.shape[-2] % FACTOR:
        raise InputError(
            f"a mask has the shape (B, 1, H, W), its sides multiples of {FACTOR}, not {tuple(mask.shape)}"
        )
    return (F.max_pool2d(mask, FACTOR) > 0.5).to(mask.dtype)


def picture_mask(cells: Tensor) -> Tensor:
    """Cells (B, 1, h, w) -> weights (B, 1, 8h, 8w) in [0, 1] with which a new picture is pasted: the cells,
    fading inside them.

    Zero outside the cells, so pixels there are kept to the last grey level; one from `FEATHER` pixels inside
    on. An edge of the picture is no edge of the mask.
    """
    full = F.interpolate((cells > 0).to(cells.dtype), scale_factor=FACTOR, mode="nearest")
    padded = F.pad(full, (FEATHER, FEATHER, FEATHER, FEATHER), mode="replicate")
    inner = -F.max_pool2d(-padded, FEATHER + 1, stride=1)
    side = inner.shape[-1] - full.shape[-1]
    smooth = F.avg_pool2d(inner, side + 1, stride=1)
    return smooth * full


def paste(new: Tensor, before: Tensor, cells: Tensor) -> Tensor:
    """The new picture inside the masked cells, the picture before it outside: (B, 3, 8h, 8w) twice, cells
    (B or 1, 1, h, w)."""
    return blend(new, before, picture_mask(cells))
