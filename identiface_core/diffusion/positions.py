"""PixArt's table of positions, for latents of any size (PixArt-alpha, 2.2; facts of the released model)."""

from __future__ import annotations

import torch
from torch import Tensor

TRAINED_CELLS = 64
"""Latent cells a side of the model that the table's unit belongs to: 512 px."""


def position_table(width: int, rows: int, columns: int, *, base: float, scale: float) -> Tensor:
    """Sine and cosine table (rows * columns, width) float32, row by row.

    The place of a token along an axis is its index times base / (tokens along the axis) / scale. The first half of the
    channels tells the column, the second the row; each half is sines, then cosines, at frequencies 10000^(-4 i / width).
    width: a multiple of 4. base: tokens a side that the model was trained with. scale: 1 for the models of 512 px, 2 for
    those of 1024 px.
    """
    frequencies = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))

    def along(count: int) -> Tensor:
        place = torch.arange(count, dtype=torch.float64) * base / count / scale
        angles = place[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    down = along(rows)[:, None].expand(-1, columns, -1)
    across = along(columns)[None].expand(rows, -1, -1)
    return torch.cat([across, down], dim=2).reshape(rows * columns, width).float()


def host_unit(height: int, width: int, patch: int = 2) -> tuple[int, int]:
    """(base, scale) that ComfyUI gives the table for latents of height x width cells: from their mean side, in steps of 64.

    From 96 cells (768 px) up to 160 they are those of the models of 1024 px. (0, 0) for latents so small that ComfyUI has no
    table for them.
    """
    scale = round((height + width) // 2 / TRAINED_CELLS)
    return scale * TRAINED_CELLS // patch, scale
