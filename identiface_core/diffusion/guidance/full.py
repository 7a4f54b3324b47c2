"""ID3's adjusted score: the gradient goes back through the denoiser itself (arXiv 2409.17576, algorithm 2).

    score' = score + lambda d objective(eye(x0(x))) / dx,   that is   x0' = x0 + sigma^2 lambda d objective / dx

in the form x = x0 + sigma n. With normalised gradients, which are the default, the factor is replaced by `Options.weight`,
so that scales compare with those of the other guiders.

The yardstick: every look keeps the activations of a whole pass of the denoiser, and goes through it once more.
Typical range: scale 0.02 to 0.06.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..sampling import Denoiser
from .base import Guide, Look, Options, Run

OPTIONS = Options(scale=0.1, schedule="sigma")
"""Chosen on the validation people, see docs/guidance.md."""


class FullGuide(Guide):
    """A guide that differentiates through the denoiser."""

    def denoised(
        self, denoise: Denoiser, x: Tensor, sigma: Tensor, step: int, steps: int, run: Run
    ) -> Tensor:
        """The guided prediction at x; a look is taken with respect to x."""
        if not run.due(step, steps):
            return run(denoise(x, sigma), sigma, step, steps)
        made, look = looked_through(self, denoise, x, sigma)
        if not self.options.normalise:
            look = replace(look, gradient=look.gradient * float(sigma.square()))
        return made + self.options.weight(sigma) * run.take(look, made, sigma)


def looked_through(guide: Guide, denoise: Denoiser, x: Tensor, sigma: Tensor) -> tuple[Tensor, Look]:
    """The prediction at x, and the look at it with respect to x."""
    with torch.enable_grad():
        source = x.detach().clone().requires_grad_(True)
        made = denoise(source, sigma)
        look = guide.judged(made, source)
    return made.detach(), look
