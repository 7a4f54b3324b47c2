"""Where the parts of a face are: a small segmentation network, and the masks of part rounds made from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from identiface_core.errors import InputError
from identiface_core.faces.alignment import PORTRAIT_SIDE
from identiface_core.imaging import resize
from identiface_core.parts import MASK_CHANNELS, PARTS

LATENT_FACTOR = 8
VISIBLE_AREA = 0.0008
"""Share of the portrait below which a part counts as not visible (about 13 pixels)."""
SOFT_EDGE = 2.0
"""Standard deviation of the soft edge of a mask, in pixels of a portrait of 128."""


def _conv(inner: int, outer: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU())


class PartSegmenter(nn.Module):
    """Portraits `(B, 3, S, S)` in [0, 1] -> probabilities `(B, 9, S, S)`, channels as
    `parts.MASK_CHANNELS`.

    A U-Net that works at 64, 32 and 16 px: the input is unshuffled, the logits are enlarged bilinearly. It
    knows portraits of 128 px; others are brought to that size, and its answer to theirs.
    """

    kind = "part-segmenter"

    def __init__(self, *, widths: Sequence[int] = (16, 32, 72)) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"widths": list(widths)}
        first, second, third = widths
        self.down1 = nn.Sequential(_conv(12, first), _conv(first, first))
        self.down2 = nn.Sequential(_conv(first, second, 2), _conv(second, second))
        self.bottom = nn.Sequential(_conv(second, third, 2), _conv(third, third), _conv(third, third))
        self.up2 = nn.Sequential(_conv(third + second, second), _conv(second, second))
        self.up1 = _conv(second + first, first)
        self.head = nn.Conv2d(first, len(MASK_CHANNELS), 1)

    def logits(self, image: Tensor) -> Tensor:
        """Logits at half size, `(B, 9, 64, 64)`."""
        fine = self.down1(F.pixel_unshuffle(image * 2 - 1, 2))
        middle = self.down2(fine)
        coarse = self.bottom(middle)
        middle = self.up2(torch.cat([F.interpolate(coarse, scale_factor=2.0), middle], 1))
        logits: Tensor = self.head(self.up1(torch.cat([F.interpolate(middle, scale_factor=2.0), fine], 1)))
        return logits

    def forward(self, image: Tensor) -> Tensor:
        known = resize(image, PORTRAIT_SIDE, PORTRAIT_SIDE)
        logits = F.interpolate(self.logits(known), image.shape[-2:], mode="bilinear", align_corners=False)
        return logits.softmax(1)


def part_mask(probabilities: Tensor, part: str, grow: float = 0.06) -> Tensor:
    """Mask of a round's part, `(B, 1, S, S)` in [0, 1], soft-edged.

    probabilities: `(B, 9, S, S)` of a `sources.PartSource`, any S. `grow`: how far the mask reaches beyond the
    part, as a share of the portrait's side. `overview` gives ones everywhere. `glasses` gives the glasses seen;
    `beard` the skin around mouth and jaw. A part that is not visible gives an empty (all zero) mask: the
    caller decides, for instance for `part_template`. Raises InputError for an unknown part.
    """
    check_part(part)
    if part == "overview":
        return torch.ones_like(probabilities[:, :1])
    region = _beard_region(probabilities) if part == "beard" else _channels(probabilities, part)
    region = (region > 0.5).to(probabilities.dtype)
    region = region * (region.mean((2, 3), keepdim=True) >= VISIBLE_AREA)
    return _soften(_dilate(region, round(grow * probabilities.shape[-1])))


def part_template(part: str, size: int = PORTRAIT_SIDE) -> Tensor:
    """Generous fixed region of a part in the canonical framing, `(1, 1, size, size)` in [0, 1], soft-edged.

    For parts that cannot be seen yet: glasses or a beard to be added, hair on a bald head. Raises InputError
    for an unknown part.
    """
    check_part(part)
    axis = (torch.arange(size) + 0.5) * (PORTRAIT_SIDE / size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    if part == "overview":
        return torch.ones(1, 1, size, size)
    region = torch.zeros(size, size, dtype=torch.bool)
    for cx, cy, rx, ry, power in _TEMPLATES[part]:
        region |= ((x - cx) / rx).abs() ** power + ((y - cy) / ry).abs() ** power <= 1
    if part == "hair":
        cx, cy, rx, ry, power = _INNER_FACE
        region &= ((x - cx) / rx).abs() ** power + ((y - cy) / ry).abs() ** power > 1
    return _soften(region[None, None].float())


def latent_mask(mask: Tensor) -> Tensor:
    """Mask `(B, 1, S, S)` -> `(B, 1, S / 8, S / 8)` for the latents: mean over each 8 x 8 cell, [0, 1]."""
    return F.avg_pool2d(mask, LATENT_FACTOR)


def check_part(part: str) -> None:
    """Raises InputError unless `part` is one of `parts.PARTS`."""
    if part not in PARTS:
        raise InputError(f"unknown part {part!r}; the parts are {', '.join(PARTS)}")


# Superellipses (centre x, centre y, half width, half height, exponent), pixels of the canonical portrait.
_TEMPLATES: dict[str, tuple[tuple[float, float, float, float, float], ...]] = {
    "eyes": ((64, 56.5, 28, 9, 4),),
    "brows": ((64, 49, 28, 9, 4),),
    "nose": ((64, 66, 13, 18, 3),),
    "mouth": ((64, 84, 20, 10, 3),),
    "ears": ((28, 61, 9, 17, 2), (100, 61, 9, 17, 2)),
    "hair": ((64, 52, 50, 51, 2.5),),
    "glasses": ((64, 57, 38, 13, 4),),
    "beard": ((64, 88, 33, 22, 2.5),),
    "skin": ((64, 70, 33, 46, 2.5),),
}
_INNER_FACE = (64.0, 72.0, 28.0, 34.0, 2.5)


def _channels(probabilities: Tensor, part: str) -> Tensor:
    index = MASK_CHANNELS.index(part)
    return probabilities[:, index : index + 1]


def _beard_region(probabilities: Tensor) -> Tensor:
    """Skin and mouth around and below the mouth, down to the jaw: where a beard grows. Empty where no mouth
    is seen.
    """
    mouth = (_channels(probabilities, "mouth") > 0.5).to(probabilities.dtype)
    seen = mouth.sum((2, 3), keepdim=True).clamp_min(1)
    axis = torch.arange(probabilities.shape[-1], dtype=probabilities.dtype, device=probabilities.device) + 0.5
    cx = (mouth * axis).sum((2, 3), keepdim=True) / seen
    cy = (mouth * axis[:, None]).sum((2, 3), keepdim=True) / seen
    reach_x, above, below = (probabilities.shape[-1] * share for share in (0.26, 0.08, 0.17))
    dy = axis[:, None] - cy
    near = ((axis - cx) / reach_x).square() + torch.where(dy < 0, dy / above, dy / below).square() <= 1
    there = mouth.mean((2, 3), keepdim=True) >= VISIBLE_AREA
    return (_channels(probabilities, "skin") + _channels(probabilities, "mouth")) * near * there


def _dilate(mask: Tensor, radius: int) -> Tensor:
    """Grow a 0/1 mask by about `radius` pixels, nearly round (alternating square and plus-shaped steps)."""
    for i in range(radius):
        if i % 2:
            mask = F.max_pool2d(mask, 3, 1, 1)
        else:
            mask = torch.maximum(F.max_pool2d(mask, (3, 1), 1, (1, 0)), F.max_pool2d(mask, (1, 3), 1, (0, 1)))
    return mask


def _soften(mask: Tensor) -> Tensor:
    sigma = SOFT_EDGE * (mask.shape[-1] / PORTRAIT_SIDE)
    radius = max(1, int(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=mask.dtype, device=mask.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    mask = F.conv2d(F.pad(mask, (radius, radius, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    return F.conv2d(F.pad(mask, (0, 0, radius, radius), mode="replicate"), kernel.view(1, 1, -1, 1)).clamp(
        0, 1
    )
