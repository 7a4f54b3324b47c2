"""The features of a face, painted part by part: nose, mouth, beard, brows, eyes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .canvas import Canvas, bell, linear, palette
from .hair import ramp
from .noise import pattern_unit, tile_noise

_IRIS = ((54, 30, 16), (98, 58, 26), (122, 96, 46), (96, 124, 78), (84, 128, 176), (150, 164, 172))


@dataclass(frozen=True)
class Mouth:
    """Where the mouth is: coverage of lips and of the whole, middle line, lip edges, relative place."""

    lips: Tensor
    whole: Tensor
    line: Tensor
    upper: Tensor  # height of the upper lip
    below: Tensor  # lower edge of the lower lip
    mx: Tensor  # -1 .. 1 between the corners


def paint_nose(c: Canvas) -> Tensor:
    """Nostrils, wing creases, shade under the tip; returns the part coverage."""
    width = c.p["nose_width"]
    nostril = bell(c.a - 0.52 * width, 0.026) * bell(c.y - c.nose - 0.006 - 0.15 * (c.a - 0.5 * width), 0.017)
    c.darken(0.88 * nostril * c.front, (0.88, 1.0, 1.0))
    c.darken(0.28 * bell(c.a - width - 0.035, 0.018) * bell(c.y - c.nose - 0.045, 0.045) * c.front)
    c.darken(0.08 * bell(c.u, 0.8 * width) * bell(c.y - c.nose + 0.015, 0.020) * c.front)
    slope = 0.45 + 0.75 * ((c.eye - c.y) / (c.eye - c.nose)).clamp(0.0, 1.0)
    return (
        c.soft(slope * (width + 0.045) - c.a)
        * c.soft(c.eye + 0.02 - c.y)
        * c.soft(c.y - c.nose + 0.035)
        * c.front
    )


def paint_mouth(c: Canvas) -> Mouth:
    """Lips with a bow, the opening with teeth, the line between and the corners."""
    wide = c.m.mouth_width
    mx = c.u / wide
    bow = (1.0 - mx * mx).clamp(min=0.0)
    lift = c.q["smile"] * 0.060 * (mx * mx).clamp(max=1.2) + 0.006 * mx**2
    line = c.mouth + lift
    gap = 0.05 * c.q["mouth_open"].clamp(min=0.0) * bow
    upper = (
        c.p["upper_lip"]
        * 1.15
        * bow**0.75
        * (1.0 - 0.30 * bell(mx, 0.13) + 0.10 * bell(mx.abs() - 0.27, 0.13))
    )
    lower = c.p["lower_lip"] * 1.15 * bow**0.6
    below = line - gap - lower
    lips = torch.minimum(line + 0.35 * gap + upper - c.y, c.y - below) * 1.0
    lips_cover = c.soft(lips) * ramp(bow, 0.0, 0.08) * c.front
    red = c.p["lip_redness"][:, None]
    lip_colour = c.tone * (
        1.0 - torch.tensor([0.20, 0.62, 0.52], device=c.u.device).view(1, 3, 1, 1) * (0.35 + 0.65 * red)
    )
    c.lay(
        lip_colour * (1.0 - 0.22 * ramp(c.y - line, -0.02, 0.02) + 0.05 * c.hairs)[:, None], lips_cover * 0.95
    )
    opening = torch.minimum(line + 0.35 * gap - c.y, c.y - (line - gap))
    hole = c.soft(opening - 0.2 * c.e) * ramp(gap, 0.002, 0.012) * c.front
    c.lay(linear((50, 16, 16), c.u), hole)
    teeth = (
        c.soft(line + 0.35 * gap - 0.004 - c.y)
        * c.soft(c.y - (line - 0.62 * gap))
        * ramp(gap, 0.008, 0.02)
        * ramp(0.80 - mx.abs(), 0.0, 0.2)
    )
    c.lay(
        linear((226, 218, 202), c.u) * (1.0 - 0.12 * torch.cos(mx * 26.0).clamp(min=0.0) ** 8)[:, None],
        teeth * hole,
    )
    c.darken(
        0.72
        * bell(c.y - line, 0.010 + 0.2 * c.pixel)
        * ramp(1.10 - mx.abs(), 0.0, 0.25)
        * (1.0 - hole)
        * c.front,
        (0.85, 1.0, 1.0),
    )
    c.darken(0.30 * bell(c.a - wide, 0.022) * bell(c.y - line, 0.022) * c.front)
    c.darken(0.16 * bell(c.u, 0.6 * wide) * bell(c.y - below + 0.020, 0.020) * c.front)
    return Mouth(lips_cover, torch.maximum(lips_cover, hole), line, upper, below, mx)


def paint_beard(c: Canvas, lip: Mouth) -> Tensor:
    """Beard and moustache, returned as coverage; a shaved man keeps a faint shade."""
    wide, line, upper, below, mx = c.m.mouth_width, lip.line, lip.upper, lip.below, lip.mx
    jaw_line = c.nose - 0.02 + 0.50 * ramp(c.a, 0.42, 0.80) - 0.10 * bell(c.a - 0.33, 0.12)
    jaw_line = torch.where(c.front > 0, jaw_line, c.eye - 0.30)
    area = (
        ramp(jaw_line - c.y + 0.05 * c.hairs, 0.0, 0.13)
        * (1.0 - ramp(c.m.chin - c.y, 0.0, 0.12))
        * (1.0 - ramp(c.phi.abs(), 1.45, 1.62))
    )
    philtrum = 1.0 - 0.45 * bell(c.u, 0.022)
    tash_top = c.nose - 0.012 - 0.16 * c.a - 0.5 * (c.a - wide).clamp(min=0.0)
    tash_end = torch.where(mx.abs() < 1.0, line + 0.72 * upper, line - 0.10 * ramp(c.a - wide, 0.0, 0.06))
    tash = (
        ramp(tash_top - c.y + 0.012 * c.hairs, -0.01, 0.03)
        * ramp(c.y - tash_end + 0.012 * c.hairs, -0.02, 0.02)
        * ramp(wide + 0.09 - c.a, 0.0, 0.05)
    )
    goatee = torch.where(
        pattern_unit(c.p["pattern"], 6) < 0.3, ramp(wide + 0.05 - c.a, 0.0, 0.07), torch.ones_like(c.a)
    )
    chin_part = ramp(line - c.y + 0.04 * c.a / wide, 0.0, 0.04)
    chin_part = torch.maximum(chin_part, ramp(c.a - wide, 0.03, 0.10))
    lipless = 1.0 - c.soft(c.y - below + 0.014) * ramp(1.05 - mx.abs(), 0.0, 0.1) * ramp(
        line - c.y, -0.02, 0.0
    )
    grown_b = ramp(c.p["beard"], 0.0, 0.12) * (0.40 + 0.60 * ramp(c.p["beard"], 0.05, 0.5))
    grown_m = torch.maximum(
        ramp(c.p["moustache"], 0.0, 0.12) * (0.55 + 0.45 * ramp(c.p["moustache"], 0.05, 0.4)), 0.85 * grown_b
    )
    man = 1.0 - ramp(c.p["sex"], 0.42, 0.58)
    shade = (
        0.10
        * man
        * (1.0 - ramp(c.p["age"], 0.8, 1.0))
        * (1.0 - 0.5 * c.pale * ramp(c.p["hair_colour"], 0.5, 0.9))
    )
    region = area * goatee * chin_part * lipless
    fuzz = torch.maximum(region * grown_b, tash * philtrum * grown_m)
    fuzz = (fuzz * (0.97 + 0.15 * c.hairs)).clamp(0.0, 0.97) * torch.where(c.front > 0, 1.0, 0.9)
    c.darken(shade * torch.maximum(area * chin_part * lipless, tash), (1.0, 0.85, 0.6))
    c.lay(c.hair * (0.80 + 0.30 * c.hairs.clamp(-1.2, 1.5))[:, None], fuzz)
    return fuzz


def paint_brows(c: Canvas) -> Tensor:
    """A tapered arc of slanted hairs; returns the part coverage."""
    bx = (c.a - (c.p["eye_distance"] - 0.015)) / c.p["brow_length"]
    arc = c.brow + c.p["brow_arch"] * (1.0 - 1.6 * (bx - 0.30) ** 2) - 0.02 + c.p["brow_slant"] * 0.20 * bx
    thick = c.p["brow_thickness"] * (1.05 - 0.30 * ramp(-bx, 0.5, 1.0) - 0.65 * ramp(bx, 0.0, 1.0))
    bristle = tile_noise(c.a * 58.0 - 46.0 * (c.y - arc) + c.nx, (c.y - arc) * 18.0 + c.ny)
    inside = thick * (1.0 + 0.25 * bristle) - (c.y - arc).abs()
    brows = (inside / (1.6 * c.e) * 0.5 + 0.6).clamp(0.0, 1.0) * ramp(1.0 - bx.abs(), -0.02, 0.16) * c.front
    brow_tone = c.hair * 0.72 + 0.10 * c.tone
    c.lay(
        brow_tone * (1.0 + 0.25 * bristle.clamp(-1.5, 1.5))[:, None],
        brows * (0.80 + 0.12 * bristle).clamp(0.0, 0.95),
    )
    return brows


def paint_eyes(c: Canvas, light: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lids, white, iris, pupil, lashes; returns (eyeball, whole eye, catchlight).

    light (B, 3, 1, 1) unit towards the lamp.
    """
    half, d = c.p["eye_width"], c.u - c.side * c.p["eye_distance"]
    ex = (c.a - c.p["eye_distance"]) / half
    ey = c.y - c.eye - c.p["eye_tilt"] * half * 0.5 * ex
    shut = c.q["blink"].clamp(0.0, 1.0)
    squint = c.q["smile"].clamp(min=0.0)
    open_ = c.p["eye_opening"] * (1.0 - 0.75 * shut) * (1.0 + 0.12 * c.q["brow_raise"])
    vault = (1.0 - ex * ex).clamp(min=0.0)
    top = 0.92 * open_ * vault**0.75 * (1.0 - 0.12 * ex)
    bottom = open_ * (0.70 - 0.18 * squint) * vault**0.9 * (1.0 + 0.18 * ex)
    eye_inside = torch.minimum(top - ey, ey + bottom)
    white = c.soft(eye_inside) * ramp(vault, 0.0, 0.05) * c.front
    in_x, in_y = d - 0.030 * c.q["gaze_x"], c.y - c.eye - 0.002 - 0.014 * c.q["gaze_y"] + 0.02 * shut
    r = (in_x * in_x + in_y * in_y).sqrt()
    size = 0.064
    sclera = (
        linear((214, 208, 202), c.u)
        * (1.0 - 0.3 * c.p["melanin"][:, None])
        * (1.0 - 0.22 * ex.abs().clamp(max=1.0) ** 2 - 0.38 * ramp(0.030 - (top - ey), 0.0, 0.030))[:, None]
    )
    c.lay(sclera, white)
    c.lay(linear((196, 120, 108), c.u), white * bell(ex + 0.95, 0.12) * 0.8)
    iris = palette(_IRIS, c.p["iris_colour"])
    ring = (1.15 - 0.85 * ramp(r, 0.70 * size, size) + 0.5 * ramp(-in_y, -0.01, 0.04) + 0.10 * c.grain)[
        :, None
    ]
    c.lay(
        iris * ring * (1.0 - 0.35 * ramp(0.020 - (top - ey), 0.0, 0.020))[:, None], white * c.soft(size - r)
    )
    c.lay(linear((8, 6, 6), c.u), white * c.soft(0.42 * size - r))
    lash = (
        bell(ey - top - 0.004, 0.0085 + 0.30 * c.pixel + 0.006 * ramp(c.p["sex"], 0.4, 0.7))
        * ramp(1.16 - ex.abs(), 0.0, 0.22)
        * c.front
    )
    c.lay(linear((22, 16, 14), c.u), (lash * (0.80 + 0.12 * ramp(ex, -0.5, 0.8))).clamp(0.0, 1.0))
    c.darken(
        0.42 * bell(ey + bottom + 0.003, 0.012) * ramp(1.10 - ex.abs(), 0.0, 0.3) * (1.0 - white) * c.front
    )
    lid = top + 0.022 + 0.020 * c.p["lid_crease"].clamp(0.0, 1.0) + 0.02 * shut
    c.darken(
        0.50
        * c.p["lid_crease"].clamp(0.15, 1.0)
        * bell(ey - lid - 0.006 * (1.0 - vault), 0.011)
        * ramp(1.12 - ex.abs(), 0.0, 0.3)
        * c.front
    )
    glint_x, glint_y = in_x - 0.020 * light[:, 0].sign() - 0.006 * light[:, 0], in_y - 0.021
    glint = white * (
        c.soft(0.016 - (glint_x**2 + glint_y**2).sqrt()) * 0.80
        + 0.10 * bell(in_x, 0.05) * bell(in_y - 0.02, 0.02)
    )
    return white, torch.maximum(white, lash * 0.9), glint
