"""Face landmarks that a host found: what newer ComfyUIs call FACE_LANDMARKS, as points and as faces.

Their form: `{"frames": [[{"landmarks_xy": (N, 2)}, ...], ...], "image_size": (height, width)}`, a list of faces for each
picture, in pixels of pictures of that size, 0 being the edge of the first pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from identiface_core.errors import InputError, NoFaceError
from identiface_core.faces.alignment import canonical_points, check_points
from identiface_core.faces.base import Face, KnownFaces, box_of
from identiface_core.faces.landmarks import COUNTS, five_of


def finders_of_host(landmarks: Any, count: int, size: tuple[int, int]) -> list[KnownFaces]:
    """For each of `count` pictures of `size` (height, width) px a finder that knows the host's faces.

    The five points come from all of a face's, the box from the five; a host tells no score: 1. Raises InputError for anything of
    another form, of another number of pictures, or for points that coincide or are not finite.
    """
    found = []
    for index, faces in enumerate(_frames(landmarks, count, size)):
        fives = [five_of(points) for points in faces]
        for five in fives:
            check_points(five, f"face landmarks, picture {index}")
        found.append(KnownFaces(tuple(Face(box_of(five), five, 1.0) for five in fives)))
    return found


def points_of_host(landmarks: Any, count: int, size: int) -> Tensor:
    """Points `(count, N, 2)` in pixels of portraits of `size` px.

    landmarks: found on the portraits themselves. Of several faces in a portrait the one nearest to the canonical framing is
    taken. Raises NoFaceError for a portrait without a face, InputError for anything of another form.
    """
    frames = _frames(landmarks, count, (size, size))
    for index, faces in enumerate(frames):
        if not faces:
            raise NoFaceError(f"face landmarks: there is no face in picture {index}")

    def stray(points: Tensor) -> float:
        return float((five_of(points) - canonical_points(size)).norm())

    return torch.stack([min(faces, key=stray) for faces in frames])


def _frames(landmarks: Any, count: int, size: tuple[int, int]) -> list[list[Tensor]]:
    """Points `(N, 2)` of every face of every picture, in pixels of pictures of `size`."""
    frames = landmarks.get("frames") if isinstance(landmarks, Mapping) else None
    if frames is None or "image_size" not in landmarks:
        raise InputError("face landmarks: a FACE_LANDMARKS value with frames and image_size is wanted")
    if len(frames) != count:
        raise InputError(
            f"face landmarks: they are of {len(frames)} pictures, these are {count}; find them on these pictures"
        )
    height, width = landmarks["image_size"]
    scale = torch.tensor([size[1] / width, size[0] / height], dtype=torch.float32)
    return [[_known(face["landmarks_xy"]) * scale for face in faces] for faces in frames]


def _known(points: Any) -> Tensor:
    found = torch.as_tensor(points, dtype=torch.float32)[:, :2]
    if len(found) not in COUNTS:
        raise InputError(
            f"face landmarks: {', '.join(map(str, COUNTS))} points of a face are known, these are {len(found)}"
        )
    return found
