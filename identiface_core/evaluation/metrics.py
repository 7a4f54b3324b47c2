"""Identification metrics with confidence intervals over people (terms: NIST FRTE 1:N)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rate:
    """A rate in [0, 1] with its 95 % bootstrap interval over people."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def mate_ranks(queries: Tensor, gallery: Tensor, mates: Tensor) -> Tensor:
    """Rank of each query's mate in the gallery, 1 = best.

    queries (N, D) and gallery (M, D) unit vectors, mates (N,) row of the mate in the gallery -> (N,) int64. A tie counts
    against the mate, so a constant embedding cannot look good.
    """
    scores = queries @ gallery.T
    own = scores.gather(1, mates[:, None])
    ahead = (scores >= own).sum(dim=1)
    return ahead.clamp(min=1)


def rate(hits: Tensor, *, resamples: int = 2000, seed: int = 0) -> Rate:
    """Mean of a (N,) boolean or [0, 1] tensor with a percentile bootstrap interval over its N people."""
    values = hits.to(torch.float64)
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(values), (resamples, len(values)), generator=generator)
    means = values[picks].mean(dim=1)
    return Rate(float(values.mean()), float(means.quantile(0.025)), float(means.quantile(0.975)))


def identification(ranks: Tensor, k: int) -> Rate:
    """Rank-k identification rate: share of probes whose mate is among the first k."""
    return rate(ranks <= k)


def psnr(image: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio per image in dB; both (B, C, H, W) in [0, 1] -> (B,)."""
    error = (image - truth).square().flatten(1).mean(dim=1).clamp(min=1e-12)
    return -10.0 * torch.log10(error)
