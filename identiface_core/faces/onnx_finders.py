"""Face detectors of others, run from their ONNX files with a decoding of our own: SCRFD and YuNet.

Both answer on grids of 8, 16 and 32 px with a score, a box and five points per cell. Pictures are fitted into the
network's canvas (top left, the rest black) at two scales: a face that fills the picture is as sure to be found as a
small one. Boxes and points come back in pixels of the picture.

Both count pixel centres from 0, as does what cuts faces out by their points: insightface.utils.face_align's norm_crop and
OpenCV's FaceRecognizerSF.alignCrop. Here centres lie at integer + 0.5, so points move by half a pixel of the picture.

Sources: SCRFD (Guo et al., 2021, InsightFace); YuNet (Wu et al., 2023, libfacedetection and OpenCV's model zoo).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from identiface_core.errors import WeightsError
from identiface_core.faces.base import Box, Face, Finder, suppress
from identiface_core.faces.finder import FaceFinder
from identiface_core.imaging import resize
from identiface_core.weights.files import load_module
from identiface_core.weights.onnx_families import STRIDES
from identiface_core.weights.onnx_graph import Session
from identiface_core.weights.recognise import expected

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MAX_FOUND = 500
"""Faces of one picture that are kept: groups are photographed, too."""
BEFORE_SUPPRESSION = 3000
"""Finds of one picture, best first, that are compared with each other."""
HALF = 0.5
"""What is added to points of networks that count pixel centres from 0."""

Found = tuple[Tensor, Tensor, Tensor]
"""Boxes `(N, 4)`, points `(N, 5, 2)` and scores `(N,)`, in pixels of the network's canvas, centres counted from 0."""


class _OnnxFinder:
    """A `Finder` from an ONNX file; what differs between families is how pixels go in and outputs are read."""

    SIDES: ClassVar[tuple[int, ...]]
    """Longest sides, in pixels, that a picture is brought to."""
    THRESHOLD: ClassVar[float]
    MAX_OVERLAP: ClassVar[float]

    def __init__(self, path: str | Path, purpose: str = "A face finder") -> None:
        """Raises WeightsError for a file that is no such detector, or where onnxruntime is missing."""
        self.session = Session(path, purpose)
        shape = self.session.graph.picture
        self.canvas = (shape[2], shape[3]) if shape else (None, None)
        """(height, width) that the graph insists on; None for any multiple of 32."""

    def find_faces(self, image: Tensor, *, threshold: float | None = None) -> list[Face]:
        """As `Finder.find_faces`."""
        least = self.THRESHOLD if threshold is None else threshold
        found: list[Face] = []
        for side in self.SIDES:
            found += self._find_at(image, side, least)
        best = sorted(found, key=lambda face: -face.score)[:BEFORE_SUPPRESSION]
        return suppress(best, max_overlap=self.MAX_OVERLAP, max_inside=inf, keep=MAX_FOUND)

    def _find_at(self, image: Tensor, side: int, threshold: float) -> list[Face]:
        height, width = image.shape[-2:]
        rows, columns = self.canvas
        factor = min(side / max(height, width), (rows or side) / height, (columns or side) / width)
        small = resize(image.float(), max(1, round(height * factor)), max(1, round(width * factor)))
        tall, wide = small.shape[-2:]
        canvas = torch.zeros(3, rows or -(-tall // 32) * 32, columns or -(-wide // 32) * 32)
        canvas[:, :tall, :wide] = small
        outputs = self.session.run(self._pixels(canvas)[None].numpy())
        boxes, points, scores = self._decode(outputs, canvas.shape[1], canvas.shape[2])
        scale = torch.tensor([width / wide, height / tall])
        sure = (scores >= threshold) & boxes.isfinite().all(1) & points.isfinite().flatten(1).all(1)
        # After the scaling: as their own packages do, which hand these numbers on to what cuts the face out.
        boxes, points = boxes[sure] * scale.repeat(2), points[sure] * scale + HALF
        return [
            Face(cast(Box, tuple(box)), five, score)
            for box, five, score in zip(boxes.tolist(), points, scores[sure].tolist(), strict=True)
        ]

    def _pixels(self, canvas: Tensor) -> Tensor:
        raise NotImplementedError

    def _decode(self, outputs: Sequence[Array], height: int, width: int) -> Found:
        raise NotImplementedError

    def _cells(self, count: int, stride: int, height: int, width: int) -> Tensor:
        """Top left corners `(count, 2)` of the grid's cells, each as often as it has anchors."""
        rows, columns = -(-height // stride), -(-width // stride)
        if count == 0 or count % (rows * columns):
            raise WeightsError(
                f"{self.session.path}: {count} answers do not fit a grid of {columns} x {rows} cells of {stride} px: "
                "this is another network than it looks like. Choose another file."
            )
        grid = torch.stack(torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy"), -1)
        return grid.reshape(-1, 2).repeat_interleave(count // (rows * columns), 0) * float(stride)


class ScrfdFinder(_OnnxFinder):
    """InsightFace's SCRFD with points (det_10g, det_500m and their like): nine outputs, two anchors a cell.

    Scores are probabilities, boxes the distances to the four sides, points offsets, both in strides from the cell's corner.
    """

    SIDES = (640, 128)
    THRESHOLD = 0.5
    MAX_OVERLAP = 0.4

    def _pixels(self, canvas: Tensor) -> Tensor:
        return (canvas * 255 - 127.5) / 128

    def _decode(self, outputs: Sequence[Array], height: int, width: int) -> Found:
        flat = [torch.from_numpy(one).float().reshape(-1, one.shape[-1]) for one in outputs]
        # Finest grid first, whatever order the exporter chose.
        kinds = {n: sorted((t for t in flat if t.shape[1] == n), key=lambda t: -len(t)) for n in (1, 4, 10)}
        if any(len(tensors) != len(STRIDES) for tensors in kinds.values()):
            raise WeightsError(
                f"{self.session.path}: a detector with boxes and five points at three strides is wanted, this one gives "
                f"{self.session.graph.taken}. Choose a SCRFD with key points (its name often has 'kps')."
            )
        found = []
        for stride, scores, sides, offsets in zip(STRIDES, kinds[1], kinds[4], kinds[10], strict=True):
            corner = self._cells(len(scores), stride, height, width)
            sides = sides * stride
            boxes = torch.cat([corner - sides[:, :2], corner + sides[:, 2:]], 1)
            points = corner[:, None] + offsets.reshape(-1, 5, 2) * stride
            found.append((boxes, points, scores[:, 0].clamp(0, 1)))
        return _joined(found)


class YunetFinder(_OnnxFinder):
    """YuNet as published since 2023: class, objectness, box and points by name, one anchor a cell, BGR in 0..255.

    The score is the geometric mean of class and objectness; a box is its centre's offset and the logarithms of its
    sides, in strides from the cell's corner.
    """

    SIDES = (640, 160)
    THRESHOLD = 0.6
    MAX_OVERLAP = 0.3

    def _pixels(self, canvas: Tensor) -> Tensor:
        return canvas.flip(0) * 255

    def _decode(self, outputs: Sequence[Array], height: int, width: int) -> Found:
        ports = [port.name for port in self.session.graph.outputs]
        named = {
            name: torch.from_numpy(one).float().reshape(-1, one.shape[-1])
            for name, one in zip(ports, outputs, strict=True)
        }
        found = []
        for stride in STRIDES:
            seen, there, box, kps = (named[f"{what}_{stride}"] for what in ("cls", "obj", "bbox", "kps"))
            corner = self._cells(len(box), stride, height, width)
            centre, half = corner + box[:, :2] * stride, box[:, 2:].clamp(max=20).exp() * stride / 2
            points = corner[:, None] + kps.reshape(-1, 5, 2) * stride
            scores = (seen.clamp(0, 1) * there.clamp(0, 1)).sqrt()[:, 0]
            found.append((torch.cat([centre - half, centre + half], 1), points, scores))
        return _joined(found)


def load_finder(path: str | Path, purpose: str = "A face finder") -> Finder:
    """The face finder in the file at `path`, known by its content: SCRFD, YuNet, or one that IdentiFace trained.

    purpose: what needs it, as the beginning of a sentence. Raises WeightsError for any other file (saying what it is), for a
    SCRFD without points, and where onnxruntime is missing.
    """
    found = expected(path, ("face-detector", FaceFinder.kind), purpose)
    if found.kind == FaceFinder.kind:
        return load_module(path, FaceFinder)
    if found.facts["family"] == "yunet":
        return YunetFinder(path, purpose)
    if not found.facts["points"]:
        raise WeightsError(
            f"{path}: {purpose} needs five points of each face to align it, this SCRFD gives boxes alone. Choose one with key "
            "points (its name often has 'kps'): `identiface weights get scrfd-500m`"
        )
    return ScrfdFinder(path, purpose)


def _joined(found: Sequence[Found]) -> Found:
    boxes, points, scores = (torch.cat(one) for one in zip(*found, strict=True))
    return boxes, points, scores
