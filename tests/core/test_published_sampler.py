"""The published sampler gives the published latents, masked rounds and all, on a noise predictor known in closed form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from identiface_core.diffusion.published import (
    guided,
    null_text,
    published,
    published_sigmas,
    sigma_at,
    timestep_at,
    timesteps,
    trajectory,
)
from identiface_core.diffusion.sampling import SAMPLERS, dpmpp_2m, sampler_named
from identiface_core.errors import InputError

REFERENCE = Path(__file__).parent / "data" / "reference" / "sampler-analytic-reference.safetensors"
CLOSE = {"atol": 1e-3, "rtol": 0.0}


@pytest.fixture(scope="module")
def values() -> dict[str, Tensor]:
    return load_file(REFERENCE)


def denoiser(values: dict[str, Tensor], condition: str):
    """Guidance at 4.5 of the exact noise of data N(condition, 0.5^2), through `guided`: conditions travel as text."""
    shape = values["mu_uncond"].shape[1:]

    def predict(x: Tensor, times: Tensor, text: Tensor) -> Tensor:
        sigma = sigma_at(times).float().view(-1, 1, 1, 1)
        alpha = (1 + sigma.square()).rsqrt()
        sigma = sigma * alpha
        noise = sigma * (x - alpha * text[:, 0].view(-1, *shape)) / (0.25 * alpha.square() + sigma.square())
        return torch.cat(
            [noise, torch.full_like(noise, 9.0)], dim=1
        )  # the learned variance, which is not read

    table = values["mu_uncond"].reshape(1, -1).expand(3, -1)
    return guided(predict, values[condition].reshape(1, 1, -1), table)


def test_noise_levels_are_the_released_ones(values: dict[str, Tensor]) -> None:
    sigmas = published_sigmas()
    torch.testing.assert_close(sigmas, values["sigmas_k_diffusion"], atol=1e-4, rtol=1e-4)
    assert (sigmas[0].item(), sigmas[-1].item()) == pytest.approx((157.407, 0.010001), rel=1e-4)
    assert timesteps()[:3].tolist() == pytest.approx([999, 949.05, 899.1]) and timesteps()[-1] == 0
    times = torch.tensor([0.0, 0.5, 17.25, 998.5, 999.0])
    torch.testing.assert_close(timestep_at(sigma_at(times)), times.double(), atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="at least 1 step, got 0"):
        published_sigmas(0)


@pytest.mark.parametrize(("name", "steps"), [("round0", 20), ("round0_8steps", 8)])
def test_the_published_latents(values: dict[str, Tensor], name: str, steps: int) -> None:
    made = trajectory(denoiser(values, "mu_round0"), values[f"{name}.z"], steps=steps)
    torch.testing.assert_close(made[:, 0], values[f"{name}.intermediates"], **CLOSE)
    torch.testing.assert_close(made[-1], values[f"{name}.final"], **CLOSE)
    sigmas = published_sigmas(steps)
    start = values[f"{name}.z"] * (1 + sigmas[0].square()).sqrt()
    last = sampler_named("published")(denoiser(values, "mu_round0"), start, sigmas)
    torch.testing.assert_close(last / (1 + sigmas[-1].square()).sqrt(), made[-1], atol=1e-6, rtol=0)


def test_the_last_of_few_steps_is_first_order(values: dict[str, Tensor]) -> None:
    for steps, same in ((9, False), (10, True)):
        sigmas = published_sigmas(steps)
        start, denoise = values["round0.z"] * sigmas[0], denoiser(values, "mu_round0")
        ours = dpmpp_2m(denoise, start, sigmas)
        assert torch.allclose(published(denoise, start, sigmas), ours, atol=1e-5) == same
    to_zero = torch.cat([published_sigmas(12), torch.zeros(1)])
    assert torch.isfinite(published(denoiser(values, "mu_round0"), values["round0.z"], to_zero)).all()


def test_the_published_masked_round(values: dict[str, Tensor]) -> None:
    before = values["round0.intermediates"][:, None]
    mask = values["latent_mask"]
    made = trajectory(denoiser(values, "mu_round1"), values["round1.z"], before=before, mask=mask)
    torch.testing.assert_close(made[:, 0], values["round1.intermediates"], **CLOSE)
    torch.testing.assert_close(made[-1], values["round1.final"], **CLOSE)
    kept = (mask == 0).expand_as(made)
    assert kept.any() and torch.equal(made[kept], before[kept]), "exactly, in every step"
    assert (made - before)[(mask == 1).expand_as(made)].abs().min() > 0


def test_the_first_prediction_sees_noise_everywhere(values: dict[str, Tensor]) -> None:
    seen = []
    inner = denoiser(values, "mu_round1")

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(x / (1 + sigma.square()).sqrt())
        return inner(x, sigma)

    before, mask = values["round0.intermediates"][:, None], values["latent_mask"]
    trajectory(denoise, values["round1.z"], before=before, mask=mask)
    assert len(seen) == 20
    torch.testing.assert_close(seen[0], values["round1.z"], atol=1e-5, rtol=0)
    outside = (mask == 0).expand_as(seen[1])
    torch.testing.assert_close(seen[1][outside], before[1][outside], atol=1e-5, rtol=0)


def test_a_batch_is_its_samples(values: dict[str, Tensor]) -> None:
    z = torch.cat([values["round0.z"], values["round1.z"]])
    inner = denoiser(values, "mu_round0")

    def each(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([inner(one[None], sigma) for one in x])

    both = trajectory(each, z)
    mask = values["latent_mask"].expand(2, -1, -1, -1)
    torch.testing.assert_close(both[:, :1], trajectory(inner, values["round0.z"]), atol=1e-5, rtol=0)
    again = trajectory(each, z, before=both, mask=torch.cat([mask[:1], torch.zeros_like(mask[:1])]))
    assert torch.equal(again[:, 1], both[:, 1]), "nothing to make anew: the face before it"


def test_rounds_that_do_not_fit_are_refused(values: dict[str, Tensor]) -> None:
    denoise, z, mask = denoiser(values, "mu_round0"), values["round0.z"], values["latent_mask"]
    with pytest.raises(InputError, match="both the trajectory of the round before and the mask"):
        trajectory(denoise, z, mask=mask)
    with pytest.raises(InputError, match=r"8 steps needs the 9 latents .* got \(21, 1, 4, 16, 16\)"):
        trajectory(denoise, z, steps=8, before=values["round0.intermediates"][:, None], mask=mask)


def test_no_words_are_the_first_rows_of_the_learned_table() -> None:
    table, words = torch.randn(12, 5), torch.randn(2, 7, 5)
    asked = []

    def predict(x: Tensor, times: Tensor, text: Tensor) -> Tensor:
        asked.append((x, times, text))
        return text.mean(dim=(1, 2)).view(-1, 1, 1, 1).expand_as(x)

    x, sigma = torch.randn(2, 4, 3, 3), torch.tensor(2.0)
    out = guided(predict, words, table, scale=3.0)(x, sigma)
    (seen, times, text), *_ = asked
    assert len(asked) == 1, "both halves in one call"
    assert torch.equal(text[:2], table[:7].expand(2, -1, -1)) and torch.equal(text[2:], words)
    torch.testing.assert_close(seen, (x / 5**0.5).repeat(2, 1, 1, 1))
    assert times.shape == (4,) and times.unique().item() == pytest.approx(float(timestep_at(sigma)), rel=1e-6)
    without, with_words = table[:7].mean(), words.mean(dim=(1, 2)).view(-1, 1, 1, 1)
    torch.testing.assert_close(out, x - 2 * (without + 3 * (with_words - without)))
    with pytest.raises(InputError, match="null text has 12 tokens, the prompt 13"):
        null_text(table, 13)


def test_it_is_an_option_by_name() -> None:
    assert SAMPLERS["published"] is published
    steps = []
    x = torch.randn(1, 1, 2, 2)
    published(
        lambda x, sigma: x * 0, x, published_sigmas(3), lambda i, n, seen: steps.append((i, n, seen.shape))
    )
    assert steps == [(i, 3, x.shape) for i in (1, 2, 3)]
