"""The authors' checkpoint becomes a control of ours, value by value, without its optimiser ever being read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from identiface_core.cli.released import import_released
from identiface_core.diffusion.control import ControlBranch
from identiface_core.errors import InputError, OutputError, WeightsError
from identiface_core.weights.files import load_module, read_header, save_tensors
from identiface_core.weights.foreign import in_memory, open_tensors
from identiface_core.weights.names import authors_name, comfy_name, diffusers_names, to_authors, to_diffusers
from identiface_core.weights.recognise import recognise
from identiface_core.weights.released import (
    control_config,
    control_of,
    control_shapes,
    import_control,
    open_released,
    released_of,
)
from identiface_core.weights.stream import load_stream
from tests.core import official

REFERENCE = official.REFERENCE


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    """The reference weights, tiny."""
    return load_file(REFERENCE / "identiface-tiny-weights.safetensors")


@pytest.fixture
def latest(tmp_path: Path, tensors: dict[str, Tensor]) -> Path:
    return official.save(tmp_path / "latest.pth", tensors)


def control_in(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(control_of(in_memory(tensors)))


def test_names_are_the_released_ones() -> None:
    for one in official.KEYS:
        name: str = one["key"]
        bare = name.removeprefix("base_model.")
        inside = name.partition("copied_block.")[0] + "copied_block."
        if one["role"] == "base":
            wanted = one["diffusers"]
            assert comfy_name(bare) == one["comfy"], name
        else:
            wanted = [inside + key for key in one.get("diffusers_style_block_key", [])] or [bare]
        assert list(diffusers_names(bare)) == wanted, name
        assert [authors_name(new) for new in wanted] == [(bare, i, len(wanted)) for i in range(len(wanted))]


def test_names_there_and_back_join_what_was_split(tensors: dict[str, Tensor]) -> None:
    for mine in (
        official.below(tensors, "base_model."),
        official.below(tensors, "controlnet.", "freq_fusion."),
    ):
        there = to_diffusers(in_memory(mine))
        assert {name: tuple(there[name].shape) for name in there} == there.shapes
        back = to_authors(there)
        assert set(mine) - set(back) <= {"y_embedder.y_embedding"}, "diffusers has no null text"
        for name in back:
            assert torch.equal(back[name], mine[name]) and back.shapes[name] == tuple(mine[name].shape), name


def test_the_released_architecture_is_read_off_names_and_shapes() -> None:
    xl = {one["key"]: tuple(one["shape"]) for one in official.KEYS}
    found = released_of(xl)
    assert found is not None and found.base is not None
    assert (found.copies, found.width, found.channels, found.fused) == (13, 1152, 4, True)
    base = found.base
    assert (base.depth, base.width, base.patch, base.captions, base.table) == (28, 1152, 2, 4096, 64)
    assert (base.channels, base.out_channels, base.sizes, base.null_tokens) == (4, 8, True, 120)
    control = {name: s for name, s in xl.items() if not name.startswith("base_model.")}
    assert control_shapes(found) == control and len(control) == 229
    with torch.device("meta"):
        branch = ControlBranch(**control_config(found, 16))
    ours = to_diffusers(open_shapes(control)).shapes
    assert ours == {name: tuple(t.shape) for name, t in branch.state_dict().items()}
    assert released_of({"weight": (1,)}) is None


def open_shapes(shapes: dict[str, tuple[int, ...]]):
    with torch.device("meta"):
        return in_memory({name: torch.empty(shape) for name, shape in shapes.items()})


@pytest.mark.parametrize("half", [False, True])
def test_the_control_comes_out_value_by_value(
    tmp_path: Path, latest: Path, tensors: dict[str, Tensor], half: bool
) -> None:
    made = import_control(latest, tmp_path / "control.safetensors", half=half, heads=4)
    wanted = control_in(tensors)
    for load in (load_module, load_stream):
        branch = load(tmp_path / "control.safetensors", ControlBranch)
        assert not branch.training and branch.config["surroundings"] is False and branch.config["heads"] == 4
        state = branch.state_dict()
        assert state.keys() == wanted.keys()
        for name, value in wanted.items():
            assert torch.equal(state[name].float(), value.half().float() if half else value), name
    kind = torch.float16 if half else torch.float32
    assert {t.dtype for t in load_stream(made_at(tmp_path), ControlBranch).parameters()} == {kind}
    assert {
        t.dtype for t in load_stream(made_at(tmp_path), ControlBranch, dtype=torch.float64).parameters()
    } == {torch.float64}
    assert made.notes == {"epoch": 30, "step": 12345}
    assert made.written == made_at(tmp_path).stat().st_size
    assert made.read == sum(value.nbytes for value in wanted.values())
    header = read_header(made_at(tmp_path))
    assert header.kind == ControlBranch.kind and header.extra["origin"] == "identiface-official"
    assert header.extra["base"]["depth"] == 6 and header.extra["epoch"] == 30


def made_at(folder: Path) -> Path:
    return folder / "control.safetensors"


def test_a_streamed_file_is_the_same_to_the_byte(tmp_path: Path, latest: Path) -> None:
    import_control(latest, tmp_path / "streamed", half=False, heads=4)
    opened, _, config = open_released(latest, heads=4)
    extra = read_header(tmp_path / "streamed").extra
    save_tensors(tmp_path / "at-once", dict(control_of(opened)), ControlBranch.kind, config, extra=extra)
    assert (tmp_path / "streamed").read_bytes() == (tmp_path / "at-once").read_bytes()


def test_safetensors_of_the_same_checkpoint_do_as_well(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, tmp_path / "all.safetensors", {"config": '{"hidden_size": 48, "num_heads": 4}'})
    import_control(tmp_path / "all.safetensors", made_at(tmp_path))
    assert load_stream(made_at(tmp_path), ControlBranch).config["heads"] == 4


def test_damage_after_conversion_is_found(tmp_path: Path, latest: Path) -> None:
    path = made_at(tmp_path)
    import_control(latest, path, heads=4)
    whole = path.read_bytes()
    for place in (len(whole) - 1, len(whole) // 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(WeightsError, match="does not match its own checksum|not finite"):
            load_stream(path, ControlBranch)
    for content in (whole + b"\0" * 8, whole[:-8]):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="checksum|truncated"):
            load_stream(path, ControlBranch)


def test_what_does_not_fit_half_stays_and_what_is_not_finite_is_refused(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    tensors["controlnet.1.after_proj.bias"][3] = 1e6
    source = official.save(tmp_path / "latest.pth", tensors)
    import_control(source, made_at(tmp_path), heads=4)
    assert load_stream(made_at(tmp_path), ControlBranch).controlnet[1].after_proj.bias[3] == 1e6
    before = made_at(tmp_path).read_bytes()
    odd = {**tensors, "controlnet.1.after_proj.bias": torch.zeros(48, dtype=torch.complex64)}
    with pytest.raises(WeightsError, match="'controlnet.1.after_proj.bias' is of type torch.complex64"):
        import_control(official.save(source, odd), made_at(tmp_path), heads=4)
    tensors["controlnet.1.after_proj.bias"][3] = float("nan")
    with pytest.raises(
        WeightsError, match=r"latest.pth: tensor 'controlnet.1.after_proj.bias' .* not finite"
    ):
        import_control(official.save(source, tensors), made_at(tmp_path), heads=4)
    assert made_at(tmp_path).read_bytes() == before, "nothing has changed"


def test_tensors_saved_on_a_graphics_card_open_without_one(
    tmp_path: Path, tensors: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    source = official.save(tmp_path / "latest.pth", tensors)
    monkeypatch.undo()
    import_control(source, made_at(tmp_path), half=False, heads=4)
    state = load_stream(made_at(tmp_path), ControlBranch).state_dict()
    assert all(torch.equal(state[name], value) for name, value in control_in(tensors).items())


def test_heads_cannot_be_guessed(tmp_path: Path, latest: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"latest.pth: how many heads .* width 48.*Give the number of heads"
    ):
        open_released(latest)
    with pytest.raises(WeightsError, match="48 cannot be split among 5 heads"):
        open_released(latest, heads=5)
    (tmp_path / "MANIFEST.json").write_text('{"other": {"hidden_size": 64, "num_heads": 8}}')
    with pytest.raises(WeightsError, match="how many heads"):
        open_released(latest)
    (tmp_path / "MANIFEST.json").write_bytes((REFERENCE / "MANIFEST.json").read_bytes())
    assert open_released(latest)[2]["heads"] == 4
    assert open_released(latest, heads=6)[2]["heads"] == 6, "what is asked for goes first"


@pytest.mark.parametrize("names", ["authors", "diffusers", "comfy"])
def test_the_base_is_compared_tensor_by_tensor(
    tmp_path: Path, latest: Path, tensors: dict[str, Tensor], names: str
) -> None:
    base = official.below(tensors, "base_model.")
    null = base["y_embedder.y_embedding"].clone()
    if names == "diffusers":
        base = dict(to_diffusers(in_memory(base)))
        base = {name: value.clone() for name, value in base.items()}
    prefix = "model.diffusion_model." if names == "comfy" else ""
    change = "adaln_single.linear.bias" if names == "diffusers" else "t_block.1.bias"
    path = tmp_path / "base.safetensors"

    def compared(tensors: dict[str, Tensor], kind: torch.dtype = torch.float32):
        save_file({prefix + name: value.to(kind) for name, value in tensors.items()}, path)
        return import_control(latest, made_at(tmp_path), base=path, heads=4).base

    same = compared(base)
    count = len(official.below(tensors, "base_model."))
    assert same.equal and same.compared == count - (names == "diffusers"), "all but the null text"
    assert compared(base, torch.float16).equal, "in the coarser type"
    assert read_header(made_at(tmp_path)).extra["base_compared"] == {"tensors": same.compared, "equal": True}
    right = float(base[change][0])
    base[change][0] = right + 0.1
    assert compared(base).different == ("t_block.1.bias",) and not compared(base).equal
    base[change][0] = right
    if names == "authors":
        base["y_embedder.y_embedding"] = null + 1
        assert compared(base).different == ("y_embedder.y_embedding",)
        del base["y_embedder.y_embedding"], base["t_block.1.bias"]
        assert compared(base).missing == ("t_block.1.bias",)


def test_a_base_of_another_kind_is_refused(tmp_path: Path, latest: Path, tensors: dict[str, Tensor]) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="other.safetensors: no PixArt transformer to compare with"):
        import_control(latest, made_at(tmp_path), base=tmp_path / "other.safetensors", heads=4)
    bare = official.below(tensors, "controlnet.", "freq_fusion.")
    source = official.save(tmp_path / "bare.pth", bare)
    with pytest.raises(WeightsError, match=r"bare.pth: no frozen base in it"):
        import_control(source, made_at(tmp_path), base=latest, heads=4)
    assert not made_at(tmp_path).exists()
    import_control(source, made_at(tmp_path), heads=4)


def test_a_control_without_fusion_adds_up(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    plain = {name: value for name, value in tensors.items() if not name.startswith("freq_fusion.")}
    made = import_control(official.save(tmp_path / "hed.pth", plain), made_at(tmp_path), heads=4)
    assert made.config["fused"] is False and made.found.fused is False
    branch = load_stream(made_at(tmp_path), ControlBranch)
    assert branch.freq_fusion.fuse(torch.ones(1), torch.ones(1)) == 2
    assert read_header(made_at(tmp_path)).extra["origin"] == "pixart-controlnet"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("controlnet.1.copied_block.mlp.fc1.bias"), "fc1.bias' is missing"),
        (lambda t: t.pop("controlnet.1.after_proj.weight"), "'controlnet.1.after_proj.weight' is missing"),
        (lambda t: t.update({"controlnet.0.more": torch.zeros(1)}), "'controlnet.0.more' is not part"),
        (lambda t: t.update({"freq_fusion.k": torch.zeros(5)}), r"'freq_fusion.k' has shape \(5,\)"),
        (lambda t: t.pop("controlnet.0.after_proj.weight"), "wanted a checkpoint with 'controlnet"),
    ],
)
def test_another_design_is_refused(tmp_path: Path, tensors: dict[str, Tensor], change, message: str) -> None:
    change(tensors)
    source = official.save(tmp_path / "latest.pth", tensors)
    with pytest.raises(WeightsError, match=message):
        import_control(source, made_at(tmp_path), heads=4)
    assert [path.name for path in tmp_path.iterdir()] == ["latest.pth"]


def test_the_command_says_what_it_did(
    tmp_path: Path, latest: Path, tensors: dict[str, Tensor], capsys
) -> None:
    save_file(official.below(tensors, "base_model."), tmp_path / "base.safetensors")
    arguments = {"out": made_at(tmp_path), "heads": 4}
    assert (
        import_released("identiface-official", latest, base=tmp_path / "base.safetensors", **arguments) == 0
    )
    said = capsys.readouterr().out
    assert "3 copied blocks, width 48 in 4 heads, with frequency fusion, on a base of 6 blocks" in said
    assert (
        "epoch 30, step 12345" in said and "equal to the frozen base" in said and "0.3 MB from 0.5 MB" in said
    )
    tensors["base_model.t_block.1.bias"] += 1
    save_file(official.below(tensors, "base_model."), tmp_path / "base.safetensors")
    assert (
        import_released("identiface-official", latest, base=tmp_path / "base.safetensors", **arguments) == 0
    )
    said = capsys.readouterr().out
    assert "is not the frozen base: 1 of" in said and "t_block.1.bias" in said
    with pytest.raises(InputError, match="'sdxl'.*identiface-official"):
        import_released("sdxl", latest, **arguments)
    with pytest.raises(OutputError, match="this is a folder"):
        import_released("identiface-official", latest, out=tmp_path, heads=4)
    assert recognise(made_at(tmp_path)).facts["origin"] == "identiface-official"


MEASURE = """
import sys
from tests.core.memory import grown
from identiface_core.weights import released, stream
from identiface_core.diffusion.control import ControlBranch
with grown() as peak:
    made = released.import_control(sys.argv[1], sys.argv[2], heads=8)
print(made.read, peak())
"""


def test_memory_stays_near_what_is_read(tmp_path: Path) -> None:
    """A file of 350 MB, of which 80 MB are the control: the rest is never in memory, nor the control twice."""
    pytest.importorskip("resource")
    tensors = official.state(fill=False, width=480, depth=7, copies=5, captions=64)
    source = official.save(tmp_path / "latest.pth", tensors)
    out = run(MEASURE, source, made_at(tmp_path))
    read, peak = (int(number) for number in out.split())
    assert source.stat().st_size > 3.5 * read > 250e6
    source.unlink()
    assert peak < 1.3 * read, f"{peak / 1e6:.0f} MB for {read / 1e6:.0f} MB"
    assert len(open_tensors(made_at(tmp_path))) > 0


def run(program: str, *arguments: object) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
