"""The control branch for Stable Diffusion: no effect at first, bounded effect later, on U-Nets of any of its sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from torch import Tensor

from identiface_core.diffusion.stable import (
    LatentControl,
    StableControl,
    forward_controlled_unet,
)
from identiface_core.errors import InputError
from identiface_core.weights.files import load_module, save_module
from identiface_core.weights.recognise import recognise
from identiface_core.weights.stream import load_stream
from tests.core.stable_fakes import awake, tiny_unet


def latents(count: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def call(control: LatentControl | None, unet: Any = None, x: Tensor | None = None, t: float = 500) -> Tensor:
    x = latents() if x is None else x
    words = torch.randn(len(x), 5, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return forward_controlled_unet(unet or tiny_unet(), x, torch.full((len(x),), t), words, control)


@pytest.fixture(scope="module")
def control() -> StableControl:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return awake(StableControl.from_unet(tiny_unet())).eval()


def both(control: StableControl, **more: Any) -> LatentControl:
    return LatentControl.of(control, latents(1, 7), latents(1, 8), **more)


def test_a_fresh_branch_changes_nothing_to_the_last_bit() -> None:
    fresh = StableControl.from_unet(tiny_unet())
    x, t = latents(), torch.full((2,), 500.0)
    words = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = tiny_unet()(x, t, words).sample
    assert torch.equal(call(None), plain)
    assert torch.equal(call(both(fresh)), plain)


def test_it_starts_as_a_copy_of_the_encoder_under_diffusers_names() -> None:
    unet = tiny_unet()
    fresh = StableControl.from_unet(unet)
    theirs = ControlNetModel.from_unet(unet).state_dict()
    mine = {
        name: tensor for name, tensor in fresh.controlnet.state_dict().items() if "cond_embedding" not in name
    }
    assert mine.keys() == {name for name in theirs if "cond_embedding" not in name}
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def test_strength_zero_and_outside_of_the_window_is_the_plain_forward(control: StableControl) -> None:
    plain = call(None)
    assert (call(both(control)) - plain).abs().max() > 1e-3
    assert torch.equal(call(both(control, strength=0.0)), plain)
    assert torch.equal(call(both(control, end=0.3)), plain)
    assert torch.equal(call(both(control, start=0.6)), plain)
    assert torch.equal(call(both(control, start=0.4, end=0.6)), call(both(control)))


def test_residuals_grow_with_strength(control: StableControl) -> None:
    words, t = torch.zeros(2, 5, 64), torch.full((2,), 500.0)
    with torch.no_grad():
        full = both(control).residuals(latents(), t, words)
        half = both(control, strength=0.5).residuals(latents(), t, words)
    assert full is not None and half is not None
    for one, other in zip([*full[0], full[1]], [*half[0], half[1]], strict=True):
        assert torch.allclose(one * 0.5, other, atol=1e-7) and one.abs().max() > 1e-4


def test_every_clue_counts_and_what_is_missing_is_bypassed(control: StableControl) -> None:
    sketch, lq = latents(1, 7), latents(1, 8)
    found = [
        call(LatentControl.of(control, *given))
        for given in ((sketch, lq), (sketch, None), (None, lq), (lq, None))
    ]
    for place, one in enumerate(found):
        assert all((one - other).abs().max() > 1e-4 for other in found[place + 1 :])
    with pytest.raises(InputError, match="neither"):
        LatentControl.of(control, None, None)


def test_a_sample_with_neither_clue_is_not_steered(control: StableControl) -> None:
    """And each sample of a batch has what it would have alone, also under guidance, which repeats the batch."""
    flags = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    mixed = LatentControl(control, latents(2, 7), flags)
    made, plain = call(mixed), call(None)
    assert torch.equal(made[1], plain[1]) or (made[1] - plain[1]).abs().max() < 1e-6
    alone = LatentControl(control, latents(2, 7)[:1], flags[:1])
    x = latents()
    words = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first = forward_controlled_unet(tiny_unet(), x[:1], torch.full((1,), 500.0), words[:1], alone)
    assert (made[:1] - first).abs().max() < 1e-5
    doubled = call(mixed, x=latents().repeat(2, 1, 1, 1))
    assert doubled.shape[0] == 4
    with pytest.raises(InputError, match="2 latents do not fit a batch of 3"):
        call(mixed, x=latents(3))


def test_gradient_reaches_fusion_and_branch_only() -> None:
    unet = tiny_unet()
    branch = awake(StableControl.from_unet(unet))
    made = forward_controlled_unet(
        unet, latents(), torch.tensor([10, 900]), torch.randn(2, 5, 64), both(branch)
    )
    made.square().mean().backward()
    assert all(parameter.grad is None for parameter in unet.parameters())
    silent = [name for name, one in branch.named_parameters() if one.grad is None or not one.grad.any()]
    assert silent == []


def test_gradient_checkpointing_changes_no_gradient() -> None:
    found: list[Tensor] = []
    unet = tiny_unet()
    branch = awake(StableControl.from_unet(unet)).train()
    for on in (False, True):
        branch.gradient_checkpointing(on)
        branch.zero_grad()
        made = forward_controlled_unet(
            unet, latents(), torch.tensor([10, 900]), torch.ones(2, 5, 64), both(branch)
        )
        made.square().mean().backward()
        assert branch.freq_fusion.k.grad is not None
        found.append(branch.freq_fusion.k.grad.clone())
    assert found[0].any() and torch.allclose(*found)


def test_file_round_trip(control: StableControl, tmp_path: Path) -> None:
    save_module(tmp_path / "x.safetensors", control, half=False, extra={"origin": "trained"})
    for loaded in (
        load_module(tmp_path / "x.safetensors", StableControl),
        load_stream(tmp_path / "x.safetensors", StableControl),
    ):
        assert torch.equal(call(both(loaded)), call(both(control)))
    found = recognise(tmp_path / "x.safetensors")
    assert found.kind == "stable-control" and found.facts["context_width"] == 64
    assert found.title == "an IdentiFace control for Stable Diffusion"


def test_other_shapes_of_the_family() -> None:
    """SDXL's: linear projections, several transformers per level, sizes as a vector. An inpainting U-Net's nine channels."""
    shape: dict[str, Any] = {
        "use_linear_projection": True,
        "transformer_layers_per_block": [1, 2],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "attention_head_dim": [1, 2],
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 6 * 256 + 32,
    }
    unet = tiny_unet(**shape)
    branch = awake(StableControl.from_unet(unet)).eval()
    added = {"text_embeds": torch.zeros(2, 32), "time_ids": torch.full((2, 6), 512.0)}
    given = (unet, latents(), torch.full((2,), 500.0), torch.ones(2, 5, 64))
    with torch.no_grad():
        plain = forward_controlled_unet(*given, added=added)
        made = forward_controlled_unet(*given, both(branch), added=added)
    assert (made - plain).abs().max() > 1e-4

    inpainting = tiny_unet(in_channels=9)
    branch = awake(StableControl.from_unet(inpainting)).eval()
    assert branch.config["channels"] == 4
    x = torch.cat([latents(), torch.zeros(2, 5, 8, 8)], dim=1)
    assert (call(both(branch), inpainting, x) - call(None, inpainting, x)).abs().max() > 1e-4


def test_unets_of_other_families_are_refused() -> None:
    unet = tiny_unet(down_block_types=["AttnDownBlock2D", "DownBlock2D"], class_embed_type="timestep")
    with pytest.raises(InputError, match="AttnDownBlock2D, condition timestep"):
        StableControl.from_unet(unet)


def test_the_default_is_stable_diffusions_shape() -> None:
    with torch.device("meta"):
        branch = StableControl()
    assert round(sum(one.numel() for one in branch.parameters()) / 1e6) == 360
    assert len(branch.controlnet.controlnet_down_blocks) == 12
