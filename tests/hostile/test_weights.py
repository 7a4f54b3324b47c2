"""Hostile and damaged weight files: each is refused by a WeightsError that names the file."""

from __future__ import annotations

import json
import pickle
import random
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from identiface_core.errors import WeightsError
from identiface_core.weights.files import load_tensors, read_header, save_tensors
from identiface_core.weights.layout import MAX_HEADER


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    path = tmp_path / "whole"
    save_tensors(path, {"a": torch.arange(6.0), "b": torch.ones(2, 3, dtype=torch.int64)}, "things", {"n": 1})
    return path.read_bytes()


def refused(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_tensors(path, "things")
    assert "bad.safetensors" in str(caught.value)
    return str(caught.value)


def with_header(whole: bytes, change: object) -> bytes:
    """The same file with another header: `change` is a function on the parsed one, or the new raw bytes."""
    length = struct.unpack("<Q", whole[:8])[0]
    if isinstance(change, bytes):
        header = change
    else:
        parsed = json.loads(whole[8 : 8 + length])
        change(parsed)  # type: ignore[operator]
        header = json.dumps(parsed).encode()
    return struct.pack("<Q", len(header)) + header + whole[8 + length :]


def test_truncated_anywhere(tmp_path: Path, whole: bytes) -> None:
    for size in range(len(whole)):
        refused(tmp_path, whole[:size])


def test_any_single_flipped_bit(tmp_path: Path, whole: bytes) -> None:
    draw = random.Random(3)
    places = range(len(whole))
    for place in [*places[:64], *draw.sample(places, min(250, len(whole)))]:
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        refused(tmp_path, bytes(changed))


def test_bytes_after_the_end(tmp_path: Path, whole: bytes) -> None:
    refused(tmp_path, whole + b"\0" * 8)


def test_header_length_that_promises_too_much(tmp_path: Path, whole: bytes) -> None:
    for length in (MAX_HEADER + 1, 2**63, 2**64 - 1):
        assert "not a safetensors file" in refused(tmp_path, struct.pack("<Q", length) + whole[8:])


def test_a_huge_header_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", 2**40))
        stream.truncate(2**20)
    with pytest.raises(WeightsError, match="header of"):
        read_header(path)


def test_pickles_and_archives_are_never_read(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return (pytest.fail, ("a pickle was executed",))

    assert "Pickled weights" in refused(tmp_path, pickle.dumps(Attack()))
    archive = tmp_path / "model.pt"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("archive/data.pkl", pickle.dumps(Attack()))
    refused(tmp_path, archive.read_bytes())


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"{" * 1000,
        b"[" * 100_000,
        b'{"a": 5}',
        b'{"a": {"data_offsets": [0]}}',
        b'{"a": {"data_offsets": [0, Infinity]}}',
        b'{"a": {"data_offsets": [0, 1e999]}}',
        b'{"a": {"data_offsets": "0-8"}}',
        b'{"a": {"data_offsets": [0, -8]}}',
    ],
)
def test_headers_that_are_no_headers(tmp_path: Path, whole: bytes, header: bytes) -> None:
    refused(tmp_path, with_header(whole, header))


@pytest.mark.parametrize("field", ["format", "version", "kind", "config", "extra", "sha256"])
@pytest.mark.parametrize("value", [None, 5, "", "nonsense", "[[", [], {"a": 1}])
def test_header_texts_of_the_wrong_kind(tmp_path: Path, whole: bytes, field: str, value: object) -> None:
    refused(tmp_path, with_header(whole, lambda header: header["__metadata__"].update({field: value})))


@pytest.mark.parametrize("field", ["format", "version", "kind", "config", "extra", "sha256"])
def test_header_texts_left_out(tmp_path: Path, whole: bytes, field: str) -> None:
    refused(tmp_path, with_header(whole, lambda header: header["__metadata__"].pop(field)))


def test_tensor_entries_changed(tmp_path: Path, whole: bytes) -> None:
    changes = (
        lambda header: header["a"].update(shape=[3]),  # fewer numbers than bytes
        lambda header: header["a"].update(shape=[2**62, 4]),  # overflows the size
        lambda header: header["a"].update(dtype="I32"),  # same size, other meaning
        lambda header: header["a"].update(data_offsets=header["b"]["data_offsets"]),  # overlap
        lambda header: header.update(c=header["a"]),
        lambda header: header.pop("a"),  # a hole
    )
    for change in changes:
        refused(tmp_path, with_header(whole, change))


def test_a_plain_safetensors_file_is_named_as_such(tmp_path: Path) -> None:
    from safetensors.torch import save

    assert "not written by IdentiFace" in refused(tmp_path, save({"a": torch.ones(2)}, {"format": "pt"}))
