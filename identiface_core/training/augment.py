"""Batched augmentation of pictures (B, C, H, W) in [0, 1]; every draw comes from the CPU generator passed
in.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from identiface_core.faces.alignment import canonical_points, similarity_from_points, warp

Change = Callable[[Tensor], Tensor]


def uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """(n, 1, 1, 1) numbers evenly drawn between `low` and `high`."""
    return torch.empty(n, 1, 1, 1).uniform_(low, high, generator=generator)


def sometimes(x: Tensor, chance: float, generator: torch.Generator, change: Change) -> Tensor:
    """Apply `change` to a random share of the batch, in place of those rows; returns x."""
    rows = torch.nonzero(torch.rand(len(x), generator=generator) < chance)[:, 0]
    if len(rows):
        x[rows] = change(x[rows])
    return x


def alignment_jitter(
    points: Tensor,
    side: int,
    generator: torch.Generator,
    *,
    aligned: float = 0.75,
    landmark: float = 1.0,
    shift: float = 0.03,
    rotate: float = 5.0,
    scale: float = 0.05,
) -> Tensor:
    """(B, 2, 3) maps from pictures of `side` px to portraits of `side` px, as an imperfect aligner would find
    them.

    points: (B, 5, 2) true points in 128 px pictures. aligned: share that is brought to the canonical framing
    (the rest stays as drawn). landmark: error of each point in pixels at 128. shift: of the side; rotate:
    degrees; scale: relative; all deviations.
    """
    n = len(points)
    noisy = points + landmark * torch.randn(points.shape, generator=generator)
    to_canon = similarity_from_points(noisy, canonical_points(128, like=points))
    same = torch.eye(2, 3).expand(n, -1, -1)
    base = torch.where(torch.rand(n, 1, 1, generator=generator) < aligned, to_canon, same)
    draws = torch.randn(n, 4, generator=generator).clamp(-2, 2)
    angle = draws[:, 0] * math.radians(rotate)
    factor = torch.exp(draws[:, 1] * scale)
    cos, sin = factor * angle.cos(), factor * angle.sin()
    turn = torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), -2)
    moved = turn @ (base[:, :, 2:] - 64.0) + 64.0 + draws[:, 2:, None] * shift * 128
    return torch.cat((turn @ base[:, :, :2], moved * (side / 128)), -1)


def place(pictures: Tensor, matrix: Tensor) -> Tensor:
    """Pictures (B, C, S, S) through (B, 2, 3) maps, edges repeated, same size."""
    return warp(pictures, matrix, pictures.shape[-1])


def colour(x: Tensor, generator: torch.Generator, *, strength: float = 1.0, grey: float = 0.1) -> Tensor:
    """Gain per channel, contrast, brightness, gamma, saturation, and grey for a share of the batch."""
    n = len(x)
    gain = 1 + strength * 0.12 * (2 * torch.rand(n, 3, 1, 1, generator=generator) - 1)
    contrast = uniform(n, 1 - 0.3 * strength, 1 + 0.3 * strength, generator)
    bright = uniform(n, -0.12 * strength, 0.12 * strength, generator)
    gamma = torch.exp(uniform(n, -0.3 * strength, 0.3 * strength, generator))
    mono = x.mean(1, keepdim=True)
    keep = uniform(n, 1 - 0.5 * strength, 1 + 0.3 * strength, generator)
    keep = torch.where(torch.rand(n, 1, 1, 1, generator=generator) < grey, torch.zeros(()), keep)
    x = torch.lerp(mono.expand_as(x), x, keep)
    x = x.clamp(1e-3, 1) ** gamma
    return ((x - 0.5) * contrast * gain + 0.5 + bright).clamp(0, 1)


def hue(x: Tensor, generator: torch.Generator, degrees: float = 25.0) -> Tensor:
    """Turn colours about the grey axis by up to `degrees`: a skin or hair tone then no longer tells people
    apart.
    """
    angle = math.radians(degrees) * (2 * torch.rand(len(x), generator=generator) - 1)
    cos, sin = angle.cos(), angle.sin() / math.sqrt(3.0)
    third = (1 - cos) / 3
    a, b, c = cos + third, third - sin, third + sin
    turn = torch.stack((a, b, c, c, a, b, b, c, a), 1).view(-1, 3, 3)
    return torch.einsum("bij,bjhw->bihw", turn, x).clamp(0, 1)


def blur(x: Tensor, generator: torch.Generator, widest: float = 1.6) -> Tensor:
    """Gaussian blur of up to `widest` pixels deviation (one width per call)."""
    sigma = 0.4 + (widest - 0.4) * float(torch.rand((), generator=generator))
    half = max(1, math.ceil(2.5 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-half, half + 1) / sigma) ** 2)
    line = (line / line.sum()).to(x).expand(x.shape[1], 1, 1, -1)
    padded = F.pad(x, (half, half, half, half), mode="replicate")
    return F.conv2d(F.conv2d(padded, line, groups=x.shape[1]), line.mT, groups=x.shape[1])


def coarse(x: Tensor, generator: torch.Generator, smallest: int = 14) -> Tensor:
    """Shrink to a random side and enlarge again: what a poor camera leaves."""
    side = int(torch.randint(smallest, x.shape[-1] - 8, (), generator=generator))
    small = F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(small, x.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1)


def noise(x: Tensor, generator: torch.Generator, strongest: float = 0.06) -> Tensor:
    """Gaussian pixel noise, deviation up to `strongest`."""
    level = uniform(len(x), 0.0, strongest, generator)
    return (x + level * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def erase(x: Tensor, generator: torch.Generator, *, largest: float = 0.4) -> Tensor:
    """Paint one rectangle per picture in an even colour; sides from a tenth to `largest` of the picture."""
    n, channels, height, width = x.shape
    centre = torch.rand(n, 2, generator=generator)
    half = (0.1 + (largest - 0.1) * torch.rand(n, 2, generator=generator)) / 2
    inside_y = ((torch.arange(height) + 0.5) / height - centre[:, :1]).abs() < half[:, :1]
    inside_x = ((torch.arange(width) + 0.5) / width - centre[:, 1:]).abs() < half[:, 1:]
    hole = inside_y[:, None, :, None] & inside_x[:, None, None, :]
    return torch.where(hole, torch.rand(n, channels, 1, 1, generator=generator), x)


def compress(x: Tensor, generator: torch.Generator) -> Tensor:
    """What JPEG leaves: rounded 8 x 8 cosine coefficients, coarser with frequency; sides must be multiples of
    8.
    """
    n, channels, height, width = x.shape
    k = torch.arange(8.0)
    basis = torch.cos(math.pi / 8 * (k[None] + 0.5) * k[:, None]) / 2
    basis[0] /= math.sqrt(2.0)
    step = (0.01 + 0.012 * (k[:, None] + k[None])) * uniform(n, 0.5, 3.0, generator)[:, :, :, :, None, None]
    cells = x.view(n, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    waves = basis @ cells @ basis.mT
    back = basis.mT @ (torch.round(waves / step) * step) @ basis
    return back.transpose(3, 4).reshape(x.shape).clamp(0, 1)


def bend(
    x: Tensor, generator: torch.Generator, pixels: float = 1.4, cells: int = 5, fill: str = "border"
) -> Tensor:
    """Smooth random warp: displacements of deviation `pixels` at cells x cells control points."""
    n, _, height, width = x.shape
    control = torch.randn(n, 2, cells, cells, generator=generator) * pixels * 2
    moved = F.interpolate(control, (height, width), mode="bicubic", align_corners=True)
    moved = moved / torch.tensor([width, height], dtype=x.dtype).view(1, 2, 1, 1)
    grid = F.affine_grid(torch.eye(2, 3).expand(n, -1, -1), [n, 1, height, width], align_corners=False)
    return F.grid_sample(x, grid + moved.permute(0, 2, 3, 1), padding_mode=fill, align_corners=False)
