"""Schedule, samplers and masked blending, proved with a denoiser whose answer is known in closed form."""

from __future__ import annotations

import pytest
import torch

from identiface_core.diffusion import schedule
from identiface_core.diffusion.masking import FEATHER, blend, blend_before, latent_mask, paste, picture_mask
from identiface_core.diffusion.sampling import dpmpp_2m, euler, sampler_named, seeded_noise
from identiface_core.errors import InputError

MEAN, DEVIATION = 0.7, 0.5


def gaussian(x, sigma):
    """The exact denoiser of data drawn from N(MEAN, DEVIATION^2)."""
    return (DEVIATION**2 * x + sigma**2 * MEAN) / (DEVIATION**2 + sigma**2)


def exact(x, sigma):
    """Where the probability flow takes x at sigma, exactly."""
    return MEAN + (x - MEAN) * DEVIATION / (DEVIATION**2 + sigma**2) ** 0.5


def test_schedule_is_stable_diffusions():
    sigmas = schedule.training_sigmas()
    assert len(sigmas) == 1000
    assert pytest.approx(0.0292, abs=1e-4) == schedule.SIGMA_MIN
    assert pytest.approx(14.6146, abs=1e-3) == schedule.SIGMA_MAX
    t = torch.tensor([0.0, 17.5, 500.25, 999.0])
    torch.testing.assert_close(schedule.sigma_to_t(schedule.t_to_sigma(t)), t.double())
    assert schedule.t_to_sigma(torch.tensor(17.0)).item() == pytest.approx(float(sigmas[17]))


def test_velocity_round_trip():
    g = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(3, 4, 8, 8, generator=g), torch.randn(3, 4, 8, 8, generator=g)
    sigma = torch.tensor([0.05, 1.0, 14.0]).view(3, 1, 1, 1)
    v = schedule.velocity(x0, noise, sigma)
    again = schedule.denoised_from_v(x0 + sigma * noise, v, sigma)
    torch.testing.assert_close(again, x0, atol=1e-5, rtol=1e-5)
    scaled = schedule.scale_input(x0 + sigma * noise, sigma)
    assert scaled.std(dim=(1, 2, 3)).sub(1).abs().max() < 0.15


@pytest.mark.parametrize("make", [schedule.uniform_sigmas, schedule.karras_sigmas])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_sigma_lists_fall_to_zero(make, steps):
    sigmas = make(steps)
    assert sigmas.shape == (steps + 1,)
    assert sigmas[-1] == 0 and sigmas[0] == pytest.approx(schedule.SIGMA_MAX, rel=1e-5)
    assert (sigmas.diff() < 0).all()
    with pytest.raises(InputError, match="at least 1 step"):
        make(0)


@pytest.mark.parametrize(("sampler", "steps", "worst"), [(euler, 200, 0.03), (dpmpp_2m, 60, 0.005)])
def test_samplers_reach_the_exact_answer(sampler, steps, worst):
    sigmas = schedule.karras_sigmas(steps, sigma_min=0.01)
    x = sigmas[0] * seeded_noise((4, 4, 4), [1, 2])
    wanted = exact(x, float(sigmas[0]))
    assert (sampler(gaussian, x, sigmas) - wanted).abs().max() < worst


def test_second_order_beats_first():
    sigmas = schedule.karras_sigmas(8)
    x = sigmas[0] * seeded_noise((4, 4, 4), [3])
    errors = [(s(gaussian, x, sigmas) - exact(x, float(sigmas[0]))).abs().max() for s in (dpmpp_2m, euler)]
    assert errors[0] < errors[1] / 2


def test_steps_are_told():
    seen = []
    x = seeded_noise((1, 2, 2), [0])
    dpmpp_2m(
        gaussian, x, schedule.uniform_sigmas(3), lambda i, n, denoised: seen.append((i, n, denoised.shape))
    )
    assert seen == [(i, 3, x.shape) for i in (1, 2, 3)]
    with pytest.raises(InputError, match="dpmpp_2m"):
        sampler_named("magic")


def test_noise_depends_on_its_seed_alone():
    together, alone = seeded_noise((4, 2, 2), [5, 9, 5]), seeded_noise((4, 2, 2), [9])
    assert torch.equal(together[1], alone[0]) and torch.equal(together[0], together[2])
    assert not torch.equal(together[0], together[1])
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    seeded_noise((4, 2, 2), [1])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("sampler", [euler, dpmpp_2m])
def test_masked_rounds_keep_the_known_exactly(sampler):
    sigmas = schedule.uniform_sigmas(6)
    noise, known = seeded_noise((4, 16, 16), [1]), seeded_noise((4, 16, 16), [2])
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:8, 3:9] = 1
    seen = []

    def denoise(x, sigma):
        seen.append((x, sigma))
        return gaussian(x, sigma)

    out = sampler(blend_before(denoise, known, noise, mask), noise * sigmas[0], sigmas)
    outside = (mask == 0).expand_as(out)
    assert torch.equal(out[outside], known[outside])
    assert (out - known)[~outside].abs().min() > 0
    for x, sigma in seen:  # the model sees the known latent, noised, around the mask in every evaluation
        assert torch.equal(x[outside], (known + sigma * noise)[outside])


def test_soft_masks_and_nan_outside():
    new, known = torch.full((1, 1, 2, 2), float("nan")), torch.ones(1, 1, 2, 2)
    mask = torch.tensor([[[[0.0, 0.0], [0.0, 0.0]]]])
    assert torch.equal(blend(new, known, mask), known)
    assert blend(torch.zeros_like(known), known, mask + 0.25).unique().tolist() == [0.75]


def test_cells_and_pasting():
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 40:41, 60:61] = 1
    cells = latent_mask(mask)
    assert cells.sum() == 1 and cells[0, 0, 5, 7] == 1
    cells[..., 5:9, 7:10] = 1
    weights = picture_mask(cells)
    inside = torch.nn.functional.interpolate(cells, scale_factor=8)
    assert not weights[inside == 0].any(), "nothing outside the cells is touched"
    rows, columns = 40 + FEATHER, 56 + FEATHER
    assert (weights[..., rows : 72 - FEATHER, columns : 80 - FEATHER] == 1).all()
    assert 0 < weights[0, 0, 40, 64] < 1
    new, before = torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128)
    pasted = paste(new, before, cells)
    assert torch.equal(pasted[..., :40, :], before[..., :40, :])
    assert torch.equal(paste(new, before, torch.ones_like(cells)), new), (
        "the picture's edge is no edge of the mask"
    )
    with pytest.raises(InputError, match="multiples of 8"):
        latent_mask(torch.zeros(1, 1, 12, 16))
