"""Where hair grows and how far it stands off: functions of the head chart (azimuth, height)."""

from __future__ import annotations

import torch
from torch import Tensor

from .identity import Sheet


def ramp(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Smooth step from 0 at `low` to 1 at `high`."""
    x = ((x - low) / (high - low)).clamp(0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def hair_field(phi: Tensor, t: Tensor, p: Sheet) -> Tensor:
    """Signed distance to the hair edge in head units, positive inside hair.

    phi azimuth in radians (0 is the face), t chart height; both (B or 1, H, W). Returns (B, H, W).
    """
    a = phi.abs()
    length, recession = p["hair_length"], p["recession"]
    bald = ramp(recession, 0.55, 1.15)
    fringe = p["fringe"].clamp(min=0.0) * ramp(length, 0.05, 0.25) * (1.0 - ramp(recession, 0.3, 0.8))
    sweep = phi - 1.2 * p["parting"]
    temples = torch.exp(-(((a - 0.72) / 0.24) ** 2))
    front = (
        p["hairline"] + p["forehead"] * 0.6 + recession.clamp(0.0, 1.3) * (0.10 + 0.26 * temples)
        + 0.05 * temples - (0.03 + p["widows_peak"]) * torch.exp(-((phi / 0.16) ** 2))
        + 0.05 * ramp(a, 0.0, 0.9) * (a < 1.2)
        - fringe * (0.34 - 0.16 * (sweep / 0.9).clamp(-1.3, 1.3).abs() ** 2 * p["parting"].abs() * 2.0)
        + 0.85 * bald * (1.0 - ramp(a, 1.0, 1.9))
    )  # fmt: skip
    long_hair = ramp(length, 0.30, 0.60)
    side = (
        1.06
        + 0.10 * ramp(t, 0.1, 0.6)
        + 0.10 * long_hair * (1.0 - 2.0 * p["fringe"].clamp(0.0, 0.6) * ramp(-t, 0.0, 0.6))
        + 0.22 * bald
    )
    side = side + 0.05 * fringe
    upper = torch.maximum(t - front, 0.75 * (a - side))
    sideburn = -0.02 - 0.22 * p["beard"].clamp(-0.5, 1.0) - 0.05 * p["fringe"]
    over_ear = 0.16 - 0.10 * length
    nape = -0.50 - 0.25 * length
    short_end = (
        sideburn + (over_ear - sideburn) * ramp(a, 1.26, 1.40) + (nape - over_ear) * ramp(a, 1.82, 2.15)
    )
    long_end = 0.05 - 1.75 * length + 0.18 * (1.0 - ramp(a, 0.95, 1.5)) * (1.0 - length)
    end = short_end + (torch.minimum(long_end, short_end) - short_end) * ramp(length, 0.26, 0.40)
    crown = torch.where(bald > 0, 0.75 - 0.45 * bald + 0.5 * (1.0 - bald) - t + 0.1 * (a - 1.6), 9.0)
    return torch.minimum(torch.minimum(upper, t - end), crown)


def hair_radius(
    skin: Tensor, skull: Tensor, phi: Tensor, t: Tensor, field: Tensor, clumps: Tensor, p: Sheet
) -> Tensor:
    """Radius of the hair surface, (B, H, W); well below `skin` where there is no hair.

    `skin` is the head with ears, `skull` the bare head radius at temple height per azimuth (B, 1, W),
    `clumps` noise of deviation 1.
    """
    a = phi.abs()
    length, volume, curl = p["hair_length"], p["hair_volume"], p["curl"]
    grown = ramp(length, 0.02, 0.30)
    full = 0.02 + grown * (0.02 + volume * (0.62 + 0.60 * curl * ramp(length, 0.1, 0.5)))
    top = ramp(t, 0.15, 0.9)
    sides = 0.30 + 0.55 * ramp(length, 0.2, 0.7) + 0.3 * ramp(curl, 0.5, 1.0) * grown
    thick = full * (sides + (1.0 - sides) * top)
    # Swept-up front when there is no fringe; a parting is a shallow valley.
    quiff = (
        (-p["fringe"]).clamp(min=0.0)
        * grown
        * torch.exp(-((phi / 0.7) ** 2))
        * torch.exp(-(((t - 0.95) / 0.25) ** 2))
    )
    valley = (
        torch.exp(-(((phi - 0.9 * p["parting"]) / 0.05) ** 2))
        * ramp(t, 0.6, 0.75)
        * (1.0 - ramp(t, 1.2, 1.45))
    )
    thick = thick * (1.0 - 0.5 * valley * ramp(length, 0.1, 0.3) * (1.0 - curl)) + 0.11 * quiff
    edge = 0.13 + 0.45 * full
    dome = (field / edge).clamp(0.0, 1.0)
    dome = 0.10 + 0.90 * (1.0 - (1.0 - dome) ** 2)
    bumps = clumps * (0.010 + 0.045 * curl) * grown
    long_hair = ramp(length, 0.30, 0.55)
    below = ramp(-t, -0.25, 0.15)
    fall = (-t).clamp(min=0.0)
    curtain = (
        skull + thick + fall * (0.02 + 0.10 * curl + 0.10 * ramp(a, 1.2, 2.2)) - 0.16 * ramp(fall, 0.55, 1.3)
    )
    curtain = torch.maximum(curtain * long_hair, skin * (1.0 - 0.25 * long_hair * ramp(a, 1.7, 2.3)))
    body = skin + thick + (curtain - skin - thick).clamp(min=0.0) * below * long_hair
    present = ramp(field, -0.03, 0.03)
    return (skin - 0.08) * (1.0 - present) + present * (skin + (body - skin) * dome + bumps * dome)
