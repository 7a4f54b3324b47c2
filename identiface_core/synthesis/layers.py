"""The layers of a portrait, each drawn alone: head, hair, clothes, glasses, and the setup they share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .canvas import hair_colour
from .geometry import REACH, Head, Hit, Landmarks, build_head, landmarks, look_up, march, shadow, unit
from .hair import hair_field, ramp
from .identity import Sheet, identity_sheet, nuisance_sheet
from .noise import pattern_unit, tile_noise
from .paint import paint
from .shading import dot, lamp, shade_hair, shade_skin

FACE_PARTS = ("eyes", "brows", "mouth", "nose", "ears")
VIEW = 2.92  # height of the picture in head units
CENTRE = -0.09  # height of the picture's middle
PIVOT = (0.0, -0.55, -0.10)  # the head turns about the top of the neck


@dataclass(frozen=True)
class Scene:
    """Everything the layers share. Vectors named *_view are in view axes, the others in head axes."""

    p: Sheet
    q: Sheet
    m: Landmarks
    head: Head
    size: int
    pixel: float  # head units
    rotation: Tensor  # (B, 3, 3) head axes to view axes
    sx: Tensor  # (B, S, S) view coordinates of the pixel centres
    sy: Tensor
    origin: Tensor  # (B, 3, S, S) start of the rays
    view: Tensor  # (B, 3, 1, 1) towards the camera
    light: Tensor  # (B, 3, 1, 1) towards the lamp
    half: Tensor
    light_view: Tensor
    half_view: Tensor
    camera: Tensor  # (1, 3, 1, 1)
    key: Tensor  # (B, 3, 1, 1) colours of lamp and surroundings
    ambient: Tensor


@dataclass(frozen=True)
class HeadLayer:
    """Bare head: colour (B, 3, S, S), hit with coverage, part coverages in the order of FACE_PARTS."""

    colour: Tensor
    hit: Hit
    parts: list[Tensor]


@dataclass(frozen=True)
class HairLayer:
    """Hair: colour (B, 3, S, S), coverage (B, S, S), distance along the rays (B, S, S)."""

    colour: Tensor
    cover: Tensor
    depth: Tensor


@dataclass(frozen=True)
class ClothesLayer:
    """Shoulders, which always face the camera: coverages (B, S, S), normal (B, 3, S, S), fold noise."""

    chest: Tensor
    cloth: Tensor
    normal: Tensor
    folds: Tensor


def _rotation(q: Sheet) -> Tensor:
    """(B, 3, 3) head axes to view axes: yaw, then pitch, then roll."""
    yaw, pitch, roll = (q[k][:, 0, 0].double() * (math.pi / 180.0) for k in ("yaw", "pitch", "roll"))
    o, i = torch.zeros_like(yaw).float(), torch.ones_like(yaw).float()
    cy, sy, cp, sp, cr, sr = (f(v).float() for v in (yaw, pitch, roll) for f in (torch.cos, torch.sin))
    ry = torch.stack((cy, o, sy, o, i, o, -sy, o, cy), 1).view(-1, 3, 3)
    rx = torch.stack((i, o, o, o, cp, sp, o, -sp, cp), 1).view(-1, 3, 3)
    rz = torch.stack((cr, sr, o, -sr, cr, o, o, o, i), 1).view(-1, 3, 3)
    return rz @ rx @ ry


def turn(rotation: Tensor, v: Tensor) -> Tensor:
    """rotation (B, 3, 3) applied to (B, 3, h, w)."""
    return torch.einsum("bij,bjhw->bihw", rotation, v)


def _screen(q: Sheet, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """View coordinates of the pixel centres, x and y (B, S, S)."""
    c = (torch.arange(size, device=device) + 0.5) / size - 0.5
    x = (c.view(1, 1, -1) * VIEW - q["shift_x"]) / q["scale"]
    y = (-c.view(1, -1, 1) * VIEW - q["shift_y"]) / q["scale"] + CENTRE
    return x.expand(-1, size, -1), y.expand(-1, -1, size)


def set_up(identity: Tensor, nuisance: Tensor, size: int) -> Scene:
    """Build the head, turn the rays and the lamp into its axes."""
    p, q = identity_sheet(identity), nuisance_sheet(nuisance)
    rotation = _rotation(q)
    back = rotation.transpose(1, 2)
    pivot = identity.new_tensor(PIVOT).view(1, 3, 1, 1)
    sx, sy = _screen(q, size, identity.device)
    camera = identity.new_tensor((0.0, 0.0, 1.0)).view(1, 3, 1, 1)
    view = turn(back, camera.expand(identity.shape[0], -1, -1, -1))
    light_view, key, ambient = lamp(q)
    light = turn(back, light_view)
    return Scene(
        p=p,
        q=q,
        m=landmarks(p, q),
        head=build_head(p, q),
        size=size,
        pixel=VIEW / size,
        rotation=rotation,
        sx=sx,
        sy=sy,
        origin=turn(back, torch.stack((sx, sy, torch.full_like(sx, REACH)), 1) - pivot) + pivot,
        view=view,
        light=light,
        half=unit(light + view),
        light_view=light_view,
        half_view=unit(light_view + camera),
        camera=camera,
        key=key,
        ambient=ambient,
    )


def _widen(x: Tensor, side: int, value: float) -> Tensor:
    """Put back `side` columns left and right."""
    return F.pad(x, (side, side), value=value)


def _soft(x: Tensor, e: float) -> Tensor:
    return (x / e * 0.5 + 0.5).clamp(0.0, 1.0)


def draw_head(v: Scene) -> HeadLayer:
    """March, paint and light the head without hair."""
    # The bare v.head never reaches the outer columns: leave them out of its expensive part.
    side = v.size // 8
    hit = march(v.head.skin, v.origin[..., side : v.size - side], -v.view, v.pixel)
    look = look_up(v.head.skin_look, hit.phi, hit.t)
    normal = unit(look[:, :3])
    surface = paint(hit.phi, hit.t, v.light, v.p, v.q, v.m, v.pixel)
    normal = unit(normal + v.view * 0.25 * surface.fuzz[:, None])
    lit = shadow(v.head.shell, hit, v.light)
    open_ = look[:, 3].clamp(0.32, 1.15)
    face = shade_skin(
        surface.albedo,
        normal,
        open_,
        0.35 + 0.65 * lit,
        surface.gloss,
        v.light,
        v.half,
        v.view,
        v.key,
        v.ambient,
    )
    face = face + 1.2 * surface.glint[:, None] * v.key

    face, parts = _widen(face, side, 0.0), [_widen(getattr(surface, k), side, 0.0) for k in FACE_PARTS]
    phi, t, hx, hy, hz, seen = (
        _widen(x, side, 0.0) for x in (hit.phi, hit.t, hit.x, hit.y, hit.z, hit.cover)
    )
    hit = Hit(phi, t, hx, hy, hz, _widen(hit.depth, side, 9.0), seen)
    return HeadLayer(face, hit, parts)


def draw_hair(v: Scene, hit: Hit) -> HairLayer:
    """March and light the hair; frayed where it lies on the skin, solid where it stands off."""
    fur = march(v.head.hair, v.origin, -v.view, v.pixel, steps=12, stride=0.11)
    look = look_up(v.head.hair_look, fur.phi, fur.t)
    dx, dy = 256.0 * pattern_unit(v.p["pattern"], 1), 256.0 * pattern_unit(v.p["pattern"], 2)
    curl = v.p["curl"]
    bend = curl * 0.12 * tile_noise(fur.phi * 5.0 + dx, fur.t * (5.0 + 9.0 * curl) + dy)
    across = 0.6 * fur.phi + 0.75 * fur.x + bend  # x keeps strands apart on cut faces, where phi stands still
    turned = (2.4 * dot(look[:, :3], v.view)).clamp(0.12, 1.0)  # fine strands fade where they would alias
    fine = turned * tile_noise(across * 46.0 + dx, fur.t * (3.0 + 10.0 * curl) + dy)
    locks = tile_noise(across * (15.0 + 6.0 * curl) + dy, fur.t * (1.5 + 11.0 * curl) + dx)
    field = hair_field(fur.phi, fur.t, v.p)
    fray = 0.010 + 0.016 * ramp(v.p["hair_length"], 0.05, 0.4)
    buzz = 0.45 + 0.55 * ramp(v.p["hair_length"], 0.02, 0.10)
    cover = ((field + fray * (fine + 0.5 * locks)) / (0.035 + v.pixel) + 0.35).clamp(0.0, 1.0) * fur.cover
    clear = torch.where(hit.cover > 0.5, hit.depth - fur.depth, 0.3)
    solid = ramp(clear, 0.03, 0.12) * (
        (field + 0.04 * locks.clamp(-1.0, 1.0) + 0.03 * fine.clamp(-1.0, 1.0) + 0.11) / 0.03
    ).clamp(0.0, 1.0)
    cover = torch.maximum(cover, solid * fur.cover)
    cover = (
        cover
        * buzz
        * torch.where(fur.depth < hit.depth + 0.03 * hit.cover + 9.0 * (1.0 - hit.cover), 1.0, 0.0)
    )
    tone = hair_colour(v.p) * (1.0 + 0.28 * fine + 0.24 * locks).clamp(0.25, 2.0)[:, None]
    hair_normal = unit(look[:, :3] + 0.10 * locks[:, None] * look[:, 3:6] + 0.15 * v.view)
    hair_lit = shadow(v.head.shell, fur, v.light, steps=3, reach=0.35)
    hair_open = (look[:, 6] * (0.92 + 0.22 * locks)).clamp(0.15, 1.15)
    hair = shade_hair(
        tone,
        hair_normal,
        look[:, 3:6],
        hair_open,
        0.4 + 0.6 * hair_lit,
        0.10 * fine,
        v.light,
        v.half,
        v.key,
        v.ambient,
    )
    return HairLayer(hair, cover, fur.depth)


def shape_clothes(v: Scene) -> ClothesLayer:
    """Torso and neckline."""
    x, y, p, q, pixel = v.sx, v.sy, v.p, v.q, v.pixel
    broad = 1.0 - ramp(p["sex"], 0.4, 0.6)
    a, neck = x.abs(), p["neck_width"]
    top = (
        -1.04
        - 0.02 * broad
        - 0.26 * ramp(a, 0.9 * neck, 0.98 + 0.10 * broad)
        - 0.9 * (a - 1.02 - 0.08 * broad).clamp(min=0.0) ** 1.5
    )
    drop = 0.9 * (p["face_length"] - 1.0).clamp(min=-0.06)
    top = top - drop
    torso = _soft(top - y, pixel)
    width = neck + 0.07 + 0.05 * q["collar"]
    base = -1.10 - 0.05 * q["collar"] - drop
    depth = 0.10 + 0.14 * (q["collar"] + 1.0) / 2
    sharp = torch.where(q["collar"] > 0.2, 1.15, 2.0)
    line = base - depth * (1.0 - (a / width).clamp(max=1.0) ** sharp) + 0.5 * (a - width).clamp(min=0.0)
    cloth = torso * _soft(line - y, pixel)
    torso = torso * _soft(width + 0.02 - a, pixel)
    folds = tile_noise(x * 5.0 + 3.0 * y, y * 3.0 + q["clothes_hue"] * 91.0)
    band = torch.exp(-0.5 * ((line - y - 0.035) / 0.015) ** 2) * (a < width)
    normal = torch.stack(
        (
            0.75 * x + 0.10 * folds,
            0.25 + 0.9 * torch.exp(-(top - y).clamp(min=0.0) / 0.09),
            torch.ones_like(x),
        ),
        1,
    )
    return ClothesLayer(torso, cloth, unit(normal), folds * 0.05 - 0.30 * band)


def shape_glasses(v: Scene, hit: Hit) -> tuple[Tensor, Tensor, Tensor]:
    """(frame cover, lens cover, glare) of spectacles on a bent sheet before the eyes."""
    origin, toward, head, p, m, pixel = v.origin, -v.view, v.head, v.p, v.m, 0.7 * v.pixel
    o = torch.zeros_like(m.eye)
    nasal = look_up(head.skin, o, m.eye + 0.01)[:, 0]
    plane = nasal + 0.02
    s = (plane - origin[:, 2]) / toward[:, 2]
    for _ in range(2):
        s = (plane - 0.30 * (origin[:, 0] + s * toward[:, 0]) ** 2 - origin[:, 2]) / toward[:, 2]
    gx, gy = origin[:, 0] + s * toward[:, 0], origin[:, 1] + s * toward[:, 1] - m.eye + 0.03
    n = 2.1 + 3.5 * p["glasses_shape"]
    big = 0.17 + 0.035 * pattern_unit(p["pattern"], 21)
    tall = big * (0.95 - 0.40 * p["glasses_shape"] * pattern_unit(p["pattern"], 22))
    dx, dy = (gx.abs() - p["eye_distance"] - 0.012) / big, gy / tall
    power_sum = torch.exp(n * dx.abs().clamp(min=1e-4).log()) + torch.exp(n * dy.abs().clamp(min=1e-4).log())
    radial = torch.exp(power_sum.log() / n) - 1.0
    d = radial * tall
    rim = 0.012 + 0.016 * pattern_unit(p["pattern"], 23)
    ring = _soft(rim - d.abs(), pixel)
    bridge = _soft(rim - (gy - 0.03 - 0.25 * (0.09 - gx.abs()).clamp(min=0.0)).abs(), pixel) * _soft(
        p["eye_distance"] + 0.012 - big - gx.abs(), pixel
    )
    hinge = (
        _soft(rim - (gy - 0.05).abs(), pixel)
        * _soft(gx.abs() - p["eye_distance"] - big, pixel)
        * _soft(0.64 - gx.abs(), pixel)
    )
    temple = (
        _soft(rim - (hit.t - m.eye - 0.02).abs(), pixel)
        * ramp(hit.phi.abs(), 0.85, 0.95)
        * (1.0 - ramp(hit.phi.abs(), 1.42, 1.50))
        * hit.cover
    )
    worn = (p["glasses"] > 0).float()
    before = (s < hit.depth + 0.03).float()
    frame = torch.maximum(torch.maximum(ring, torch.maximum(bridge, hinge)) * before, temple) * worn
    lens = _soft(-d, pixel) * before * worn
    glare = lens * torch.exp(-0.5 * ((dx * gx.sign() + dy * 0.8 - 0.45) / 0.10) ** 2)
    return frame, lens, glare
