"""Gallery files that are broken, foreign or crafted: each is refused by a `GalleryError` naming the file."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
import torch.nn.functional as F

from identiface_core.errors import GalleryError
from identiface_core.gallery import Gallery
from identiface_core.gallery.store import KIND, decode_thumbnail
from identiface_core.weights.files import save_tensors


@pytest.fixture
def whole(tmp_path):
    rows = F.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    path = tmp_path / "g.safetensors"
    thumbnails, origins = (b"1", b"22", b""), ("captured",) * 3
    Gallery(("ann", "bob", "cy"), {"a": rows}, thumbnails, origins, {"a": "f" * 64}).save(path)
    return path


def refused(path, match: str = "gallery") -> None:
    with pytest.raises(GalleryError, match=match) as caught:
        Gallery.load(path)
    assert path.name in str(caught.value)
    assert "identiface gallery enrol" in str(caught.value)


def test_missing(tmp_path) -> None:
    refused(tmp_path / "none.safetensors", "no such file")


def test_truncated_anywhere(whole) -> None:
    data = whole.read_bytes()
    for length in (0, 4, 8, 100, len(data) // 2, len(data) - 1):
        whole.write_bytes(data[:length])
        refused(whole)


def test_any_flipped_bit_is_noticed(whole) -> None:
    data = whole.read_bytes()
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        whole.write_bytes(changed)
        try:
            loaded = Gallery.load(whole)
        except GalleryError:
            continue
        # What a flip may leave readable (padding of the header) has changed nothing.
        whole.write_bytes(data)
        assert torch.equal(loaded.templates["a"], Gallery.load(whole).templates["a"])
        assert loaded.people == ("ann", "bob", "cy")


def test_huge_header_is_not_read(tmp_path) -> None:
    path = tmp_path / "g.safetensors"
    path.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    refused(path, "header")


def test_pickle_is_not_run(tmp_path) -> None:
    path = tmp_path / "g.safetensors"
    path.write_bytes(pickle.dumps({"people": ["ann"]}) * 50)
    refused(path)


def test_another_kind(tmp_path) -> None:
    path = tmp_path / "g.safetensors"
    save_tensors(path, {"x": torch.zeros(1)}, "face-net", {})
    refused(path, "face-net")


def content(**changes):
    people = changes.pop("people", ["ann", "bob"])
    tensors = {
        "people": torch.frombuffer(bytearray(json.dumps(people).encode()), dtype=torch.uint8),
        "thumbnails": torch.zeros(4, dtype=torch.uint8),
        "ends": torch.tensor([0, 2, 4]),
        "origins": torch.zeros(2, dtype=torch.uint8),
        "templates.0": F.normalize(torch.ones(2, 8), dim=1),
    }
    return {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {"people": ["ann", "ann"]},  # the same name twice
        {"people": ["ann", 3]},  # a name that is no text
        {"people": {"ann": 1}},  # no list
        {"people": ["ann"]},  # fewer names than rows
        {"people": None},  # null instead of a list
        {"ends": torch.tensor([0, 3, 2])},  # offsets that run backwards
        {"ends": torch.tensor([0, 2, 4_000_000_000])},  # offsets beyond the data
        {"ends": torch.tensor([-2, 2, 4])},  # offsets before the data
        {"origins": torch.tensor([0, 9], dtype=torch.uint8)},  # an unknown origin
        {"templates.0": torch.full((2, 8), float("nan"))},  # templates that are not finite
        {"templates.0": torch.full((2, 8), 7.0)},  # templates that are not unit
        {"templates.0": torch.ones(2, 8, dtype=torch.int32)},  # templates of another type
        {"templates.0": torch.zeros(3, 8)},  # more templates than people
        {"templates.0": None},  # no templates
        {"thumbnails": torch.zeros(2, 2)},  # thumbnails that are no bytes
    ],
)
def test_content_that_does_not_fit_together(tmp_path, changes) -> None:
    path = tmp_path / "g.safetensors"
    save_tensors(path, content(**changes), KIND, {"matchers": [["a", "f"]]})
    refused(path)


@pytest.mark.parametrize(
    "config", [{}, {"matchers": 3}, {"matchers": [["a"]]}, {"matchers": [["a", "f"], ["b", "f"]]}]
)
def test_config_that_does_not_fit(tmp_path, config) -> None:
    path = tmp_path / "g.safetensors"
    save_tensors(path, content(), KIND, config)
    refused(path)


def test_thumbnails_are_small_jpegs_only() -> None:
    import io

    from PIL import Image

    with pytest.raises(GalleryError, match="ann"):
        decode_thumbnail(b"no picture", "ann")
    big, png = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (5000, 10)).save(big, "JPEG")
    Image.new("RGB", (10, 10)).save(png, "PNG")
    for data in (big.getvalue(), png.getvalue()):
        with pytest.raises(GalleryError, match="thumbnail"):
            decode_thumbnail(data, "ann")
