"""Portraits of synthetic people with exact part masks and points, and pencil drawings of them.

Everything is a pure function of the numbers given: no random generator, and a picture does not depend on its batch.
Rays are orthographic; layers are background, hair behind the shoulders, head, clothes, hair in front, glasses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .geometry import (
    FACE_U,
    REACH,
    Head,
    Hit,
    Landmarks,
    build_head,
    landmarks,
    look_up,
    march,
    point_of,
    shadow,
    unit,
)
from .hair import hair_field, ramp
from .identity import Sheet, canonical_nuisance, identity_sheet, nuisance_index, nuisance_sheet
from .noise import pattern_unit, tile_noise
from .paint import frame_colour, hair_colour, paint, skin_colour
from .shading import dot, hsv, lamp, shade_hair, shade_skin, to_display

MASK_CHANNELS: tuple[str, ...] = (
    "skin",
    "eyes",
    "brows",
    "nose",
    "mouth",
    "ears",
    "hair",
    "glasses",
    "background",
)

_FACE_PARTS = ("eyes", "brows", "mouth", "nose", "ears")
_VIEW = 2.92  # height of the picture in head units
_CENTRE = -0.09  # height of the picture's middle
_PIVOT = (0.0, -0.55, -0.10)  # the head turns about the top of the neck


@dataclass(frozen=True)
class Portrait:
    """A batch of pictures.

    image (B, 3, S, S) in [0, 1]; masks (B, len(MASK_CHANNELS), S, S) in [0, 1], summing to 1 per pixel; points
    (B, 5, 2) x, y in pixels, pixel centres at integer + 0.5: image-left eye, image-right eye, nose tip, image-left
    mouth corner, image-right mouth corner (projections of points of the 3D surface).
    """

    image: Tensor
    masks: Tensor
    points: Tensor


def _rotation(q: Sheet) -> Tensor:
    """(B, 3, 3) head axes to view axes: yaw, then pitch, then roll."""
    yaw, pitch, roll = (q[k][:, 0, 0].double() * (math.pi / 180.0) for k in ("yaw", "pitch", "roll"))
    o, i = torch.zeros_like(yaw).float(), torch.ones_like(yaw).float()
    cy, sy, cp, sp, cr, sr = (f(v).float() for v in (yaw, pitch, roll) for f in (torch.cos, torch.sin))
    ry = torch.stack((cy, o, sy, o, i, o, -sy, o, cy), 1).view(-1, 3, 3)
    rx = torch.stack((i, o, o, o, cp, sp, o, -sp, cp), 1).view(-1, 3, 3)
    rz = torch.stack((cr, sr, o, -sr, cr, o, o, o, i), 1).view(-1, 3, 3)
    return rz @ rx @ ry


def _turn(rotation: Tensor, v: Tensor) -> Tensor:
    """rotation (B, 3, 3) applied to (B, 3, h, w)."""
    return torch.einsum("bij,bjhw->bihw", rotation, v)


def _screen(q: Sheet, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """View coordinates of the pixel centres, x and y (B, S, S)."""
    c = (torch.arange(size, device=device) + 0.5) / size - 0.5
    x = (c.view(1, 1, -1) * _VIEW - q["shift_x"]) / q["scale"]
    y = (-c.view(1, -1, 1) * _VIEW - q["shift_y"]) / q["scale"] + _CENTRE
    return x.expand(-1, size, -1), y.expand(-1, -1, size)


def _points(head: Head, rotation: Tensor, p: Sheet, q: Sheet, m: Landmarks, size: int) -> Tensor:
    """Projections of the five points, (B, 5, 2)."""
    smile = 0.050 * q["smile"] - 0.008
    corner = 0.92 * m.mouth_width
    us = torch.cat((-p["eye_distance"], p["eye_distance"], 0 * m.eye, -corner, corner), 2)
    ts = torch.cat((m.eye, m.eye, m.nose + 0.055, m.mouth + smile, m.mouth + smile), 2)
    phi = torch.asin(us.double() / FACE_U).float()
    pivot = us.new_tensor(_PIVOT).view(1, 3, 1, 1)
    x, y, z = point_of(look_up(head.skin, phi, ts)[:, 0], phi, ts)
    v = _turn(rotation, torch.stack((x, y, z), 1) - pivot) + pivot
    px = (v[:, 0] * q["scale"] + q["shift_x"]) / _VIEW + 0.5
    py = 0.5 - ((v[:, 1] - _CENTRE) * q["scale"] + q["shift_y"]) / _VIEW
    return torch.stack((px[:, 0], py[:, 0]), -1) * size


def _widen(x: Tensor, side: int, value: float) -> Tensor:
    """Put back `side` columns left and right."""
    return F.pad(x, (side, side), value=value)


def _soft(x: Tensor, e: float) -> Tensor:
    return (x / e * 0.5 + 0.5).clamp(0.0, 1.0)


def _clothes(x: Tensor, y: Tensor, p: Sheet, q: Sheet, pixel: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(torso cover, cloth cover, normal (B, 3, S, S), fold noise) of the shoulders, which always face the camera."""
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
    return torso, cloth, unit(normal), folds * 0.05 - 0.30 * band


def _glasses(
    origin: Tensor, toward: Tensor, hit: Hit, head: Head, p: Sheet, m: Landmarks, pixel: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(frame cover, lens cover, glare) of spectacles on a plane before the eyes, hidden where the head is nearer."""
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


def _render(identity: Tensor, nuisance: Tensor, size: int, sketch: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(linear light image, masks, points); `sketch` puts everything before white paper."""
    p, q = identity_sheet(identity), nuisance_sheet(nuisance)
    m = landmarks(p, q)
    head = build_head(p, q)
    pixel = _VIEW / size
    rotation = _rotation(q)
    back = rotation.transpose(1, 2)
    pivot = identity.new_tensor(_PIVOT).view(1, 3, 1, 1)
    sx, sy = _screen(q, size, identity.device)
    origin = _turn(back, torch.stack((sx, sy, torch.full_like(sx, REACH)), 1) - pivot) + pivot
    view = _turn(
        back, identity.new_tensor((0.0, 0.0, 1.0)).view(1, 3, 1, 1).expand(identity.shape[0], -1, -1, -1)
    )
    light_view, key, ambient = lamp(q)
    light = _turn(back, light_view)
    half = unit(light + view)
    half_view = unit(light_view + identity.new_tensor((0.0, 0.0, 1.0)).view(1, 3, 1, 1))

    # The bare head never reaches the outer columns: leave them out of its expensive part.
    side = size // 8
    hit = march(head.skin, origin[..., side : size - side], -view, pixel)
    look = look_up(head.skin_look, hit.phi, hit.t)
    normal = unit(look[:, :3])
    surface = paint(hit.phi, hit.t, light, p, q, m, pixel)
    normal = unit(normal + view * 0.25 * surface.fuzz[:, None])
    lit = shadow(head.shell, hit, light)
    open_ = look[:, 3].clamp(0.32, 1.15)
    face = shade_skin(
        surface.albedo, normal, open_, 0.35 + 0.65 * lit, surface.gloss, light, half, view, key, ambient
    )
    face = face + 1.2 * surface.glint[:, None] * key

    face, parts = _widen(face, side, 0.0), [_widen(getattr(surface, k), side, 0.0) for k in _FACE_PARTS]
    phi, t, hx, hy, hz, seen = (_widen(v, side, 0.0) for v in (hit.phi, hit.t, hit.x, hit.y, hit.z, hit.cover))
    hit = Hit(phi, t, hx, hy, hz, _widen(hit.depth, side, 9.0), seen)

    fur = march(head.hair, origin, -view, pixel, steps=12, stride=0.11)
    look = look_up(head.hair_look, fur.phi, fur.t)
    dx, dy = 256.0 * pattern_unit(p["pattern"], 1), 256.0 * pattern_unit(p["pattern"], 2)
    curl = p["curl"]
    bend = curl * 0.12 * tile_noise(fur.phi * 5.0 + dx, fur.t * (5.0 + 9.0 * curl) + dy)
    across = 0.6 * fur.phi + 0.75 * fur.x + bend  # x keeps strands apart on cut faces, where phi stands still
    turned = (2.4 * dot(look[:, :3], view)).clamp(0.12, 1.0)  # fine strands fade where they would alias
    fine = turned * tile_noise(across * 46.0 + dx, fur.t * (3.0 + 10.0 * curl) + dy)
    locks = tile_noise(across * (15.0 + 6.0 * curl) + dy, fur.t * (1.5 + 11.0 * curl) + dx)
    field = hair_field(fur.phi, fur.t, p)
    fray = 0.010 + 0.016 * ramp(p["hair_length"], 0.05, 0.4)
    buzz = 0.45 + 0.55 * ramp(p["hair_length"], 0.02, 0.10)
    cover = ((field + fray * (fine + 0.5 * locks)) / (0.035 + pixel) + 0.35).clamp(0.0, 1.0) * fur.cover
    clear = torch.where(hit.cover > 0.5, hit.depth - fur.depth, 0.3)
    solid = ramp(clear, 0.03, 0.12) * ((field + 0.04 * locks.clamp(-1.0, 1.0) + 0.03 * fine.clamp(-1.0, 1.0) + 0.11) / 0.03).clamp(0.0, 1.0)
    cover = torch.maximum(cover, solid * fur.cover)
    cover = (
        cover
        * buzz
        * torch.where(fur.depth < hit.depth + 0.03 * hit.cover + 9.0 * (1.0 - hit.cover), 1.0, 0.0)
    )
    tone = hair_colour(p) * (1.0 + 0.28 * fine + 0.24 * locks).clamp(0.25, 2.0)[:, None]
    hair_normal = unit(look[:, :3] + 0.10 * locks[:, None] * look[:, 3:6] + 0.15 * view)
    hair_lit = shadow(head.shell, fur, light, steps=3, reach=0.35)
    hair_open = (look[:, 6] * (0.92 + 0.22 * locks)).clamp(0.15, 1.15)
    hair = shade_hair(
        tone,
        hair_normal,
        look[:, 3:6],
        hair_open,
        0.4 + 0.6 * hair_lit,
        0.10 * fine,
        light,
        half,
        key,
        ambient,
    )

    torso, cloth, cloth_normal, weave = _clothes(sx, sy, p, q, pixel)
    one = torch.ones_like(sx)
    if sketch:
        background, cloth_colour = torch.ones_like(face) * 3.0, torch.ones_like(light_view) * 0.9
    else:
        base = hsv(q["background_hue"], q["background_saturation"], q["background_value"])
        slope = (1.0 + 0.35 * q["background_gradient"] * sy - 0.10 * (sx * sx + sy * sy))[:, None]
        background = base * slope.clamp(min=0.2) * 1.1
        cloth_colour = hsv(q["clothes_hue"], q["clothes_saturation"], q["clothes_value"])
    chest = shade_skin(skin_colour(p).expand_as(face), cloth_normal, one * 0.8, one * 0.6, one * 0.5, light_view, half_view,
                       identity.new_tensor((0.0, 0.0, 1.0)).view(1, 3, 1, 1), key, ambient)  # fmt: skip
    drape = (
        cloth_colour
        * (1.0 + weave)[:, None]
        * (1.7 * key * ((dot(cloth_normal, light_view) + 0.2) / 1.2).clamp(min=0.0)[:, None] + 0.9 * ambient)
    )

    front_hair = (REACH - fur.depth > -0.16).float()
    frame, lens, glare = _glasses(origin, -view, hit, head, p, m, 0.7 * pixel)
    over_cloth = (hit.t > m.chin - 0.05).float() * (REACH - hit.depth > 0.30)
    layers: list[tuple[Tensor, Tensor, str]] = [
        (hair, cover * (1.0 - front_hair), "hair"),
        (chest, torso, "skin"),
        (face, hit.cover * torch.maximum(1.0 - cloth, over_cloth), "face"),
        (drape, cloth * (1.0 - over_cloth * hit.cover), "background"),
        (hair, cover * front_hair, "hair"),
    ]
    image = background.expand_as(face)
    masks = {name: torch.zeros_like(sx) for name in MASK_CHANNELS}
    masks["background"] = one
    for colour, alpha, name in layers:
        image = image + (colour - image) * alpha[:, None]
        masks = {k: v * (1.0 - alpha) for k, v in masks.items()}
        if name != "face":
            masks[name] = masks[name] + alpha
            continue
        rest = alpha
        for part, area in zip(_FACE_PARTS, parts, strict=True):
            share = rest * area
            masks[part], rest = masks[part] + share, rest - share
        masks["skin"] = masks["skin"] + rest
    unhidden = 1.0 - cover * front_hair * (fur.depth < hit.depth - 0.10)
    frame, lens = frame * unhidden, lens * unhidden
    image = image * (1.0 - 0.08 * lens[:, None]) + 0.10 * (glare * unhidden)[:, None] * key
    rims = frame_colour(p) * (0.7 + 0.9 * key)
    image = image + (rims - image) * (frame * 0.95)[:, None]
    masks = {k: v * (1.0 - frame) for k, v in masks.items()}
    masks["glasses"] = masks["glasses"] + frame
    return image, torch.stack([masks[k] for k in MASK_CHANNELS], 1), _points(head, rotation, p, q, m, size)


def render(identity: Tensor, nuisance: Tensor, size: int = 128) -> Portrait:
    """Draw people under given views.

    identity (B, len(PARAMETERS)), nuisance (B, len(NUISANCE)) float32 on the same device; size in pixels. Raises
    ValueError for wrong widths or unequal batch lengths.
    """
    if identity.shape[0] != nuisance.shape[0]:
        raise ValueError(
            f"{identity.shape[0]} identities but {nuisance.shape[0]} nuisance rows: give one view per person"
        )
    with torch.no_grad():
        light, masks, points = _render(identity.float(), nuisance.float(), size, sketch=False)
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

    Difference of Gaussians on the log-luminance of the person under frontal light before white, plus a light tone;
    canonical view unless `nuisance` (B, len(NUISANCE)) gives another pose and expression (its light and colours are ignored).
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
        light, _, _ = _render(identity.float(), view, size, sketch=True)
        weights = light.new_tensor((0.30, 0.59, 0.11)).view(1, 3, 1, 1)
        tone = (to_display(light) * weights).sum(1, keepdim=True)
        log = torch.log(tone + 0.06)
        unit = size / 128.0
        edge = _gaussian(log, 1.9 * unit) - _gaussian(log, 0.75 * unit)
        lines = ((edge - 0.010) / 0.11).clamp(0.0, 1.0) ** 0.75
        wash = 0.13 * (1.0 - _gaussian(tone, 1.2 * unit)).clamp(0.0, 1.0)
        return (1.0 - 0.92 * lines - wash * (1.0 - lines)).clamp(0.0, 1.0)
