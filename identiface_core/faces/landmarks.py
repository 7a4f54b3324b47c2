"""Where the parts of a face are, from points on it: 5, 68, 106, or 468 and 478 of a face mesh.

Points show eyes, brows, nose, mouth and the outline of the face. They do not show hair and ears: those become generous
regions beside and above the outline, where they would be. They cannot tell whether there are glasses: that channel
stays empty, and a round that adds glasses takes `segmenter.part_template`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from identiface_core.errors import InputError
from identiface_core.faces.alignment import CANONICAL_POINTS, apply_matrix, similarity_from_points
from identiface_core.faces.outlines import convex_region, layered

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Scheme:
    """Which of a numbering's points lie on what. Indices from 0; image-left before image-right."""

    outline: tuple[int, ...]
    brows: tuple[tuple[int, ...], tuple[int, ...]]
    eyes: tuple[tuple[int, ...], tuple[int, ...]]
    nose: tuple[int, ...]
    mouth: tuple[int, ...]
    tip: tuple[int, ...]
    """Their mean is the tip of the nose."""
    corners: tuple[int, int]
    """Image-left and image-right corner of the mouth."""
    forehead: bool
    """Whether `outline` goes round the forehead; else it ends at the temples, and the forehead is guessed."""


def _span(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


_MESH = Scheme(
    outline=(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176,
             149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
    brows=((70, 63, 105, 66, 107, 55, 65, 52, 53, 46), (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)),
    eyes=((33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
          (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)),
    nose=(168, 6, 193, 417, 4, 1, 129, 358, 64, 294, 98, 327, 2, 48, 278),
    mouth=(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
    tip=(1, 4), corners=(61, 291), forehead=True,
)  # fmt: skip

SCHEMES: dict[int, Scheme] = {
    68: Scheme(
        outline=_span(0, 16), brows=(_span(17, 21), _span(22, 26)), eyes=(_span(36, 41), _span(42, 47)),
        nose=_span(27, 35), mouth=_span(48, 67), tip=(30, 33), corners=(48, 54), forehead=False,
    ),
    106: Scheme(
        outline=_span(0, 32), brows=(_span(43, 51), _span(97, 105)), eyes=(_span(33, 42), _span(87, 96)),
        nose=_span(72, 86), mouth=_span(52, 71), tip=(86,), corners=(52, 61), forehead=False,
    ),
    468: _MESH,
    478: _MESH,
}  # fmt: skip
"""By the number of points: 68 of iBUG 300-W (dlib), 106 of InsightFace's 2d106det, 468 or (with irises) 478 of
MediaPipe's face mesh."""

COUNTS = (5, *SCHEMES)

# Ellipses (centre x, centre y, half width, half height) of an average face, pixels of a 128 px portrait, for five points.
_AVERAGE: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "skin": ((64, 69, 30, 38),),
    "eyes": ((51.4, 57.5, 7, 3.5), (76.6, 57.5, 7, 3.5)),
    "brows": ((51, 49.5, 9, 2.5), (77, 49.5, 9, 2.5)),
    "nose": ((64, 67, 7, 11),),
    "mouth": ((64, 84.6, 12, 5),),
}

_BROW, _EYE, _NOSE, _MOUTH = 0.05, 0.04, 0.06, 0.03
"""How far a region reaches beyond its points, in distances between the eyes."""
_FOREHEAD = 0.6
"""How far the forehead reaches above the brows."""
_HAIR = 0.95
"""How far hair reaches beyond the outline, above the mouth."""
_EAR = (0.05, 0.45)
"""From where to where ears reach, counted outwards from the outline."""


def parts_from_landmarks(points: Tensor, size: int) -> Tensor:
    """Part probabilities of a portrait of `size` px with these points on it: `(B, 9, size, size)`, as a `PartSource` gives.

    points: `(B, N, 2)` or `(N, 2)` pixels `(x, y)` of the portrait, N one of `COUNTS`. Channels sum to 1 at each pixel; edges are
    soft. Turned and tilted faces are as good as upright ones. Raises InputError for another number of points, and for points
    that all coincide or are not finite.
    """
    points = (points if points.dim() == 3 else points[None]).detach().float().cpu()
    if points.dim() != 3 or points.shape[2] != 2 or points.shape[1] not in COUNTS:
        raise InputError(
            f"points of a face: (N, 2) or (B, N, 2) with N one of {', '.join(map(str, COUNTS))} are wanted, these are "
            f"{tuple(points.shape)}"
        )
    return torch.cat([_parts(one, size) for one in points])


def five_of(points: Tensor) -> Tensor:
    """The five points `(5, 2)` that alignment needs, out of points `(N, 2)` of any numbering in `COUNTS`."""
    if len(points) == 5:
        return points
    scheme = SCHEMES[len(points)]
    left, right = (points[list(eye)].mean(0) for eye in scheme.eyes)
    tip, (first, second) = points[list(scheme.tip)].mean(0), scheme.corners
    return torch.stack([left, right, tip, points[first], points[second]])


def _parts(points: Tensor, size: int) -> Tensor:
    five = five_of(points)
    across = five[1] - five[0]
    apart = float(across.norm())
    if not bool(points.isfinite().all()) or apart < 1e-3:
        raise InputError("points of a face: the eyes coincide or a number is not finite; these show no face")
    regions: dict[str, list[Tensor]]
    if len(points) == 5:
        outline, regions = _average(five, size)
    else:
        outline, regions = _seen(points, SCHEMES[len(points)], size, apart)
    regions["skin"] = [convex_region(outline, size)]
    regions["hair"] = [_hair(outline, five, size, apart)]
    regions["ears"] = _ears(outline, five, size, apart)
    return layered({part: [one[None] for one in found] for part, found in regions.items()})


def _average(five: Tensor, size: int) -> tuple[Tensor, dict[str, list[Tensor]]]:
    """An average face carried to where the five points are."""
    matrix = similarity_from_points(CANONICAL_POINTS, five)
    turn = torch.linspace(0, 2 * torch.pi, 33)[:-1]
    circle = torch.stack([turn.cos(), turn.sin()], -1)
    found = {
        part: [
            apply_matrix(matrix, (circle * torch.tensor([rx, ry]) + torch.tensor([cx, cy]))[None])[0]
            for cx, cy, rx, ry in ellipses
        ]
        for part, ellipses in _AVERAGE.items()
    }
    regions = {part: [convex_region(one, size) for one in found[part]] for part in found if part != "skin"}
    return found["skin"][0], regions


def _seen(points: Tensor, scheme: Scheme, size: int, apart: float) -> tuple[Tensor, dict[str, list[Tensor]]]:
    def drawn(groups: Iterable[Sequence[int]], margin: float) -> list[Tensor]:
        return [convex_region(points[list(group)], size, margin * apart) for group in groups]

    outline = points[list(scheme.outline)]
    if not scheme.forehead:
        brows = points[[*scheme.brows[0], *scheme.brows[1]]]
        raised = brows + _FOREHEAD * apart * _axes(five_of(points))[1]
        outline = torch.cat([outline, brows, raised])
    regions = {
        "brows": drawn(scheme.brows, _BROW),
        "eyes": drawn(scheme.eyes, _EYE),
        "nose": drawn([scheme.nose], _NOSE),
        "mouth": drawn([scheme.mouth], _MOUTH),
    }
    return outline, regions


def _hair(outline: Tensor, five: Tensor, size: int, apart: float) -> Tensor:
    """The outline grown, above the mouth."""
    _, up = _axes(five)
    grown = convex_region(outline, size, _HAIR * apart)
    axis = torch.arange(size, dtype=torch.float32) + 0.5
    height = float(up[0]) * axis + (float(up[1]) * axis)[:, None]
    line = float((five[3:].mean(0) * up).sum())
    return grown * (height > line)


def _ears(outline: Tensor, five: Tensor, size: int, apart: float) -> list[Tensor]:
    """One box on each side of the outline, from above the eyes to below the nose."""
    along, up = _axes(five)
    places = outline @ along
    top = float((five[:2].mean(0) * up).sum()) + 0.35 * apart
    bottom = float((five[2] * up).sum()) - 0.25 * apart
    boxes = []
    for edge, way in ((float(places.min()), -1), (float(places.max()), 1)):
        sides = [edge + way * reach * apart for reach in _EAR]
        corners = torch.stack([side * along + height * up for side in sides for height in (top, bottom)])
        boxes.append(convex_region(corners, size))
    return boxes


def _axes(five: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors `(2,)` along the eyes, to the image's right, and upwards across them."""
    across = five[1] - five[0]
    along = across / across.norm()
    return along, torch.stack([along[1], -along[0]])
