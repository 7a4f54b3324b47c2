"""Deterministic noise: one hashed tile that is sampled with wrap-around; no random generator is involved."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .identity import hash_unit

_TILE = 256


@lru_cache(maxsize=4)
def noise_tile(device: torch.device) -> Tensor:
    """(1, 1, 257, 257) smooth value noise of mean 0 and deviation about 1, periodic in both directions."""
    grid = torch.arange(_TILE * _TILE).view(1, 1, _TILE, _TILE)
    white = hash_unit(grid + 0x51ED).float() - 0.5
    kernel = torch.tensor([0.25, 0.5, 0.25])
    smooth = F.conv2d(
        F.pad(white, (1, 1, 1, 1), mode="circular"), (kernel[:, None] * kernel[None]).view(1, 1, 3, 3)
    )
    smooth = smooth / 0.108
    return F.pad(smooth, (0, 1, 0, 1), mode="circular").to(device)


def tile_noise(x: Tensor, y: Tensor) -> Tensor:
    """Noise at tile coordinates in cells (any real number), x and y (B, H, W) -> (B, H, W)."""
    grid = torch.stack((x, y), -1) * (2.0 / _TILE)
    grid = grid - 2.0 * torch.floor(grid * 0.5) - 1.0
    tile = noise_tile(x.device).expand(x.shape[0], -1, -1, -1)
    return F.grid_sample(tile, grid, mode="bilinear", align_corners=True)[:, 0]


def pattern_unit(pattern: Tensor, salt: int) -> Tensor:
    """A number in (0, 1) hashed from the integer-valued float tensor `pattern`, same shape, float32."""
    return hash_unit(pattern.long() * 131 + salt * 7907).float()
