"""The autoencoder: sizes, standardised latents, its linear start, and a training that improves it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from identiface_core.diffusion.autoencoder import Autoencoder
from identiface_core.errors import InputError
from identiface_core.training.autoencoder import PART_WEIGHTS, AutoencoderStage, part_weights, psnr
from identiface_core.training.loop import run_stage
from identiface_core.weights.files import load_module, save_module


def blobs(count: int, seed: int, side: int = 128) -> torch.Tensor:
    """Smooth coloured pictures, which 8 x 8 patches of few components can carry."""
    coarse = torch.rand(count, 3, 10, 10, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=side, mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="module")
def fresh() -> Autoencoder:
    torch.manual_seed(0)
    net = Autoencoder(widths=(8, 16, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1)).eval()
    net.start_from_patches(blobs(8, 0))
    return net


@torch.no_grad()
def test_any_multiple_of_eight(fresh):
    for height, width in ((128, 128), (8, 8), (40, 24)):
        latents = fresh.encode(torch.rand(2, 3, height, width))
        assert latents.shape == (2, 4, height // 8, width // 8)
        image = fresh.decode(latents)
        assert image.shape == (2, 3, height, width)
        assert image.min() >= 0 and image.max() <= 1
    sketch = torch.rand(1, 1, 16, 16)
    assert torch.equal(fresh.encode(sketch), fresh.encode(sketch.expand(-1, 3, -1, -1)))
    with pytest.raises(InputError, match="multiples of 8, not 100 x 128"):
        fresh.encode(torch.rand(1, 3, 128, 100))
    with pytest.raises(InputError, match=r"\(1, 4, 16, 16\)"):
        fresh.encode(torch.rand(1, 4, 16, 16))


@torch.no_grad()
def test_starts_as_whitened_principal_components(fresh):
    images = blobs(8, 0)
    raw = fresh.encode_raw(images)
    deviation, mean = torch.std_mean(raw, dim=(0, 2, 3))
    assert mean.abs().max() < 1e-3 and (deviation - 1).abs().max() < 1e-2
    assert psnr(fresh(images), images) > 20
    plain = Autoencoder(widths=(8, 16, 16))
    assert psnr(plain(images), images) < 15


@torch.no_grad()
def test_standardised(fresh, tmp_path):
    net = Autoencoder(**fresh.config)
    net.load_state_dict(fresh.state_dict())
    net.latent_mean.copy_(torch.tensor([0.5, -1.0, 0.0, 2.0]))
    net.latent_std.copy_(torch.tensor([2.0, 0.5, 1.0, 3.0]))
    images = blobs(4, 1)
    raw, latents = net.encode_raw(images), net.encode(images)
    torch.testing.assert_close(latents * net.latent_std[:, None, None] + net.latent_mean[:, None, None], raw)
    torch.testing.assert_close(net(images), fresh(images), atol=1e-5, rtol=0)
    save_module(tmp_path / "autoencoder.safetensors", net)
    again = load_module(tmp_path / "autoencoder.safetensors", Autoencoder)
    torch.testing.assert_close(again.encode(images), latents, atol=0.02, rtol=0)


@torch.no_grad()
def test_batch_of_one_is_an_item_of_a_batch(fresh):
    images = blobs(3, 2)
    torch.testing.assert_close(fresh.encode(images)[1:2], fresh.encode(images[1:2]), atol=1e-5, rtol=0)


def little_world(people: int) -> SimpleNamespace:
    """What the stage reads of a world, without drawing one."""

    def pictures(count: int, seed: int) -> np.ndarray:
        return (blobs(count, seed) * 255).to(torch.uint8).numpy()

    labels = torch.randint(9, (people, 128, 128), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    return SimpleNamespace(
        people=people,
        info=SimpleNamespace(views=1, sketches=1),
        canonical=pictures(people, 1),
        canonical_labels=labels.numpy(),
        views=pictures(people, 2)[:, None],
        view_labels=labels.numpy()[:, None],
        sketches=pictures(people, 4)[:, None, 0],
    )


def test_stage_learns_and_resumes(tmp_path):
    world = little_world(12)

    def stage_of_little_net() -> AutoencoderStage:
        torch.manual_seed(0)
        net = Autoencoder(widths=(8, 16, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1))
        return AutoencoderStage(world, steps=12, batch=4, seed=5, net=net)

    stage = stage_of_little_net()
    start = stage.validate()["portrait_psnr"]
    outcome = run_stage(stage, tmp_path / "a", log_every=4)
    assert outcome.validation["portrait_psnr"] > start
    assert stage.net.latent_std.sub(1).abs().max() > 1e-4, "the constants follow the training"

    half = stage_of_little_net()

    class Stopped(Exception):
        pass

    def stop(step, fraction, values):
        if step == 8:
            raise Stopped

    with pytest.raises(Stopped):
        run_stage(half, tmp_path / "b", log_every=4, checkpoint_every_s=0, progress=stop)
    resumed = stage_of_little_net()
    run_stage(resumed, tmp_path / "b", log_every=4)
    for name, value in stage.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name


def test_small_parts_weigh_more():
    labels = torch.zeros(1, 16, 16, dtype=torch.uint8)
    labels[0, 8, 8] = 1  # eyes
    weights = part_weights(labels)
    assert weights.shape == (1, 1, 16, 16)
    assert (
        weights[0, 0, 8, 8] == weights[0, 0, 10, 6] == 1 + PART_WEIGHTS["eyes"] and weights[0, 0, 0, 0] == 1
    )
