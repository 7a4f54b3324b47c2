"""Where matchers of the ArcFace kind want a face: five points in a small crop, and the crop cut out accordingly."""

from __future__ import annotations

import torch
from torch import Tensor

from identiface_core.errors import InputError
from identiface_core.faces.alignment import (
    apply_matrix,
    canonical_points,
    check_points,
    float_or_finer,
    similarity_from_points,
    warp_antialiased,
)

SIDE = 112
"""Side in pixels of the crops of nearly all public matchers."""

ARCFACE_POINTS = torch.tensor(
    [[38.7946, 52.1963], [74.0318, 52.0014], [56.5252, 72.2366], [42.0493, 92.8655], [71.2299, 92.7041]]
)
"""`(5, 2)` pixels of a 112 px crop, pixel centres at integer + 0.5: InsightFace's and OpenCV's template, whose own numbers
count centres from 0 and so are smaller by a half."""


def template(side: int = SIDE, *, like: Tensor | None = None) -> Tensor:
    """`(5, 2)`: where the points lie in a crop of `side` px. InsightFace's rule: 128 px have a margin of 8 px left and right.

    InputError for a side that is a multiple of neither 112 nor 128: nobody says where such a matcher wants its points.
    """
    if side < 1 or (side % 112 and side % 128):
        raise InputError(
            f"crops of {side} px: the template is known for multiples of 112 and 128 px; use a matcher that reads such crops"
        )
    unit = side / (128 if side % 112 else 112)
    # The half pixel is not scaled: it is where the corner of a pixel lies against its centre.
    points = (ARCFACE_POINTS - 0.5) * unit + 0.5
    if side % 112:
        points = points + torch.tensor([8.0 * unit, 0.0])
    return points if like is None else points.to(like)


def cut(pictures: Tensor, points: Tensor | None, side: int = SIDE) -> Tensor:
    """Crops `(B, C, side, side)` whose faces lie in the template; differentiable in the pictures and the points.

    Convention:
        - pictures `(B, C, H, W)` in [0, 1]; points `(B, 5, 2)` pixels of them, pixel centres at integer + 0.5, or None for
          portraits in canonical framing, of any side
        - least-squares similarity, bilinear; black outside the picture (as InsightFace's norm_crop); a face that is shrunk is
          low-pass filtered first (unlike norm_crop, which aliases)

    >>> cut(torch.rand(2, 3, 256, 256), None).shape
    torch.Size([2, 3, 112, 112])
    """
    if points is None:
        points = canonical_points(pictures.shape[-1]).expand(len(pictures), 5, 2)
    matrix = similarity_from_points(points.to(pictures.device), template(side))
    return warp_antialiased(pictures, matrix, side, padding="zeros")


def residual(points: Tensor, target: Tensor = ARCFACE_POINTS) -> Tensor:
    """`(B,)`: how far five points `(B, 5, 2)` are from `target` `(5, 2)` once aligned: root mean square, in eye distances.

    0 is the template's own frontal face; a face that is turned away, or has a point in the wrong place, is far off.
    """
    points = float_or_finer(points)
    target = target.to(points)
    aligned = apply_matrix(similarity_from_points(points, target), points)
    distance = (aligned - target).square().sum(-1).mean(-1).sqrt()
    return distance / (target[1] - target[0]).norm()


SPILL = 0.05
"""So far beyond black and white values may lie: decoders and resizing overshoot."""


def check_pictures(pictures: Tensor, points: Tensor | None, name: str) -> Tensor:
    """The pictures in float32 or finer, if they are what a matcher can read: RGB (B, 3, H, W), finite, in about [0, 1], with five
    distinct, finite points each that lie over the picture, or portraits. InputError otherwise.

    name: that of the matcher, for the sentence. Gradients go through.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3 or not pictures.is_floating_point():
        raise InputError(
            f"matcher '{name}' wants portraits (B, 3, H, W) of float values, got {tuple(pictures.shape)} of "
            f"{str(pictures.dtype).removeprefix('torch.')}: align the face first and stack portraits into a batch"
        )
    height, width = pictures.shape[-2:]
    if min(height, width) < 1:
        raise InputError(f"matcher '{name}': a picture of {width} x {height} px shows nothing")
    if len(pictures):
        least, most = torch.stack(pictures.detach().aminmax()).tolist()
        if not (least >= -SPILL and most <= 1 + SPILL):  # neither holds for values that are no numbers
            raise InputError(
                f"matcher '{name}' wants finite values in [0, 1], these go from {least:.4g} to {most:.4g}: scale the pictures, "
                "or look for what gave such values"
            )
    if points is not None:
        _check_places(pictures, points, name)
    elif height != width:
        raise InputError(
            f"matcher '{name}': a portrait is square, this picture is {width} x {height} px: align the face first, or "
            "say where its five points are"
        )
    return float_or_finer(pictures)


def _check_places(pictures: Tensor, points: Tensor, name: str) -> None:
    if points.shape != (len(pictures), 5, 2):
        raise InputError(
            f"matcher '{name}' wants five points for each of {len(pictures)} pictures, ({len(pictures)}, 5, 2), "
            f"got {tuple(points.shape)}"
        )
    check_points(points, f"matcher '{name}'")
    height, width = pictures.shape[-2:]
    middles = points.detach().float().mean(1)
    beyond = ((middles < 0) | (middles > middles.new_tensor([width, height]))).any(1)
    if bool(beyond.any()):
        x, y = middles[beyond][0].tolist()
        raise InputError(
            f"matcher '{name}': the middle of a face lies at {x:.0f}, {y:.0f}, outside of its picture of {width} x {height} px: "
            "give the points that were found in this picture, in its pixels"
        )
