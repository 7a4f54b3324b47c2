"""A user's own PixArt file becomes diffusers' transformer: whoever named its tensors, with the released positions."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from identiface_core.diffusion.positions import position_table
from identiface_core.errors import WeightsError
from identiface_core.weights import pixart
from identiface_core.weights.foreign import in_memory
from identiface_core.weights.names import to_diffusers
from identiface_core.weights.pixart import load_pixart, null_text, shape_of
from tests.core import official

REFERENCE = official.REFERENCE


@pytest.fixture(scope="module")
def base() -> dict[str, Tensor]:
    """The reference base, tiny, under its authors' names."""
    return official.below(load_file(REFERENCE / "identiface-tiny-weights.safetensors"), "base_model.")


def table_of(model, rows: int, columns: int) -> Tensor:
    """The positions that the model adds to a latent of so many tokens: what is left where its patches are zero."""
    with torch.no_grad():
        latent = torch.zeros(1, 4, 2 * rows, 2 * columns)
        return (model.pos_embed(latent) - model.pos_embed.proj(latent).flatten(2).transpose(1, 2))[0]


def by_hand(width: int, rows: int, columns: int, base: int, scale: float) -> Tensor:
    """The published formula, number by number: index / (tokens / base) / scale; column, then row; sines, then cosines."""
    quarter = width // 4
    lines = []
    for row in range(rows):
        for column in range(columns):
            line = []
            for place in (column / (columns / base) / scale, row / (rows / base) / scale):
                angles = [place * 10000 ** (-i / quarter) for i in range(quarter)]
                line += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            lines.append(line)
    return torch.tensor(lines)


@pytest.mark.parametrize("names", ["authors", "wrapped", "comfy", "diffusers"])
def test_every_naming_gives_the_same_network(base: dict[str, Tensor], tmp_path: Path, names: str) -> None:
    prefix = {"wrapped": "base_model.", "comfy": "model.diffusion_model."}.get(names, "")
    tensors = dict(to_diffusers(in_memory(base))) if names == "diffusers" else base
    save_file({prefix + name: t.clone() for name, t in tensors.items()}, tmp_path / "file")
    shape = shape_of({name: tuple(t.shape) for name, t in tensors.items()})
    assert shape is not None and shape.names == ("diffusers" if names == "diffusers" else "authors")
    values = load_file(REFERENCE / "identiface-tiny-16x16.safetensors")
    wanted = values["out.out_base"]
    for model in (
        load_pixart(tmp_path / "file", heads=4, base=8, scale=2),
        load_pixart(tensors, heads=4, base=8, scale=2),
    ):
        assert not model.training and not any(p.requires_grad or p.is_meta for p in model.parameters())
        with torch.no_grad():
            out = model(
                values["in.x"],
                encoder_hidden_states=values["in.y"][:, 0],
                encoder_attention_mask=values["in.mask"][:, 0, 0],
                timestep=values["in.timestep"],
                added_cond_kwargs={
                    "resolution": values["in.img_hw"],
                    "aspect_ratio": values["in.aspect_ratio"],
                },
            ).sample
        torch.testing.assert_close(out, wanted, atol=1e-4, rtol=0)


def test_positions_are_the_released_ones(base: dict[str, Tensor]) -> None:
    close = {"atol": 1e-5, "rtol": 0}
    small = load_pixart(base, heads=4, base=8, scale=2)
    wanted = load_file(REFERENCE / "identiface-tiny-16x16.safetensors")["out.pos_embed"]
    torch.testing.assert_close(small.pos_embed.pos_embed[0], wanted, **close)
    torch.testing.assert_close(by_hand(48, 8, 8, 8, 2.0), wanted, **close)
    large = load_pixart(base, heads=4, base=32, scale=1)
    torch.testing.assert_close(table_of(large, 32, 32), by_hand(48, 32, 32, 32, 1.0), **close)
    for rows, columns in ((6, 10), (10, 6), (8, 3), (1, 16)):
        for model, unit in ((small, (8, 2.0)), (large, (32, 1.0))):
            wanted = by_hand(48, rows, columns, *unit)
            torch.testing.assert_close(table_of(model, rows, columns), wanted, **close)
            ours = position_table(48, rows, columns, base=unit[0], scale=unit[1])
            torch.testing.assert_close(ours, wanted, **close)


def test_what_tensors_cannot_tell_is_looked_up(
    base: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"

    def unit(metadata: dict[str, str] | None = None, **options) -> tuple[int, float, int]:
        save_file(base, path, metadata)
        config = load_pixart(path, **options).config
        return config.sample_size // 2, config.interpolation_scale, config.num_attention_heads

    with pytest.raises(WeightsError, match=r"file: how many heads .* of width 48"):
        unit()
    assert unit(heads=4) == (64, 2, 4), "it reads sizes, so it is one of 1024 px"
    assert unit(heads=4, base=8, scale=2.5) == (8, 2.5, 4)
    (tmp_path / "MANIFEST.json").write_bytes((REFERENCE / "MANIFEST.json").read_bytes())
    assert unit() == (8, 2.0, 4)
    config = {"hidden_size": 48, "num_heads": 6, "input_size": 64, "lewei_scale": 1.5}
    assert unit({"config": json.dumps(config)}) == (32, 1.5, 6), "the file's own word goes before"
    assert unit({"config": json.dumps(config | {"hidden_size": 96})}) == (8, 2.0, 4), "of another network"
    assert unit({"config": "[[["}) == (8, 2.0, 4)
    with pytest.raises(WeightsError, match="a table of 500000 positions a side was asked for, at most 512"):
        unit({"config": json.dumps(config | {"input_size": 10**6})})
    (tmp_path / "MANIFEST.json").write_text("no JSON")
    config = {
        "num_attention_heads": 3,
        "attention_head_dim": 16,
        "sample_size": 64,
        "interpolation_scale": None,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert unit() == (32, 1, 3)
    (tmp_path / "config.json").unlink()
    monkeypatch.setattr(pixart, "XL_WIDTH", 48)
    assert unit() == (64, 2, 16), "PixArt-XL's heads"
    base = {**base, "pos_embed": torch.zeros(1, 32 * 32, 48)}
    assert unit() == (32, 1, 16), "the stored table says how large it was"


def test_types_stay_or_become_what_is_wanted(base: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({name: t.half() for name, t in base.items()}, tmp_path / "file")
    as_stored = load_pixart(tmp_path / "file", heads=4)
    assert {p.dtype for p in as_stored.parameters()} == {torch.float16}
    assert {p.dtype for p in load_pixart(tmp_path / "file", heads=4, dtype=torch.float32).parameters()} == {
        torch.float32
    }
    state = as_stored.state_dict()
    for name, value in to_diffusers(in_memory(base)).items():
        if name in state:
            assert torch.equal(state[name], value.half()), name


def test_the_null_text_is_found_or_missed(base: dict[str, Tensor], tmp_path: Path) -> None:
    base = {**base, "y_embedder.y_embedding": torch.randn(12, 32)}
    save_file({f"base_model.{name}": t for name, t in base.items()}, tmp_path / "file")
    assert torch.equal(null_text(tmp_path / "file"), base["y_embedder.y_embedding"])
    with pytest.raises(WeightsError, match="files with diffusers' names lack it"):
        null_text(to_diffusers(in_memory(base)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("t_block.1.bias"), "'adaln_single.linear.bias' is missing"),
        (lambda t: t.update({"more": torch.zeros(1)}), "'more' is not part of the network"),
        (
            lambda t: t.update({"blocks.2.mlp.fc1.bias": torch.zeros(5)}),
            r"ff.net.0.proj.bias' has shape \(5,\)",
        ),
        (lambda t: t.pop("x_embedder.proj.weight"), "no PixArt transformer"),
        (lambda t: t.pop("blocks.3.attn.qkv.weight"), "to_q.weight' is missing; .*to_v.weight' is missing"),
    ],
)
def test_what_is_no_pixart_is_refused(base: dict[str, Tensor], tmp_path: Path, change, message: str) -> None:
    tensors = dict(base)
    change(tensors)
    save_file(tensors, tmp_path / "file")
    with pytest.raises(WeightsError, match=rf"file: .*{message}"):
        load_pixart(tmp_path / "file", heads=4)


def test_pickles_are_not_loaded(base: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": base}, tmp_path / "PixArt.pth")
    with pytest.raises(
        WeightsError, match=r"PixArt.pth: a PyTorch checkpoint \(pickle\), wanted safetensors"
    ):
        load_pixart(tmp_path / "PixArt.pth", heads=4)


MEASURE = """
import sys
import torch
import diffusers.models.transformers.pixart_transformer_2d
from identiface_core.weights.pixart import load_pixart
from tests.core.memory import grown
with grown() as peak:
    model = load_pixart(sys.argv[1], heads=8)
    assert not any(p.is_meta for p in model.parameters())
print(peak())
"""


def test_memory_stays_near_the_size_of_the_file(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    tensors = official.state(fill=False, width=480, depth=16, copies=0, captions=64)
    path = tmp_path / "base.safetensors"
    save_file({name: t.half() for name, t in official.below(tensors, "base_model.").items()}, path)
    command = [sys.executable, "-c", MEASURE, str(path)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    size, peak = path.stat().st_size, int(done.stdout)
    path.unlink()
    assert size > 120e6 and peak < 1.3 * size, f"{peak / 1e6:.0f} MB for {size / 1e6:.0f} MB"
