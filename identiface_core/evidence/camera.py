"""The hard camera model: what a cheap, distant, badly lit camera makes of a face.

Stages, parameters and the order of draws follow the released IdentiFace preprocessing ("hard" LQ photos). Our
own code; the random stream is numpy's, so the same seed gives the same picture everywhere, though not the
released script's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from identiface_core.errors import InputError
from identiface_core.imaging import to_pil

SIDES = (8, 128)
"""Smallest and largest sensor side that is simulated, in pixels."""

Array = NDArray[np.floating]


@dataclass(frozen=True)
class _Draws:
    """One camera, drawn once per picture, in this order."""

    factor: int
    motion: int
    phase: tuple[int, int]
    red: float
    blue: float
    blur: float
    angle: float
    photons: float
    dark: float
    read: float
    read_dark: float
    column: float
    row: float
    hot_rate: float
    hot_height: float
    banding: float
    period: float
    bits: int


def simulate_camera(image: Tensor, side: int = 16, strength: float = 1.0, seed: int = 0) -> Tensor:
    """Picture `(3, H, W)` in [0, 1] -> what the sensor gives, `(3, side, side)` in [0, 1].

    The centre square is imaged through optics and motion blur onto a sensor of `side` x `side` (8 to 128)
    with a Bayer mosaic, photon, dark, read, column, row and banding noise and hot pixels, quantised,
    demosaicked and processed as cheap cameras do. `strength` (0 to 4) scales severity = 16 / side * strength.
    `lq.enlarge` brings it back to a viewable size. Raises InputError for settings outside these ranges.
    """
    if not SIDES[0] <= side <= SIDES[1]:
        raise InputError(f"the camera's side must be {SIDES[0]} to {SIDES[1]} px, this is {side}")
    if not 0 <= strength <= 4:
        raise InputError(f"the camera's strength must be 0 to 4, this is {strength}")
    if image.dim() != 3 or image.shape[0] != 3:
        raise InputError(f"a picture (3, H, W) is wanted, this one is {tuple(image.shape)}")
    generator = np.random.Generator(np.random.PCG64(seed))
    severity = 16 / side * strength
    draws = _draw(generator, severity)
    raw = _mosaic(_expose(image, side, severity, draws))
    raw = _noise(generator, raw, severity, draws)
    levels = 2**draws.bits - 1
    colour = _process(_demosaic(np.round(raw * levels) / levels))
    return torch.from_numpy(_monitor(generator, colour, strength).transpose(2, 0, 1).astype(np.float32))


def _draw(g: np.random.Generator, s: float) -> _Draws:
    factor = int(g.integers(20, 33))
    return _Draws(
        factor=factor,
        motion=int(g.choice([0, 0, 1, 2, 3, 4, 5])),
        phase=(int(g.integers(0, factor)), int(g.integers(0, factor))),
        red=g.uniform(0.97, 1.03),
        blue=g.uniform(0.97, 1.03),
        blur=g.uniform(0.45, 1.2 * max(1.0, s)),
        angle=g.uniform(0, 180),
        photons=_between(g, 85, 170) / max(s, 1e-6),
        dark=_between(g, 0.4, 2.5 * s + 0.4),
        read=_between(g, 0.0012, 0.0038 * s + 0.0012),
        read_dark=g.uniform(2, 4.2),
        column=_between(g, 0.0007, 0.0035 * s + 0.0007),
        row=_between(g, 0.0002, 0.0012 * s + 0.0003),
        hot_rate=_between(g, 0.0008, 0.0035 + 0.0015 * s),
        hot_height=_between(g, 0.015, 0.07 + 0.02 * s),
        banding=_between(g, 0.0015, 0.007 * s + 0.0015),
        period=g.uniform(2.5, 6),
        bits=int(g.choice([6, 7, 8, 8])),
    )


def _between(g: np.random.Generator, low: float, high: float) -> float:
    return float(low + (high - low) * g.random())


def _expose(image: Tensor, side: int, s: float, d: _Draws) -> Array:
    """Stages 1 to 5: centre square, white balance, hidden grid, optics, sensor window. `(side, side, 3)`."""
    from PIL import Image, ImageFilter

    edge = min(image.shape[-2:])
    top, left = ((n - edge) // 2 for n in image.shape[-2:])
    gains = torch.tensor([d.red, 1.0, d.blue])[:, None, None]
    picture = to_pil((image[:, top : top + edge, left : left + edge].float() * gains).clamp(0, 1))
    grid = side * d.factor + d.factor
    picture = picture.resize((grid, grid), Image.Resampling.LANCZOS)
    picture = picture.filter(ImageFilter.GaussianBlur(d.blur))
    light = _motion(np.asarray(picture, dtype=np.float32) / 255, d.motion, d.angle)
    y, x = d.phase[1], d.phase[0]
    window = np.round(light[y : y + side * d.factor, x : x + side * d.factor] * 255) / 255
    blocks: Array = window.reshape(side, d.factor, side, d.factor, 3).mean((1, 3))
    return blocks


def _motion(light: Array, length: int, angle: float) -> Array:
    """Straight motion blur: each cell of the line counts once, borders reflect."""
    if length <= 1:
        return light
    half = max(1, length // 2)
    t = np.linspace(-(length - 1) / 2, (length - 1) / 2, max(4 * length, 8))
    turn = np.deg2rad(angle)
    cells = {(int(round(v * np.sin(turn))), int(round(v * np.cos(turn)))) for v in t}
    cells = {(dy, dx) for dy, dx in cells if abs(dy) <= half and abs(dx) <= half}
    padded = np.pad(light, ((half, half), (half, half), (0, 0)), mode="reflect")
    height, width = light.shape[:2]
    views = [
        padded[half + dy : half + dy + height, half + dx : half + dx + width] for dy, dx in sorted(cells)
    ]
    return np.asarray(np.mean(views, axis=0))


def _mosaic(light: Array) -> Array:
    """Stage 6: RGGB, red at even rows and even columns. `(side, side)`."""
    raw = light[..., 1].copy()
    raw[0::2, 0::2] = light[0::2, 0::2, 0]
    raw[1::2, 1::2] = light[1::2, 1::2, 2]
    return np.clip(raw, 0, 1)


def _noise(g: np.random.Generator, raw: Array, s: float, d: _Draws) -> Array:
    """Stage 7: photon, dark current, read, column, row, banding, hot pixels, each stronger where it is
    dark.
    """
    if s <= 0:
        return raw
    rows, columns = raw.shape
    dark = (1 - raw) ** 1.8
    total = g.poisson(raw * d.photons) / d.photons
    total = total + g.poisson(dark * d.dark) / d.photons
    total += g.normal(0, d.read, raw.shape) * (0.30 + d.read_dark * dark)
    lines = g.normal(0, d.column, (1, columns)) + g.normal(0, d.row, (rows, 1))
    total += lines * (0.15 + 0.75 * dark)
    along_x = g.random() < 0.5
    centre, width, phase = g.uniform(-0.3, 0.3), g.uniform(0.25, 0.55), g.uniform(0, 2 * np.pi)
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    along, across = (x, y) if along_x else (y, x)
    wave = np.sin(np.pi * d.period * along + phase) * np.exp(-(((across - centre) / width) ** 2) / 2)
    total += d.banding * wave * (0.15 + 0.55 * dark)
    hot = g.random(raw.shape) < d.hot_rate
    total += hot * g.uniform(0.35, 1, raw.shape) * d.hot_height * (0.15 + 0.85 * dark)
    return np.clip(total, 0, 1)


def _demosaic(raw: Array) -> Array:
    """Stage 8: each colour plane by normalised [1 2 1] x [1 2 1] filtering, borders reflected. `(side, side,
    3)`.
    """
    rows, columns = np.indices(raw.shape)
    red, blue = (rows % 2 == 0) & (columns % 2 == 0), (rows % 2 == 1) & (columns % 2 == 1)
    planes = []
    for where in (red, ~(red | blue), blue):
        weight = where.astype(np.float64)
        planes.append(_filter(raw * weight) / np.maximum(_filter(weight), 1e-9))
    return np.stack(planes, -1)


def _filter(plane: Array) -> Array:
    p = np.pad(plane, 1, mode="reflect")
    p = p[:-2] + 2 * p[1:-1] + p[2:]
    return np.asarray(p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]) / 16


def _process(colour: Array) -> Array:
    """Stage 9: weak grey-world balance, black level, gamma."""
    means = colour.mean((0, 1))
    gains = np.clip(means.mean() / np.maximum(means, 1e-6), 0.94, 1.06)
    colour = np.clip(colour * (1 + 0.55 * (gains - 1)), 0, 1)
    return np.asarray(np.clip((colour - 0.01) / 0.99, 0, 1) ** 0.92)


def _monitor(g: np.random.Generator, colour: Array, strength: float) -> Array:
    """Stage 10: paler and darker, as on a monitor."""
    saturation = max(0.82, 1 - g.uniform(0.06, 0.18) * strength)
    brightness = max(0.80, 1 - g.uniform(0.03, 0.11) * strength)
    grey = (colour * np.array([0.299, 0.587, 0.114])).sum(-1, keepdims=True)
    return np.asarray(np.clip((grey + saturation * (colour - grey)) * brightness, 0, 1))
