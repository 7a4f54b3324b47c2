"""Steps with some fresh noise, in which guidance does best: those of MPGD and FreeDoM, DDIM with a move and time travel.

    x[next] = x0 + sigma' (eta z + sqrt(1 - eta^2) n) + w sqrt(1 + sigma'^2) g,   n = (x - x0) / sigma

in the form x = x0 + sigma n, where the papers write x / sqrt(1 + sigma^2). FreeDoM and MPGD differ in what g is a gradient of.
The fresh noise lets the network mend what a move has broken. Time travel goes back from x[next] to the noise level of x with
fresh noise, and makes the step again (FreeDoM, section 4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InputError
from ..sampling import Denoiser, OnStep, Sampler
from .base import Guide, Look, Run


@dataclass(frozen=True)
class TravelGuide(Guide):
    """A guide with a sampling loop of its own; the sampler that it is given only serves at scale 0.

    eta: share of fresh noise in each step. repeats: how often a step of the window `travel` (shares of the sampling) is made.
    """

    eta: float = 0.5
    repeats: int = 1
    travel: tuple[float, float] = (0.3, 0.6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1 or self.repeats < 1:
            raise InputError(
                f"guidance: eta lies in [0, 1] and a step is made at least once, got {self.eta} and {self.repeats}"
            )

    def sample(
        self,
        sampler: Sampler,
        denoise: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        on_step: OnStep | None = None,
        *,
        seeds: Sequence[int] = (),
        cells: Tensor | None = None,
    ) -> Tensor:
        """See `Guide.sample`."""
        if self.options.scale == 0:
            return sampler(denoise, x, sigmas, on_step)
        run, steps = self.begin(len(x), seeds=seeds, cells=cells), len(sigmas) - 1
        for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
            again = self.repeats if self.travel[0] <= step / steps < self.travel[1] else 1
            for last in reversed(range(again)):
                made, onward = self.onward(denoise, x, sigma, following, step, steps, run)
                noise = run.noise(x) if last else x
                x = onward + (sigma.square() - following.square()).sqrt() * noise if last else onward
            if on_step is not None:
                on_step(step + 1, steps, made)
        return x

    def onward(
        self,
        denoise: Denoiser,
        x: Tensor,
        sigma: Tensor,
        following: Tensor,
        step: int,
        steps: int,
        run: Run,
    ) -> tuple[Tensor, Tensor]:
        """The prediction at x, and x at the next noise level."""
        move, weight = None, self.options.weight(sigma)
        if run.due(step, steps):
            made, look = self.looked(denoise, x, sigma, run)
            move = run.take(look, made, sigma)
        else:
            made = denoise(x, sigma)
            if self.options.hold and self.options.acts_at(step, steps):
                move = run.move
        noise = (x - made) / sigma
        if self.eta and following > 0:
            noise = self.eta * run.noise(x) + (1 - self.eta**2) ** 0.5 * noise
        if move is None:
            return made, made + following * noise
        moved = made + weight * (1 + following.square()).sqrt() * move
        landed = self.landed(moved)
        if run.cells is not None:
            landed = landed.where(run.cells > 0, moved)
        return made, landed + following * noise

    def looked(self, denoise: Denoiser, x: Tensor, sigma: Tensor, run: Run) -> tuple[Tensor, Look]:
        """The prediction at x, and the look at it."""
        made = denoise(x, sigma)
        with torch.no_grad():
            return made, self.look(made, run)

    def landed(self, moved: Tensor) -> Tensor:
        """Where a moved prediction comes to rest."""
        return moved
