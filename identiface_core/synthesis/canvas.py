"""Colour of the head's surface, per pixel on the chart with soft edges: no texture, no texture blur."""

from __future__ import annotations

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


class Canvas:
    """The surface being coloured and everything its parts ask for; fields (B, S, S) unless said."""

    def __init__(self, phi: Tensor, t: Tensor, p: Sheet, q: Sheet, m: Landmarks, pixel: float) -> None:
        self.p, self.q, self.m, self.pixel = p, q, m, pixel
        self.phi, self.y = phi, t
        self.front = (torch.cos(phi) > 0).float()
        self.u = FACE_U * torch.sin(phi)
        self.a = self.u.abs()
        self.side = torch.where(self.u < 0, -1.0, 1.0)
        self.e = 0.75 * pixel
        self.nx, self.ny = 256.0 * pattern_unit(p["pattern"], 3), 256.0 * pattern_unit(p["pattern"], 4)
        self.blotch = tile_noise(self.u * 6.0 + self.nx, t * 6.0 + self.ny)
        self.grain = tile_noise(self.u * 40.0 + self.nx, t * 40.0 + self.ny)
        self.hairs = tile_noise(self.u * 62.0 + 10.0 * t + self.ny, t * 13.0 + self.nx)
        self.old, self.pale = ramp(p["age"], 0.35, 1.0), 1.0 - ramp(p["melanin"], 0.25, 0.7)
        self.tone, self.hair = skin_colour(p), hair_colour(p)  # (B, 3, 1, 1) linear
        self.eye, self.nose, self.mouth = m.eye, m.nose, m.mouth
        self.brow = m.eye + p["brow_height"] + 0.03 * q["brow_raise"]
        mottle = (1.0 + 0.030 * self.blotch + 0.022 * self.grain)[:, None]
        self.albedo = self.tone.expand(-1, -1, *self.u.shape[1:]) * mottle  # (B, 3, S, S) linear

    def soft(self, x: Tensor) -> Tensor:
        """Coverage of x > 0 with an edge as wide as a pixel."""
        return (x / self.e * 0.5 + 0.5).clamp(0.0, 1.0)

    def lay(self, colour: Tensor, cover: Tensor) -> None:
        """Paint over."""
        self.albedo = self.albedo + (colour - self.albedo) * cover[:, None]

    def darken(self, cover: Tensor, tint: tuple[float, float, float] = (0.75, 1.0, 1.0)) -> None:
        """Take light away, more where `tint` is larger."""
        t = torch.tensor(tint, device=cover.device).view(1, 3, 1, 1)
        self.albedo = self.albedo * (1.0 - t * cover[:, None])

    def crease(self, d: Tensor, width: float, amount: Tensor) -> None:
        """A wrinkle: a dark line with a pale lower lip reads as relief."""
        line = bell(d, width) - 0.45 * bell(d + 1.7 * width, width)
        self.darken(amount * line * self.front, (0.8, 1.0, 1.0))


def bell(x: Tensor, s: Tensor | float) -> Tensor:
    """A bell, exp(-x^2 / 2 s^2) nearly: (1 - x^2 / 8 s^2)^4, which has an end and costs a third."""
    v = x * (0.35355 / s)
    v = (1.0 - v * v).clamp_(min=0.0)
    v = v * v
    return v * v
