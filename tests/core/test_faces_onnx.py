"""Face detectors from ONNX files: known by content, decoded into pixels of the picture, suppressed once per face."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from identiface_core.errors import WeightsError
from identiface_core.faces.base import Face, points_of, suppress
from identiface_core.faces.finder import FaceFinder
from identiface_core.faces.onnx_finders import ScrfdFinder, YunetFinder, load_finder
from identiface_core.weights.files import save_module
from identiface_core.weights.onnx_graph import read_graph
from identiface_core.weights.recognise import recognise
from tests.core import onnx_fakes as fakes

POINTS = np.array([[-1.0, -0.5], [1.0, -0.5], [0.0, 0.25], [-0.75, 1.0], [0.75, 1.0]], np.float32)
"""Offsets of five points, in strides from the cell's corner."""
HALF = 0.5
"""Between the centre of a pixel, from where these networks count, and its corner."""


def scrfd(path: Path, stride: int, row: int, column: int, anchor: int, score: float = 0.9) -> ScrfdFinder:
    """One planted face, looked for at one scale."""
    outputs = fakes.scrfd_outputs()
    cell = 2 * (row * (640 // stride) + column) + anchor
    outputs[f"score_{stride}"][cell] = score
    outputs[f"bbox_{stride}"][cell] = (1.5, 2, 1, 2.5)
    outputs[f"kps_{stride}"][cell] = POINTS.ravel()
    finder = ScrfdFinder(fakes.constant(path, outputs, name="input.1"))
    finder.SIDES = (640,)  # type: ignore[misc]
    return finder


# --- SCRFD


@pytest.mark.parametrize(
    ("stride", "row", "column", "anchor"), [(8, 0, 0, 0), (8, 31, 62, 1), (16, 7, 20, 1), (32, 3, 9, 0)]
)
def test_scrfd_decodes_into_pixels_of_a_picture_that_is_not_square(
    tmp_path: Path, stride: int, row: int, column: int, anchor: int
) -> None:
    (face,) = scrfd(tmp_path / "f", stride, row, column, anchor).find_faces(torch.rand(3, 300, 500))
    zoom = 640 / 500
    x, y = column * stride / zoom, row * stride / zoom
    unit = stride / zoom
    assert face.box == pytest.approx(
        (x - 1.5 * unit, y - 2 * unit, x + unit, y + 2.5 * unit), rel=1e-3, abs=1e-2
    )
    assert torch.allclose(
        face.points, torch.tensor([x, y]) + torch.from_numpy(POINTS) * unit + HALF, rtol=2e-3, atol=1e-2
    )
    assert face.score == pytest.approx(0.9)


def test_scrfd_keeps_to_its_threshold(tmp_path: Path) -> None:
    finder = scrfd(tmp_path / "f", 16, 7, 20, 0, score=0.45)
    assert finder.find_faces(torch.rand(3, 64, 64)) == []
    assert len(finder.find_faces(torch.rand(3, 64, 64), threshold=0.4)) == 1


def test_outputs_are_known_by_their_shapes_not_by_their_order(tmp_path: Path) -> None:
    outputs = fakes.scrfd_outputs()
    outputs["score_16"][2 * (7 * 40 + 20)] = 0.8
    names = [f"{kind}_{stride}" for kind in ("score", "bbox", "kps") for stride in (32, 8, 16)]
    finder = ScrfdFinder(fakes.constant(tmp_path / "f", {name: outputs[name] for name in names}))
    finder.SIDES = (640,)  # type: ignore[misc]
    (face,) = finder.find_faces(torch.rand(3, 640, 640))
    assert face.points[0].tolist() == [20 * 16 + HALF, 7 * 16 + HALF]


def squares(*places: tuple[int, int, int], size: tuple[int, int]) -> Tensor:
    """White squares (x, y, side) on black, (3, H, W)."""
    image = torch.zeros(3, *size)
    for x, y, side in places:
        image[:, y : y + side, x : x + side] = 1
    return image


@pytest.mark.parametrize("size", [(300, 700), (700, 300), (480, 480), (90, 60)])
def test_any_size_goes_through_a_graph_that_takes_any(tmp_path: Path, size: tuple[int, int]) -> None:
    """Two scales, borders that do not divide by 32, and back."""
    height, width = size
    side = min(size) // 5
    x, y = width // 2, height // 3
    faces = ScrfdFinder(fakes.blob_detector(tmp_path / "f")).find_faces(
        squares((x, y, side), size=size), threshold=0.95
    )
    assert faces
    for face in faces:
        assert (face.points[:, 0] > x - 2).all() and (face.points[:, 0] < x + side + 2).all()
        assert (face.points[:, 1] > y - 2).all() and (face.points[:, 1] < y + side + 2).all()
    assert ScrfdFinder(tmp_path / "f").find_faces(torch.zeros(3, *size)) == []


def test_pictures_are_looked_at_at_two_scales(tmp_path: Path) -> None:
    """The same answer on the canvas means another place where the picture was drawn five times smaller."""
    finder = scrfd(tmp_path / "f", 32, 2, 3, 0)
    del finder.SIDES  # back to the class's own
    near, far = sorted(finder.find_faces(torch.rand(3, 640, 640)), key=lambda face: face.box)
    assert near.points[0].tolist() == [64.5, 48.5] and far.points[0].tolist() == [320.5, 240.5]
    assert torch.tensor(far.box).tolist() == pytest.approx([5 * value for value in near.box])


# --- YuNet


@pytest.mark.parametrize("size", [(480, 640), (700, 350), (100, 90)])
def test_yunet_decodes_into_pixels_of_the_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    outputs = fakes.yunet_outputs()
    row, column, stride = 9, 4, 16
    cell = row * 40 + column
    outputs["cls_16"][0, cell], outputs["obj_16"][0, cell] = 0.81, 1.0
    outputs["bbox_16"][0, cell] = (0.5, 0.25, np.log(3), np.log(4))
    outputs["kps_16"][0, cell] = POINTS.ravel()
    finder = YunetFinder(fakes.constant(tmp_path / "f", outputs))
    finder.SIDES = (640,)  # type: ignore[misc]
    (face,) = finder.find_faces(torch.rand(3, *size))
    unit = stride * max(size) / 640
    x, y = column * unit, row * unit
    cx, cy = x + 0.5 * unit, y + 0.25 * unit
    assert face.box == pytest.approx(
        (cx - 1.5 * unit, cy - 2 * unit, cx + 1.5 * unit, cy + 2 * unit), rel=1e-2, abs=0.05
    )
    wanted = torch.tensor([x, y]) + torch.from_numpy(POINTS) * unit + HALF
    assert torch.allclose(face.points, wanted, rtol=1e-2, atol=0.05)
    assert face.score == pytest.approx(0.9, abs=1e-3), "the root of class times objectness"


def test_what_networks_see_is_what_they_were_trained_with(tmp_path: Path) -> None:
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 2, 2)
    there = ScrfdFinder(fakes.constant(tmp_path / "s", fakes.scrfd_outputs()))._pixels(red)
    assert there[:, 0, 0].tolist() == pytest.approx([127.5 / 128, -127.5 / 128, -127.5 / 128])
    there = YunetFinder(fakes.constant(tmp_path / "y", fakes.yunet_outputs()))._pixels(red)
    assert there[:, 0, 0].tolist() == [0, 0, 255], "BGR"


# --- suppression


def face(x: float, y: float, side: float, score: float) -> Face:
    box = (x, y, x + side, y + side)
    return Face(box, points_of(box), score)


def test_suppression_keeps_the_best_find_of_each_face() -> None:
    found = [
        face(0, 0, 100, 0.7),
        face(5, 5, 100, 0.9),
        face(300, 0, 100, 0.8),
        face(80, 80, 100, 0.6),
    ]
    assert [f.score for f in suppress(found, max_overlap=0.4, max_inside=1.0)] == [0.9, 0.8, 0.6]
    assert [f.score for f in suppress(found, max_overlap=0.03, max_inside=1.0)] == [0.9, 0.8]
    assert [f.score for f in suppress(found, keep=1)] == [0.9]
    assert suppress([]) == []


def test_a_find_inside_another_is_the_same_face_only_if_asked() -> None:
    found = [face(0, 0, 100, 0.9), face(30, 30, 40, 0.8)]
    assert len(suppress(found, max_overlap=0.4, max_inside=1.0)) == 2
    assert len(suppress(found, max_overlap=0.4, max_inside=0.7)) == 1


# --- known by content


BARE = {name: one for name, one in fakes.scrfd_outputs(64, 64).items() if "kps" not in name}
CLASSES = {"output": np.zeros((1, 19, 8, 8))}
LANDMARKS = {"shape": (1, 3, 192, 192), "name": "data"}

GRAPHS: dict[str, tuple[Callable[[Path], Path], str, dict[str, Any]]] = {
    "scrfd": (
        lambda p: fakes.constant(p, fakes.scrfd_outputs(64, 64)),
        "face-detector",
        {"family": "scrfd", "points": True},
    ),
    "scrfd of any size": (fakes.blob_detector, "face-detector", {"family": "scrfd", "points": True}),
    "scrfd without points": (
        lambda p: fakes.constant(p, BARE),
        "face-detector",
        {"family": "scrfd", "points": False},
    ),
    "yunet": (lambda p: fakes.constant(p, fakes.yunet_outputs(64)), "face-detector", {"family": "yunet"}),
    "bisenet": (lambda p: fakes.constant(p, CLASSES), "face-parsing", {"classes": 19, "order": "bisenet"}),
    "segformer": (
        lambda p: fakes.constant(p, CLASSES, name="pixel_values"),
        "face-parsing",
        {"classes": 19, "order": "celebamask"},
    ),
    "106 points": (
        lambda p: fakes.constant(p, {"fc1": np.zeros((1, 212))}, **LANDMARKS),
        "face-landmarks",
        {"points": 106},
    ),
    "68 points": (
        lambda p: fakes.constant(p, {"fc1": np.zeros((1, 3309))}, **LANDMARKS),
        "face-landmarks",
        {"points": 68},
    ),
    "another graph": (lambda p: fakes.constant(p, {"x": np.zeros((1, 5))}), "onnx", {}),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_each_kind_is_known_by_what_goes_in_and_out(tmp_path: Path, name: str) -> None:
    make, kind, facts = GRAPHS[name]
    found = recognise(make(tmp_path / "yunet_scrfd_parsing.onnx"))
    assert found.kind == kind and facts.items() <= found.facts.items(), found
    assert found.title.startswith(("a ", "an "))


def test_finders_are_loaded_by_content(tmp_path: Path) -> None:
    assert isinstance(load_finder(GRAPHS["scrfd"][0](tmp_path / "a")), ScrfdFinder)
    assert isinstance(load_finder(GRAPHS["yunet"][0](tmp_path / "b")), YunetFinder)
    own = FaceFinder()
    save_module(tmp_path / "c", own)
    again = load_finder(tmp_path / "c")
    assert isinstance(again, FaceFinder) and torch.allclose(again.head.weight, own.head.weight, atol=1e-3)


def test_other_files_are_refused_with_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "f.onnx"
    with pytest.raises(WeightsError, match="five points .* boxes alone.*weights get scrfd-500m"):
        load_finder(GRAPHS["scrfd without points"][0](path))
    with pytest.raises(WeightsError, match="Load Face Detector needs a face detector .* of 19 classes"):
        load_finder(GRAPHS["bisenet"][0](path), "Load Face Detector")
    path.write_text("<html>not found")
    with pytest.raises(WeightsError, match="web page"):
        load_finder(path)
    with pytest.raises(WeightsError, match="do not fit a grid"):
        ScrfdFinder(fakes.constant(path, fakes.scrfd_outputs(64, 96))).find_faces(torch.rand(3, 50, 50))


def test_without_onnxruntime_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = GRAPHS["yunet"][0](tmp_path / "f")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(WeightsError, match="Load Face Detector needs onnxruntime.*pip install onnxruntime"):
        load_finder(path, "Load Face Detector")


# --- the header of an ONNX file


def test_weights_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    """As exporters before 2019 wrote it."""
    from onnx import helper

    colours = np.eye(3)
    path = fakes.colour_parser(tmp_path / "f", colours)
    import onnx

    model = onnx.load(str(path))
    for weight in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(weight.name, 1, list(weight.dims)))
    onnx.save(model, str(path))
    graph = read_graph(path)
    assert [port.name for port in graph.inputs] == ["input"]
    assert graph.picture == (None, 3, 512, 512)
    assert graph.outputs[0].shape == (None, 3, 512, 512)
    assert graph.taken == "'input' (any, 3, 512, 512) -> 'output' (any, 3, 512, 512)"


def test_damaged_graphs_are_refused(tmp_path: Path) -> None:
    path = fakes.constant(tmp_path / "f", fakes.yunet_outputs(64))
    whole = path.read_bytes()
    for cut in range(0, len(whole), 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError):
            read_graph(path)
    for content in (
        b"\x08\x08\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # a graph longer than the file
        b"\x08\x08\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",  # a length without an end
        b"\x08\x08\x3a\x04\x5a\x7f\x0a\x00",  # an input longer than its graph
        b"\x08\x08\x3a\x04\x5a\x02\x0a\x05",  # a name longer than its input
        b"\x08\x08\x3a\x02\x5b\x00",  # a group, which protobuf gave up
        b"\x08\x08",  # no graph
    ):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"ONNX"):
            read_graph(path)


def test_flipped_bytes_raise_nothing_but_our_errors(tmp_path: Path) -> None:
    path = fakes.blob_detector(tmp_path / "f")
    whole = bytearray(path.read_bytes())
    draw = np.random.default_rng(0)
    for _ in range(300):
        spoiled = bytearray(whole)
        for place in draw.integers(0, len(spoiled), 4):
            spoiled[place] = draw.integers(256)
        path.write_bytes(bytes(spoiled))
        with contextlib.suppress(WeightsError):
            read_graph(path)
