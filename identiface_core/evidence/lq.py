"""The low-quality photo: simulated in the published simple way, and prepared from whatever a user has."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.errors import InputError
from identiface_core.faces.alignment import (
    PORTRAIT_SIDE,
    canonical_points,
    check_points,
    similarity_from_points,
    warp_antialiased,
)
from identiface_core.faces.base import Finder, check_box, points_of
from identiface_core.faces.choice import choose_face
from identiface_core.imaging import luminance, resize

CROPPED_SIDE = 64
"""A picture whose longer side is at most this many pixels counts as an already cropped face."""
MIN_SIDE = 4
"""Shortest side of a usable picture, in pixels."""
WARN_BELOW = 0.3
"""Recognisability below which a warning is given: the detail of a clean portrait of about 9 px or less."""
EMPTY_BELOW = 2.5 / 255
"""Span of every colour below which a picture shows nothing: two levels of 8 bits, as a copy in JPEG may add."""

LqChoice = int | Sequence[float] | Literal["whole"] | None
"""Which face: an index (best first, from 0), a box `(x0, y0, x1, y1)`, "whole" (the picture is the face),
None (the only one).
"""


@dataclass(frozen=True)
class LowQuality:
    """An LQ photo that is ready to be used as evidence."""

    crop: Tensor
    """`(3, n, n)` in [0, 1], canonical portrait framing, n = min(native_side, 128)."""
    native_side: int
    """Side of the portrait in pixels of the picture that was given."""
    recognisability: float
    """[0, 1], see `recognisability`."""
    warning: str | None
    """What to tell the user when there is little to recognise, else None."""
    taken: str | None = None
    """What to tell the user when nobody said that the picture is the face and its size alone decided it, else None."""


def simulate_simple(image: Tensor, size: str = "8") -> Tensor:
    """The published simple LQ model: `(3, H, W)` in [0, 1] -> `(3, h, w)` in [0, 1].

    8-bit by truncation (not rounding), then Pillow's antialiased bicubic on 8 bits. `size`: "8" for a square
    or "WxH". Raises InputError for another text. (IdentiFace, released preprocessing.)
    """
    width, height = parse_size(size)
    return _resize_8bit(image, height, width)


def enlarge(lq: Tensor, height: int, width: int) -> Tensor:
    """Bring an LQ photo `(3, h, w)` to `(3, height, width)` the published way: Pillow's bicubic on 8 bits."""
    return _resize_8bit(lq, height, width, truncate=False)


def parse_size(size: str) -> tuple[int, int]:
    """Width and height: "8" -> (8, 8), "16x12" -> (16, 12). Raises InputError otherwise and above 1024 px."""
    found = re.fullmatch(r"\s*(\d{1,4})\s*(?:[xX]\s*(\d{1,4})\s*)?", size)
    sides = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not all(1 <= side <= 1024 for side in sides):
        raise InputError(
            f"an LQ size is a number such as '8' or 'WxH' such as '16x12', at most 1024; this is {size!r}"
        )
    return sides


def prepare_lq(
    image: Tensor, face: LqChoice = None, finder: Finder | None = None, *, name: str = "the LQ photo"
) -> LowQuality:
    """Any picture `(3, H, W)` in [0, 1] to an LQ photo in canonical portrait framing at its native
    resolution.

    - longer side at most 64 px, or `face="whole"`: the picture already is the cropped face (padded to the
      square); for the size alone, `taken` says so;
    - a box: an upright face that fills the box, aligned by the finder's points if it sees a face there;
    - an index or None: the finder must find that face, or just one.

    Raises InputError (too small, no contrast, no finder where one is needed), NoFaceError, SeveralFacesError
    (lists the numbered boxes). `name` is what the picture is called in these texts.
    """
    if image.dim() != 3 or image.shape[0] != 3 or min(image.shape[-2:]) < 1:
        raise InputError(f"{name}: a picture (3, H, W) is wanted, this one is {tuple(image.shape)}")
    if min(image.shape[-2:]) < MIN_SIDE:
        size = f"{image.shape[-1]} x {image.shape[-2]}"
        raise InputError(f"{name}: {size} px cannot show a face; at least {MIN_SIDE} px a side is wanted")
    if isinstance(face, str) and face != "whole":
        raise InputError(
            f"{name}: a face is chosen by a number, a box (x0,y0,x1,y1) or 'whole'; this is {face!r}"
        )
    image = image.float().clamp(0, 1)
    guessed = face is None and max(image.shape[-2:]) <= CROPPED_SIDE
    if face == "whole" or guessed:
        portrait, native = _whole(image)
    else:
        points = _points(image, face, finder, name)
        check_points(points, name)
        portrait, native = _aligned(image, points)
    if float((portrait.amax((1, 2)) - portrait.amin((1, 2))).max()) < EMPTY_BELOW:
        raise InputError(
            f"{name}: no contrast where the face should be, it is of one colour: give another photo, or leave it out"
        )
    score = recognisability(portrait, native)
    return LowQuality(
        portrait, native, score, _warning(score, native, name), _taken(name) if guessed else None
    )


def recognisability(portrait: Tensor, native_side: int | None = None) -> float:
    """How much there is to recognise in a portrait `(3, n, n)`, [0, 1]: log2(effective side / 4) / 4.

    The effective side is that of the clean portrait with as much detail: 0 is 4 px, 0.25 is 8 px, 0.5 is 16
    px, 0.75 is 32 px, 1 is 64 px and more. It is measured in the pixels (`effective_side`), so a small face
    enlarged or a large one drowned in noise scores low; `native_side`, if given, is an upper bound.
    """
    side = effective_side(portrait)
    if native_side is not None:
        side = min(side, float(native_side))
    return min(max(math.log2(max(side, 1.0) / 4) / 4, 0.0), 1.0)


def effective_side(portrait: Tensor) -> float:
    """Side in pixels of the clean portrait that carries as much detail as `portrait` `(3, n, n)`, by its
    spectrum.

    Each frequency counts as far as it stands above the noise floor (signal share) and is not blurred away
    against the power law that portraits follow. Of 80 drawn portraits the median is within 20 % of the truth
    for clean ones of 8 to 128 px; smooth enlargements are overrated by 1.3 (from 16 px and more) to 1.9 (from
    8 px).
    """
    n = portrait.shape[-1]
    if n < MIN_SIDE:
        return float(n)
    power = _radial_power(portrait)
    frequency = torch.arange(1, len(power) + 1, dtype=power.dtype)
    law = frequency**-_SPECTRUM_SLOPE
    noise = max(float(power[-max(1, len(power) // 4) :].mean()), (1 / 255) ** 2 / 12 / n**2)
    power = power.clamp_min(1e-12)
    gain = (power[1:5] / law[1:5]).log().mean().exp()
    weight = (1 - noise / power).clamp_min(0) * (1.5 * power / (gain * law)).clamp_max(1).square()
    return float(3.1 * weight.sum() + 2)


_SPECTRUM_SLOPE = 2.7
"""Portraits' power falls with frequency to this power (2.69 fitted over 120 drawn portraits, 3 to 64
cycles).
"""


def _radial_power(portrait: Tensor) -> Tensor:
    """Mean power of the luminance per spatial frequency 1 .. n/2 (cycles per portrait), Hann window, `(n //
    2,)`.
    """
    grey = luminance(portrait)[0].double()
    n = grey.shape[-1]
    edge = torch.hann_window(n, periodic=False, dtype=torch.float64) + 1e-3
    window = edge[:, None] * edge
    grey = (grey - (grey * window).sum() / window.sum()) * window / window.square().mean().sqrt()
    power = torch.fft.fft2(grey).abs().square() / n**4
    k = torch.fft.fftfreq(n, dtype=torch.float64) * n
    ring = (k[:, None].square() + k.square()).sqrt().round().long().flatten()
    count = torch.bincount(ring, minlength=n).double().clamp_min(1)
    total = torch.zeros(len(count), dtype=torch.float64).index_add_(0, ring, power.flatten())
    return (total / count)[1 : n // 2 + 1]


def _points(image: Tensor, face: int | Sequence[float] | None, finder: Finder | None, name: str) -> Tensor:
    if face is not None and not isinstance(face, int):
        box = check_box(face, name)
        height, width = image.shape[-2:]
        if box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0:
            raise InputError(
                f"{name}: the box {list(face)} lies outside the picture of {width} x {height} px; "
                "give x0,y0,x1,y1 in pixels from its top left corner"
            )
        if finder is None:
            return points_of(box)
        margin = 0.3 * max(box[2] - box[0], box[3] - box[1])
        faces = [f for f in finder.find_faces(image) if _inside(f.points, box, margin)]
        return choose_face(faces, box, name=name).points if faces else points_of(box)
    if finder is None:
        raise InputError(
            f"{name}: this picture is larger than a cropped face and no face finder is at hand; give a box "
            "(x0,y0,x1,y1) around the face, or 'whole' if the picture is the face"
        )
    return choose_face(finder.find_faces(image), face, name=name).points


def _inside(points: Tensor, box: Sequence[float], margin: float) -> bool:
    low, high = torch.tensor(box[:2]) - margin, torch.tensor(box[2:]) + margin
    return bool(((points >= low) & (points <= high)).all())


def _aligned(image: Tensor, points: Tensor) -> tuple[Tensor, int]:
    matrix = similarity_from_points(points, canonical_points(PORTRAIT_SIDE))
    native = max(1, round(PORTRAIT_SIDE / float(matrix[0, :, 0].norm())))
    side = min(max(native, MIN_SIDE), PORTRAIT_SIDE)
    return warp_antialiased(image[None], matrix * (side / PORTRAIT_SIDE), side)[0], native


def _whole(image: Tensor) -> tuple[Tensor, int]:
    height, width = image.shape[-2:]
    native = max(height, width)
    top, left = (native - height) // 2, (native - width) // 2
    pads = (left, native - width - left, top, native - height - top)
    square = F.pad(image[None], pads, mode="replicate")[0]
    side = min(native, PORTRAIT_SIDE)
    return resize(square, side, side), native


def _warning(score: float, native: int, name: str) -> str | None:
    if score >= WARN_BELOW:
        return None
    detail = round(4 * 16**score)
    return (
        f"{name}: hardly recognisable ({score:.2f} of 1): the portrait is {native} px wide and carries the "
        f"detail of a clean one of about {detail} px. Do not search with it alone; let other evidence decide, "
        "and treat every candidate with care."
    )


def _taken(name: str) -> str:
    return (
        f"{name}: taken whole as a portrait, being at most {CROPPED_SIDE} px: if the face does not fill it, say where the "
        "face is, or give a larger picture"
    )


def _resize_8bit(image: Tensor, height: int, width: int, *, truncate: bool = True) -> Tensor:
    import numpy as np
    from PIL import Image

    # By way of [-1, 1], as the released code does: the float rounding on this way decides which levels
    # truncate.
    levels = ((image.float() * 2 - 1) + 1) / 2 * 255 if truncate else (image.float() * 255).round()
    pixels = levels.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float().contiguous() / 255
