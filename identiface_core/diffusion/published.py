"""The published sampler and its masked rounds, for those who want the released pictures (IdentiFace, released code).

Our own way differs, and why:
- Masked rounds: the released code puts the known face back *after* each step, so that its first prediction sees pure
  noise everywhere, and follows the stored latents of the round before. `masking.blend_before` puts it back *before* each
  prediction, noised by the same noise: every prediction sees the face that the part has to fit, no trajectory is kept,
  and a round needs the known latent alone.
- Steps: the released code spaces them evenly in time and ends at sigma 0.01, with a little noise left. Ours end at 0.
- Noise levels: linear betas, the base model's own. Ours are Stable Diffusion's, for which stock samplers are made.
- No words: the released code takes the learned null text, as many rows of it as the prompt has tokens. Others take T5 of
  an empty text, and get other pictures.

Latents here are of variance about 1, alpha x0 + sqrt(1 - alpha^2) n, as the released code keeps them; `published` alone is in
the form of `sampling`, x0 + sigma n.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError

if TYPE_CHECKING:
    from .sampling import Denoiser, OnStep

STEPS = 20
GUIDANCE_SCALE = 4.5
TRAINING_STEPS = 1000
BETA_START, BETA_END = 1e-4, 0.02
FIRST_TIME, LAST_TIME = 1.0, 0.001
"""Continuous time of the first and the last latent; the timestep is 1000 t - 1."""
SHORT = 10
"""Below so many steps the last one is first order."""

NoisePredictor = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(latents (B, C, H, W), timesteps (B,) in [0, 999], text tokens (B, L, D)) -> noise in the first C channels."""


def log_alphas() -> Tensor:
    """Logarithm of the signal's share after each of the 1000 steps of training, (1000,) float64, falling."""
    betas = torch.linspace(BETA_START, BETA_END, TRAINING_STEPS, dtype=torch.float64)
    return 0.5 * (1 - betas).log().cumsum(0)


_LOG_ALPHAS = log_alphas()


def timesteps(steps: int = STEPS) -> Tensor:
    """Timesteps of the steps + 1 latents of a sampling, evenly from 999 to 0; float64. Fractions are meant."""
    if steps < 1:
        raise InputError(f"sampling needs at least 1 step, got {steps}")
    return torch.linspace(FIRST_TIME, LAST_TIME, steps + 1, dtype=torch.float64) * TRAINING_STEPS - 1


def sigma_at(timestep: Tensor) -> Tensor:
    """sigma / alpha at timesteps in [0, 999], float64, on the CPU; log alpha is linear between whole timesteps."""
    position = timestep.cpu().double().clamp(0, TRAINING_STEPS - 1)
    below = position.floor().long().clamp(max=TRAINING_STEPS - 2)
    log_alpha = torch.lerp(_LOG_ALPHAS[below], _LOG_ALPHAS[below + 1], position - below)
    return torch.expm1(-2 * log_alpha).sqrt()


def timestep_at(sigma: Tensor) -> Tensor:
    """Timestep in [0, 999] of sigma / alpha, the inverse of `sigma_at`; float64, on the CPU."""
    falling = -0.5 * torch.log1p(sigma.cpu().double().square())
    table = -_LOG_ALPHAS
    above = torch.searchsorted(table, -falling.contiguous()).clamp(1, TRAINING_STEPS - 1)
    low, high = table[above - 1], table[above]
    return (above - 1 + (-falling - low) / (high - low)).clamp(0, TRAINING_STEPS - 1)


def published_sigmas(steps: int = STEPS) -> Tensor:
    """steps + 1 falling sigmas from 157.4 to 0.0100, float32. No 0 follows: the last latent is the result."""
    return sigma_at(timesteps(steps)).float()


def published(denoise: Denoiser, x: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
    """DPM-Solver++(2M) as released, over sigmas such as `published_sigmas`: as `sampling.dpmpp_2m`, but that with
    fewer than 10 steps the last one is first order."""
    return _steps(denoise, x, sigmas, on_step, lambda latent, _: latent)[-1]


def trajectory(
    denoise: Denoiser,
    noise: Tensor,
    *,
    steps: int = STEPS,
    before: Tensor | None = None,
    mask: Tensor | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """All latents of a sampling, (steps + 1, B, C, H, W): the start noise first, the result last.

    noise: (B, C, H, W), standard normal. before, mask: a masked round; the trajectory of the round before, and what to
    make anew, (B or 1, 1 or C, H, W) in [0, 1], soft edges allowed. After every step, and once after the first
    prediction, which therefore sees pure noise, the latent becomes new * mask + stored * (1 - mask): the released
    order, kept so that its pictures come out. The result is exactly the stored one where the mask is 0.
    Raises InputError for a trajectory of another length or shape.
    """
    if (before is None) != (mask is None):
        raise InputError(
            "a masked round needs both the trajectory of the round before and the mask of the part"
        )
    if before is not None and tuple(before.shape) != (steps + 1, *noise.shape):
        raise InputError(
            f"a masked round of {steps} steps needs the {steps + 1} latents of the round before, "
            f"{(steps + 1, *noise.shape)}; got {tuple(before.shape)}: sample both with the same number of steps"
        )
    sigmas = published_sigmas(steps).to(noise.device)
    scales = (1 + sigmas.square()).sqrt()

    def put_back(latent: Tensor, index: int) -> Tensor:
        if before is None or mask is None:
            return latent
        return latent * mask + before[index] * scales[index] * (1 - mask)

    latents = _steps(denoise, noise * scales[0], sigmas, on_step, put_back)
    made = torch.stack([latent / scale for latent, scale in zip(latents, scales, strict=True)])
    # To the last bit: scaling and scaling back may change it.
    return made if before is None or mask is None else made.where(mask > 0, before)


def null_text(table: Tensor, tokens: int) -> Tensor:
    """The text of no words (tokens, D): the first rows of the learned table (rows, D), as many as the prompt has tokens.

    InputError if the prompt is longer than the table.
    """
    if tokens > len(table):
        raise InputError(
            f"the learned null text has {len(table)} tokens, the prompt {tokens}: shorten the prompt"
        )
    return table[:tokens]


def guided(
    predict: NoisePredictor, words: Tensor, table: Tensor, *, scale: float = GUIDANCE_SCALE
) -> Denoiser:
    """x0 prediction as a function of (x, sigma), guided on the noise: without + scale * (with words - without).

    predict: the network; it is asked once for both, first without words. words: the prompt's tokens (B, L, D), without
    padding. table: the learned null text (`weights.pixart.null_text`). Both halves get the same control.
    """
    null = null_text(table, words.shape[1]).to(words).expand(len(words), -1, -1)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen = (x / (sigma.square() + 1).sqrt()).repeat(2, 1, 1, 1)
        times = timestep_at(sigma).float().to(seen.device).expand(len(seen))
        noise = predict(seen, times, torch.cat([null, words]))[:, : x.shape[1]]
        without, with_words = noise.chunk(2)
        return x - sigma * (without + scale * (with_words - without))

    return denoise


def _steps(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    on_step: OnStep | None,
    put_back: Callable[[Tensor, int], Tensor],
) -> list[Tensor]:
    """The latents at all sigmas; `put_back(latent, index)` is what becomes of each before it is kept."""
    steps = len(sigmas) - 1
    earlier: Tensor | None = None
    denoised, step_before = denoise(x, sigmas[0]), sigmas[0]
    kept = [put_back(x, 0)]
    for i, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        if i > 0:
            earlier, denoised = denoised, denoise(kept[-1], sigma)
        step = (sigma / following).log()
        first_order = following == 0 or (i == steps - 1 and steps < SHORT)
        towards = denoised
        if earlier is not None and not first_order:
            towards = denoised + (denoised - earlier) * (step / (2 * step_before))
        kept.append(put_back(towards + (kept[-1] - towards) * (following / sigma), i + 1))
        step_before = step
        if on_step is not None:
            on_step(i + 1, steps, denoised)
    return kept
