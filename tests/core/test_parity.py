"""`identiface parity` meets the released values at every size, and notices when it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from identiface_core.cli.released import parity
from identiface_core.diffusion.control import Control, ControlBranch
from identiface_core.diffusion.parity import TOLERANCE, differences, load_pair, read_reference
from identiface_core.diffusion.transformer import forward_controlled
from identiface_core.errors import InputError, WeightsError
from identiface_core.weights.released import import_control
from tests.core import official

REFERENCE = official.REFERENCE
WEIGHTS = REFERENCE / "identiface-tiny-weights.safetensors"
UNIT = {"pos_embed_base_size": "8", "lewei_scale": "2.0"}


def figures(capsys, weights: Path, case: Path, code: int = 0) -> dict[str, float]:
    assert parity(weights, case, json=True) == code
    return json.loads(capsys.readouterr().out)


def test_the_small_reference(capsys) -> None:
    found = figures(capsys, WEIGHTS, REFERENCE / "identiface-tiny-16x16.safetensors")
    assert max(found.values()) <= TOLERANCE == 1e-4
    assert found.keys() == {
        "fused",
        "fused, LQ missing",
        "controlled",
        "base",
        "controlled, LQ missing",
        "controlled, no mask",
        "noise",
        "both halves",
        "guided",
        "positions",
    }


def test_the_large_reference_has_its_own_positions(capsys, tmp_path: Path) -> None:
    path = REFERENCE / "identiface-tiny-64x64.safetensors"
    found = figures(capsys, WEIGHTS, path)
    assert found.keys() == {"fused", "fused, LQ missing", "controlled", "base"}
    assert max(found.values()) <= TOLERANCE
    save_file(load_file(path), tmp_path / "other.safetensors", UNIT)
    wrong = figures(capsys, WEIGHTS, tmp_path / "other.safetensors", code=1)
    assert wrong["fused"] <= TOLERANCE < 0.01 < wrong["controlled"], "another unit is another picture"


def other_size(path: Path, rows: int, columns: int, *, mask: bool = True) -> dict[str, Tensor]:
    """Inputs of another size and batch, and what the plain networks, proved above, make of them."""
    g = torch.Generator().manual_seed(3)
    values = {
        f"in.{name}": torch.randn(3, 4, rows, columns, generator=g) for name in ("x", "c_sketch", "c_lq")
    }
    values |= {
        "in.timestep": torch.tensor([999.0, 500.5, 3.0]),
        "in.y": torch.randn(3, 1, 12, 32, generator=g),
        "in.img_hw": torch.tensor([[1024.0, 768.0]]).repeat(3, 1),
        "in.aspect_ratio": torch.tensor([[1024 / 768]]).repeat(3, 1),
    }
    if mask:
        values["in.mask"] = (torch.arange(12) < torch.tensor([[12], [5], [1]])).float()[:, None, None]
    save_file({**values, "out.out_base": torch.zeros(1)}, path, UNIT)
    base, branch = load_pair(WEIGHTS, read_reference(path))
    with torch.no_grad():
        fused = branch.freq_fusion(values["in.c_sketch"], values["in.c_lq"])
        arguments = values["in.x"], values["in.timestep"], values["in.y"][:, 0]
        options = {"added": {"resolution": values["in.img_hw"], "aspect_ratio": values["in.aspect_ratio"]}}
        options |= {"context_mask": values["in.mask"][:, 0, 0]} if mask else {}
        values["out.fused_control_latent"] = fused
        values["out.out_control"] = forward_controlled(base, *arguments, Control(branch, fused), **options)
        values["out.out_base"] = forward_controlled(base, *arguments, **options)
    return values


@pytest.mark.parametrize(("rows", "columns"), [(12, 20), (20, 12), (4, 4), (34, 30)])
def test_any_size(capsys, tmp_path: Path, rows: int, columns: int) -> None:
    path = tmp_path / "case.safetensors"
    values = other_size(path, rows, columns, mask=rows != 4)
    save_file(values, path, UNIT)
    found = figures(capsys, WEIGHTS, path)
    assert found.keys() == {"fused", "controlled", "base"} and max(found.values()) == 0
    values["out.out_control"][2, 7, rows - 1, columns - 1] += 2e-4
    save_file(values, path, UNIT)
    assert figures(capsys, WEIGHTS, path, code=1)["controlled"] == pytest.approx(2e-4, rel=0.01)
    values["out.out_control"][0, 0, 0, 0] = float("nan")
    save_file(values, path, UNIT)
    assert figures(capsys, WEIGHTS, path, code=1)["controlled"] is None


def test_positions_of_a_size_that_is_not_square(tmp_path: Path) -> None:
    from tests.core.test_pixart import by_hand

    path = tmp_path / "case.safetensors"
    values = other_size(path, 12, 20)
    save_file({**values, "out.pos_embed": by_hand(48, 6, 10, 8, 2.0)}, path, UNIT)
    reference = read_reference(path)
    assert differences(reference, *load_pair(WEIGHTS, reference))["positions"] < 1e-5


@pytest.mark.parametrize("half", [False, True])
def test_an_imported_control_on_the_base_beside_the_case(capsys, tmp_path: Path, half: bool) -> None:
    with safe_open(REFERENCE / "identiface-tiny-64x64.safetensors", "pt") as stream:
        metadata = stream.metadata()
    assert metadata["weights"] == WEIGHTS.name
    import_control(WEIGHTS, tmp_path / "control.safetensors", half=half)
    case = REFERENCE / "identiface-tiny-64x64.safetensors"
    found = figures(capsys, tmp_path / "control.safetensors", case, code=int(half))
    assert found.keys() == {"fused", "fused, LQ missing", "controlled", "base"}
    assert found["base"] <= TOLERANCE and (found["controlled"] > TOLERANCE) == half
    assert found["controlled"] < 0.02
    (tmp_path / "case.safetensors").write_bytes(case.read_bytes())
    alone = figures(capsys, tmp_path / "control.safetensors", tmp_path / "case.safetensors", code=int(half))
    assert alone.keys() == {"fused", "fused, LQ missing"}
    assert parity(tmp_path / "control.safetensors", tmp_path / "case.safetensors", json=False) == int(half)
    assert "only the fusion was compared" in capsys.readouterr().out


def test_a_checkpoint_does_as_well(capsys, tmp_path: Path) -> None:
    official.save(tmp_path / "latest.pth", load_file(WEIGHTS))
    (tmp_path / "MANIFEST.json").write_bytes((REFERENCE / "MANIFEST.json").read_bytes())
    found = figures(capsys, tmp_path / "latest.pth", REFERENCE / "identiface-tiny-16x16.safetensors")
    assert max(found.values()) <= TOLERANCE
    (tmp_path / "MANIFEST.json").unlink()
    with pytest.raises(WeightsError, match="how many heads"):
        parity(tmp_path / "latest.pth", REFERENCE / "identiface-tiny-16x16.safetensors")


def test_wrong_weights_are_far_off(capsys, tmp_path: Path) -> None:
    weights = load_file(WEIGHTS)
    weights["controlnet.1.after_proj.bias"] += 1
    save_file(weights, tmp_path / "weights.safetensors", {"config": '{"hidden_size": 48, "num_heads": 4}'})
    case = tmp_path / "case.safetensors"
    save_file(load_file(REFERENCE / "identiface-tiny-16x16.safetensors"), case, UNIT)
    found = figures(capsys, tmp_path / "weights.safetensors", case, code=1)
    assert found["base"] <= TOLERANCE < 0.1 < found["controlled"] and found["fused"] <= TOLERANCE
    assert parity(tmp_path / "weights.safetensors", case) == 1
    said = capsys.readouterr().out
    assert "NO" in said and "yes" in said and "controlled, LQ missing" in said


def test_cases_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "case.safetensors"
    with pytest.raises(WeightsError, match="no such file"):
        parity(WEIGHTS, path)
    values = other_size(path, 4, 4)
    for change, message in (
        ({"in.c_lq": None}, "'in.c_lq' is missing"),
        ({"in.img_hw": None}, "'in.img_hw' is missing"),
        ({"out.out_base": torch.zeros(3, 8, 4, 6)}, r"\(3, 8, 4, 6\), the network gives \(3, 8, 4, 4\)"),
    ):
        changed = {k: v for k, v in {**values, **change}.items() if v is not None}
        save_file(changed, path, UNIT)
        with pytest.raises(InputError, match=message):
            parity(WEIGHTS, path)
    save_file(official.below(values, "in.", "in."), path, UNIT)
    with pytest.raises(InputError, match=r"none of the outputs out.fused_control_latent, .* in it"):
        parity(WEIGHTS, path)
    for text in ("", "none", "-8", "nan"):
        save_file(values, path, {**UNIT, "pos_embed_base_size": text})
        with pytest.raises(InputError, match="pos_embed_base_size"):
            parity(WEIGHTS, path)


def test_our_own_control_has_no_reference_but_its_fusion_can_be_compared(tmp_path: Path) -> None:
    from identiface_core.weights.files import save_module

    save_module(tmp_path / "own", ControlBranch(copies=1, heads=2, head_width=8, context_width=16))
    reference = read_reference(REFERENCE / "identiface-tiny-16x16.safetensors")
    base, branch = load_pair(tmp_path / "own", reference)
    assert base is None and differences(reference, base, branch)["fused"] > TOLERANCE
