"""The witness's drawing: cleaned as it was given, or extracted from a photo.

A sketch is `(1, 128, 128)` float in [0, 1]: paper 1, lines dark.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.errors import InputError
from identiface_core.evidence.values import SKETCH_SIDE
from identiface_core.imaging import luminance, resize

MIN_SIDE = 16
"""Shortest side of a drawing, in pixels."""
FINE_SIDE = 512
"""Pixels at which a drawing is cleaned, and side of one for models that see more than the embedded one."""
MIN_INK = 0.004
"""Share of the paper that must carry ink; a face drawn with a thin pen covers ten times as much."""
FINE, COARSE = 0.75, 1.9
"""Standard deviations of the difference of Gaussians, in pixels of the 128 px portrait."""

EVEN_LIGHT = 0.12
"""Relative spread of the paper's brightness along the rim up to which the light counts as even."""

_PAPER_SIDE = 128
_INK = 0.12
"""Darkness, as a share of the paper's brightness, from which a pixel counts as ink."""
_LINE_DARKNESS = 0.8
"""Darkness that the strong lines of a faint drawing are brought to."""
_MAX_GAIN = 5.0


def clean_sketch(image: Tensor, *, side: int = SKETCH_SIDE, name: str = "the sketch") -> Tensor:
    """A drawing as it was photographed or scanned, `(3 or 1, H, W)` in [0, 1] -> `(1, side, side)`: paper 1,
    lines dark. Nothing finer than `FINE_SIDE` is kept.

    Takes out the paper's colour and uneven light, turns white-on-black round, crops wide blank margins, pads
    to the square and brings faint lines up. Raises InputError for a picture below 16 px and for an empty
    sketch (with the share of ink that was found). `name` is what the picture is called in these texts.
    """
    if min(image.shape[-2:]) < MIN_SIDE:
        size = f"{image.shape[-1]} x {image.shape[-2]}"
        raise InputError(
            f"{name}: {size} px is too small for a drawing; at least {MIN_SIDE} px a side is wanted"
        )
    factor = min(1.0, FINE_SIDE / max(image.shape[-2:]))
    image = resize(image, *(max(1, round(n * factor)) for n in image.shape[-2:])).float()
    ink = _ink(1 - image if is_inverted(image) else image)
    found = float((ink > _INK).float().mean())
    if found < MIN_INK:
        grey = luminance(image)
        all_dark = float(grey.max()) < 0.5 and float(grey.std()) < 1 / 255
        advice = (
            "the whole picture is equally dark, so no line stands out: give another one"
            if all_dark
            else "draw with a darker pen, photograph it closer"
        )
        raise InputError(
            f"{name}: the sketch is empty: {found:.2%} of it carries ink, at least {MIN_INK:.1%} is wanted; "
            f"{advice}, or leave the sketch out"
        )
    return strengthened(resize(_to_square(ink), side, side))


def extract_sketch(photo: Tensor) -> Tensor:
    """Line drawing of a photo, `(3 or 1, H, W)` in [0, 1] -> `(1, 128, 128)`: paper 1, lines dark.

    Difference of two Gaussians (0.75 and 1.9 px at 128 px) of the log luminance: what is darker than its
    surroundings becomes a line; a light tone is laid under it where the photo is darker than its background,
    as if before white. The same drawing style as that of the synthetic people. Give it a portrait
    (`faces.portrait_of`); other pictures are padded to the square.
    """
    side = max(photo.shape[-2:])
    top, left = (side - photo.shape[-2]) // 2, (side - photo.shape[-1]) // 2
    pads = (left, side - photo.shape[-1] - left, top, side - photo.shape[-2] - top)
    square = F.pad(photo[None].float(), pads, mode="replicate")
    light = luminance(resize(square, SKETCH_SIDE, SKETCH_SIDE))
    log = torch.log(light + 0.06)
    edge = gaussian_blur(log, COARSE) - gaussian_blur(log, FINE)
    lines = ((edge - 0.010) / 0.11).clamp(0, 1) ** 0.75
    background = torch.cat(
        [light[..., :8, :].flatten(), light[..., :64, :8].flatten(), light[..., :64, -8:].flatten()]
    )
    tone = gaussian_blur(light / background.median().clamp_min(0.1), 1.2)
    wash = 0.22 * (1 - tone).clamp(0, 1)
    return (1 - 0.92 * lines - wash * (1 - lines)).clamp(0, 1)[0]


def strengthened(ink: Tensor) -> Tensor:
    """Ink `(1, H, W)`, 0 on blank paper, as a drawing: paper 1, lines dark, faint ones brought up. Blank ink stays blank."""
    lines = ink[ink > 0.3 * float(ink.max())]
    if not len(lines):
        return 1 - ink
    strong = float(torch.quantile(lines, 0.75))
    return (1 - ink * min(max(1.0, _LINE_DARKNESS / strong), _MAX_GAIN)).clamp(0, 1)


def is_inverted(image: Tensor) -> bool:
    """Whether a drawing `(3 or 1, H, W)` is white on black: dark for the most part, with strokes brighter
    than around.
    """
    grey = luminance(image)
    if float(grey.median()) >= 0.5:
        return False
    small = resize(grey, 64, 64)[None]
    around = (
        F.pad(small, (7, 7, 7, 7), mode="replicate")
        .unfold(2, 15, 1)
        .unfold(3, 15, 1)
        .flatten(4)
        .median(-1)
        .values
    )
    return float((small - around).pow(3).mean()) > 0


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `(B, C, H, W)`, edges repeated; sigma in pixels."""
    radius = max(1, round(3.5 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, 1, -1)
    image = F.conv2d(F.pad(image, (radius, radius, 0, 0), mode="replicate"), kernel, groups=image.shape[1])
    return F.conv2d(F.pad(image, (0, 0, radius, radius), mode="replicate"), kernel.mT, groups=image.shape[1])


def _ink(image: Tensor) -> Tensor:
    """Darkness relative to the paper around, `(1, H, W)` in [0, 1]; the darkest channel counts, so coloured
    pens do too.
    """
    batch = image[None]
    factor = min(1.0, _PAPER_SIDE / max(image.shape[-2:]))
    small = resize(batch, *(max(1, round(n * factor)) for n in image.shape[-2:]))
    side = max(small.shape[-2:])
    window = 2 * max(1, side // 16) + 1
    small = gaussian_blur(small, 0.6)  # one bright speck shall not pass for paper
    overall = torch.quantile(small.flatten(2), 0.9, dim=-1)
    paper = -_extreme(-_extreme(small, window), window)
    # Filled areas (dark hair) are larger than the window and must not pass for paper either.
    paper = gaussian_blur(torch.maximum(paper, 0.4 * overall[..., None, None]), side / 32).clamp_min(0.05)
    paper = resize(paper, *image.shape[-2:])
    rim = _rim(paper)
    low, high = torch.quantile(rim, 0.05, dim=-1), torch.quantile(rim, 0.95, dim=-1)
    if bool(((high - low) <= EVEN_LIGHT * high).all()):  # then tones inside are the pencil's, not the lamp's
        paper = rim.median(-1).values[..., None, None]
    dark = (1 - batch / paper).clamp(0, 1).amax(1, keepdim=True)
    blank = _rim(dark)
    level = float(blank.median())
    noise = level + 2.5 * float((blank - level).abs().median())
    return ((dark[0] - noise) / max(1 - noise, 0.1)).clamp(0, 1)


def _rim(image: Tensor) -> Tensor:
    """Values of the outer twentieth of a picture, where there is mostly blank paper: `(B, C, N)`."""
    height, width = image.shape[-2:]
    h, w = max(1, height // 20), max(1, width // 20)
    sides = [image[..., :h, :], image[..., -h:, :], image[..., :, :w], image[..., :, -w:]]
    return torch.cat([side.flatten(2) for side in sides], -1)


def _extreme(image: Tensor, window: int) -> Tensor:
    """Maximum over a square window."""
    half = window // 2
    image = F.max_pool2d(image, (1, window), 1, (0, half))
    return F.max_pool2d(image, (window, 1), 1, (half, 0))


def _to_square(ink: Tensor) -> Tensor:
    """Crop blank margins where the drawing fills less than 70 % of the picture, then pad with blank paper."""
    height, width = ink.shape[-2:]
    there = (ink[0] > _INK).float()
    rows, columns = _span(there.sum(1), height), _span(there.sum(0), width)
    if max((rows[1] - rows[0]) / height, (columns[1] - columns[0]) / width) < 0.7:
        margin = round(0.06 * max(rows[1] - rows[0], columns[1] - columns[0]))
        rows = (max(rows[0] - margin, 0), min(rows[1] + margin, height))
        columns = (max(columns[0] - margin, 0), min(columns[1] + margin, width))
        ink = ink[:, rows[0] : rows[1], columns[0] : columns[1]]
        height, width = ink.shape[-2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return F.pad(ink, (left, side - width - left, top, side - height - top))


def _span(counts: Tensor, length: int) -> tuple[int, int]:
    """First and last line with ink, without the outermost hundredth of it (specks)."""
    share = counts.cumsum(0) / counts.sum().clamp_min(1)
    inside = ((share > 0.005) & (share < 0.995)).nonzero()
    if len(inside) == 0:
        return 0, length
    return int(inside[0]), int(inside[-1]) + 2 if int(inside[-1]) + 2 <= length else length
