"""Guidance without gradients, for matchers that give nothing but a score (ONNX, a remote service).

A look tries pairs of candidates, the prediction plus and minus one coarse random pattern each, and blends the patterns by
how much better one of the pair scores than the other:

    g = sum_k (s(x0 + r d_k) - s(x0 - r d_k)) d_k

an estimate of the gradient in as many directions as there are pairs (evolution strategies with mirrored sampling, Salimans
et al. 2017), to which every look adds. Patterns are coarse because few directions can be tried. Costs 2 pairs + 1 scores a
look: a way where there is no other.

Typical range: 8 pairs, scale 0.01 to 0.03.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import InputError
from .base import Guide, Look, Options, Run, size
from .eyes import Eye
from .targets import Target
from .travel import TravelGuide

OPTIONS = Options(scale=0.02, end=0.9, every_n=2)
"""For 20 steps."""


@dataclass(frozen=True)
class SearchGuide(TravelGuide):
    """A guide whose eye need not be differentiable.

    pairs: candidates tried per look, half of them. reach: their distance, as a share of the prediction's root mean square.
    grain: cells of a pattern along each axis. memory: how much of the direction so far stays at a look.
    """

    pairs: int = 8
    reach: float = 0.15
    grain: int = 8
    memory: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs < 1 or self.grain < 1 or not self.reach > 0:
            raise InputError(
                "guidance: a search needs at least one pair of candidates, one cell and a reach above 0, got "
                f"{self.pairs}, {self.grain} and {self.reach}"
            )
        if self.options.preserve:
            raise InputError("guidance: a search sees no gradient, so it cannot preserve words")

    @torch.no_grad()
    def look(self, denoised: Tensor, run: Run) -> Look:
        """See `Guide.look`."""
        similarity = self.target.similarity(self.eye(denoised).vectors)
        found = torch.zeros_like(denoised)
        for _ in range(self.pairs):
            pattern = self._pattern(denoised, run)
            step = self.reach * size(denoised) * pattern
            above, below = (
                self.target.objective(self.eye(tried).vectors) for tried in (denoised + step, denoised - step)
            )
            found = found + (above - below).to(pattern).view(-1, 1, 1, 1) * pattern
        if run.trail is not None:
            found = found + self.memory * run.trail
        run.trail = found
        return Look(found, similarity)

    def _pattern(self, like: Tensor, run: Run) -> Tensor:
        """A coarse random pattern of root mean square 1 per sample."""
        cells = (min(self.grain, like.shape[-2]), min(self.grain, like.shape[-1]))
        coarse = run.noise(like.new_empty(len(like), like.shape[1], *cells))
        pattern = F.interpolate(coarse, like.shape[-2:], mode="bilinear", align_corners=False)
        return pattern / size(pattern)


def search_guide(eye: Eye, target: Target, options: Options = OPTIONS, pairs: int = 8) -> Guide:
    """A guide for a black-box eye."""
    return SearchGuide(eye, target, options, pairs=pairs)
