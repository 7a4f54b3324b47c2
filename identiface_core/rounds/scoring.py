"""How well a generated face fits the evidence, without an oracle.

Four questions, each answered in [0, 1] and kept by name: does the re-degraded face look like the LQ photo,
does its line drawing look like the sketch, do the words hold, does the matcher see what the evidence encoder
asks for. The published iteration asks the true photo instead, so its scores are an oracle's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.evidence.lexicon import ATTRIBUTES, UNSAID
from identiface_core.evidence.sketch import gaussian_blur
from identiface_core.imaging import resize

if TYPE_CHECKING:
    from identiface_core.faces.reader import AttributeReader

WEIGHTS: dict[str, float] = {"query": 0.35, "lq": 0.2, "sketch": 0.25, "words": 0.2}
"""Share of each term; the shares of missing terms are spread over the others."""

LQ_SIDE = 32
"""Pixels at which LQ photos are compared, after the face was brought down to the LQ's own resolution."""
SHIFT = 2
"""Pixels of `LQ_SIDE` by which the two may be off: an LQ crop is never framed exactly."""
BLUR = 2.5
"""Standard deviation in pixels of 128: lines count as met when they are about this near."""


@dataclass(frozen=True)
class EvidenceScore:
    """Fit of one face to the evidence. Terms are None where that evidence is missing."""

    total: float
    """Weighted mean of the terms that are there, [0, 1]."""
    lq: float | None = None
    sketch: float | None = None
    words: float | None = None
    query: float | None = None

    def terms(self) -> dict[str, float]:
        """The terms that are there, by name."""
        named = {"lq": self.lq, "sketch": self.sketch, "words": self.words, "query": self.query}
        return {name: value for name, value in named.items() if value is not None}


def combine(
    lq: float | None = None,
    sketch: float | None = None,
    words: float | None = None,
    query: float | None = None,
) -> EvidenceScore:
    """The weighted mean of the terms that are there; 0 without any."""
    named = {"lq": lq, "sketch": sketch, "words": words, "query": query}
    there = {name: value for name, value in named.items() if value is not None}
    weight = sum(WEIGHTS[name] for name in there)
    total = sum(WEIGHTS[name] * value for name, value in there.items()) / weight if weight else 0.0
    return EvidenceScore(total, lq, sketch, words, query)


def lq_agreement(faces: Tensor, lq: Tensor) -> Tensor:
    """(B,) in [0, 1]: do `faces` (B, 3, 128, 128), brought down to the size of `lq` (3, h, w), look like it?

    Light and exposure differ between any two photos, so brightness counts by correlation only; colour counts
    by the hue balance (each channel over their sum) of the middle of the face. Small shifts are forgiven, the
    corners count little.
    """
    height, width = min(lq.shape[1], faces.shape[2]), min(lq.shape[2], faces.shape[3])
    small = resize(resize(faces, height, width), LQ_SIDE, LQ_SIDE)
    wanted = resize(lq[None], LQ_SIDE, LQ_SIDE)[0].to(small)
    window = _window(LQ_SIDE).to(small)

    grey, target = small.mean(dim=1), wanted.mean(dim=0)
    best = torch.full((len(faces),), -1.0).to(small)
    for dy in range(-SHIFT, SHIFT + 1):
        for dx in range(-SHIFT, SHIFT + 1):
            moved = torch.roll(target, (dy, dx), (0, 1)).expand_as(grey)
            best = torch.maximum(best, _correlation(grey, moved, window))

    balance = (small * window).sum((2, 3)) / (small * window).sum((1, 2, 3))[:, None].clamp_min(1e-6)
    balance_wanted = (wanted * window).sum((1, 2)) / (wanted * window).sum().clamp_min(1e-6)
    colour = torch.exp(-(balance - balance_wanted).abs().sum(1) / 0.1)
    return (0.75 * best.clamp(0, 1) + 0.25 * colour).clamp(0, 1)


def sketch_agreement(drawings: Tensor, sketch: Tensor) -> Tensor:
    """(B,) in [0, 1]: correlation of blurred lines of `drawings` (B, 1, 128, 128) and `sketch` (1, 128, 128),
    paper 1."""
    ink, wanted = (
        gaussian_blur(1 - drawings, BLUR)[:, 0],
        gaussian_blur(1 - sketch[None].to(drawings), BLUR)[:, 0],
    )
    return _correlation(ink, wanted.expand_as(ink), torch.ones_like(ink[0])).clamp(0, 1)


def cosine_agreement(embeddings: Tensor, wanted: Tensor) -> Tensor:
    """(B,) in [0, 1]: cosine of (B, D) with (D,), below zero counted as zero (strangers already lie near
    zero)."""
    return (F.normalize(embeddings.float(), dim=1) @ F.normalize(wanted.float(), dim=0)).clamp(0, 1)


def words_agreement(faces: Tensor, said: Mapping[str, str], reader: AttributeReader) -> Tensor | None:
    """(B,) in [0, 1]: does `reader` see on `faces` (B, 3, 128, 128) what was `said` (attribute -> value)?

    None when nothing was said that the lexicon knows.
    """
    if not said:
        return None
    stated = [a.index(said[a.name]) if a.name in said else UNSAID for a in ATTRIBUTES]
    return reader.agreement(faces, stated).float().cpu().clamp(0, 1)


def _window(side: int) -> Tensor:
    """(side, side): 1 in the middle of a portrait, near 0 in its corners, where background and clothes
    are."""
    axis = torch.linspace(-1, 1, side)
    return torch.exp(-0.5 * ((axis[None] / 0.5) ** 2 + (axis[:, None] / 0.6) ** 2))


def _correlation(a: Tensor, b: Tensor, window: Tensor) -> Tensor:
    """Weighted correlation of (B, H, W) pairs -> (B,) in [-1, 1]; 0 where one of them is flat."""
    weight = window / window.sum()
    a = a - (a * weight).sum((1, 2), keepdim=True)
    b = b - (b * weight).sum((1, 2), keepdim=True)
    spread = ((a * a * weight).sum((1, 2)) * (b * b * weight).sum((1, 2))).sqrt()
    return torch.where(
        spread > 1e-8, (a * b * weight).sum((1, 2)) / spread.clamp_min(1e-8), torch.zeros_like(spread)
    )
