"""A found face as a value, what every face finder promises, and the geometry of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from identiface_core.errors import InputError
from identiface_core.faces.alignment import CANONICAL_POINTS, FACE_BOX, similarity_from_points

MAX_OVERLAP, MAX_INSIDE = 0.35, 0.7
"""Of two boxes with a larger intersection over union, or share of the smaller one, the weaker one is dropped."""
MAX_FACES = 64

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Face:
    """One face: its box and points in pixels of the picture, and how sure the finder is."""

    box: Box
    """`(x0, y0, x1, y1)`: forehead to chin, cheek to cheek; can reach beyond the picture."""
    points: Tensor
    """`(5, 2)` pixels `(x, y)`: image-left eye, image-right eye, nose tip, image-left and image-right mouth
    corner.
    """
    score: float
    """[0, 1], the finder's own; not a calibrated probability, and not comparable between finders."""


class Finder(Protocol):
    """What finds faces: the embedded network, or a detector of others in an ONNX file."""

    def find_faces(self, image: Tensor, *, threshold: float = ...) -> list[Face]:
        """Faces of a picture `(3, H, W)` in [0, 1], RGB, best first; an empty list if there are none.

        threshold: the score from which a find counts; each finder has a default of its own.
        """
        ...


@dataclass(frozen=True)
class KnownFaces:
    """A `Finder` for one picture, whose faces somebody else has found."""

    faces: tuple[Face, ...]
    """Best first."""

    def find_faces(self, image: Tensor, *, threshold: float = 0.0) -> list[Face]:
        """These, whatever the picture; as `Finder.find_faces`."""
        return [face for face in self.faces if face.score >= threshold]


def box_of(points: Tensor) -> Box:
    """Face box that belongs to five points `(5, 2)`: the canonical box, carried along (upright, same centre
    and area).
    """
    matrix = similarity_from_points(CANONICAL_POINTS.to(points), points)[0]
    x0, y0, x1, y1 = FACE_BOX
    centre = matrix[:, :2] @ torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2]).to(matrix) + matrix[:, 2]
    scale = float(torch.linalg.vector_norm(matrix[:, 0]))
    cx, cy = centre.tolist()
    half_width, half_height = scale * (x1 - x0) / 2, scale * (y1 - y0) / 2
    return (cx - half_width, cy - half_height, cx + half_width, cy + half_height)


def points_of(box: Sequence[float]) -> Tensor:
    """Five points `(5, 2)` of an upright average face that fills `box` (the other way round from
    `box_of`).
    """
    x0, y0, x1, y1 = FACE_BOX
    scale = (((box[2] - box[0]) * (box[3] - box[1])) / ((x1 - x0) * (y1 - y0))) ** 0.5
    middle = torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2])
    return (CANONICAL_POINTS - middle) * scale + torch.tensor([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])


def check_box(box: Sequence[float], name: str = "the picture") -> Box:
    """`box` as four finite floats with a positive area; InputError otherwise."""
    values = [float(v) for v in box]
    if (
        len(values) != 4
        or not all(abs(v) < 1e6 for v in values)
        or values[2] <= values[0]
        or values[3] <= values[1]
    ):
        raise InputError(
            f"{name}: a box is four numbers x0,y0,x1,y1 with x0 < x1 and y0 < y1; this is {list(box)}"
        )
    return (values[0], values[1], values[2], values[3])


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, [0, 1]."""
    both = _shared(a, b)
    return both / (area(a) + area(b) - both) if both else 0.0


def area(box: Box) -> float:
    """Pixels inside a box."""
    return (box[2] - box[0]) * (box[3] - box[1])


def suppress(
    faces: Sequence[Face],
    *,
    max_overlap: float = MAX_OVERLAP,
    max_inside: float = MAX_INSIDE,
    keep: int = MAX_FACES,
) -> list[Face]:
    """The best find of each face, best first, at most `keep` (greedy non-maximum suppression).

    max_overlap: of two boxes with a larger intersection over union the weaker one is dropped; max_inside: also
    where so large a share of the smaller box lies in the other one, as in finds of one face at two scales.
    """
    kept: list[Face] = []
    for face in sorted(faces, key=lambda f: (-f.score, f.box)):
        if len(kept) == keep:
            break
        if not any(_same_face(face.box, other.box, max_overlap, max_inside) for other in kept):
            kept.append(face)
    return kept


def listed(faces: Sequence[Face]) -> str:
    """The numbered boxes, as an error or a result shows them."""
    if not faces:
        return "no face at all"
    return "; ".join(f"{i}: {box_text(f.box)} (score {f.score:.2f})" for i, f in enumerate(faces))


def box_text(box: Box) -> str:
    """A box as a user writes it: x0,y0,x1,y1."""
    return ",".join(f"{v:.0f}" for v in box)


def _same_face(a: Box, b: Box, max_overlap: float, max_inside: float) -> bool:
    inside = _shared(a, b) > max_inside * min(area(a), area(b))
    return inside or overlap(a, b) > max_overlap


def _shared(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)
