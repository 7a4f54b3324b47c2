"""Bringing a face into the canonical framing: five points, one similarity, one differentiable warp."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.errors import InputError
from identiface_core.imaging import resample

PORTRAIT_SIDE = 128

CANONICAL_POINTS = torch.tensor([[51.4, 57.5], [76.6, 57.5], [64.0, 72.5], [54.3, 84.6], [73.7, 84.6]])
"""`(5, 2)` pixels `(x, y)` of a 128 px portrait: where the points of an average frontal face lie in the
canonical framing.

Mean over the drawn people, made symmetric. Order: image-left eye, image-right eye, nose tip, image-left and
image-right mouth corner.
"""

FACE_BOX = (35.0, 38.0, 93.0, 102.0)
"""Box `(x0, y0, x1, y1)` of the face (forehead to chin, cheek to cheek) in the canonical framing, at 128
px.
"""

LEAST_SPREAD = 0.5
"""Pixels from its middle that the farthest point of a face must lie: no framing comes of less."""


def canonical_points(size: int, *, like: Tensor | None = None) -> Tensor:
    """`CANONICAL_POINTS` for a portrait of `size` px, `(5, 2)`, in the type and on the device of `like`."""
    points = CANONICAL_POINTS * (size / PORTRAIT_SIDE)
    return points if like is None else points.to(like)


def float_or_finer(tensor: Tensor) -> Tensor:
    """In float32 or finer: places of large pictures and inverse matrices do not fit into half precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def check_points(points: Tensor, name: str = "the face") -> None:
    """Raise InputError unless each set of points `(..., N, 2)` is finite and lies apart.

    name: whose points they are, the beginning of the sentence.
    """
    at = points.detach().float()
    spread = (at - at.mean(-2, keepdim=True)).norm(dim=-1).amax(-1)
    if not bool((at.isfinite().all(-1).all(-1) & (spread >= LEAST_SPREAD)).all()):
        raise InputError(
            f"{name}: five points that lie apart are wanted; some of these coincide or are not finite numbers"
        )


def similarity_from_points(points: Tensor, target: Tensor) -> Tensor:
    """Least-squares similarity (rotation, one scale, shift; no reflection) that maps `points` onto `target`.

    The planar case of Umeyama (1991) in closed form. With centred points p, q and complex numbers z = x + iy,
    the best scaled rotation is a + ib = sum(conj(p) q) / sum(|p|^2): no singular value decomposition, so
    gradients are smooth everywhere but for coinciding points.

    Convention:
        - points `(B, N, 2)` or `(N, 2)`, pixels `(x, y)`, pixel centres at integer + 0.5; target `(B, N, 2)`
          or `(N, 2)`
        - returns `(B, 2, 3)`: `target = M[:, :, :2] @ point + M[:, :, 2]`, from source pixels to target
          pixels
        - no reflection: mirrored points give the best rotation, not a flip
        - points that all coincide give scale 0 (finite, no error; `check_points` refuses them)
        - float32 or finer, whatever the points are in

    >>> similarity_from_points(CANONICAL_POINTS * 2, CANONICAL_POINTS).shape
    torch.Size([1, 2, 3])
    """
    points = points if points.dim() == 3 else points[None]
    points = float_or_finer(points)
    target = (target if target.dim() == 3 else target[None]).to(points).expand_as(points)
    p_mean, q_mean = points.mean(1), target.mean(1)
    p, q = points - p_mean[:, None], target - q_mean[:, None]
    power = p.square().sum((1, 2)).clamp_min(torch.finfo(points.dtype).tiny)
    a = (p * q).sum((1, 2)) / power
    b = (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(1) / power
    turn = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], -2)
    shift = q_mean - (turn @ p_mean[..., None])[..., 0]
    return torch.cat([turn, shift[..., None]], -1)


def invert_similarity(matrix: Tensor) -> Tensor:
    """Inverse of a `(B, 2, 3)` affine matrix: from target pixels back to source pixels, `(B, 2, 3)`, float32 or finer."""
    matrix = float_or_finer(matrix)
    linear = torch.linalg.inv(matrix[:, :, :2])
    return torch.cat([linear, -linear @ matrix[:, :, 2:]], -1)


def apply_matrix(matrix: Tensor, points: Tensor) -> Tensor:
    """Map points `(B, N, 2)` through `(B, 2, 3)`: `(B, N, 2)`."""
    return points @ matrix[:, :, :2].mT + matrix[:, None, :, 2]


def warp(
    image: Tensor,
    matrix: Tensor,
    size: int | tuple[int, int],
    *,
    padding: str = "border",
    mode: str = "bilinear",
) -> Tensor:
    """Sample `image` under an affine map; differentiable in image and matrix.

    Convention:
        - image `(B, C, H, W)`; matrix `(B, 2, 3)` from source pixels to target pixels (as
          `similarity_from_points`)
        - size: target `(height, width)`, or one number for a square
        - pixel centres at integer + 0.5 on both sides (`align_corners=False`), bilinear (or
          mode "nearest", for label maps)
        - padding outside the source: "border" repeats the edge, "zeros" is black
        - no antialiasing: shrinking by more than 2 needs a blurred source, which `align` takes care of

    >>> warp(torch.zeros(2, 3, 50, 60), torch.tensor([[[1.0, 0, 0], [0, 1, 0]]]).expand(2, -1, -1), (20, 30)).shape
    torch.Size([2, 3, 20, 30])
    """
    height, width = (size, size) if isinstance(size, int) else size
    inverse = invert_similarity(matrix)
    fine = float_or_finer(image)
    ys = torch.arange(height, dtype=fine.dtype, device=fine.device) + 0.5
    xs = torch.arange(width, dtype=fine.dtype, device=fine.device) + 0.5
    grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1).reshape(1, -1, 2).expand(len(fine), -1, -1)
    source = apply_matrix(inverse.to(fine), grid)
    scale = torch.tensor([fine.shape[-1], fine.shape[-2]], dtype=fine.dtype, device=fine.device)
    grid = (2 * source / scale - 1).reshape(len(fine), height, width, 2)
    return F.grid_sample(fine, grid, mode=mode, padding_mode=padding, align_corners=False).to(image.dtype)


def align(image: Tensor, points: Tensor, size: int = PORTRAIT_SIDE) -> Tensor:
    """Portraits in canonical framing: `(B, C, H, W)` and points `(B, 5, 2)` -> `(B, C, size, size)`.

    A face that is shrunk is low-pass filtered first (bicubic antialiased resize), so it does not alias.
    Differentiable in the image and in the points. Convention as in `similarity_from_points` and `warp`.
    Raises InputError for points that coincide or are not finite.
    """
    check_points(points)
    return warp_antialiased(image, similarity_from_points(points, canonical_points(size)), size)


def warp_antialiased(
    image: Tensor, matrix: Tensor, size: int | tuple[int, int], *, padding: str = "border"
) -> Tensor:
    """As `warp`, bilinear, with the source shrunk (antialiased) beforehand where the map shrinks it.

    Convention:
        - image `(B, C, H, W)` in [0, 1]; matrix `(B, 2, 3)` from source pixels to target pixels; size, pixel centres and padding
          as in `warp`
        - each image by the scale of its own matrix, one at a time: below 0.75 it is shrunk by that to whole pixels (bicubic,
          clamped to [0, 1]), which the rest of the map takes into account
        - differentiable in image and matrix; the whole pixels are a constant to the gradient

    >>> warp_antialiased(torch.zeros(2, 3, 50, 60), torch.tensor([[[0.5, 0, 0], [0, 0.5, 0]]]).expand(2, -1, -1), (20, 30)).shape
    torch.Size([2, 3, 20, 30])
    """
    results = []
    for i in range(len(image)):
        picture, m = image[i : i + 1], matrix[i : i + 1]
        factor = float(m.detach()[0, :, :2].square().sum().div(2).sqrt())
        if 0 < factor < 0.75:
            height, width = (max(1, round(n * factor)) for n in picture.shape[-2:])
            ratio = torch.tensor([picture.shape[-1] / width, picture.shape[-2] / height]).to(m)
            picture = resample(picture, (height, width), "bicubic").clamp(0, 1)
            m = torch.cat([m[:, :, :2] * ratio, m[:, :, 2:]], -1)
        results.append(warp(picture, m, size, padding=padding))
    return torch.cat(results)
