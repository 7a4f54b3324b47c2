"""Colour of the head's surface, evaluated per pixel on the chart with soft edges: no texture, no texture blur."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .geometry import FACE_U, Landmarks
from .hair import ramp
from .identity import Sheet
from .noise import pattern_unit, tile_noise

_SKIN = (
    (243, 206, 184),
    (236, 192, 162),
    (220, 170, 132),
    (198, 145, 106),
    (158, 106, 72),
    (112, 72, 48),
    (72, 46, 34),
)
_HAIR = (
    (20, 16, 16),
    (46, 30, 22),
    (84, 54, 34),
    (118, 60, 34),
    (176, 88, 40),
    (160, 124, 78),
    (222, 186, 124),
)
_IRIS = ((54, 30, 16), (98, 58, 26), (122, 96, 46), (96, 124, 78), (84, 128, 176), (150, 164, 172))
_FRAMES = ((22, 22, 24), (92, 54, 26), (196, 158, 84), (170, 174, 180), (120, 24, 30), (40, 56, 100))


def linear(rgb: tuple[int, int, int], like: Tensor) -> Tensor:
    """An 8-bit sRGB colour as linear light, (1, 3, 1, 1)."""
    return torch.tensor([(c / 255.0) ** 2.2 for c in rgb], device=like.device).view(1, 3, 1, 1)


def palette(colours: tuple[tuple[int, int, int], ...], at: Tensor) -> Tensor:
    """Piecewise linear colour scale; at (B, 1, 1) in [0, 1] -> (B, 3, 1, 1) linear light."""
    x = (at.clamp(0.0, 1.0) * (len(colours) - 1))[:, None]
    out = linear(colours[0], at).expand(at.shape[0], 3, 1, 1)
    for k in range(len(colours) - 1):
        out = out + (x - k).clamp(0.0, 1.0) * (linear(colours[k + 1], at) - linear(colours[k], at))
    return out


def skin_colour(p: Sheet) -> Tensor:
    """(B, 3, 1, 1) linear skin colour from melanin and ruddiness."""
    base = palette(_SKIN, p["melanin"])
    warm = (p["ruddiness"] - 0.5)[:, None]
    shift = torch.tensor([0.05, -0.07, -0.03], device=base.device).view(1, 3, 1, 1)
    return base * (1.0 + 1.3 * warm * shift)


def hair_colour(p: Sheet) -> Tensor:
    """(B, 3, 1, 1) linear hair colour, greying with age."""
    grey = (ramp(p["age"] + 0.30 * (pattern_unit(p["pattern"], 9) - 0.5), 0.55, 0.90) * 0.95)[:, None]
    base = palette(_HAIR, p["hair_colour"])
    light = linear((176, 174, 172), base) + (0.22 * (p["age"] - 0.7).clamp(min=0.0))[:, None]
    return base + (light - base) * grey


def frame_colour(p: Sheet) -> Tensor:
    """(B, 3, 1, 1) linear colour of a spectacle frame."""
    return palette(_FRAMES, (pattern_unit(p["pattern"], 5) * 6).floor() / 5.0)


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


class _Canvas:
    def __init__(self, albedo: Tensor) -> None:
        self.albedo = albedo

    def lay(self, colour: Tensor, cover: Tensor) -> None:
        self.albedo = self.albedo + (colour - self.albedo) * cover[:, None]

    def darken(self, cover: Tensor, tint: tuple[float, float, float] = (0.75, 1.0, 1.0)) -> None:
        t = torch.tensor(tint, device=cover.device).view(1, 3, 1, 1)
        self.albedo = self.albedo * (1.0 - t * cover[:, None])


def _gauss(x: Tensor, s: Tensor | float) -> Tensor:
    """A bell, exp(-x^2 / 2 s^2) nearly: (1 - x^2 / 8 s^2)^4, which has an end and costs a third."""
    v = x * (0.35355 / s)
    v = (1.0 - v * v).clamp_(min=0.0)
    v = v * v
    return v * v


def paint(phi: Tensor, t: Tensor, light: Tensor, p: Sheet, q: Sheet, m: Landmarks, pixel: float) -> Surface:
    """Colour the head at chart coordinates phi, t (B, S, S); light (B, 3, 1, 1) unit towards the lamp."""
    front = (torch.cos(phi) > 0).float()
    u = FACE_U * torch.sin(phi)
    a, y = u.abs(), t
    side = torch.where(u < 0, -1.0, 1.0)
    e = 0.75 * pixel

    def soft(x: Tensor) -> Tensor:
        return (x / e * 0.5 + 0.5).clamp(0.0, 1.0)

    nx, ny = 256.0 * pattern_unit(p["pattern"], 3), 256.0 * pattern_unit(p["pattern"], 4)
    blotch = tile_noise(u * 6.0 + nx, y * 6.0 + ny)
    grain = tile_noise(u * 40.0 + nx, y * 40.0 + ny)
    hairs = tile_noise(u * 62.0 + 10.0 * y + ny, y * 13.0 + nx)
    old, pale = ramp(p["age"], 0.35, 1.0), 1.0 - ramp(p["melanin"], 0.25, 0.7)
    tone, hair = skin_colour(p), hair_colour(p)
    c = _Canvas(tone.expand(-1, -1, *u.shape[1:]) * (1.0 + 0.030 * blotch + 0.022 * grain)[:, None])
    eye, nose, mouth, brow = m.eye, m.nose, m.mouth, m.eye + p["brow_height"] + 0.03 * q["brow_raise"]

    # Blood under the skin: cheeks, nose, ears, a paler forehead, a cool beard shade on men.
    flush = 0.9 * _gauss(a - 0.42, 0.14) * _gauss(y - (eye - 0.30), 0.12) + 0.7 * _gauss(u, 0.12) * _gauss(
        y - nose - 0.06, 0.08
    )
    ear = ramp(phi.abs(), 1.30, 1.42) * (1.0 - ramp(phi.abs(), 1.85, 2.0)) * _gauss(y - eye + 0.10, 0.17)
    c.darken(
        (flush + 0.8 * ear) * (0.04 + 0.17 * p["ruddiness"]) * (0.35 + 0.65 * pale) * front, (0.0, 1.0, 0.85)
    )
    c.darken(
        0.10 * _gauss(a - p["eye_distance"], 0.13) * _gauss(y - eye + 0.03, 0.09) * front, (0.8, 1.0, 0.8)
    )
    bowl = _gauss(phi.abs() - 1.52 + 0.1 * (y - eye), 0.045) * _gauss(y - eye + 0.07, 0.085)
    c.darken(0.55 * bowl * (1.0 - 0.8 * ramp(p["hair_length"], 0.3, 0.5)), (0.8, 1.0, 1.0))
    spots = (
        ramp(tile_noise(u * 30.0 + nx, y * 30.0 - ny), 0.75, 1.6)
        * _gauss(y - (eye - 0.22), 0.20)
        * ramp(0.62 - a, 0.0, 0.2)
    )
    c.darken(0.62 * spots * p["freckles"].clamp(0.0, 1.0).sqrt() * front, (0.55, 0.85, 1.0))
    liver = ramp(tile_noise(u * 9.0 - nx, y * 9.0 + ny), 1.2, 1.9) * ramp(y, 0.0, 0.5) + 0.4 * ramp(
        blotch, 1.2, 2.0
    )
    c.darken(0.22 * liver * old * pale, (0.6, 0.9, 1.0))

    # Wrinkles and folds: a dark line with a pale lower lip reads as relief.
    def crease(d: Tensor, width: float, amount: Tensor) -> None:
        line = _gauss(d, width) - 0.45 * _gauss(d + 1.7 * width, width)
        c.darken(amount * line * front, (0.8, 1.0, 1.0))

    wave = 0.02 * blotch
    for k in range(3):
        level = brow + 0.13 + 0.085 * k + 0.03 * a + wave
        crease(
            y - level,
            0.013,
            (0.38 * old + 0.25 * q["brow_raise"].clamp(min=0.0) * ramp(p["age"], 0.1, 0.5))
            * ramp(0.46 - a, 0.0, 0.15),
        )
    crease(a - 0.045 + 0.1 * (y - brow), 0.011, 0.42 * old * _gauss(y - brow - 0.02, 0.06))
    wide, width = m.mouth_width, p["nose_width"]
    along = ((nose + 0.04 - y) / (nose - mouth + 0.10)).clamp(0.0, 1.0)
    fold_u = width + 0.060 + (wide + 0.035 - width) * along**1.3
    inside_fold = ramp(y, -0.03, 0.03) * 0 + ramp(nose + 0.06 - y, 0.0, 0.05) * ramp(
        y - mouth + 0.08, 0.0, 0.08
    )
    crease(a - fold_u, 0.016, (0.10 + 0.32 * old + 0.22 * q["smile"].clamp(min=0.0)) * inside_fold)
    crease(a - wide - 0.035, 0.014, 0.34 * old * _gauss(y - mouth + 0.12, 0.06))
    outer = a - p["eye_distance"] - p["eye_width"]
    feet = torch.cos(9.0 * torch.atan2(y - eye, outer.clamp(min=0.01)))
    c.darken((0.30 * old + 0.16 * q["smile"].clamp(min=0.0) * ramp(p["age"], 0.15, 0.5)) * ramp(outer, 0.02, 0.06)
             * ramp(0.19 - outer, 0.0, 0.08) * feet.clamp(min=0.0) ** 2 * _gauss(y - eye, 0.10) * front)  # fmt: skip
    crease(
        y - (eye - 0.115) - 0.35 * (a - p["eye_distance"]) ** 2,
        0.014,
        (0.08 + 0.34 * old) * _gauss(a - p["eye_distance"] + 0.02, 0.085),
    )

    # Nose: nostrils, wing creases, shade under the tip.
    nostril = _gauss(a - 0.52 * width, 0.026) * _gauss(y - nose - 0.006 - 0.15 * (a - 0.5 * width), 0.017)
    c.darken(0.88 * nostril * front, (0.88, 1.0, 1.0))
    c.darken(0.28 * _gauss(a - width - 0.035, 0.018) * _gauss(y - nose - 0.045, 0.045) * front)
    c.darken(0.08 * _gauss(u, 0.8 * width) * _gauss(y - nose + 0.015, 0.020) * front)
    slope = 0.45 + 0.75 * ((eye - y) / (eye - nose)).clamp(0.0, 1.0)
    nose_mask = soft(slope * (width + 0.045) - a) * soft(eye + 0.02 - y) * soft(y - nose + 0.035) * front

    # Mouth.
    mx = u / wide
    bow = (1.0 - mx * mx).clamp(min=0.0)
    lift = q["smile"] * 0.060 * (mx * mx).clamp(max=1.2) + 0.006 * mx**2
    line = mouth + lift
    gap = 0.05 * q["mouth_open"].clamp(min=0.0) * bow
    upper = (
        p["upper_lip"]
        * 1.15
        * bow**0.75
        * (1.0 - 0.30 * _gauss(mx, 0.13) + 0.10 * _gauss(mx.abs() - 0.27, 0.13))
    )
    lower = p["lower_lip"] * 1.15 * bow**0.6
    lips = torch.minimum(line + 0.35 * gap + upper - y, y - (line - gap - lower)) * 1.0
    lips_cover = soft(lips) * ramp(bow, 0.0, 0.08) * front
    red = p["lip_redness"][:, None]
    lip_colour = tone * (
        1.0 - torch.tensor([0.20, 0.62, 0.52], device=u.device).view(1, 3, 1, 1) * (0.35 + 0.65 * red)
    )
    c.lay(lip_colour * (1.0 - 0.22 * ramp(y - line, -0.02, 0.02) + 0.05 * hairs)[:, None], lips_cover * 0.95)
    opening = torch.minimum(line + 0.35 * gap - y, y - (line - gap))
    hole = soft(opening - 0.2 * e) * ramp(gap, 0.002, 0.012) * front
    c.lay(linear((50, 16, 16), u), hole)
    teeth = (
        soft(line + 0.35 * gap - 0.004 - y)
        * soft(y - (line - 0.62 * gap))
        * ramp(gap, 0.008, 0.02)
        * ramp(0.80 - mx.abs(), 0.0, 0.2)
    )
    c.lay(
        linear((226, 218, 202), u) * (1.0 - 0.12 * torch.cos(mx * 26.0).clamp(min=0.0) ** 8)[:, None],
        teeth * hole,
    )
    c.darken(
        0.72
        * _gauss(y - line, 0.010 + 0.2 * pixel)
        * ramp(1.10 - mx.abs(), 0.0, 0.25)
        * (1.0 - hole)
        * front,
        (0.85, 1.0, 1.0),
    )
    c.darken(0.30 * _gauss(a - wide, 0.022) * _gauss(y - line, 0.022) * front)
    c.darken(0.16 * _gauss(u, 0.6 * wide) * _gauss(y - (line - gap - lower) + 0.020, 0.020) * front)
    mouth_mask = torch.maximum(lips_cover, hole)

    # Beard and moustache; a shaved man keeps a faint shade.
    jaw_line = nose - 0.02 + 0.0 * a + 0.50 * ramp(a, 0.42, 0.80) - 0.10 * _gauss(a - 0.33, 0.12)
    jaw_line = torch.where(front > 0, jaw_line, eye - 0.30)
    area = (
        ramp(jaw_line - y + 0.05 * hairs, 0.0, 0.13)
        * (1.0 - ramp(m.chin - y, 0.0, 0.12))
        * (1.0 - ramp(phi.abs(), 1.45, 1.62))
    )
    philtrum = 1.0 - 0.45 * _gauss(u, 0.022)
    tash_top = nose - 0.012 - 0.16 * a - 0.5 * (a - wide).clamp(min=0.0)
    tash_end = torch.where(mx.abs() < 1.0, line + 0.72 * upper, line - 0.10 * ramp(a - wide, 0.0, 0.06))
    tash = (
        ramp(tash_top - y + 0.012 * hairs, -0.01, 0.03)
        * ramp(y - tash_end + 0.012 * hairs, -0.02, 0.02)
        * ramp(wide + 0.09 - a, 0.0, 0.05)
    )
    goatee = torch.where(
        pattern_unit(p["pattern"], 6) < 0.3, ramp(wide + 0.05 - a, 0.0, 0.07), torch.ones_like(a)
    )
    chin_part = ramp(line - y + 0.04 * a / wide, 0.0, 0.04)
    chin_part = torch.maximum(chin_part, ramp(a - wide, 0.03, 0.10))
    lipless = 1.0 - soft(y - (line - gap - lower) + 0.014) * ramp(1.05 - mx.abs(), 0.0, 0.1) * ramp(
        line - y, -0.02, 0.0
    )
    grown_b = ramp(p["beard"], 0.0, 0.12) * (0.40 + 0.60 * ramp(p["beard"], 0.05, 0.5))
    grown_m = torch.maximum(
        ramp(p["moustache"], 0.0, 0.12) * (0.55 + 0.45 * ramp(p["moustache"], 0.05, 0.4)), 0.85 * grown_b
    )
    man = 1.0 - ramp(p["sex"], 0.42, 0.58)
    shade = (
        0.10 * man * (1.0 - ramp(p["age"], 0.8, 1.0)) * (1.0 - 0.5 * pale * ramp(p["hair_colour"], 0.5, 0.9))
    )
    region = area * goatee * chin_part * lipless
    fuzz = torch.maximum(region * grown_b, tash * philtrum * grown_m)
    fuzz = (fuzz * (0.97 + 0.15 * hairs)).clamp(0.0, 0.97) * torch.where(front > 0, 1.0, 0.9)
    c.darken(shade * torch.maximum(area * chin_part * lipless, tash), (1.0, 0.85, 0.6))
    c.lay(hair * (0.80 + 0.30 * hairs.clamp(-1.2, 1.5))[:, None], fuzz)

    # Brows: a tapered arc of slanted hairs.
    bx = (a - (p["eye_distance"] - 0.015)) / p["brow_length"]
    arc = brow + p["brow_arch"] * (1.0 - 1.6 * (bx - 0.30) ** 2) - 0.02 + p["brow_slant"] * 0.20 * bx
    thick = p["brow_thickness"] * (1.05 - 0.30 * ramp(-bx, 0.5, 1.0) - 0.65 * ramp(bx, 0.0, 1.0))
    bristle = tile_noise(a * 58.0 - 46.0 * (y - arc) + nx, (y - arc) * 18.0 + ny)
    inside = thick * (1.0 + 0.25 * bristle) - (y - arc).abs()
    brows = (inside / (1.6 * e) * 0.5 + 0.6).clamp(0.0, 1.0) * ramp(1.0 - bx.abs(), -0.02, 0.16) * front
    brow_tone = hair * 0.72 + 0.10 * tone
    c.lay(
        brow_tone * (1.0 + 0.25 * bristle.clamp(-1.5, 1.5))[:, None],
        brows * (0.80 + 0.12 * bristle).clamp(0.0, 0.95),
    )

    # Eyes.
    half, d = p["eye_width"], u - side * p["eye_distance"]
    ex = (a - p["eye_distance"]) / half
    ey = y - eye - p["eye_tilt"] * half * 0.5 * ex
    shut = q["blink"].clamp(0.0, 1.0)
    squint = q["smile"].clamp(min=0.0)
    open_ = p["eye_opening"] * (1.0 - 0.75 * shut) * (1.0 + 0.12 * q["brow_raise"])
    vault = (1.0 - ex * ex).clamp(min=0.0)
    top = 0.92 * open_ * vault**0.75 * (1.0 - 0.12 * ex)
    bottom = open_ * (0.70 - 0.18 * squint) * vault**0.9 * (1.0 + 0.18 * ex)
    eye_inside = torch.minimum(top - ey, ey + bottom)
    white = soft(eye_inside) * ramp(vault, 0.0, 0.05) * front
    in_x, in_y = d - 0.030 * q["gaze_x"], y - eye - 0.002 - 0.014 * q["gaze_y"] + 0.02 * shut
    r = (in_x * in_x + in_y * in_y).sqrt()
    size = 0.064
    sclera = (
        linear((214, 208, 202), u)
        * (1.0 - 0.3 * p["melanin"][:, None])
        * (1.0 - 0.22 * ex.abs().clamp(max=1.0) ** 2 - 0.38 * ramp(0.030 - (top - ey), 0.0, 0.030))[:, None]
    )
    c.lay(sclera, white)
    c.lay(linear((196, 120, 108), u), white * _gauss(ex + 0.95, 0.12) * 0.8)
    iris = palette(_IRIS, p["iris_colour"])
    ring = (1.15 - 0.85 * ramp(r, 0.70 * size, size) + 0.5 * ramp(-in_y, -0.01, 0.04) + 0.10 * grain)[:, None]
    c.lay(iris * ring * (1.0 - 0.35 * ramp(0.020 - (top - ey), 0.0, 0.020))[:, None], white * soft(size - r))
    c.lay(linear((8, 6, 6), u), white * soft(0.42 * size - r))
    lash = (
        _gauss(ey - top - 0.004, 0.0085 + 0.30 * pixel + 0.006 * ramp(p["sex"], 0.4, 0.7))
        * ramp(1.16 - ex.abs(), 0.0, 0.22)
        * front
    )
    c.lay(linear((22, 16, 14), u), (lash * (0.80 + 0.12 * ramp(ex, -0.5, 0.8))).clamp(0.0, 1.0))
    c.darken(
        0.42 * _gauss(ey + bottom + 0.003, 0.012) * ramp(1.10 - ex.abs(), 0.0, 0.3) * (1.0 - white) * front
    )
    lid = top + 0.022 + 0.020 * p["lid_crease"].clamp(0.0, 1.0) + 0.02 * shut
    c.darken(
        0.50
        * p["lid_crease"].clamp(0.15, 1.0)
        * _gauss(ey - lid - 0.006 * (1.0 - vault), 0.011)
        * ramp(1.12 - ex.abs(), 0.0, 0.3)
        * front
    )
    glint_x, glint_y = in_x - 0.020 * light[:, 0].sign() - 0.006 * light[:, 0], in_y - 0.021
    glint = white * (
        soft(0.016 - (glint_x**2 + glint_y**2).sqrt()) * 0.80
        + 0.10 * _gauss(in_x, 0.05) * _gauss(in_y - 0.02, 0.02)
    )
    eyes = torch.maximum(white, lash * 0.9)

    # Marks: one mole, one scar.
    mole_u, mole_y = 0.90 * pattern_unit(p["pattern"], 7) - 0.45, 0.28 - 1.10 * pattern_unit(p["pattern"], 8)
    free = (1.0 - white) * (1.0 - mouth_mask)
    mole = soft(
        0.012 + 0.012 * p["mole"].clamp(0.0, 1.0) - ((u - mole_u) ** 2 + (y - mole_y) ** 2).sqrt()
    ) * (p["mole"] > 0)
    c.lay(tone * linear((130, 84, 70), u) + 0.004, 0.92 * mole * free * front)
    angle = math.pi * (pattern_unit(p["pattern"], 10).double() - 0.5)
    along_x, along_y = torch.sin(angle).float(), torch.cos(angle).float()
    su, sy = u - (0.66 * pattern_unit(p["pattern"], 11) - 0.33).sign() * 0.38, y - (eye - 0.32)
    lengthwise, across = su * along_x + sy * along_y, su * along_y - sy * along_x
    scar = _gauss(across, 0.012) * ramp(0.17 - lengthwise.abs(), 0.0, 0.05) * (p["scar"] > 0) * front
    c.lay(
        (tone * 0.75 + 0.25 * linear((228, 170, 158), u)) * (0.85 + 0.3 * (1 - pale))[:, None],
        0.75 * scar * free,
    )

    gloss = (
        1.0
        + 0.5 * _gauss(u, 0.16) * ramp(y, 0.2, 0.5)
        + 0.6 * lips_cover
        + 0.35 * _gauss(u, 0.06) * _gauss(y - nose - 0.07, 0.06)
    )
    gloss = gloss * (1.0 + 0.15 * grain) * (1.0 - 0.85 * fuzz) * (1.0 - 0.8 * white) * (1.0 - 0.25 * old)
    return Surface(
        c.albedo,
        gloss,
        glint,
        eyes,
        brows,
        nose_mask,
        mouth_mask,
        soft(ear - 0.25) * 1.0,
        torch.maximum(fuzz, 0.5 * brows),
    )
