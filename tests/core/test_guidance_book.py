"""FreeDoM and MPGD as their papers write them, in steps of alpha_bar: our guides, in steps of sigma, must give the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from identiface_core.diffusion.guidance.base import OWN_NOISE, Guide, Options
from identiface_core.diffusion.guidance.eyes import Seen
from identiface_core.diffusion.guidance.freedom import REPEATS, freedom_guide
from identiface_core.diffusion.guidance.mpgd import mpgd_guide
from identiface_core.diffusion.guidance.targets import Towards
from identiface_core.diffusion.sampling import euler, seeded_noise
from identiface_core.diffusion.schedule import uniform_sigmas

SIDE, D, STEPS, ETA, SEED = 4, 6, 8, 0.5, 7
SIGMAS = uniform_sigmas(STEPS).double()


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


MATRIX, TARGET = random(4 * SIDE**2, D, seed=0), F.normalize(random(D, seed=2), dim=0)


def embedding(latents: Tensor) -> Tensor:
    return F.normalize(latents.flatten(1) @ MATRIX, dim=1)


def eye(latents: Tensor) -> Seen:
    return Seen(embedding(latents))


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    x0 = (x + sigma.square() * 0.2) / (1 + sigma.square())
    return x0 + 0.1 * torch.tanh(x0.flip(-1))


def by_the_book(start: Tensor, scale: float, *, through: bool, repeats: int) -> Tensor:
    """DDIM with guidance; through: FreeDoM, whose gradient goes through the denoiser, else MPGD."""
    generator = torch.Generator().manual_seed(SEED ^ OWN_NOISE)

    def fresh() -> Tensor:
        return torch.randn(1, 4, SIDE, SIDE, generator=generator).double()

    x = start / (1 + SIGMAS[0] ** 2).sqrt()
    for step in range(STEPS):
        sigma, alpha, after = SIGMAS[step], 1 / (1 + SIGMAS[step] ** 2), 1 / (1 + SIGMAS[step + 1] ** 2)
        guides, times = step / STEPS < 0.9, repeats if 0.3 <= step / STEPS < 0.6 else 1
        for time in range(times):
            x = x.detach().requires_grad_()
            x0 = denoise(x / alpha.sqrt(), sigma)
            noise = (x - alpha.sqrt() * x0) / (1 - alpha).sqrt()
            source = x if through else x0.detach().requires_grad_()
            distance = torch.linalg.norm(embedding(x0 if through else source) - TARGET)
            (gradient,) = torch.autograd.grad(distance, source)
            x0, noise = x0.detach(), noise.detach()
            if guides and not through:
                step_size = scale * x0.square().mean().sqrt() / gradient.square().mean().sqrt() / after.sqrt()
                x0 = x0 - step_size * gradient
            x = after.sqrt() * x0
            if after < 1:
                x = x + (1 - after).sqrt() * (ETA * fresh() + (1 - ETA**2) ** 0.5 * noise)
            if guides and through:
                x = x - scale * alpha.sqrt() * gradient
            if time + 1 < times:
                back = alpha / after
                x = back.sqrt() * x + (1 - back).sqrt() * fresh()
    return x.detach()


@pytest.mark.parametrize(
    ("make", "scale", "through", "repeats"),
    [
        (lambda scale: freedom_guide(eye, Towards(TARGET), Options(scale, end=0.9, normalise=False)), 0.5, True, REPEATS),
        (lambda scale: mpgd_guide(eye, Towards(TARGET), Options(scale, end=0.9)), 0.05, False, 1),
    ],
    ids=["freedom", "mpgd"],
)  # fmt: skip
def test_guides_are_those_of_the_papers(
    make: Callable[[float], Guide], scale: float, through: bool, repeats: int
) -> None:
    start = random(1, 4, SIDE, SIDE, seed=1) * SIGMAS[0]
    ours = make(scale).sample(euler, denoise, start, SIGMAS, seeds=[SEED])
    theirs = by_the_book(start, scale, through=through, repeats=repeats)
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)
    unguided = by_the_book(start, 0.0, through=through, repeats=repeats)
    assert float((theirs - unguided).abs().max()) > 0.01


def test_fresh_noise_is_not_the_first_noise_again() -> None:
    """What a seed has drawn already would be added to itself."""
    run = mpgd_guide(eye, Towards(TARGET)).begin(2, seeds=[SEED, SEED + 1])
    first = seeded_noise((4, SIDE, SIDE), [SEED, SEED + 1])
    fresh = run.noise(first)
    assert float((fresh * first).mean().abs()) < 0.3 and not torch.equal(fresh, first)
