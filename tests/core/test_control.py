"""The control branch gives the released model's values on reference weights, and nothing at strength 0."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from identiface_core.diffusion.control import Control, ControlBranch
from identiface_core.diffusion.transformer import (
    forward_controlled,
    load_transformer,
    make_transformer,
    save_transformer,
)
from identiface_core.errors import InputError, WeightsError
from identiface_core.weights.pixart import load_pixart
from identiface_core.weights.released import control_of, open_released

REFERENCE = Path(__file__).parent / "data" / "reference"


@pytest.fixture(scope="module")
def official() -> tuple[torch.nn.Module, ControlBranch]:
    """The released architecture, tiny, with reference weights."""
    tensors, _, config = open_released(REFERENCE / "identiface-tiny-weights.safetensors", heads=4)
    base = load_pixart(tensors.below("base_model."), heads=4, base=8, scale=2)
    branch = ControlBranch(**config)
    branch.load_state_dict(dict(control_of(tensors)))
    return base, branch.eval()


@pytest.fixture(scope="module")
def values() -> dict[str, Tensor]:
    return load_file(REFERENCE / "identiface-tiny-16x16.safetensors")


def _run(official, values, latent, *, mask=True, trace=None):
    base, branch = official
    added = {"resolution": values["in.img_hw"], "aspect_ratio": values["in.aspect_ratio"]}
    control = None if latent is None else Control(branch, latent)
    hooks = [] if trace is None else trace(base, branch)
    with torch.no_grad():
        out = forward_controlled(
            base,
            values["in.x"],
            values["in.timestep"],
            values["in.y"][:, 0],
            control,
            context_mask=values["in.mask"][:, 0, 0] if mask else None,
            added=added,
        )
    for hook in hooks:
        hook.remove()
    return out


def test_released_outputs(official, values):
    branch = official[1]
    fused = branch.freq_fusion(values["in.c_sketch"], values["in.c_lq"])
    without_lq = branch.freq_fusion(values["in.c_sketch"], None, missing="zeros")
    close = {"atol": 1e-4, "rtol": 0}
    torch.testing.assert_close(_run(official, values, None), values["out.out_base"], **close)
    torch.testing.assert_close(_run(official, values, fused), values["out.out_control"], **close)
    torch.testing.assert_close(
        _run(official, values, without_lq), values["out.out_control_c2_missing"], **close
    )
    torch.testing.assert_close(
        _run(official, values, fused, mask=False), values["out.out_control_mask_none"], **close
    )
    assert (values["out.out_base"] - values["out.out_control"]).abs().max() > 0.01


def test_released_traces(official, values):
    seen: dict[str, Tensor] = {}

    def keep(name):
        return lambda module, args, out: seen.__setitem__(name, out)

    def trace(base, branch):
        blocks = [
            b.register_forward_hook(keep(f"base_block_out.{i}"))
            for i, b in enumerate(base.transformer_blocks)
        ]
        states = [
            c.copied_block.register_forward_hook(keep(f"control_state.{i}"))
            for i, c in enumerate(branch.controlnet)
        ]
        skips = [
            c.after_proj.register_forward_hook(keep(f"control_skip.{i}"))
            for i, c in enumerate(branch.controlnet)
        ]
        return [*blocks, *states, *skips]

    _run(official, values, values["out.fused_control_latent"], trace=trace)
    expected = {k[len("out.trace.") :]: v for k, v in values.items() if k.startswith("out.trace.")}
    assert seen.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            seen[name], value, atol=1e-4, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_one_control_serves_both_halves_of_guidance(official, values):
    base, branch = official
    latent = branch.freq_fusion(values["in.c_sketch"][:1], values["in.c_lq"][:1])
    added = {
        "resolution": values["in.img_hw"][:1].repeat(2, 1),
        "aspect_ratio": values["in.aspect_ratio"][:1].repeat(2, 1),
    }
    with torch.no_grad():
        out = forward_controlled(
            base,
            values["in.x"][:1].repeat(2, 1, 1, 1),
            values["in.timestep"][:1].repeat(2),
            values["out.cfg.y_uncond_then_cond"][:, 0],
            Control(branch, latent),
            context_mask=values["in.mask"][:1, 0, 0].repeat(2, 1),
            added=added,
        )[:, :4]
    torch.testing.assert_close(out, values["out.cfg.eps_uncond_then_cond"], atol=1e-4, rtol=0)
    guided = out[:1] + 4.5 * (out[1:] - out[:1])
    torch.testing.assert_close(guided, values["out.cfg.eps_guided_4.5"], atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    base = make_transformer(
        num_attention_heads=2, num_layers=3, cross_attention_dim=64, caption_channels=16
    ).eval()
    branch = ControlBranch.copy_of(base, copies=2).eval()
    x, t, context = torch.randn(2, 4, 16, 16), torch.tensor([700.0, 20.5]), torch.randn(2, 7, 16)
    return base, branch, x, t, context


def _loud(branch):
    loud = ControlBranch(**branch.config)
    with torch.no_grad():
        for parameter in loud.parameters():
            parameter.normal_(std=0.1)
    return loud.eval()


@torch.no_grad()
def test_strength_zero_is_plain_diffusers_to_the_bit(small):
    base, branch, x, t, context = small
    plain = base(x, encoder_hidden_states=context, timestep=t).sample
    latent, surroundings = torch.randn(2, 4, 16, 16), torch.randn(2, 5, 16, 16)
    loud = _loud(branch)
    assert torch.equal(forward_controlled(base, x, t, context), plain)
    assert torch.equal(forward_controlled(base, x, t, context, Control(loud, latent, strength=0.0)), plain)
    assert torch.equal(
        forward_controlled(base, x, t, context, Control(loud, latent, strength=torch.zeros(2, 1, 1))), plain
    )
    assert torch.equal(
        forward_controlled(base, x, t, context, Control(branch, latent, surroundings)), plain
    ), "fresh branch"
    assert not torch.equal(forward_controlled(base, x, t, context, Control(loud, latent)), plain)


@torch.no_grad()
def test_strength_and_flags_are_per_sample(small):
    base, branch, x, t, context = small
    loud, latent, surroundings = _loud(branch), torch.randn(2, 4, 16, 16), torch.randn(2, 5, 16, 16)
    present = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    both = forward_controlled(
        base,
        x,
        t,
        context,
        Control(loud, latent, surroundings, present, strength=torch.tensor([1.0, 0.0]).view(2, 1, 1)),
    )
    first = forward_controlled(
        base, x[:1], t[:1], context[:1], Control(loud, latent[:1], surroundings[:1], present[:1])
    )
    torch.testing.assert_close(both[:1], first)
    assert torch.equal(both[1:], base(x, encoder_hidden_states=context, timestep=t).sample[1:])
    other = forward_controlled(
        base, x[:1], t[:1], context[:1], Control(loud, latent[:1], surroundings[:1], present[1:])
    )
    assert (other - first).abs().max() > 1e-4, "the flags are read"


def test_released_branch_refuses_surroundings(small):
    base, _, _, _, _ = small
    branch = ControlBranch.copy_of(base, copies=1, surroundings=False)
    with pytest.raises(InputError, match="not trained with surroundings"):
        branch.control_tokens(base, torch.zeros(1, 4, 16, 16), torch.zeros(1, 5, 16, 16))
    with pytest.raises(InputError, match="fewer copies"):
        ControlBranch.copy_of(base, copies=3)


def test_window():
    control = Control(None, torch.zeros(1), start=0.2, end=0.6)  # type: ignore[arg-type]
    assert [control.acts_at(t) for t in (999.0, 790.0, 410.0, 390.0, 0.0)] == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_transformer_folder_round_trip(small, tmp_path):
    base, _, x, t, context = small
    save_transformer(base, tmp_path / "transformer")
    assert sorted(p.name for p in (tmp_path / "transformer").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    again = load_transformer(tmp_path / "transformer")
    with torch.no_grad():
        torch.testing.assert_close(
            forward_controlled(again, x, t, context),
            forward_controlled(base, x, t, context),
            atol=1e-2,
            rtol=0,
        )
    with pytest.raises(WeightsError, match="nowhere"):
        load_transformer(tmp_path / "nowhere")
