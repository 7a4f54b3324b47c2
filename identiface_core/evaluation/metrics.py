"""Identification metrics with confidence intervals over people (terms: NIST FRTE 1:N)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

RESAMPLES = 2000
LIST_LENGTH = 50
"""A mate further down than this is missed, whatever the score: nobody reads a longer candidate list."""


@dataclass(frozen=True)
class Rate:
    """A rate in [0, 1], or a mean or difference of rates, with its 95 % interval over people."""

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


def rate(values: Tensor, *, resamples: int = RESAMPLES, seed: int = 0) -> Rate:
    """Mean of a (N,) tensor with a percentile bootstrap interval over its N people.

    Where all are 0, or all 1, a bootstrap knows no doubt: then the open end is the exact binomial bound.
    """
    values = values.to(torch.float64)
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(values), (resamples, len(values)), generator=generator)
    means = values[picks].mean(dim=1)
    low, high = float(means.quantile(0.025)), float(means.quantile(0.975))
    doubt = 1.0 - 0.025 ** (1.0 / len(values))
    if bool((values == 0).all()):
        high = doubt
    elif bool((values == 1).all()):
        low = 1.0 - doubt
    return Rate(float(values.mean()), low, high)


def identification(ranks: Tensor, k: int) -> Rate:
    """Rank-k identification rate: share of probes whose mate is among the first k."""
    return rate(ranks <= k)


def difference(a: Tensor, b: Tensor) -> Rate:
    """Mean of a - b over the same N people, (N,) each, with a paired bootstrap interval."""
    gap = a.to(torch.float64) - b.to(torch.float64)
    if bool((gap == 0).all()):  # no person differs: at most so many of all people do, one way or the other
        doubt = 1.0 - 0.025 ** (1.0 / len(gap))
        return Rate(0.0, -doubt, doubt)
    return rate(gap)


def cmc(ranks: Tensor, depth: int = LIST_LENGTH) -> list[float]:
    """Cumulative match characteristic: the rank-k identification rate for k = 1 .. depth."""
    return [float((ranks <= k).double().mean()) for k in range(1, depth + 1)]


def threshold_for(fpir: float, best: Tensor) -> float | None:
    """The lowest threshold that at most a share `fpir` of searches without a mate reach; best: (M,) their best scores.

    None if M searches are too few to tell: one of them must be allowed to reach it.
    """
    allowed = math.floor(fpir * len(best) + 1e-9)
    if allowed < 1:
        return None
    if allowed >= len(best):
        return -1.0
    return math.nextafter(float(best.double().sort(descending=True).values[allowed]), math.inf)


def misses(scores: Tensor, ranks: Tensor, threshold: float) -> Rate:
    """False negative identification rate: share of probes whose mate is below the threshold or off the candidate list.

    scores, ranks: (N,) of the mates.
    """
    return rate((scores.double() < threshold) | (ranks > LIST_LENGTH))


def alarms(best: Tensor, threshold: float) -> Rate:
    """False positive identification rate: share of searches without a mate whose best score (M,) reaches the threshold."""
    return rate(best.double() >= threshold)
