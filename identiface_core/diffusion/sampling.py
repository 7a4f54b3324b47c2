"""Samplers as pure functions of a denoiser, in k-diffusion's form: x = x0 + sigma n, sigma falling to 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .published import published

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x (B, C, H, W), sigma, a scalar tensor) -> predicted x0, same shape."""
OnStep = Callable[[int, int, Tensor], None]
"""Called after each step with (steps done, steps in all, predicted x0)."""
Sampler = Callable[..., Tensor]


def seeded_noise(shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Standard normal noise (len(seeds), *shape) float32, drawn on the CPU: sample i depends on seeds[i]
    alone."""
    draws = [torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(draws) if draws else torch.empty(0, *shape)


def euler(denoise: Denoiser, x: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
    """Euler steps of the probability flow (Karras et al. 2022, algorithm 2 without churn)."""
    for i, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        denoised = denoise(x, sigma)
        x = denoised + (x - denoised) * (following / sigma)
        if on_step is not None:
            on_step(i + 1, len(sigmas) - 1, denoised)
    return x


def dpmpp_2m(denoise: Denoiser, x: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2); the first step, and a step to sigma 0, are first
    order."""
    earlier: Tensor | None = None
    step_before = torch.tensor(0.0)
    for i, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        denoised = denoise(x, sigma)
        step = (sigma / following).log()
        towards = denoised
        if earlier is not None and following > 0:
            towards = denoised + (denoised - earlier) * (step / (2 * step_before))
        x = towards + (x - towards) * (following / sigma)
        earlier, step_before = denoised, step
        if on_step is not None:
            on_step(i + 1, len(sigmas) - 1, denoised)
    return x


SAMPLERS: dict[str, Sampler] = {"euler": euler, "dpmpp_2m": dpmpp_2m, "published": published}
"""By name. "published" is meant for the sigmas of `published.published_sigmas`; over others it is a 2M like any."""


def sampler_named(name: str) -> Sampler:
    """A sampler by name; raises InputError for an unknown one."""
    if name not in SAMPLERS:
        raise InputError(f"unknown sampler {name!r}; there are {', '.join(SAMPLERS)}")
    return SAMPLERS[name]
