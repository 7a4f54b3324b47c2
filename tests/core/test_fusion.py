"""Frequency fusion agrees with the released code's values, and missing inputs do what they say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from identiface_core.diffusion.fusion import (
    FrequencyFusion,
    cutoff_for_side,
    fuse_frequencies,
    low_mask,
    radius_map,
)
from identiface_core.errors import InputError

REFERENCE = Path(__file__).parent / "data" / "reference"
CLOSE = {"atol": 1e-5, "rtol": 0.0}


@pytest.fixture(scope="module")
def masks() -> dict[str, Tensor]:
    return load_file(REFERENCE / "frequency-masks.safetensors")


@pytest.fixture(scope="module")
def released() -> tuple[FrequencyFusion, dict[str, Tensor]]:
    weights = load_file(REFERENCE / "identiface-tiny-weights.safetensors")
    fusion = FrequencyFusion()
    fusion.load_state_dict(
        {k[len("freq_fusion.") :]: v for k, v in weights.items() if k.startswith("freq_fusion.")}
    )
    return fusion, load_file(REFERENCE / "identiface-tiny-16x16.safetensors")


@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_radius(masks, size):
    torch.testing.assert_close(radius_map(*size), masks[f"radius.{size[0]}x{size[1]}"], **CLOSE)


def test_radius_of_one_cell():
    assert radius_map(1, 1).tolist() == [[0.0]]


def test_masks(masks):
    names = [name for name in masks if name.startswith("m_low.16x16.")]
    assert len(names) == 7
    for name in names:
        cutoff, steepness = (float(x) for x in name.split("r0_")[1].split(".k_"))
        torch.testing.assert_close(low_mask(radius_map(16, 16), cutoff, steepness), masks[name], **CLOSE)


def test_default_start(masks):
    fusion = FrequencyFusion()
    torch.testing.assert_close(fusion.r0_logit.data, masks["default_init.r0_logit"], **CLOSE)
    fused = fusion(masks["default_init.c_sketch"], masks["default_init.c_lq"])
    torch.testing.assert_close(fused, masks["default_init.fused"], **CLOSE)


def test_released_values(released):
    fusion, values = released
    assert float(fusion.k.detach().max()) > 80, "the clamp must act"
    torch.testing.assert_close(
        fusion(values["in.c_sketch"], values["in.c_lq"]), values["out.fused_control_latent"], **CLOSE
    )
    without = fusion(values["in.c_sketch"], None, missing="zeros")
    torch.testing.assert_close(without, values["out.fused_control_latent_c2_missing"], **CLOSE)


def test_missing_inputs_pass_unfused(released):
    fusion, values = released
    sketch, lq = values["in.c_sketch"], values["in.c_lq"]
    assert torch.equal(fusion(sketch, None), sketch)
    assert torch.equal(fusion(None, lq), lq)
    with pytest.raises(InputError, match="neither"):
        fusion(None, None)
    with pytest.raises(InputError, match="'bypass' or 'zeros'"):
        fusion(sketch, None, missing="skip")
    with pytest.raises(InputError, match="one shape"):
        fusion(sketch, lq[..., :8])


def test_each_sample_has_its_own_missing_inputs(released):
    fusion, values = released
    sketch, lq = values["in.c_sketch"].repeat(2, 1, 1, 1), values["in.c_lq"].repeat(2, 1, 1, 1)
    fused = fusion.fuse_present(sketch, lq, [True, True, False, False], [True, False, True, False])
    torch.testing.assert_close(fused[:1], fusion(sketch[:1], lq[:1]))
    assert torch.equal(fused[1], sketch[1])
    assert torch.equal(fused[2], lq[2])
    assert not fused[3].any()


def test_waves_go_where_they_belong():
    x = torch.arange(16) * 2 * math.pi / 16
    slow, fast = torch.cos(x).expand(1, 1, 16, 16), torch.cos(7 * x).expand(1, 1, 16, 16)
    mask = low_mask(radius_map(16, 16), 0.25, 80.0)
    both = slow + fast
    torch.testing.assert_close(fuse_frequencies(torch.zeros_like(both), both, mask), slow, atol=1e-3, rtol=0)
    torch.testing.assert_close(fuse_frequencies(both, torch.zeros_like(both), mask), fast, atol=1e-3, rtol=0)


def test_half_precision_goes_through_float32(released):
    fusion, values = released
    mask = fusion.low_mask(16, 16)
    sketch, lq = values["in.c_sketch"], values["in.c_lq"]
    half = fuse_frequencies(sketch.half(), lq.half(), mask)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), fuse_frequencies(sketch, lq, mask), atol=5e-3, rtol=0)


def test_gradients():
    fusion = FrequencyFusion(channels=2, hidden=3).double()
    sketch = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0)).double()

    def fused(r0_logit, k):
        cutoff, steepness = torch.sigmoid(r0_logit)[:, None, None], k[:, None, None]
        return low_mask(radius_map(4, 4).double(), cutoff, steepness)

    logit = torch.tensor([-1.0, 0.5], dtype=torch.float64, requires_grad=True)
    steep = torch.tensor([5.0, 20.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fused, (logit, steep))
    fusion(sketch, sketch.flip(-1)).sum().backward()
    assert fusion.k.grad is not None and fusion.r0_logit.grad is not None


def test_cutoff_follows_the_photo():
    assert cutoff_for_side(8, 128) == pytest.approx(0.5 * math.sqrt(0.5))
    assert cutoff_for_side(16, 128) == cutoff_for_side(64, 128) == pytest.approx(math.sqrt(0.5))
