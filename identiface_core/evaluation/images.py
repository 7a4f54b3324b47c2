"""How near generated pictures come to true ones, picture by picture and as a crowd."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, DEVIATION = 11, 1.5
"""Side and standard deviation in pixels of the Gaussian window of SSIM (Wang et al. 2004)."""
SCALES = (0.0448, 0.2856, 0.3001)
"""Weights of the first three scales of MS-SSIM (Wang et al. 2003), here divided by their sum: at 128 px the window does not
fit into the fourth and fifth.
"""


def psnr(image: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio per image in dB; both (B, C, H, W) in [0, 1] -> (B,)."""
    error = (image - truth).square().flatten(1).mean(dim=1).clamp(min=1e-12)
    return -10.0 * torch.log10(error)


def ms_ssim(image: Tensor, truth: Tensor) -> Tensor:
    """Multi-scale structural similarity over three scales; both (B, C, H, W) in [0, 1], at least 44 px -> (B,) in [0, 1]."""
    result = torch.ones(len(image), dtype=torch.float64)
    a, b = image.double(), truth.double()
    for place, weight in enumerate(SCALES):
        luminance, contrast = _terms(a, b)
        last = place == len(SCALES) - 1
        term = (luminance * contrast if last else contrast).mean((1, 2, 3)).clamp(min=0.0)
        result = result * term ** (weight / sum(SCALES))
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return result


def _terms(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure maps of SSIM."""
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    both = _blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance, (2 * both + c2) / (var_a + var_b + c2)


def _blur(image: Tensor) -> Tensor:
    axis = torch.arange(WINDOW, dtype=image.dtype) - WINDOW // 2
    line = torch.exp(-0.5 * (axis / DEVIATION) ** 2)
    line = line / line.sum()
    channels = image.shape[1]
    across = line.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return F.conv2d(
        F.conv2d(image, across, groups=channels), across.transpose(2, 3).contiguous(), groups=channels
    )


def frechet(a: Tensor, b: Tensor) -> float | None:
    """Frechet distance of two crowds of features (N, D) and (M, D), each taken as a Gaussian; None for fewer than 2.

    With few pictures it is too large, so only values over the same number of pictures may be compared.
    """
    if min(len(a), len(b)) < 2:
        return None
    a, b = a.double(), b.double()
    apart = (a.mean(0) - b.mean(0)).square().sum()
    first, second = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp(min=0.0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0.0).sqrt().sum()
    return max(float(apart + first.trace() + second.trace() - 2 * cross), 0.0)
