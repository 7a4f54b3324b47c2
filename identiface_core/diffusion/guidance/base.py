"""Sampling guided by identity: the rule that all guiders share.

A guide moves the predicted clean latents, step by step, towards a `Target` in a matcher's space (ID3, arXiv 2409.17576,
algorithm 2, and its successors). Guiders differ in the eye they look with and in what they differentiate through; how far
they move, when, and when they stop is decided here. A `Guide` is a value; what changes during a sampling lives in a `Run`,
made anew for each, so that nothing leaks from one sampling into another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from ...errors import InputError
from ..sampling import Denoiser, OnStep, Sampler
from .eyes import Eye, Said
from .targets import Target

Schedule = Literal["constant", "sigma", "early"]
STEPS = 20
"""Steps of a sampling that the guiders' own options are for."""
TINY = 1e-12
"""Smallest size by which a gradient is divided."""
SURE = 2.5
"""Noise level (sigma) above which a prediction shows nobody in particular, so that its similarity stops nothing."""
EASE = 0.2
"""Cosine before `stop_at` from which moves grow smaller."""
OWN_NOISE = 0x5DEECE66
"""Makes of a sample's seed that of the noise drawn while it is guided: the seed itself has drawn its first latents."""


@dataclass(frozen=True)
class Options:
    """How far a guide moves the prediction, and when. Shares count from 0, pure noise, to 1, the clean latent.

    scale: size of a move as a share of the prediction's own, both as root mean square, typically 0.02 to 0.2; 0 is exactly
    no guide. start, end: window of the sampling; `end` does not belong to it. every_n: look at each n-th step of the window.
    hold: make the last move again at the steps between, which costs nothing. schedule: "constant", or "sigma", which follows
    sigma / sqrt(1 + sigma^2), the share of noise (ID3), or "early", which follows sqrt(1 + sigma^2) (MPGD): large moves while
    the network still has time to make a face of them. normalise: gradients have the same size in every sample; False leaves
    them as they are, and `scale` multiplies them. preserve: take out of a move what would make the words less true.
    stop_at: similarity, such as a matcher's calibrated threshold, that a sample is to reach and not to pass: once predictions
    show somebody (sigma <= `SURE`), moves shrink with what is missing, and lead back what is beyond. None: never.
    """

    scale: float = 0.05
    start: float = 0.0
    end: float = 1.0
    every_n: int = 1
    hold: bool = True
    schedule: Schedule = "constant"
    normalise: bool = True
    preserve: bool = False
    stop_at: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise InputError(f"guidance: the scale must be a number from 0 on, got {self.scale}")
        if not 0 <= self.start <= self.end <= 1:
            raise InputError(
                f"guidance: the window must lie in [0, 1] and start before its end, got {self.start} to {self.end}"
            )
        if self.every_n < 1:
            raise InputError(f"guidance: every_n must be 1 or more, got {self.every_n}")
        if self.schedule not in ("constant", "sigma", "early"):
            raise InputError(f"guidance: the schedule is constant, sigma or early, not {self.schedule!r}")
        if self.stop_at is not None and not -1 <= self.stop_at <= 1:
            raise InputError(f"guidance: stop_at is a cosine, from -1 to 1, got {self.stop_at}")

    def acts_at(self, step: int, steps: int) -> bool:
        """Whether the window holds this step of so many."""
        return self.start <= step / steps < self.end

    def looks_at(self, step: int, steps: int) -> bool:
        """Whether a new look is due at this step, of a window that holds it."""
        first = next(i for i in range(steps) if self.acts_at(i, steps))
        return (step - first) % self.every_n == 0

    def over(self, steps: int) -> Options:
        """The same, made for `STEPS` steps, in another number of them: as many looks, or one fewer."""
        return replace(self, every_n=max(1, math.ceil(self.every_n * steps / STEPS)))

    def weight(self, sigma: Tensor) -> float:
        """The scale at a noise level."""
        level = float(sigma)
        total = (1 + level**2) ** 0.5
        return self.scale * {"constant": 1.0, "sigma": level / total, "early": total}[self.schedule]


@dataclass(frozen=True)
class Look:
    """What one look at B predictions gives."""

    gradient: Tensor
    """(B, C, h, w): which way the target's objective rises."""
    similarity: Tensor
    """(B,) cosine to the target."""


@dataclass
class Run:
    """The guidance of one sampling: B samples, none of which depends on the others."""

    guide: Guide
    generators: Sequence[torch.Generator]
    """One per sample, on the CPU, for guides that draw."""
    cells: Tensor | None = None
    """(B or 1, 1, h, w): what may be moved, 1 = yes; None: everything."""
    similarity: Tensor | None = None
    """(B,) at the last look."""
    looks: int = 0
    move: Tensor | None = field(default=None, repr=False)
    """(B, C, h, w): the last move, at scale 1."""
    trail: Tensor | None = field(default=None, repr=False)
    """(B, C, h, w): what a search has found so far."""

    def __call__(self, denoised: Tensor, sigma: Tensor, step: int, steps: int) -> Tensor:
        """The prediction (B, C, h, w) at `sigma`, moved; `step` counts from 0."""
        options = self.guide.options
        weight = options.weight(sigma)
        if self.due(step, steps):
            return denoised + weight * self.take(self.guide.look(denoised, self), denoised, sigma)
        if self.move is None or not (options.hold and options.acts_at(step, steps)):
            return denoised
        return denoised + weight * self.move

    def due(self, step: int, steps: int) -> bool:
        """Whether a new look is to be taken at this step."""
        options = self.guide.options
        return options.scale > 0 and options.acts_at(step, steps) and options.looks_at(step, steps)

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal noise of the shape of `like`, each sample's from its own generator."""
        drawn = [torch.randn(like.shape[1:], generator=generator) for generator in self.generators]
        return torch.stack(drawn).to(like)

    def take(self, look: Look, denoised: Tensor, sigma: Tensor) -> Tensor:
        """Remember what a look has shown, and the move from here on; gives the move, (B, C, h, w)."""
        options = self.guide.options
        move = look.gradient if self.cells is None else look.gradient * self.cells
        if options.normalise:
            move = move * (size(denoised) / size(move).clamp(min=TINY))
        if options.stop_at is not None and float(sigma) <= SURE:
            share = ((options.stop_at - look.similarity) / EASE).clamp(-1, 1)
            move = move * share.view(-1, 1, 1, 1)
        self.looks, self.similarity, self.move = self.looks + 1, look.similarity, move
        return move


@dataclass(frozen=True)
class Guide:
    """Towards a target, seen by an eye, by the rule of `options`; `look` differentiates through the eye alone.

    said: words to be preserved, value index per attribute of the lexicon, -1 unsaid; (SLOTS,) or (B, SLOTS).
    """

    eye: Eye
    target: Target
    options: Options = Options()
    said: Said = None

    def __post_init__(self) -> None:
        if self.options.stop_at is not None and not self.target.rises:
            raise InputError(
                "guidance: stop_at is for guidance towards somebody; away from somebody, or in a band, the target itself stops"
            )

    def look(self, denoised: Tensor, run: Run) -> Look:
        """Gradient of the objective with respect to the prediction, and how alike it is now."""
        with torch.enable_grad():
            latents = denoised.detach().clone().requires_grad_(True)
            return self.judged(latents, latents)

    def judged(self, latents: Tensor, source: Tensor) -> Look:
        """The look at `latents`, which hang together with `source`, with respect to which the gradient is taken.

        Raises `InputError` under `torch.inference_mode`, where there are no gradients.
        """
        if torch.is_inference_mode_enabled():
            raise InputError(
                "guidance needs gradients: sample under torch.no_grad() instead of torch.inference_mode()"
            )
        seen = self.eye(latents)
        words = self._words_held(seen.words)
        (gradient,) = torch.autograd.grad(
            self.target.objective(seen.vectors).sum(), source, retain_graph=words is not None
        )
        if words is not None:
            (kept,) = torch.autograd.grad(words.sum(), source)
            gradient = without_harm(gradient, kept)
        return Look(gradient.detach(), self.target.similarity(seen.vectors.detach()))

    def begin(
        self,
        count: int,
        *,
        seeds: Sequence[int] = (),
        cells: Tensor | None = None,
    ) -> Run:
        """A fresh run for `count` samples; seeds: one per sample for guides that draw, by default 0, 1, 2..."""
        chosen = list(seeds) or list(range(count))
        return Run(self, [torch.Generator().manual_seed(seed ^ OWN_NOISE) for seed in chosen], cells)

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
        """Sample with guidance; at scale 0 exactly `sampler(denoise, x, sigmas, on_step)`.

        cells: (B or 1, 1, h, w), the only cells that guidance moves: those that a part round makes anew.
        """
        if self.options.scale == 0:
            return sampler(denoise, x, sigmas, on_step)
        run, levels, steps = self.begin(len(x), seeds=seeds, cells=cells), sigmas.tolist(), len(sigmas) - 1

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            return self.denoised(denoise, x, sigma, step_at(float(sigma), levels), steps, run)

        return sampler(guided, x, sigmas, on_step)

    def denoised(
        self, denoise: Denoiser, x: Tensor, sigma: Tensor, step: int, steps: int, run: Run
    ) -> Tensor:
        """The guided prediction at x."""
        return run(denoise(x, sigma), sigma, step, steps)

    def _words_held(self, words: Callable[[Tensor], Tensor] | None) -> Tensor | None:
        """(B,) how true the words are, or None where they are not to be preserved."""
        if not self.options.preserve:
            return None
        if words is None or self.said is None:
            raise InputError(
                "guidance: to preserve words, give the words, and an eye that reads them (latent, or decoded with a reader)"
            )
        return words(self.said)


def size(x: Tensor) -> Tensor:
    """Root mean square of each sample, (B, 1, 1, 1)."""
    return x.square().flatten(1).mean(1).sqrt().view(-1, 1, 1, 1)


def without_harm(gradient: Tensor, kept: Tensor) -> Tensor:
    """`gradient` without what runs against `kept`, per sample: to first order, following it does not lower what `kept` raises
    (Yu et al. 2020, gradient surgery)."""
    along = (gradient * kept).flatten(1).sum(1) / kept.square().flatten(1).sum(1).clamp(min=TINY)
    return gradient - along.clamp(max=0).view(-1, 1, 1, 1) * kept


def step_at(sigma: float, levels: Sequence[float]) -> int:
    """Which step of a falling list of noise levels `sigma` belongs to, from 0 to len(levels) - 2."""
    above = sum(1 for level in levels if level > sigma * (1 + 1e-6))
    return max(0, min(above, len(levels) - 2))
