"""Where two faces agree: a similarity for each patch of the face, in the spirit of xCos (Lin et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.faces.alignment import align
from identiface_core.matchers.base import Matcher

PATCHES = 7
"""Patches a side that a black box is tried with."""


@dataclass(frozen=True)
class Agreement:
    """What speaks for and against one person behind two pictures, place by place."""

    similarity: float
    """Cosine of the two embeddings."""
    map: Tensor
    """(h, w): by "features" the cosine of the two feature vectors there, [-1, 1]; by "occlusion" how much of the similarity is
    lost when the patch is hidden in both pictures: above 0 it speaks for one person, below 0 against."""
    how: Literal["features", "occlusion"]
    crops: tuple[Tensor, Tensor]
    """The two pictures (3, S, S) as the matcher saw them: what the map lies over."""


@torch.no_grad()
def agreement(
    matcher: Matcher,
    first: Tensor,
    second: Tensor,
    points: tuple[Tensor | None, Tensor | None] = (None, None),
    *,
    occlude: bool = False,
) -> Agreement:
    """Where the faces of two pictures (3, H, W) agree, as `matcher` sees them. points: (5, 2) of each, None for portraits.

    The last map of the matcher's network is compared place by place (`features`); a matcher that shows none is a black box,
    and so is any with `occlude`: then each of 7 x 7 patches is hidden in turn. Both faces are aligned, so a place of the map is
    the same part of both. It tells where a network looks alike, not why; whole-face similarity is what counts.
    """
    given = [
        (one[None], None if p is None else p[None]) for one, p in zip((first, second), points, strict=True)
    ]
    vectors = torch.cat([matcher.embed(*one) for one in given])
    similarity = float(vectors[0] @ vectors[1])
    cut = getattr(matcher, "crops", _portrait)
    crops = [cut(*one) for one in given]
    features = None if occlude else getattr(matcher, "features", None)
    maps = [] if features is None else [features(*one) for one in given]
    if maps and all(one is not None and one.dim() == 4 for one in maps):
        found = F.cosine_similarity(maps[0][0], maps[1][0], dim=0)
        return Agreement(similarity, found.float().cpu(), "features", (crops[0][0], crops[1][0]))
    lost = similarity - _hidden(matcher, crops)
    return Agreement(similarity, lost.float().cpu(), "occlusion", (crops[0][0], crops[1][0]))


def _portrait(picture: Tensor, points: Tensor | None) -> Tensor:
    return picture if points is None else align(picture, points)


def _hidden(matcher: Matcher, crops: list[Tensor]) -> Tensor:
    """(PATCHES, PATCHES) similarities with each patch of the crops behind their mean colour, in both."""
    points = getattr(matcher, "crop_points", None)
    patches = torch.eye(PATCHES**2).reshape(-1, 1, PATCHES, PATCHES)
    rows = []
    for crop in crops:
        cover = F.interpolate(patches, (crop.shape[-2], crop.shape[-1]), mode="nearest").to(crop)
        hidden = crop * (1 - cover) + crop.mean((2, 3), keepdim=True) * cover
        at = None if points is None else points.to(crop).expand(len(hidden), 5, 2)
        rows.append(matcher.embed(hidden, at))
    return (rows[0] * rows[1]).sum(1).reshape(PATCHES, PATCHES)
