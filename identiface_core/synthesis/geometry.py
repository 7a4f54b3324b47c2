"""The head as two radius maps (skin, hair) over one chart, and rays marched onto them.

Chart: azimuth phi in (-pi, pi], 0 towards the face; height t. Below `WAIST` a point is
(R sin phi, t, R cos phi); above it the chart turns spherical, so the crown is an ordinary place and not
the thin end of a cylinder. Azimuth samples are denser at the face. Axes: x to the image right, y up,
z to the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .hair import hair_field, hair_radius, ramp
from .identity import Sheet
from .noise import pattern_unit, tile_noise

WAIST = 0.20
CURVE = 0.85
T_LOW, T_HIGH = -1.75, WAIST + CURVE * math.pi / 2
MAP_W, MAP_H = 160, 160
FACE_U = 0.80  # texture coordinate u = FACE_U * sin(phi) on the front half


@dataclass(frozen=True)
class Head:
    """Maps of a batch of heads, rows from T_LOW to T_HIGH, columns over azimuth."""

    skin: Tensor  # (B, 1, H, W) radius
    hair: Tensor  # (B, 1, H, W) radius
    shell: Tensor  # (B, 1, H, W) the larger of both, for shadows
    skin_look: Tensor  # (B, 4, H, W) normal xyz, openness
    hair_look: Tensor  # (B, 7, H, W) normal xyz, strand direction xyz, openness


@dataclass(frozen=True)
class Landmarks:
    """Heights of features on the chart and the effective mouth width, each (B, 1, 1)."""

    eye: Tensor
    nose: Tensor
    mouth: Tensor
    chin: Tensor
    mouth_width: Tensor


def landmarks(p: Sheet, q: Sheet) -> Landmarks:
    """Feature heights from identity and expression."""
    eye = p["eye_height"]
    nose = eye - p["nose_length"] * p["face_length"]
    mouth = nose - p["mouth_drop"] * p["face_length"] * 0.92
    chin = torch.minimum(-1.03 * p["face_length"], mouth - 0.27)
    drop = 0.05 * q["mouth_open"].clamp(min=0.0)
    width = p["mouth_width"] * (1.0 + 0.16 * q["smile"])
    return Landmarks(eye, nose, mouth, chin - drop, width)


def chart_azimuth(device: torch.device) -> Tensor:
    """(1, 1, MAP_W) azimuth of the map columns."""
    a = torch.linspace(-1.0, 1.0, MAP_W, device=device)
    return (a.sign() * (1.6 - (2.56 - 2.4 * a.abs()).clamp(min=0.0).sqrt()) / 1.2 * math.pi).view(1, 1, -1)


def chart_height(device: torch.device) -> Tensor:
    """(1, MAP_H, 1) chart height of the map rows."""
    return torch.linspace(T_LOW, T_HIGH, MAP_H, device=device).view(1, -1, 1)


def chart_of(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points (any shape) to (distance from the chart's axis or centre, phi, t)."""
    flat = (x * x + z * z).sqrt()
    up = (y - WAIST).clamp(min=0.0)
    rho = (flat * flat + up * up).sqrt()
    t = torch.minimum(y, torch.full_like(y, WAIST)) + CURVE * torch.atan2(up, flat)
    return rho, torch.atan2(x, z), t


def point_of(radius: Tensor, phi: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse of `chart_of`."""
    elevation = (t - WAIST).clamp(min=0.0) / CURVE
    flat = radius * torch.cos(elevation)
    y = t.clamp(max=WAIST) + radius * torch.sin(elevation)
    return flat * torch.sin(phi), y, flat * torch.cos(phi)


def look_up(maps: Tensor, phi: Tensor, t: Tensor) -> Tensor:
    """Bilinear samples of (B, C, H, W) maps at phi, t (B, h, w) -> (B, C, h, w)."""
    a = phi * (1.0 / math.pi)
    grid = torch.stack((a * (1.6 - 0.6 * a.abs()), (t - T_LOW) * (2.0 / (T_HIGH - T_LOW)) - 1.0), -1)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=True)


def power(x: Tensor, exponent: float) -> Tensor:
    """x ** exponent of per-person numbers, in float64: float32 rounding differs between batch sizes."""
    return (x.double() ** exponent).float()


def unit(v: Tensor) -> Tensor:
    """Vectors (B, 3, h, w) scaled to length 1 (much faster than torch's normalize over this axis)."""
    x, y, z = v.unbind(1)
    return v / (x * x + y * y + z * z + 1e-12).sqrt()[:, None]


def _profile(v: Tensor, knots: list[float], values: list[Tensor]) -> Tensor:
    """Piecewise linear through falling `knots`; v (B, H, 1), values (B, 1, 1) each."""
    out = values[0]
    for k in range(len(knots) - 1):
        step = (knots[k] - v).clamp(0.0, knots[k] - knots[k + 1]) / (knots[k] - knots[k + 1])
        out = out + step * (values[k + 1] - values[k])
    return out


def _blur(x: Tensor, sigma: float, rows: bool = True, columns: bool = True) -> Tensor:
    """Gaussian blur of (B, H, W) with replicated borders.

    Shifted sums on purpose: the rounding of a convolution or a matrix product depends on the batch size.
    """
    half = max(1, int(2.5 * sigma + 0.5))
    taps = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(half + 1)]
    total = taps[0] + 2.0 * sum(taps[1:])
    for axis, wanted in ((1, rows), (2, columns)):
        if not wanted:
            continue
        n = x.shape[axis]
        pad = (half, half, 0, 0) if axis == 2 else (0, 0, half, half)
        wide = F.pad(x[:, None], pad, mode="replicate")[:, 0]
        x = wide.narrow(axis, half, n) * (taps[0] / total)
        for k in range(1, half + 1):
            x = x + (wide.narrow(axis, half - k, n) + wide.narrow(axis, half + k, n)) * (taps[k] / total)
    return x


def _bare_head(phi: Tensor, t: Tensor, p: Sheet, m: Landmarks) -> Tensor:
    """Head without features: superellipses over two profiles, a dome above, jaw line and neck below."""
    sin, cos = torch.sin(phi).abs(), torch.cos(phi)
    fat, jaw, n = p["fullness"], p["jaw_width"], 2.3
    v = t / p["face_length"]
    temple, cheek = p["temple_width"], p["cheek_width"]
    knots = [0.2, -0.02, -0.25, -0.45, -0.66, -0.85, -1.05]
    width = _profile(v, knots, [
        temple + 0.3 * fat, 0.5 * (temple + cheek) + 0.3 * fat, cheek + fat,
        0.5 * (cheek + jaw) + 0.02 + 1.4 * fat, jaw + 0.02 + 1.7 * fat, 0.86 * jaw + 1.5 * fat,
        0.68 * jaw + fat,
    ])  # fmt: skip
    one = torch.ones_like(fat)
    front = _profile(v, knots, [0.80 * one, 0.77 * one, 0.765 * one, 0.775 * one, 0.785 * one,
                                0.78 * one + 0.5 * fat,
                                0.76 * one + 0.5 * fat])  # fmt: skip
    back = _profile(
        v, knots, [0.96 * one, 0.93 * one, 0.88 * one, 0.80 * one, 0.72 * one, 0.66 * one, 0.6 * one]
    )
    width, front, back = (_blur(k.expand(-1, MAP_H, 1), 4.0, columns=False) for k in (width, front, back))
    elevation = (t - WAIST).clamp(min=0.0) / CURVE
    flat, up = torch.cos(elevation).clamp(min=0.0) ** n, torch.sin(elevation) ** n
    top = 0.84 + p["forehead"]
    depth = torch.where(cos > 0, front**-n, back**-n)
    radius = flat * (sin**n * width**-n + cos.abs() ** n * depth) + up * power(top, -n)
    radius = radius ** (-1.0 / n)

    corner = -0.50 * p["face_length"]
    start = (0.10 + 0.75 * p["chin_width"]).clamp(0.05, 0.5)
    along = ((sin - start) / (1.0 - start)).clamp(0.0, 1.0)
    along = torch.where(cos > 0, along, 1.0)
    bend = (2.1 + 9.0 * (jaw - 0.56)).clamp(1.4, 3.4)
    edge = m.chin + (corner - m.chin) * torch.exp(bend * torch.log(along.clamp(min=1e-4)))
    inside = ((t - edge) / 0.20).clamp(0.0, 1.0)
    inside = (1.0 - (1.0 - inside) ** 2).clamp(min=0.0).sqrt()
    neck = p["neck_width"] + 0.4 * fat.clamp(min=0.0) + 0.10 * ramp(-t, 1.15, 1.7)
    depth = torch.where(cos > 0, 1.0 / (0.62 * neck * 0.62 * neck), 1.0 / (1.45 * neck * 1.45 * neck))
    column = (sin**2 / (neck * neck) + cos**2 * depth) ** -0.5
    return _blur(column + (radius - column) * inside, 1.3)


def _relief(phi: Tensor, t: Tensor, p: Sheet, q: Sheet, m: Landmarks) -> Tensor:
    """Features as a sum of products (function of t) x (function of u), one matrix product per head."""
    u = (FACE_U * torch.sin(phi)).abs()
    face = (torch.cos(phi) > 0.02).float()
    rows: list[Tensor] = []
    columns: list[Tensor] = []

    def bump(amount: Tensor | float, y0: Tensor, sy: Tensor | float, u0: Tensor | float, su: Tensor | float,
             profile: Tensor | None = None) -> None:  # fmt: skip
        row = torch.exp(-0.5 * ((t - y0) / sy) ** 2) if profile is None else profile
        rows.append((row * amount).expand(p["age"].shape[0], MAP_H, 1))
        columns.append((torch.exp(-0.5 * ((u - u0) / su) ** 2) * face).expand(p["age"].shape[0], 1, MAP_W))

    eye, nose, mouth, chin = m.eye, m.nose, m.mouth, m.chin
    age, smile, fat = p["age"], q["smile"], p["fullness"]
    old = ramp(age, 0.35, 1.0)
    bump(-p["eye_socket"], eye + 0.01, 0.080, p["eye_distance"] + 0.0, 0.125)
    bump(-0.035, eye + 0.02, 0.06, 0.125, 0.045)
    bump(0.040, eye - 0.005, 0.058, p["eye_distance"], 0.075)
    brow = eye + p["brow_height"]
    bump(0.018 + p["brow_ridge"], brow - 0.03, 0.050, 0.27, 0.15)
    bump(0.4 * p["brow_ridge"], brow - 0.02, 0.05, 0.0, 0.09)
    bump(-0.020, brow + 0.10, 0.08, 0.62, 0.08)
    bump(p["nose_bridge"], eye - 0.01, 0.12, 0.0, 0.062)
    climb = ((eye + 0.03 - t) / (eye + 0.03 - nose)).clamp(0.0, 1.0) ** 1.35
    cut = torch.sigmoid((t - nose) / 0.014)
    width = p["nose_width"]
    bump(0.78 * p["nose_tip"], nose, 1.0, 0.0, 0.045 + 0.22 * width, climb * cut)
    bump(0.25 * p["nose_tip"] + 0.025, nose + 0.055, 0.050, 0.0, 0.035 + 0.35 * width)
    bump(0.30 * p["nose_tip"] + 0.015, nose + 0.045, 0.040, width, 0.040)
    bump(-0.012, nose + 0.06, 0.05, width + 0.065, 0.025)
    bump(p["nose_hump"], 0.5 * (eye + nose) + 0.05, 0.065, 0.0, 0.05)
    bump(p["cheekbone"] + 0.015 + 0.03 * smile.clamp(min=0.0), eye - 0.24, 0.095, 0.43, 0.125)
    bump(-p["cheek_hollow"] * 1.2 + fat, mouth + 0.10, 0.13, 0.46, 0.11)
    bump(0.055, mouth + 0.02, 0.15, 0.0, 0.17)
    up, low, wide = p["upper_lip"], p["lower_lip"], m.mouth_width
    gap = 0.05 * q["mouth_open"].clamp(min=0.0)
    bump(0.022 + 0.5 * up, mouth + 0.55 * up, 0.5 * up + 0.012, 0.0, 0.62 * wide)
    bump(0.028 + 0.5 * low, mouth - 0.55 * low - gap, 0.5 * low + 0.012, 0.0, 0.55 * wide)
    bump(-0.035, mouth - 0.3 * gap, 0.013 + 0.3 * gap, 0.0, 0.70 * wide)
    bump(-0.020, mouth + 0.3 * smile * 0.05, 0.035, wide + 0.015, 0.03)
    bump(-0.045, mouth - 1.9 * low - 0.02 - gap, 0.032, 0.0, 0.12)
    bump(-0.014, 0.5 * (mouth + up + nose), 0.035, 0.0, 0.018)
    bump(p["chin_boss"], chin + 0.14, 0.085, 0.0, 0.09 + 0.20 * p["chin_width"])
    bump(-p["chin_cleft"].clamp(min=0.0), chin + 0.13, 0.05, 0.0, 0.018)
    fold = 0.007 + 0.026 * old + 0.018 * smile.clamp(min=0.0) + 0.1 * fat.clamp(min=0.0)
    for k in range(4):
        f = k / 3.0
        start, end = width + 0.065, wide + 0.075
        bump(-fold, nose + 0.04 + f * (mouth - 0.03 - nose - 0.04), 0.040, start + f * (end - start), 0.018)
    bump(0.9 * fold, 0.5 * (nose + mouth) + 0.05, 0.07, wide + 0.125, 0.05)
    bump(-0.016 * old, eye - 0.125, 0.016, p["eye_distance"] - 0.02, 0.085)
    bump(0.018 * old, eye - 0.095, 0.022, p["eye_distance"], 0.075)
    bump(0.05 * old, chin + 0.16, 0.08, 0.36, 0.07)
    relief = torch.cat(rows, 2) @ torch.cat(columns, 1)

    away = phi.abs() - 1.60 - 0.10 * (t - eye)
    cover = 1.0 - 0.8 * ramp(p["hair_length"], 0.30, 0.5)
    span = torch.exp(-(((t - (eye - 0.10)) / (0.17 + 0.35 * (p["ear_size"] - 0.13))) ** 4))
    ear = 0.80 * p["ear_size"] * cover * span * torch.exp(-0.5 * (away / 0.075) ** 2)
    bowl = (
        0.35
        * p["ear_size"]
        * cover
        * torch.exp(-0.5 * (((t - eye + 0.08) / 0.07) ** 2 + ((away + 0.09) / 0.05) ** 2))
    )
    return relief + ear - bowl


def _normals(radius: Tensor, phi: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Unit outward normals and unit downward strand directions of a radius map, (B, 3, H, W) each."""
    p = torch.stack(point_of(radius, phi, t), 1)
    padded = F.pad(p, (1, 1, 1, 1), mode="replicate")
    along = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    upward = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    return unit(torch.linalg.cross(along, upward, dim=1)), -unit(upward)


def _openness(radius: Tensor, strength: float) -> Tensor:
    """Ambient occlusion: 1 on ridges and plains, lower in hollows."""
    small = _blur(radius, 2.5)
    large = F.avg_pool2d(small[:, None], 4)
    large = F.interpolate(
        _blur(large[:, 0], 1.4)[:, None], scale_factor=4, mode="bilinear", align_corners=False
    )[:, 0]
    hollow = (small - radius).clamp(min=0.0) * 1.3 + (large - radius).clamp(min=0.0) * 0.8
    return torch.exp(-strength * hollow) + 0.9 * (radius - small).clamp(0.0, 0.05)


def build_head(p: Sheet, q: Sheet) -> Head:
    """Radius maps with normals; depends on identity and expression only, not on pose or light."""
    device = p["age"].device
    phi, t = chart_azimuth(device), chart_height(device)
    m = landmarks(p, q)
    bare = _bare_head(phi, t, p, m)
    skin = bare + _relief(phi, t, p, q, m)
    dx, dy = 256.0 * pattern_unit(p["pattern"], 1), 256.0 * pattern_unit(p["pattern"], 2)
    wide_phi, wide_t = phi.expand_as(skin), t.expand_as(skin)
    detail = 7.0 + 5.0 * p["curl"]
    clumps = tile_noise(wide_phi * detail + dx, wide_t * (2.5 + 9.0 * p["curl"]) + dy)
    row = int(round((WAIST - T_LOW) / (T_HIGH - T_LOW) * (MAP_H - 1)))
    hair = hair_radius(skin, bare[:, row : row + 1], phi, t, hair_field(phi, t, p), clumps, p)
    skin_normal, _ = _normals(skin, phi, t)
    hair_normal, strand = _normals(_blur(hair, 1.2), phi, t)
    return Head(
        skin=skin[:, None],
        hair=hair[:, None],
        shell=torch.maximum(skin, hair)[:, None],
        skin_look=torch.cat((skin_normal, _openness(skin, 9.0)[:, None]), 1),
        hair_look=torch.cat((hair_normal, strand, _openness(torch.maximum(hair, skin), 5.0)[:, None]), 1),
    )


@dataclass(frozen=True)
class Hit:
    """Where rays meet a surface, all (B, S, S); `cover` is 1 on a hit and fades over one pixel beside it."""

    phi: Tensor
    t: Tensor
    x: Tensor
    y: Tensor
    z: Tensor
    depth: Tensor
    cover: Tensor


REACH = 1.45


def march(
    radius: Tensor, origin: Tensor, direction: Tensor, pixel: float, steps: int = 13, stride: float = 0.05
) -> Hit:
    """First crossing of rays with a radius map.

    radius (B, 1, H, W); origin (B, 3, S, S); direction (B, 3, 1, 1) unit; pixel in head units.
    Sphere-traces with a careful factor and bisects from the first inside sample on; without that, overhanging
    edges leave holes. A ray that misses takes its closest approach, which gives antialiased outlines.
    """
    ox, oy, oz = origin.unbind(1)
    dx, dy, dz = direction.unbind(1)
    s = torch.full_like(ox, 0.30)
    low, high = s.clone(), torch.full_like(s, 9.0)
    best, best_s = torch.full_like(s, 9.0), s.clone()
    for k in range(steps + 4):
        rho, phi, t = chart_of(ox + s * dx, oy + s * dy, oz + s * dz)
        gap = rho - look_up(radius, phi, t)[:, 0]
        inside = gap <= 0
        found = high < 9.0
        closer = gap < best
        best = torch.where(closer & ~found, gap, best)
        best_s = torch.where(closer & ~found, s, best_s)
        high = torch.where(inside, s, high)
        low = torch.where(inside, low, s)
        found = high < 9.0
        onward = (s + (0.62 * gap).clamp(min=0.012 if k < 6 else stride)).clamp(max=2 * REACH)
        s = torch.where(found, 0.5 * (low + high), onward)
    hit = high < 9.0
    cover = torch.where(hit, 1.0, (1.0 - best / pixel).clamp(0.0, 1.0))
    s = torch.where(hit, s, best_s)
    x, y, z = ox + s * dx, oy + s * dy, oz + s * dz
    _, phi, t = chart_of(x, y, z)
    return Hit(phi, t, x, y, z, s, cover)


def shadow(shell: Tensor, hit: Hit, light: Tensor, steps: int = 5, reach: float = 0.55) -> Tensor:
    """Soft self-shadow in [0, 1] (1 lit): a short walk towards the light (B, 3, 1, 1) over the outer map."""
    lx, ly, lz = light.unbind(1)
    dark = torch.zeros_like(hit.x)
    for k in range(1, steps + 1):
        s = reach * (k / steps) ** 1.6
        rho, phi, t = chart_of(hit.x + s * lx, hit.y + s * ly, hit.z + s * lz)
        depth = look_up(shell, phi, t)[:, 0] - rho
        dark = torch.maximum(dark, (depth / (0.25 * s + 0.02)).clamp(0.0, 1.0))
    return 1.0 - dark
