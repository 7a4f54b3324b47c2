"""Finding faces in a picture: a small fully convolutional network over an image pyramid.

The network answers, for each 8 px cell: is a face centred here, how large is it, where are its five points.
It knows faces of 15 to 75 px; the pyramid brings larger ones into that range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from identiface_core.errors import InputError, NoFaceError, SeveralFacesError
from identiface_core.faces.alignment import (
    CANONICAL_POINTS,
    FACE_BOX,
    PORTRAIT_SIDE,
    align,
    canonical_points,
    similarity_from_points,
    warp_antialiased,
)
from identiface_core.imaging import resize

STRIDE = 8
UNIT_SIDE = 40.0
"""A predicted log size of 0 is a face of this side, in pixels."""
PYRAMID = (1024, 512, 256, 128, 64)
"""Longest sides, in pixels, at which a picture is looked at; it is enlarged to the last two only."""
THRESHOLD = 0.45
"""Heatmap value from which a cell counts as a face."""
MAX_OVERLAP, MAX_INSIDE = 0.35, 0.7
"""Of two boxes with a larger intersection over union, or share of the smaller one, the weaker one is dropped."""
MAX_FACES = 64

Box = tuple[float, float, float, float]
FaceChoice = int | Sequence[float] | None
"""Index into the list of faces (best first, from 0), a box `(x0, y0, x1, y1)`, or None: there must be just
one.
"""


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
    """[0, 1], of the network's heatmap; not a calibrated probability."""


class _Block(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.layers(x))


def _down(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, 2, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU())


class FaceFinder(nn.Module):
    """Pictures `(B, 3, H, W)` in [0, 1] (sides divisible by 8) -> maps `(B, 12, H/8, W/8)`.

    Channels: 0 heatmap logit; 1 log(side / UNIT_SIDE); 2 to 11 the offsets `(dx, dy)` of the five points from
    the cell's centre, in face sides. The side of a face is the geometric mean of its box's sides.
    """

    kind = "face-finder"

    def __init__(
        self, *, widths: Sequence[int] = (16, 32, 56), dilations: Sequence[int] = (1, 2, 4, 2)
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"widths": list(widths), "dilations": list(dilations)}
        first, second, third = widths
        self.trunk = nn.Sequential(
            _down(3, first),
            _down(first, second),
            _Block(second, 1),
            _down(second, third),
            *(_Block(third, dilation) for dilation in dilations),
        )
        self.head = nn.Conv2d(third, 12, 1)
        with torch.no_grad():
            assert self.head.bias is not None
            self.head.bias[0] = -4.0  # faces are rare: start from "no face"

    def forward(self, image: Tensor) -> Tensor:
        maps: Tensor = self.head(self.trunk(image * 2 - 1))
        return maps

    @torch.no_grad()
    def find_faces(self, image: Tensor, *, threshold: float = THRESHOLD) -> list[Face]:
        """Faces of a picture `(3, H, W)`, best first; an empty list if there are none."""
        found: list[Face] = []
        for side in _pyramid(max(image.shape[-2:])):
            found += self._find_at(image, side, threshold)
        return _suppress(found)

    def _find_at(self, image: Tensor, side: int, threshold: float) -> list[Face]:
        factor = side / max(image.shape[-2:])
        height, width = (max(1, round(n * factor)) for n in image.shape[-2:])
        small = resize(image, height, width)[None]
        small = F.pad(small, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        scale = torch.tensor([image.shape[-1] / width, image.shape[-2] / height])
        faces = decode(self(small.to(next(self.parameters())))[0], threshold)
        return [Face(box_of(face.points * scale), face.points * scale, face.score) for face in faces]


def decode(maps: Tensor, threshold: float = THRESHOLD) -> list[Face]:
    """Peaks of the finder's maps `(12, h, w)` as faces, in pixels of the picture that went in."""
    maps = maps.detach().float().cpu()
    heat = maps[0].sigmoid()
    peak = (heat >= threshold) & (heat == F.max_pool2d(heat[None], 3, 1, 1)[0])
    faces = []
    for row, column in peak.nonzero().tolist():
        values = maps[:, row, column]
        centre = torch.tensor([column + 0.5, row + 0.5]) * STRIDE
        side = UNIT_SIDE * float(values[1].clamp(-3, 3).exp())
        points = centre + values[2:].reshape(5, 2) * side
        faces.append(Face(box_of(points), points, float(heat[row, column])))
    return faces


def find_faces(image: Tensor, finder: FaceFinder, *, threshold: float = THRESHOLD) -> list[Face]:
    """`finder.find_faces(image)`: faces of a picture `(3, H, W)` in [0, 1], best first."""
    return finder.find_faces(image, threshold=threshold)


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


def choose_face(faces: Sequence[Face], choice: FaceChoice = None, *, name: str = "the picture") -> Face:
    """The face that `choice` names: an index from 0, a box (the face that overlaps it most), or None for the
    only one.

    Raises NoFaceError for no face (or none inside the box), SeveralFacesError for several faces and no
    choice; the text lists the numbered boxes. `name` is what the picture is called in these texts.
    """
    if isinstance(choice, Sequence) and not isinstance(choice, str):
        box = check_box(choice, name)
        best = max(faces, key=lambda face: overlap(face.box, box), default=None)
        if best is None or overlap(best.box, box) <= 0:
            raise NoFaceError(
                f"{name}: no face was found in the box {_box_text(box)}. Found: {_listed(faces)}."
            )
        return best
    if not faces:
        raise NoFaceError(
            f"{name}: no face was found. Give a sharper or larger picture of the face, a box around it "
            "(x0,y0,x1,y1), or 'whole' if the picture already is the cropped face."
        )
    if choice is None:
        if len(faces) > 1:
            raise SeveralFacesError(
                f"{name}: {len(faces)} faces were found, one is wanted. Choose by number or by box: "
                f"{_listed(faces)}."
            )
        return faces[0]
    if isinstance(choice, bool) or not isinstance(choice, int):
        raise InputError(
            f"{name}: a face is chosen by a number, a box (x0,y0,x1,y1) or 'whole'; this is {choice!r}"
        )
    if not 0 <= choice < len(faces):
        raise NoFaceError(f"{name}: there is no face number {choice}. Found: {_listed(faces)}.")
    return faces[choice]


def portrait_of(
    image: Tensor, finder: FaceFinder, choice: FaceChoice = None, *, name: str = "the picture"
) -> Tensor:
    """Portrait `(3, 128, 128)` of the chosen face of a picture `(3, H, W)`. Errors as `choose_face`.

    A box in which the finder sees no face is an error here; `portrait_in_box` takes a box at its word.
    """
    face = choose_face(finder.find_faces(image), choice, name=name)
    return align(image[None], face.points[None])[0]


def portrait_in_box(image: Tensor, box: Sequence[float], size: int = PORTRAIT_SIDE) -> Tensor:
    """Portrait `(3, size, size)` of an upright face that fills `box` in a picture `(3, H, W)`; nothing is
    searched.
    """
    matrix = similarity_from_points(points_of(box), canonical_points(size))
    return warp_antialiased(image[None], matrix, size)[0]


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
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _same_face(a: Box, b: Box) -> bool:
    """Two finds of one face: they overlap, or one lies in the other, as finds at two scales do."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    inside = max(width, 0.0) * max(height, 0.0) > MAX_INSIDE * smaller
    return inside or overlap(a, b) > MAX_OVERLAP


def _pyramid(longest: int) -> list[int]:
    return [side for side in PYRAMID if side <= max(longest, PYRAMID[-2])]


def _suppress(faces: list[Face]) -> list[Face]:
    kept: list[Face] = []
    for face in sorted(faces, key=lambda f: (-f.score, f.box)):
        if len(kept) < MAX_FACES and not any(_same_face(face.box, other.box) for other in kept):
            kept.append(face)
    return kept


def _box_text(box: Box) -> str:
    return ",".join(f"{v:.0f}" for v in box)


def _listed(faces: Sequence[Face]) -> str:
    if not faces:
        return "no face at all"
    return "; ".join(f"{i}: {_box_text(f.box)} (score {f.score:.2f})" for i, f in enumerate(faces))
