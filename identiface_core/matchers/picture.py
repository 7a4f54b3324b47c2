"""A comparison of two faces as a picture: both crops, where they agree, and what the similarity means."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.imaging import luminance, resize, to_pil
from identiface_core.matchers.agreement import Agreement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.ImageDraw import ImageDraw

SIDE, MARGIN, GAP, BAR, LINE = 288, 32, 20, 14, 26
PAPER, INK, QUIET = "#f6f4ef", "#1d1f24", "#6b6f78"
RISING = ((0.13, 0.09, 0.26), (0.16, 0.35, 0.49), (0.21, 0.60, 0.53), (0.66, 0.81, 0.35), (0.98, 0.91, 0.36))
"""Colours from "does not agree" to "agrees"; equal steps look equal, and in grey they still rise."""
BOTH_WAYS = (
    (0.71, 0.29, 0.08),
    (0.93, 0.68, 0.43),
    (0.93, 0.93, 0.92),
    (0.47, 0.69, 0.83),
    (0.10, 0.36, 0.62),
)
"""Colours from "against" over "neither" to "for"."""


def comparison_picture(found: Agreement, lines: Sequence[str]) -> Tensor:
    """(3, H, W) in [0, 1]: the two faces as the matcher saw them, the map over the first, a scale, and `lines` of text below.

    Maps of features are shown from 0 to 1, maps of occlusion from minus to plus their largest value.
    """
    from PIL import Image, ImageDraw, ImageFont

    reach = 1.0 if found.how == "features" else max(float(found.map.abs().max()), 1e-6)
    low = 0.0 if found.how == "features" else -reach
    width = 2 * MARGIN + 3 * SIDE + 2 * GAP
    text = _wrapped(lines, width - 2 * MARGIN)
    height = MARGIN + 30 + SIDE + GAP + BAR + 26 + LINE * len(text) + MARGIN // 2
    canvas = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    small, normal = ImageFont.load_default(15), ImageFont.load_default(18)
    titles = (
        "first",
        "second",
        "where they agree" if found.how == "features" else "what speaks for and against",
    )
    pictures = (found.crops[0], found.crops[1], overlay(found, low, reach))
    for place, (title, picture) in enumerate(zip(titles, pictures, strict=True)):
        left = MARGIN + place * (SIDE + GAP)
        pen.text((left, MARGIN // 2 + 4), title, font=normal, fill=INK)
        canvas.paste(to_pil(resize(picture.cpu().float().clamp(0, 1), SIDE, SIDE)), (left, MARGIN + 30 - 8))
    left, top = MARGIN + 2 * (SIDE + GAP), MARGIN + 30 + SIDE + 4
    ramp = coloured(torch.linspace(low, reach, SIDE)[None].expand(BAR, -1), low, reach)
    canvas.paste(to_pil(ramp), (left, top))
    _ends(pen, left, top + BAR + 3, f"{low:+.2f}" if low else "0", f"{reach:+.2f}" if low else "1", small)
    _write(pen, text, MARGIN, top + BAR + 26)
    return _tensor(canvas)


def text_picture(lines: Sequence[str]) -> Tensor:
    """(3, H, W) in [0, 1]: lines of text alone, where there are no faces to show."""
    from PIL import Image, ImageDraw

    width = 2 * MARGIN + 3 * SIDE + 2 * GAP
    text = _wrapped(lines, width - 2 * MARGIN)
    canvas = Image.new("RGB", (width, 2 * MARGIN + LINE * len(text)), PAPER)
    _write(ImageDraw.Draw(canvas), text, MARGIN, MARGIN)
    return _tensor(canvas)


def detail_picture(portrait: Tensor, score: float, lines: Sequence[str]) -> Tensor:
    """(3, H, W) in [0, 1]: a portrait (3, n, n), the clean portrait with as much detail, and its recognisability on a scale.

    score: [0, 1], see `evidence.lq.recognisability`; the middle picture has 4 * 16 ** score pixels a side.
    """
    from PIL import Image, ImageDraw, ImageFont

    side = max(4, min(round(4 * 16**score), portrait.shape[-1]))
    shown = portrait.cpu().float().clamp(0, 1)
    coarse = F.interpolate(resize(shown, side, side)[None], (SIDE, SIDE), mode="nearest")[0]
    width = 2 * MARGIN + 2 * SIDE + GAP
    text = _wrapped(lines, width - 2 * MARGIN)
    height = MARGIN + 30 + SIDE + GAP + BAR + 34 + LINE * len(text) + MARGIN // 2
    canvas = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    normal, small = ImageFont.load_default(18), ImageFont.load_default(15)
    for place, (title, picture) in enumerate(
        (("the portrait", resize(shown, SIDE, SIDE)), (f"its detail: {side} px", coarse))
    ):
        left = MARGIN + place * (SIDE + GAP)
        pen.text((left, MARGIN // 2 + 4), title, font=normal, fill=INK)
        canvas.paste(to_pil(picture), (left, MARGIN + 22))
    top, long = MARGIN + 30 + SIDE + 8, width - 2 * MARGIN
    canvas.paste(to_pil(coloured(torch.linspace(0, 1, long)[None].expand(BAR, -1), 0.0, 1.0)), (MARGIN, top))
    mark = MARGIN + round(score * (long - 1))
    pen.polygon([(mark, top - 3), (mark - 6, top - 12), (mark + 6, top - 12)], fill=INK)
    for share, label in ((0.0, "4 px"), (0.25, "8"), (0.5, "16"), (0.75, "32"), (1.0, "64 px")):
        at = MARGIN + share * long - share * pen.textlength(label, font=small)
        pen.text((at, top + BAR + 4), label, font=small, fill=QUIET)
    _write(pen, text, MARGIN, top + BAR + 32)
    return _tensor(canvas)


def overlay(found: Agreement, low: float, high: float) -> Tensor:
    """(3, SIDE, SIDE): the first crop in grey under the map's colours."""
    grey = resize(luminance(found.crops[0].cpu().float().clamp(0, 1)).expand(3, -1, -1), SIDE, SIDE)
    smooth = F.interpolate(found.map[None, None], (SIDE, SIDE), mode="bicubic", align_corners=False)[0, 0]
    return 0.42 * grey + 0.58 * coloured(smooth, low, high)


def coloured(values: Tensor, low: float, high: float) -> Tensor:
    """(H, W) to colours (3, H, W): `RISING` from 0, `BOTH_WAYS` where `low` is below 0."""
    stops = torch.tensor(BOTH_WAYS if low < 0 else RISING)
    place = ((values - low) / (high - low)).clamp(0, 1) * (len(stops) - 1)
    before = place.floor().clamp(0, len(stops) - 2).long()
    share = (place - before)[..., None]
    return (stops[before] * (1 - share) + stops[before + 1] * share).permute(2, 0, 1)


def _wrapped(lines: Sequence[str], width: int) -> list[tuple[str, bool]]:
    """(text, whether it belongs to the first line), broken to fit into `width` pixels."""
    return [
        (part, number == 0)
        for number, line in enumerate(lines)
        for part in textwrap.wrap(line, max(20, int(width / (9 if number == 0 else 7.5))))
    ]


def _write(pen: ImageDraw, lines: list[tuple[str, bool]], left: int, top: int) -> None:
    from PIL import ImageFont

    normal, small = ImageFont.load_default(18), ImageFont.load_default(15)
    for place, (line, first) in enumerate(lines):
        at = (left, top + LINE * place)
        pen.text(at, line, font=normal if first else small, fill=INK if first else QUIET)


def _ends(pen: ImageDraw, left: int, top: int, low: str, high: str, font: Any) -> None:
    pen.text((left, top), low, font=font, fill=QUIET)
    pen.text((left + SIDE - pen.textlength(high, font=font), top), high, font=font, fill=QUIET)


def _tensor(canvas: Any) -> Tensor:
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1).float() / 255
