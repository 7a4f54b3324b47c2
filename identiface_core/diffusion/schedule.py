"""Noise levels: Stable Diffusion's scaled-linear betas, and the lists of sigmas that samplers step through.

Latents at noise level sigma are written in k-diffusion's form x = x0 + sigma n; the network sees x / sqrt(1 +
sigma^2) and the timestep t (0..999, fractional allowed), and predicts v (Salimans and Ho, 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError

STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


def training_sigmas() -> Tensor:
    """sigma of every timestep, (1000,) float64, rising from 0.029 to 14.6."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, STEPS, dtype=torch.float64).square()
    alphas = (1 - betas).cumprod(0)
    return ((1 - alphas) / alphas).sqrt()


_LOG_SIGMAS = training_sigmas().log()
SIGMA_MIN, SIGMA_MAX = float(_LOG_SIGMAS[0].exp()), float(_LOG_SIGMAS[-1].exp())


def t_to_sigma(t: Tensor) -> Tensor:
    """sigma at timesteps in [0, 999] on any device; log-linear between whole timesteps; float64, on the CPU."""
    position = t.cpu().double().clamp(0, STEPS - 1)
    below = position.floor().long().clamp(max=STEPS - 2)
    return torch.lerp(_LOG_SIGMAS[below], _LOG_SIGMAS[below + 1], position - below).exp()


def sigma_to_t(sigma: Tensor) -> Tensor:
    """Timestep in [0, 999] of a sigma, the inverse of `t_to_sigma`; float64, on the CPU: not every device has it."""
    wanted = sigma.cpu().double().log()
    above = torch.searchsorted(_LOG_SIGMAS, wanted.contiguous()).clamp(1, STEPS - 1)
    low, high = _LOG_SIGMAS[above - 1], _LOG_SIGMAS[above]
    return (above - 1 + (wanted - low) / (high - low)).clamp(0, STEPS - 1)


def scale_input(x: Tensor, sigma: Tensor) -> Tensor:
    """What the network sees of x at sigma: x / sqrt(1 + sigma^2), variance about 1."""
    return x / (sigma.square() + 1).sqrt()


def denoised_from_v(x: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """Prediction of x0 from the network's v at x = x0 + sigma n."""
    return x / (sigma.square() + 1) - v * sigma / (sigma.square() + 1).sqrt()


def velocity(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The v that training asks for: alpha n - sin x0 with alpha = 1 / sqrt(1 + sigma^2)."""
    return (noise - sigma * x0) / (sigma.square() + 1).sqrt()


def uniform_sigmas(steps: int, *, start: float = 1.0) -> Tensor:
    """steps + 1 falling sigmas, uniform in t from `start` (share of the whole schedule) to t = 0, then 0;
    float32."""
    _check(steps, start)
    t = torch.linspace(start * (STEPS - 1), 0, steps + 1, dtype=torch.float64)[:-1]
    return torch.cat([t_to_sigma(t), torch.zeros(1, dtype=torch.float64)]).float()


def karras_sigmas(
    steps: int, *, rho: float = 7.0, sigma_min: float = 0.05, sigma_max: float = SIGMA_MAX
) -> Tensor:
    """steps + 1 falling sigmas spaced as Karras et al. (2022), eq. 5, then 0; float32."""
    _check(steps, 1.0)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    sigmas = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)]).float()


def _check(steps: int, start: float) -> None:
    if steps < 1 or not 0 < start <= 1:
        raise InputError(
            f"sampling needs at least 1 step and a start in (0, 1], got {steps} steps from {start:g}"
        )
