"""Portraits of synthetic people with exact part masks and points, and pencil drawings of them.

Everything is a pure function of the numbers given: no random generator, and a picture does not depend on
its batch. Rays are orthographic; the layers are background, hair behind the shoulders, head, clothes, hair
in front, glasses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..parts import MASK_CHANNELS
from .canvas import frame_colour, skin_colour
from .geometry import FACE_U, REACH, look_up, point_of
from .identity import canonical_nuisance, nuisance_index, nuisance_sheet
from .layers import (
    CENTRE,
    FACE_PARTS,
    PIVOT,
    VIEW,
    Scene,
    draw_hair,
    draw_head,
    set_up,
    shape_clothes,
    shape_glasses,
    turn,
)
from .noise import pattern_unit, tile_noise
from .shading import dot, hsv, shade_skin, to_display

Masks = dict[str, Tensor]


@dataclass(frozen=True)
class Portrait:
    """A batch of pictures.

    image (B, 3, S, S) in [0, 1]; masks (B, len(MASK_CHANNELS), S, S) in [0, 1], summing to 1 per pixel;
    points (B, 5, 2) x, y in pixels, pixel centres at integer + 0.5: image-left eye, image-right eye, nose
    tip, image-left mouth corner, image-right mouth corner (projections of points of the 3D surface).
    """

    image: Tensor
    masks: Tensor
    points: Tensor


def _points(v: Scene) -> Tensor:
    """Projections of the five points, (B, 5, 2)."""
    p, q, m = v.p, v.q, v.m
    smile = 0.050 * q["smile"] - 0.008
    corner = 0.92 * m.mouth_width
    us = torch.cat((-p["eye_distance"], p["eye_distance"], 0 * m.eye, -corner, corner), 2)
    ts = torch.cat((m.eye, m.eye, m.nose + 0.055, m.mouth + smile, m.mouth + smile), 2)
    phi = torch.asin(us.double() / FACE_U).float()
    pivot = us.new_tensor(PIVOT).view(1, 3, 1, 1)
    x, y, z = point_of(look_up(v.head.skin, phi, ts)[:, 0], phi, ts)
    seen = turn(v.rotation, torch.stack((x, y, z), 1) - pivot) + pivot
    px = (seen[:, 0] * q["scale"] + q["shift_x"]) / VIEW + 0.5
    py = 0.5 - ((seen[:, 1] - CENTRE) * q["scale"] + q["shift_y"]) / VIEW
    return torch.stack((px[:, 0], py[:, 0]), -1) * v.size


def _stack(
    background: Tensor, layers: list[tuple[Tensor, Tensor, str]], parts: list[Tensor]
) -> tuple[Tensor, Masks]:
    """Lay (colour, coverage, mask name) over each other; "face" is shared out among `parts` and skin."""
    image = background.expand_as(layers[0][0])
    masks = {name: torch.zeros_like(layers[0][1]) for name in MASK_CHANNELS}
    masks["background"] = torch.ones_like(layers[0][1])
    for colour, alpha, name in layers:
        image = image + (colour - image) * alpha[:, None]
        masks = {k: v * (1.0 - alpha) for k, v in masks.items()}
        if name != "face":
            masks[name] = masks[name] + alpha
            continue
        rest = alpha
        for part, area in zip(FACE_PARTS, parts, strict=True):
            share = rest * area
            masks[part], rest = masks[part] + share, rest - share
        masks["skin"] = masks["skin"] + rest
    return image, masks


def _draw(identity: Tensor, nuisance: Tensor, size: int, sketch: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(linear light image, masks, points); `sketch` puts everything before white paper."""
    v = set_up(identity, nuisance, size)
    skull = draw_head(v)
    face, hit = skull.colour, skull.hit
    fur = draw_hair(v, hit)
    wear = shape_clothes(v)
    one = torch.ones_like(v.sx)
    if sketch:
        background, cloth_colour = torch.ones_like(face) * 3.0, torch.ones_like(v.light_view) * 0.9
    else:
        base = hsv(v.q["background_hue"], v.q["background_saturation"], v.q["background_value"])
        slope = (1.0 + 0.35 * v.q["background_gradient"] * v.sy - 0.10 * (v.sx * v.sx + v.sy * v.sy))[:, None]
        background = base * slope.clamp(min=0.2) * 1.1
        cloth_colour = hsv(v.q["clothes_hue"], v.q["clothes_saturation"], v.q["clothes_value"])
    chest = shade_skin(skin_colour(v.p).expand_as(face), wear.normal, one * 0.8, one * 0.6, one * 0.5,
                       v.light_view, v.half_view,
                       v.camera, v.key, v.ambient)  # fmt: skip
    drape = (
        cloth_colour
        * (1.0 + wear.folds)[:, None]
        * (
            1.7 * v.key * ((dot(wear.normal, v.light_view) + 0.2) / 1.2).clamp(min=0.0)[:, None]
            + 0.9 * v.ambient
        )
    )

    front_hair = (REACH - fur.depth > -0.16).float()
    frame, lens, glare = shape_glasses(v, hit)
    over_cloth = (hit.t > v.m.chin - 0.05).float() * (REACH - hit.depth > 0.30)
    layers: list[tuple[Tensor, Tensor, str]] = [
        (fur.colour, fur.cover * (1.0 - front_hair), "hair"),
        (chest, wear.chest, "skin"),
        (face, hit.cover * torch.maximum(1.0 - wear.cloth, over_cloth), "face"),
        (drape, wear.cloth * (1.0 - over_cloth * hit.cover), "background"),
        (fur.colour, fur.cover * front_hair, "hair"),
    ]
    image, masks = _stack(background, layers, skull.parts)
    unhidden = 1.0 - fur.cover * front_hair * (fur.depth < hit.depth - 0.10)
    frame, lens = frame * unhidden, lens * unhidden
    image = image * (1.0 - 0.08 * lens[:, None]) + 0.10 * (glare * unhidden)[:, None] * v.key
    rims = frame_colour(v.p) * (0.7 + 0.9 * v.key)
    image = image + (rims - image) * (frame * 0.95)[:, None]
    masks = {k: v * (1.0 - frame) for k, v in masks.items()}
    masks["glasses"] = masks["glasses"] + frame
    return image, torch.stack([masks[k] for k in MASK_CHANNELS], 1), _points(v)


def render(identity: Tensor, nuisance: Tensor, size: int = 128) -> Portrait:
    """Draw people under given views.

    identity (B, len(PARAMETERS)), nuisance (B, len(NUISANCE)) float32 on the same device; size in pixels.
    Raises ValueError for wrong widths or unequal batch lengths.
    """
    if identity.shape[0] != nuisance.shape[0]:
        raise ValueError(
            f"{identity.shape[0]} identities but {nuisance.shape[0]} nuisance rows: give one view per person"
        )
    with torch.no_grad():
        light, masks, points = _draw(identity.float(), nuisance.float(), size, sketch=False)
        image = to_display(light)
        q = nuisance_sheet(nuisance)
        column = 2.0 * torch.arange(size, device=image.device, dtype=torch.float32).view(1, 1, -1)
        offsets = [(256.0 * pattern_unit(q["noise_seed"], k)).floor() for k in range(6)]
        grain = torch.stack([
            tile_noise(offsets[2 * k] + column.expand(len(image), size, -1),
                       offsets[2 * k + 1] + column.transpose(1, 2).expand(len(image), -1, size))
            for k in range(3)
        ], 1)  # fmt: skip
        image = (image + q["noise"][..., None] * grain).clamp(0.0, 1.0)
    return Portrait(image, masks, points)


def _gaussian(x: Tensor, sigma: float) -> Tensor:
    half = max(1, int(3.0 * sigma + 0.5))
    k = torch.exp(-0.5 * (torch.arange(-half, half + 1, device=x.device) / sigma) ** 2)
    k = k / k.sum()
    x = F.conv2d(F.pad(x, (half, half, half, half), mode="replicate"), k.view(1, 1, 1, -1))
    return F.conv2d(x, k.view(1, 1, -1, 1))


def draw_sketch(identity: Tensor, nuisance: Tensor | None = None, size: int = 128) -> Tensor:
    """A pencil drawing, (B, 1, S, S) in [0, 1], 1 is paper.

    Difference of Gaussians on the log-luminance of the person under frontal light before white, plus a light
    tone. Canonical view unless `nuisance` (B, len(NUISANCE)) gives another pose and expression; its light and
    colours are ignored.
    """
    view = (
        canonical_nuisance(identity.shape[0]).to(identity.device)
        if nuisance is None
        else nuisance.float().clone()
    )
    for name, value in (
        ("light_x", 0.0),
        ("light_y", 0.35),
        ("ambient", 0.45),
        ("key", 0.65),
        ("warmth", 0.0),
    ):
        view[:, nuisance_index(name)] = value
    with torch.no_grad():
        light, _, _ = _draw(identity.float(), view, size, sketch=True)
        weights = light.new_tensor((0.30, 0.59, 0.11)).view(1, 3, 1, 1)
        tone = (to_display(light) * weights).sum(1, keepdim=True)
        log = torch.log(tone + 0.06)
        unit = size / 128.0
        edge = _gaussian(log, 1.9 * unit) - _gaussian(log, 0.75 * unit)
        lines = ((edge - 0.010) / 0.11).clamp(0.0, 1.0) ** 0.75
        wash = 0.13 * (1.0 - _gaussian(tone, 1.2 * unit)).clamp(0.0, 1.0)
        return (1.0 - 0.92 * lines - wash * (1.0 - lines)).clamp(0.0, 1.0)
