"""The embedded model's files: missing, truncated, changed or not pinned; each is named with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from identiface_core.embedded import FILES, GALLERY, HASHES, check_files, load_demo_gallery, write_hashes
from identiface_core.errors import WeightsError
from identiface_core.gallery import Gallery


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES.values():
        (tmp_path / name).write_bytes(name.encode() * 20)
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text("{}")
    rows = torch.nn.functional.normalize(torch.ones(1, 4), dim=1)
    Gallery(("ann",), {"a": rows}, (b"",), ("captured",), {"a": "x"}).save(tmp_path / GALLERY)
    write_hashes(tmp_path)
    return tmp_path


def refused(folder: Path, name: str, match: str) -> None:
    with pytest.raises(WeightsError, match=match) as caught:
        check_files(folder)
        load_demo_gallery(folder)
    assert name in str(caught.value)
    assert "reinstall IdentiFace" in str(caught.value) and "identiface train embedded" in str(caught.value)


def test_whole_files_pass(folder: Path) -> None:
    found = check_files(folder)
    assert set(found) == {*FILES.values(), "transformer/config.json"}
    assert load_demo_gallery(folder).people == ("ann",)


@pytest.mark.parametrize("name", [FILES["matcher A"], "transformer/config.json", GALLERY])
def test_missing_truncated_and_flipped_files_are_named(folder: Path, name: str) -> None:
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    refused(folder, name, "damaged or changed")
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    refused(folder, name, "damaged or changed")
    path.unlink()
    refused(folder, name, "missing")


def test_a_file_that_nobody_pinned_is_not_used(folder: Path) -> None:
    (folder / HASHES).write_text("{}")
    refused(folder, FILES["autoencoder"], "not pinned")


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "{"])
def test_damaged_pins(folder: Path, text: str) -> None:
    (folder / HASHES).write_text(text)
    refused(folder, HASHES, "damaged|must map")


def test_missing_pins(folder: Path) -> None:
    (folder / HASHES).unlink()
    refused(folder, HASHES, "cannot be read")
