"""One face to its vector, in the same way whether it is enrolled or searched for."""

from __future__ import annotations

import torch
from torch import Tensor

from identiface_core.errors import InputError
from identiface_core.faces.alignment import PORTRAIT_SIDE, align
from identiface_core.imaging import resize
from identiface_core.matchers.base import Embedded, Matcher


def reads_photographs(matcher: Matcher) -> bool:
    """Whether its crop is finer than the face in a portrait of 128 px. The embedded matchers' is not: they see such portraits,
    as they were trained."""
    return getattr(matcher, "side", 0) > PORTRAIT_SIDE // 2


def portrait_in(picture: Tensor, points: Tensor | None = None) -> Tensor:
    """Portrait (3, 128, 128) of the face whose points (5, 2) lie in a picture (3, H, W); without points the picture is one, of
    any side. InputError for one that is not square."""
    if points is not None:
        return align(picture[None], points[None])[0]
    height, width = picture.shape[-2:]
    if height != width:
        raise InputError(
            f"a portrait is square, this picture is {width} x {height} px: crop it, or let the face be found in it"
        )
    return resize(picture, PORTRAIT_SIDE, PORTRAIT_SIDE)


def embed_face(matcher: Matcher, picture: Tensor, points: Tensor | None = None) -> Embedded:
    """What `matcher` sees of one face, a batch of 1: picture and points as in `portrait_in`.

    Matchers of photographs cut the face to their own template, straight from the picture. Without gradients.
    """
    if points is None and not reads_photographs(matcher):
        picture = portrait_in(picture)
    with torch.no_grad():
        return matcher.embed_with_quality(picture[None], None if points is None else points[None])
