"""Regions of a face drawn from a few outlines: convex polygons with soft edges, laid one over the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from identiface_core.parts import MASK_CHANNELS

EDGE = 1.0 / 128
"""Width of a region's soft edge, as a share of the portrait's side."""

ORDER = ("hair", "ears", "skin", "nose", "brows", "eyes", "mouth", "glasses")
"""From the back to the front; what lies in front hides what is behind it."""


def hull(points: Tensor) -> Tensor:
    """Corners of the convex hull of points `(N, 2)`, `(M, 2)`, going round once (Andrew's monotone chain).

    Fewer than three corners come back where all points lie on one line.
    """
    ordered = sorted({(float(x), float(y)) for x, y in points.tolist()})
    chains = []
    for way in (ordered, ordered[::-1]):
        chain: list[tuple[float, float]] = []
        for point in way:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
                chain.pop()
            chain.append(point)
        chains.append(chain[:-1] if len(ordered) > 1 else chain)
    corners = chains[0] + (chains[1] if len(ordered) > 1 else [])
    return torch.tensor(corners, dtype=torch.float32).reshape(-1, 2)


def convex_region(points: Tensor, size: int, margin: float = 0.0) -> Tensor:
    """How far each pixel lies in the convex hull of `points` `(N, 2)`, grown by `margin` px: `(size, size)` in [0, 1].

    Points in pixels of a picture of `size` px, pixel centres at integer + 0.5. 1 inside, 0 outside, a soft edge of
    `EDGE` between. Distances beyond a sharp corner are those to its two sides: a grown corner stays sharp.
    """
    corners = hull(points)
    axis = torch.arange(size, dtype=torch.float32) + 0.5
    if len(corners) < 3:  # a line or a point: the distance from it
        start, end = corners[0], corners[-1]
        away = end - start
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        relative = torch.stack([x, y], -1) - start
        along = (relative @ away / away.square().sum().clamp_min(1e-12)).clamp(0, 1)
        distance = (relative - along[..., None] * away).norm(dim=-1)
    else:
        side = corners.roll(-1, 0) - corners
        outward = torch.stack([side[:, 1], -side[:, 0]], -1) / side.norm(dim=1, keepdim=True).clamp_min(1e-12)
        offset = (corners * outward).sum(1)
        distance = torch.full((size, size), -torch.inf)
        for (nx, ny), o in zip(outward.tolist(), offset.tolist(), strict=True):
            distance = torch.maximum(distance, nx * axis + (ny * axis - o)[:, None])
    return (0.5 - (distance - margin) / (EDGE * size)).clamp(0, 1)


def layered(regions: Mapping[str, Sequence[Tensor]]) -> Tensor:
    """Regions `(B, H, W)` in [0, 1] by part, as probabilities `(B, 9, H, W)` in the order of `MASK_CHANNELS`.

    Several regions of a part unite. Parts hide each other in the order of `ORDER`; what is left is background, so that
    the channels of each pixel sum to 1.
    """
    blank = torch.zeros_like(next(one for found in regions.values() for one in found))
    channels = {**dict.fromkeys(MASK_CHANNELS, blank), "background": blank + 1}
    for part in ORDER:
        if not regions.get(part):
            continue
        cover = torch.stack(list(regions[part])).amax(0)
        channels = {name: value * (1 - cover) for name, value in channels.items()}
        channels[part] = channels[part] + cover
    return torch.stack([channels[name] for name in MASK_CHANNELS], 1)


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
