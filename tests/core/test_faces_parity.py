"""SCRFD and YuNet against their own packages: what is decoded from graphs with random answers, and what is cut out by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from identiface_core.faces.base import Face
from identiface_core.faces.onnx_finders import ScrfdFinder, YunetFinder
from identiface_core.matchers.template import ARCFACE_POINTS, cut
from tests.core import onnx_fakes as fakes
from tests.core.matcher_files import faces

HEIGHT, WIDTH = 360, 480
"""A picture whose longer side is not the canvas's, so that places are scaled."""
CELLS = 12
"""So many cells of each stride see a face."""


def random_faces(outputs: dict[str, Any], score: tuple[str, ...], seed: int, flat: bool) -> None:
    """Write plausible answers into some cells of every stride."""
    draw = np.random.default_rng(seed)
    for stride in (8, 16, 32):
        rows = outputs[f"bbox_{stride}"].reshape(-1, 4)
        chosen = draw.choice(len(rows), CELLS, replace=False)
        for name in score:
            outputs[f"{name}_{stride}"].reshape(-1)[chosen] = draw.uniform(0.7, 1, CELLS)
        rows[chosen] = draw.uniform(0.3, 2.0, (CELLS, 4)) if flat else draw.uniform(-0.5, 1.5, (CELLS, 4))
        outputs[f"kps_{stride}"].reshape(-1, 10)[chosen] = draw.uniform(-2, 2, (CELLS, 10))


def same(faces: list[Face], boxes: Any, points: Any, scores: Any) -> None:
    assert len(faces) == len(scores) > 20
    order = np.argsort(-np.asarray(scores), kind="stable")
    for face, i in zip(faces, order, strict=True):
        assert face.score == pytest.approx(float(scores[i]), abs=1e-4)
        assert face.box == pytest.approx([float(v) for v in boxes[i]], abs=0.05)
        # They count pixel centres from 0.
        assert np.abs(face.points.numpy() - 0.5 - points[i]).max() < 0.05


def test_scrfd_as_insightface_reads_it(tmp_path: Path) -> None:
    scrfd = pytest.importorskip("insightface.model_zoo.scrfd", reason="needs insightface")
    outputs = fakes.scrfd_outputs()
    random_faces(outputs, ("score",), 0, flat=True)
    path = fakes.constant(tmp_path / "det.onnx", outputs, name="input.1")
    theirs = scrfd.SCRFD(model_file=str(path))
    theirs.prepare(-1, det_thresh=0.5, input_size=(640, 640))
    found, points = theirs.detect(np.zeros((HEIGHT, WIDTH, 3), np.uint8), input_size=(640, 640))
    finder = ScrfdFinder(path)
    finder.SIDES = (640,)  # type: ignore[misc]
    same(finder.find_faces(torch.zeros(3, HEIGHT, WIDTH)), found[:, :4], points, found[:, 4])


def test_yunet_as_opencv_reads_it(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="needs OpenCV")
    outputs = fakes.yunet_outputs()
    random_faces(outputs, ("cls", "obj"), 1, flat=False)
    path = fakes.constant(tmp_path / "yunet.onnx", outputs)
    theirs = cv2.FaceDetectorYN.create(str(path), "", (640, 640), 0.6, 0.3, 5000)
    _, found = theirs.detect(np.zeros((640, 640, 3), np.uint8))
    finder = YunetFinder(path)
    finder.SIDES = (640,)  # type: ignore[misc]
    faces = finder.find_faces(torch.zeros(3, 640, 640))
    boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], 1)
    same(faces, boxes, found[:, 4:14].reshape(-1, 5, 2), found[:, 14])


# Where the points go: half a pixel shows in the crop.


def planted(outputs: dict[str, Any], score: tuple[str, ...], anchors: int) -> None:
    """One face in the middle of a canvas of 640 px, five points as far apart as in a crop."""
    cell = anchors * (20 * 40 + 20)
    points = (ARCFACE_POINTS - 0.5 - 56) * 1.3 / 16
    for name in score:
        outputs[f"{name}_16"].reshape(-1)[cell] = 0.9
    outputs["bbox_16"].reshape(-1, 4)[cell] = 1
    outputs["kps_16"].reshape(-1, 10)[cell] = points.numpy().ravel()


def scene() -> Any:
    """(640, 640, 3) bytes, RGB; smooth, so that a shift shows."""
    return (faces(1, 640, cells=80)[0].movedim(0, -1) * 255).round().byte().numpy()


def cut_out(finder: ScrfdFinder | YunetFinder, picture: Any) -> Any:
    """(112, 112, 3) bytes: what a matcher sees of the only face."""
    image = torch.from_numpy(picture).movedim(-1, 0).float() / 255
    (face,) = finder.find_faces(image)
    return cut(image[None], face.points[None])[0].movedim(0, -1).numpy() * 255


def test_a_face_found_by_scrfd_is_cut_out_as_by_insightface(tmp_path: Path) -> None:
    scrfd = pytest.importorskip("insightface.model_zoo.scrfd", reason="needs insightface")
    from insightface.utils import face_align

    outputs = fakes.scrfd_outputs()
    planted(outputs, ("score",), 2)
    path, picture = fakes.constant(tmp_path / "det.onnx", outputs, name="input.1"), scene()
    theirs = scrfd.SCRFD(model_file=str(path))
    theirs.prepare(-1, det_thresh=0.5, input_size=(640, 640))
    _, points = theirs.detect(np.ascontiguousarray(picture[..., ::-1]), input_size=(640, 640))
    finder = ScrfdFinder(path)
    finder.SIDES = (640,)  # type: ignore[misc]
    wanted = face_align.norm_crop(picture, points[0], 112)
    assert np.abs(cut_out(finder, picture) - wanted.astype(np.float32)).max() < 2.5


def test_a_face_found_by_yunet_is_cut_out_as_by_opencv(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="needs OpenCV")
    outputs = fakes.yunet_outputs()
    planted(outputs, ("cls", "obj"), 1)
    path, picture = fakes.constant(tmp_path / "yunet.onnx", outputs), scene()
    theirs = cv2.FaceDetectorYN.create(str(path), "", (640, 640), 0.6, 0.3, 5000)
    _, found = theirs.detect(np.ascontiguousarray(picture[..., ::-1]))
    finder = YunetFinder(path)
    finder.SIDES = (640,)  # type: ignore[misc]
    crops = cv2.FaceRecognizerSF.create(str(fakes.matcher(tmp_path / "m.onnx")), "")
    wanted = crops.alignCrop(picture, found[:1])
    assert np.abs(cut_out(finder, picture) - wanted.astype(np.float32)).max() < 2.5
