"""Devices without float64, such as Apple's: nothing but the tables of noise levels, which stay on the CPU, may ask for it."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from identiface_core.diffusion import generator, published, schedule
from identiface_core.diffusion.guidance import denoised, full
from identiface_core.diffusion.guidance.base import Guide
from identiface_core.diffusion.guidance.eyes import DecodedEye
from identiface_core.diffusion.guidance.latent import OPTIONS, latent_guide
from identiface_core.diffusion.guidance.targets import Towards
from identiface_core.embedded import load_embedded
from identiface_core.faces.alignment import canonical_points


class NoDoubles(TorchDispatchMode):
    """Refuses what makes a float64 tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            assert not (isinstance(one, torch.Tensor) and one.dtype == torch.float64), f"{func} gave float64"
        return made


@pytest.fixture
def tables_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise levels and timesteps are worked out unseen, from copies that lie on the CPU."""

    def apart(function: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            with _disable_current_modes():
                return function(*args, **kwargs)

        return called

    monkeypatch.setattr(generator, "sigma_to_t", apart(schedule.sigma_to_t))
    monkeypatch.setattr(generator, "uniform_sigmas", apart(schedule.uniform_sigmas))


@pytest.mark.parametrize("way", ["latent", "decoded", "full"])
def test_guided_sampling_needs_no_float64(way: str, tables_apart: None) -> None:
    model = load_embedded()
    target = Towards(torch.nn.functional.normalize(torch.randn(128), dim=0))
    eye = DecodedEye(model.generator.autoencoder.decode, model.matcher_a.embed)
    guides: dict[str, Guide] = {
        "latent": latent_guide(model.critic, target, OPTIONS.over(2)),
        "decoded": denoised.denoised_guide(eye, target),
        "full": full.FullGuide(eye, target, full.OPTIONS),
    }
    with NoDoubles():
        made = model.generator.sample(["a man"], None, [1], steps=2, guidance_scale=2.0, guide=guides[way])
        points = canonical_points(200)[None] + 3
        vectors = model.matcher_a.embed(torch.rand(1, 3, 200, 200), points)
    assert made.images.isfinite().all() and vectors.isfinite().all()


def test_the_tables_answer_on_the_cpu() -> None:
    class Elsewhere(torch.Tensor):
        """Fails as a device without float64 does."""

        def double(self) -> torch.Tensor:  # type: ignore[override]
            raise TypeError("no float64 here")

        def cpu(self) -> torch.Tensor:  # type: ignore[override]
            return self.as_subclass(torch.Tensor)

    sigma = torch.tensor([0.5, 3.0])
    for there, back in (
        (schedule.sigma_to_t, schedule.t_to_sigma),
        (published.timestep_at, published.sigma_at),
    ):
        t = there(sigma.as_subclass(Elsewhere))
        assert t.device.type == "cpu" and torch.equal(t, there(sigma))
        torch.testing.assert_close(back(t.as_subclass(Elsewhere)).float(), sigma)
