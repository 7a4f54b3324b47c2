"""Finding faces in a picture: a small fully convolutional network over an image pyramid.

The network answers, for each 8 px cell: is a face centred here, how large is it, where are its five points.
It knows faces of 15 to 75 px; the pyramid brings larger ones into that range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from identiface_core.faces.base import Face, box_of, suppress
from identiface_core.imaging import resize

STRIDE = 8
UNIT_SIDE = 40.0
"""A predicted log size of 0 is a face of this side, in pixels."""
PYRAMID = (1024, 512, 256, 128, 64)
"""Longest sides, in pixels, at which a picture is looked at; it is enlarged to the last two only."""
THRESHOLD = 0.45
"""Heatmap value from which a cell counts as a face."""


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
        return suppress(found)

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


def _pyramid(longest: int) -> list[int]:
    return [side for side in PYRAMID if side <= max(longest, PYRAMID[-2])]
