"""The whole surface of a head: skin and its age, then the features, then the marks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .canvas import Canvas, bell, linear
from .features import paint_beard, paint_brows, paint_eyes, paint_mouth, paint_nose
from .geometry import Landmarks
from .hair import ramp
from .identity import Sheet
from .noise import pattern_unit, tile_noise


@dataclass(frozen=True)
class Surface:
    """What the chart looks like under the pixels: colour, gloss, highlights, part coverages."""

    albedo: Tensor  # (B, 3, S, S) linear
    gloss: Tensor  # (B, S, S) factor on the specular
    glint: Tensor  # (B, S, S) light added after shading (catchlights)
    eyes: Tensor
    brows: Tensor
    nose: Tensor
    mouth: Tensor
    ears: Tensor
    fuzz: Tensor  # (B, S, S) beard and brows, hair-like shading


def _paint_blood(c: Canvas) -> Tensor:
    """Redder cheeks, nose and ears, freckles, age spots; returns the ear coverage."""
    flush = 0.9 * bell(c.a - 0.42, 0.14) * bell(c.y - (c.eye - 0.30), 0.12) + 0.7 * bell(c.u, 0.12) * bell(
        c.y - c.nose - 0.06, 0.08
    )
    ear = (
        ramp(c.phi.abs(), 1.30, 1.42) * (1.0 - ramp(c.phi.abs(), 1.85, 2.0)) * bell(c.y - c.eye + 0.10, 0.17)
    )
    c.darken(
        (flush + 0.8 * ear) * (0.04 + 0.17 * c.p["ruddiness"]) * (0.35 + 0.65 * c.pale) * c.front,
        (0.0, 1.0, 0.85),
    )
    c.darken(
        0.10 * bell(c.a - c.p["eye_distance"], 0.13) * bell(c.y - c.eye + 0.03, 0.09) * c.front,
        (0.8, 1.0, 0.8),
    )
    bowl = bell(c.phi.abs() - 1.52 + 0.1 * (c.y - c.eye), 0.045) * bell(c.y - c.eye + 0.07, 0.085)
    c.darken(0.55 * bowl * (1.0 - 0.8 * ramp(c.p["hair_length"], 0.3, 0.5)), (0.8, 1.0, 1.0))
    spots = (
        ramp(tile_noise(c.u * 30.0 + c.nx, c.y * 30.0 - c.ny), 0.75, 1.6)
        * bell(c.y - (c.eye - 0.22), 0.20)
        * ramp(0.62 - c.a, 0.0, 0.2)
    )
    c.darken(0.62 * spots * c.p["freckles"].clamp(0.0, 1.0).sqrt() * c.front, (0.55, 0.85, 1.0))
    liver = ramp(tile_noise(c.u * 9.0 - c.nx, c.y * 9.0 + c.ny), 1.2, 1.9) * ramp(c.y, 0.0, 0.5) + 0.4 * ramp(
        c.blotch, 1.2, 2.0
    )
    c.darken(0.22 * liver * c.old * c.pale, (0.6, 0.9, 1.0))
    return ear


def _paint_wrinkles(c: Canvas) -> None:
    """Forehead, frown, folds beside nose and mouth, crow feet, bags under the eyes."""
    wave = 0.02 * c.blotch
    for k in range(3):
        level = c.brow + 0.13 + 0.085 * k + 0.03 * c.a + wave
        c.crease(
            c.y - level,
            0.013,
            (0.38 * c.old + 0.25 * c.q["brow_raise"].clamp(min=0.0) * ramp(c.p["age"], 0.1, 0.5))
            * ramp(0.46 - c.a, 0.0, 0.15),
        )
    c.crease(c.a - 0.045 + 0.1 * (c.y - c.brow), 0.011, 0.42 * c.old * bell(c.y - c.brow - 0.02, 0.06))
    wide, width = c.m.mouth_width, c.p["nose_width"]
    along = ((c.nose + 0.04 - c.y) / (c.nose - c.mouth + 0.10)).clamp(0.0, 1.0)
    fold_u = width + 0.060 + (wide + 0.035 - width) * along**1.3
    inside_fold = ramp(c.nose + 0.06 - c.y, 0.0, 0.05) * ramp(c.y - c.mouth + 0.08, 0.0, 0.08)
    c.crease(c.a - fold_u, 0.016, (0.10 + 0.32 * c.old + 0.22 * c.q["smile"].clamp(min=0.0)) * inside_fold)
    c.crease(c.a - wide - 0.035, 0.014, 0.34 * c.old * bell(c.y - c.mouth + 0.12, 0.06))
    outer = c.a - c.p["eye_distance"] - c.p["eye_width"]
    feet = torch.cos(9.0 * torch.atan2(c.y - c.eye, outer.clamp(min=0.01)))
    depth = 0.30 * c.old + 0.16 * c.q["smile"].clamp(min=0.0) * ramp(c.p["age"], 0.15, 0.5)
    fan = ramp(outer, 0.02, 0.06) * ramp(0.19 - outer, 0.0, 0.08)
    c.darken(depth * fan * feet.clamp(min=0.0) ** 2 * bell(c.y - c.eye, 0.10) * c.front)
    c.crease(
        c.y - (c.eye - 0.115) - 0.35 * (c.a - c.p["eye_distance"]) ** 2,
        0.014,
        (0.08 + 0.34 * c.old) * bell(c.a - c.p["eye_distance"] + 0.02, 0.085),
    )


def _paint_marks(c: Canvas, free: Tensor) -> None:
    """One mole and one scar, kept off eyes and mouth by `free`."""
    mole_u, mole_y = (
        0.90 * pattern_unit(c.p["pattern"], 7) - 0.45,
        0.28 - 1.10 * pattern_unit(c.p["pattern"], 8),
    )
    mole = c.soft(
        0.012 + 0.012 * c.p["mole"].clamp(0.0, 1.0) - ((c.u - mole_u) ** 2 + (c.y - mole_y) ** 2).sqrt()
    ) * (c.p["mole"] > 0)
    c.lay(c.tone * linear((130, 84, 70), c.u) + 0.004, 0.92 * mole * free * c.front)
    angle = math.pi * (pattern_unit(c.p["pattern"], 10).double() - 0.5)
    along_x, along_y = torch.sin(angle).float(), torch.cos(angle).float()
    su, sy = c.u - (0.66 * pattern_unit(c.p["pattern"], 11) - 0.33).sign() * 0.38, c.y - (c.eye - 0.32)
    lengthwise, across = su * along_x + sy * along_y, su * along_y - sy * along_x
    scar = bell(across, 0.012) * ramp(0.17 - lengthwise.abs(), 0.0, 0.05) * (c.p["scar"] > 0) * c.front
    c.lay(
        (c.tone * 0.75 + 0.25 * linear((228, 170, 158), c.u)) * (0.85 + 0.3 * (1 - c.pale))[:, None],
        0.75 * scar * free,
    )


def paint(phi: Tensor, t: Tensor, light: Tensor, p: Sheet, q: Sheet, m: Landmarks, pixel: float) -> Surface:
    """Colour the head at chart coordinates phi, t (B, S, S); light (B, 3, 1, 1) unit towards the lamp."""
    c = Canvas(phi, t, p, q, m, pixel)
    ear = _paint_blood(c)
    _paint_wrinkles(c)
    nose = paint_nose(c)
    mouth = paint_mouth(c)
    fuzz = paint_beard(c, mouth)
    brows = paint_brows(c)
    white, eyes, glint = paint_eyes(c, light)
    _paint_marks(c, (1.0 - white) * (1.0 - mouth.whole))
    gloss = (
        1.0
        + 0.5 * bell(c.u, 0.16) * ramp(c.y, 0.2, 0.5)
        + 0.6 * mouth.lips
        + 0.35 * bell(c.u, 0.06) * bell(c.y - c.nose - 0.07, 0.06)
    )
    gloss = gloss * (1.0 + 0.15 * c.grain) * (1.0 - 0.85 * fuzz) * (1.0 - 0.8 * white) * (1.0 - 0.25 * c.old)
    return Surface(
        albedo=c.albedo,
        gloss=gloss,
        glint=glint,
        eyes=eyes,
        brows=brows,
        nose=nose,
        mouth=mouth.whole,
        ears=c.soft(ear - 0.25),
        fuzz=torch.maximum(fuzz, 0.5 * brows),
    )
