"""Weight files: what goes in comes out, and nothing else is accepted."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from identiface_core.errors import OutputError, WeightsError
from identiface_core.weights import files
from identiface_core.weights.files import (
    check_writable,
    load_module,
    load_tensors,
    read_header,
    save_module,
    save_tensors,
    sha256_of,
    write_atomic,
)


class Small(nn.Module):
    kind = "small"

    def __init__(self, *, width: int = 4) -> None:
        super().__init__()
        self.config = {"width": width}
        self.linear = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)
        self.register_buffer("table", torch.linspace(0, 1, 5, dtype=torch.float64))
        self.register_buffer("hidden", torch.arange(3), persistent=False)


class Other(Small):
    kind = "other"


def small(width: int = 5) -> Small:
    torch.manual_seed(1)
    return Small(width=width)


def test_a_network_comes_back_as_it_was(tmp_path: Path) -> None:
    module = small()
    save_module(tmp_path / "a.safetensors", module, half=False, extra={"steps": 7})
    again = load_module(tmp_path / "a.safetensors", Small)
    assert again.config == {"width": 5} and not again.training
    for name, tensor in module.state_dict().items():
        assert again.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(again.state_dict()[name], tensor), name
    assert again.hidden.tolist() == [0, 1, 2]
    assert read_header(tmp_path / "a.safetensors").extra == {"steps": 7}


def test_half_on_disk_is_float32_in_memory_and_other_types_stay(tmp_path: Path) -> None:
    module = small()
    save_module(tmp_path / "a.safetensors", module)
    state = load_module(tmp_path / "a.safetensors", Small).state_dict()
    assert state["linear.weight"].dtype == torch.float32
    assert torch.equal(state["linear.weight"], module.linear.weight.half().float())
    assert state["table"].dtype == torch.float64 and torch.equal(state["table"], module.table)
    assert state["norm.num_batches_tracked"].dtype == torch.int64


def test_values_too_large_for_half_stay_float32(tmp_path: Path) -> None:
    module = small()
    module.linear.weight.data[0, 0] = 1e6
    save_module(tmp_path / "a.safetensors", module)
    assert load_module(tmp_path / "a.safetensors", Small).linear.weight[0, 0] == 1e6


def test_tensors_that_share_memory_or_are_views_are_saved(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    save_tensors(tmp_path / "a", {"all": base, "same": base, "turned": base.T}, "things", {"note": [1, "ü"]})
    tensors, config = load_tensors(tmp_path / "a", "things")
    assert torch.equal(tensors["same"], base) and torch.equal(tensors["turned"], base.T)
    assert config == {"note": [1, "ü"]}


def test_no_tensors_at_all_is_a_file_too(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", {}, "nothing", {})
    assert load_tensors(tmp_path / "a", "nothing") == ({}, {})


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in "abcd":
        save_module(tmp_path / name, small(), extra={"b": 1, "a": 2})
    assert len({sha256_of(tmp_path / name) for name in "abcd"}) == 1


def test_loading_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    save_module(tmp_path / "a", small())
    before = torch.get_rng_state()
    load_module(tmp_path / "a", Small)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_pinned_hash_is_checked(tmp_path: Path) -> None:
    save_module(tmp_path / "a", small())
    load_module(tmp_path / "a", Small, sha256=sha256_of(tmp_path / "a").upper())
    with pytest.raises(WeightsError, match="wanted 0000"):
        load_module(tmp_path / "a", Small, sha256="0" * 64)


def test_another_kind_is_refused_and_both_kinds_are_named(tmp_path: Path) -> None:
    save_module(tmp_path / "a", small())
    with pytest.raises(WeightsError, match="'other'.*'small'"):
        load_module(tmp_path / "a", Other)


def test_other_shapes_are_refused_with_both_shapes(tmp_path: Path) -> None:
    state = small(6).state_dict()
    save_tensors(tmp_path / "a", state, "small", {"width": 5})
    with pytest.raises(WeightsError, match=r"'linear.weight' has shape \(6, 3\), wanted \(5, 3\)"):
        load_module(tmp_path / "a", Small)


def test_missing_and_surplus_tensors_are_named(tmp_path: Path) -> None:
    state = {**small().state_dict(), "more": torch.zeros(1)}
    del state["linear.bias"]
    save_tensors(tmp_path / "a", state, "small", {"width": 5})
    with pytest.raises(WeightsError, match="'linear.bias' is missing; 'more' is not part"):
        load_module(tmp_path / "a", Small)


@pytest.mark.parametrize("config", [{"width": -1}, {"depth": 3}, {"width": "many"}, {"width": 10**12}])
def test_a_config_that_does_not_fit_takes_no_memory(tmp_path: Path, config: dict[str, object]) -> None:
    save_tensors(tmp_path / "a", small().state_dict(), "small", config)
    with pytest.raises(WeightsError):
        load_module(tmp_path / "a", Small)


def test_parameters_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    module = small()
    module.linear.bias.data[1] = float("nan")
    save_module(tmp_path / "a", module)
    with pytest.raises(WeightsError, match="linear.bias.*not finite"):
        load_module(tmp_path / "a", Small)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (sha256_of, read_header, load_tensors):
        with pytest.raises(WeightsError, match="nowhere.safetensors: no such file"):
            read(tmp_path / "nowhere.safetensors")
    with pytest.raises(WeightsError, match="a folder, where a file is wanted"):
        load_tensors(tmp_path)


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    save_module(tmp_path / "a", small())
    before = (tmp_path / "a").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "write":
        monkeypatch.setattr(Path, "open", full)
    else:
        monkeypatch.setattr(os, where, full)
    with pytest.raises(OutputError, match="disk is full"):
        save_module(tmp_path / "a", small(9))
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == before


def test_a_folder_in_the_way_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write_atomic(tmp_path / "a", b"x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        write_atomic(tmp_path / "file" / "a", b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "file"]


def test_ctrl_c_while_writing_leaves_no_part_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_network_class_without_a_kind_is_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="kind"):
        save_module(tmp_path / "a", nn.Linear(1, 1))


def test_a_place_is_tried_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"x")
    for good in (kept, tmp_path / "new", tmp_path / "a" / "b" / "new"):
        check_writable(good)
    monkeypatch.chdir(tmp_path)
    check_writable("new")
    with pytest.raises(OutputError, match="this is a folder"):
        check_writable(tmp_path)
    for bad in (kept / "new", kept / "a" / "new"):
        with pytest.raises(OutputError, match="cannot be written: .*Nothing was changed"):
            check_writable(bad)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match="read-only"):
        check_writable(tmp_path / "new")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"] and kept.read_bytes() == b"x"
