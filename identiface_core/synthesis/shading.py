"""Light on skin and hair: pure functions of normals, colours and the lamp. Colours are linear light."""

from __future__ import annotations

import torch
from torch import Tensor

from .geometry import power, unit
from .identity import Sheet


def _rgb(values: tuple[float, float, float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device).view(1, 3, 1, 1)


def lamp(q: Sheet) -> tuple[Tensor, Tensor, Tensor]:
    """(direction (B, 3, 1, 1) towards the lamp in view axes, key colour, ambient colour)."""
    one = torch.ones_like(q["light_x"])
    direction = unit(torch.stack((q["light_x"], q["light_y"], 0.85 * one), 1))
    warm = q["warmth"][:, None]
    key = q["key"][:, None] * (1.0 + warm * _rgb((0.10, 0.0, -0.14), warm))
    ambient = q["ambient"][:, None] * (1.0 - warm * _rgb((0.05, 0.0, -0.07), warm))
    return direction, key, ambient


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product over the channel axis, (B, 3, S, S) x (B, 3, 1 or S, 1 or S) -> (B, S, S)."""
    a0, a1, a2 = a.unbind(1)
    b0, b1, b2 = b.unbind(1)
    return a0 * b0 + a1 * b1 + a2 * b2


def _ambient(normal: Tensor, ambient: Tensor, open_: Tensor) -> Tensor:
    """Soft box above, a weak bounce below, a little more from the camera side."""
    around = 0.70 + 0.28 * normal[:, 1] + 0.22 * normal[:, 2]
    return ambient * (around * open_).clamp(min=0.05)[:, None]


def shade_skin(albedo: Tensor, normal: Tensor, open_: Tensor, lit: Tensor, gloss: Tensor, light: Tensor,
               half: Tensor, view: Tensor, key: Tensor, ambient: Tensor) -> Tensor:  # fmt: skip
    """Wrapped diffuse with a wider wrap in red (light travels in skin), two soft highlights, fresnel rim."""
    facing = dot(normal, light)[:, None]
    wrap = _rgb((0.34, 0.20, 0.15), facing)
    diffuse = ((facing + wrap) / (1.0 + wrap)).clamp(min=0.0) ** 1.15
    shadow = lit[:, None].clamp(min=1e-3) ** _rgb((0.55, 0.80, 0.88), facing)
    shine = dot(normal, half).clamp(min=0.0)
    rim = (1.0 - dot(normal, view).clamp(0.0, 1.0)) ** 3
    specular = gloss * (0.10 * shine**14 + 0.13 * shine**42) * (0.35 + 0.65 * lit) + 0.05 * rim * open_
    bleed = 1.0 - _rgb((0.0, 0.10, 0.13), facing) * (1.0 - open_.clamp(0.0, 1.0))[:, None]
    return (
        albedo * bleed * (1.75 * key * diffuse * shadow + 0.95 * _ambient(normal, ambient, open_))
        + key * specular[:, None]
    )


def shade_hair(colour: Tensor, normal: Tensor, strand: Tensor, open_: Tensor, lit: Tensor, shift: Tensor,
               light: Tensor, half: Tensor, key: Tensor, ambient: Tensor) -> Tensor:  # fmt: skip
    """Strand shading: diffuse between a wrapped sheet and a fibre, two highlights shifted along it."""
    facing = dot(normal, light)
    sheet = ((facing + 0.25) / 1.25).clamp(min=0.0)
    tangent = unit(strand + normal * shift[:, None])
    fibre = (1.0 - dot(tangent, light) ** 2).clamp(min=0.0).sqrt()
    across = (1.0 - dot(tangent, half) ** 2).clamp(min=0.0)
    shine = (0.07 * across**30 + 0.012 * across**9) * sheet.sqrt() * (0.2 + 0.8 * lit)
    body = sheet * (0.55 + 0.45 * fibre) * (0.25 + 0.75 * lit)
    glow = 0.22 * across**7 * sheet * lit
    light_in = 1.9 * key * body[:, None] + 1.05 * _ambient(normal, ambient, open_) + key * glow[:, None]
    return colour * light_in + key * shine[:, None]


def to_display(linear: Tensor) -> Tensor:
    """Exponential shoulder (pale skin does not burn out), then display gamma; result in [0, 1]."""
    return (1.0 - torch.exp(-1.30 * linear.clamp(min=0.0))).clamp(1e-6, 1.0) ** (1.0 / 2.2)


def hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Display colour of (B, 1, 1) hue, saturation, value in [0, 1] as linear light, (B, 3, 1, 1)."""
    k = torch.stack((hue * 6.0 + 5.0, hue * 6.0 + 3.0, hue * 6.0 + 1.0), 1) % 6.0
    s, v = saturation[:, None], value[:, None]
    return power(v - v * s * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0), 2.2)
