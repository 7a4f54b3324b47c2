"""Who a synthetic person is (identity) and how the picture was taken (nuisance), as plain numbers.

Drawing uses a counter hash, not a stream: value (seed, person, column) never depends on how many are drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

#: Raised whenever the same numbers would give another picture; data and weights record it.
RENDERER_VERSION: int = 1

Group = Literal["shape", "style", "colour", "mark"]


@dataclass(frozen=True)
class Parameter:
    """One number of a person or of a view.

    `kind` "normal": `a` mean, `b` standard deviation, clipped at 2.5 of them; "uniform": `a` low, `b` high.
    Lengths are in head units (a head is about 2.1 high). Switch-like parameters are off below 0.
    """

    name: str
    kind: Literal["normal", "uniform"]
    a: float
    b: float
    group: Group


def _shape(name: str, mean: float, std: float) -> Parameter:
    return Parameter(name, "normal", mean, std, "shape")


def _uniform(name: str, low: float, high: float, group: Group) -> Parameter:
    return Parameter(name, "uniform", low, high, group)


PARAMETERS: tuple[Parameter, ...] = (
    _shape("temple_width", 0.70, 0.035),
    _shape("cheek_width", 0.715, 0.042),
    _shape("jaw_width", 0.54, 0.062),
    _shape("chin_width", 0.26, 0.075),
    _shape("face_length", 1.0, 0.065),
    _shape("forehead", 0.0, 0.05),
    _shape("fullness", 0.0, 0.032),
    _shape("eye_height", 0.06, 0.028),
    _shape("eye_distance", 0.305, 0.023),
    _shape("eye_width", 0.156, 0.015),
    _shape("eye_opening", 0.066, 0.012),
    _shape("eye_tilt", 0.06, 0.11),
    _shape("eye_socket", 0.075, 0.025),
    _shape("lid_crease", 0.5, 0.25),
    _shape("brow_height", 0.185, 0.024),
    _shape("brow_thickness", 0.034, 0.010),
    _shape("brow_arch", 0.035, 0.024),
    _shape("brow_slant", 0.03, 0.08),
    _shape("brow_length", 0.195, 0.020),
    _shape("brow_ridge", 0.035, 0.025),
    _shape("nose_length", 0.40, 0.045),
    _shape("nose_width", 0.118, 0.023),
    _shape("nose_tip", 0.205, 0.040),
    _shape("nose_bridge", 0.09, 0.030),
    _shape("nose_hump", 0.0, 0.025),
    _shape("mouth_drop", 0.235, 0.028),
    _shape("mouth_width", 0.240, 0.030),
    _shape("upper_lip", 0.048, 0.014),
    _shape("lower_lip", 0.060, 0.016),
    _shape("cheekbone", 0.055, 0.030),
    _shape("cheek_hollow", 0.02, 0.035),
    _shape("chin_boss", 0.08, 0.035),
    _uniform("chin_cleft", -0.05, 0.03, "shape"),
    _shape("ear_size", 0.13, 0.035),
    _shape("neck_width", 0.42, 0.040),
    _uniform("age", 0.0, 1.0, "shape"),  # 0 is 18 years, 1 is 80
    _uniform("sex", 0.0, 1.0, "shape"),  # below 0.5 man-like, above woman-like
    _uniform("hair_length", 0.0, 1.0, "style"),
    _uniform("curl", 0.0, 1.0, "style"),
    Parameter("hair_volume", "normal", 0.12, 0.045, "style"),
    Parameter("hairline", "normal", 0.66, 0.055, "style"),
    Parameter("widows_peak", "normal", 0.0, 0.05, "style"),
    _uniform("fringe", -1.0, 1.0, "style"),
    _uniform("parting", -0.5, 0.5, "style"),
    _uniform("recession", -1.0, 1.0, "style"),
    _uniform("beard", -1.2, 1.0, "style"),
    _uniform("moustache", -1.2, 1.0, "style"),
    _uniform("glasses", -2.4, 1.0, "style"),
    _uniform("glasses_shape", 0.0, 1.0, "style"),  # 0 round, 1 square
    _uniform("melanin", 0.0, 1.0, "colour"),
    _uniform("ruddiness", 0.0, 1.0, "colour"),
    _uniform("iris_colour", 0.0, 1.0, "colour"),  # brown, hazel, green, blue, grey
    _uniform("hair_colour", 0.0, 1.0, "colour"),  # black, brown, auburn, red, blond
    _uniform("lip_redness", 0.2, 1.0, "colour"),
    _uniform("freckles", -1.5, 1.0, "mark"),
    _uniform("scar", -6.0, 1.0, "mark"),
    _uniform("mole", -1.0, 1.0, "mark"),
    _uniform("pattern", 0.0, 65536.0, "mark"),  # integer: places strands, freckles, mole and scar
)

NUISANCE: tuple[Parameter, ...] = (
    _uniform("yaw", -25.0, 25.0, "shape"),  # degrees
    _uniform("pitch", -10.0, 10.0, "shape"),
    _uniform("roll", -4.0, 4.0, "shape"),
    _uniform("light_x", -0.9, 0.9, "colour"),
    _uniform("light_y", -0.1, 0.9, "colour"),
    _uniform("ambient", 0.30, 0.50, "colour"),
    _uniform("key", 0.55, 0.86, "colour"),
    _uniform("warmth", -1.0, 1.0, "colour"),
    _uniform("smile", -0.4, 1.0, "shape"),
    _uniform("mouth_open", -1.5, 1.0, "shape"),
    _uniform("gaze_x", -1.0, 1.0, "shape"),
    _uniform("gaze_y", -1.0, 1.0, "shape"),
    _uniform("blink", -2.0, 0.6, "shape"),
    _uniform("brow_raise", -0.6, 1.0, "shape"),
    _uniform("background_hue", 0.0, 1.0, "colour"),
    _uniform("background_saturation", 0.0, 0.45, "colour"),
    _uniform("background_value", 0.12, 0.85, "colour"),
    _uniform("background_gradient", -1.0, 1.0, "colour"),
    _uniform("clothes_hue", 0.0, 1.0, "colour"),
    _uniform("clothes_saturation", 0.0, 0.8, "colour"),
    _uniform("clothes_value", 0.08, 0.9, "colour"),
    _uniform("collar", -1.0, 1.0, "style"),  # -1 high round collar, 1 deep open collar
    _uniform("shift_x", -0.06, 0.06, "shape"),
    _uniform("shift_y", -0.06, 0.06, "shape"),
    _uniform("scale", 0.95, 1.05, "shape"),
    _uniform("noise", 0.0, 0.02, "mark"),
    _uniform("noise_seed", 0.0, 65536.0, "mark"),
)

_INDEX = {parameter.name: i for i, parameter in enumerate(PARAMETERS)}
_NUISANCE_INDEX = {parameter.name: i for i, parameter in enumerate(NUISANCE)}
_CANONICAL = {
    "yaw": 0.0, "pitch": 0.0, "roll": 0.0, "light_x": 0.12, "light_y": 0.42, "ambient": 0.42, "key": 0.70,
    "warmth": 0.0, "smile": 0.0, "mouth_open": -1.0, "gaze_x": 0.0, "gaze_y": 0.0, "blink": -1.0,
    "brow_raise": 0.0, "background_hue": 0.0, "background_saturation": 0.0, "background_value": 0.55,
    "background_gradient": 0.0, "clothes_hue": 0.6, "clothes_saturation": 0.1, "clothes_value": 0.35,
    "collar": 0.0, "shift_x": 0.0, "shift_y": 0.0, "scale": 1.0, "noise": 0.0, "noise_seed": 0.0,
}  # fmt: skip


def index(name: str) -> int:
    """Column of an identity parameter; raises KeyError for an unknown name."""
    return _INDEX[name]


def nuisance_index(name: str) -> int:
    """Column of a nuisance parameter; raises KeyError for an unknown name."""
    return _NUISANCE_INDEX[name]


def hash_bits(x: Tensor) -> Tensor:
    """Integer hash, int64 -> int64 in [0, 2**31); the same on every device (32-bit arithmetic in 64 bits)."""
    mask = 0xFFFFFFFF
    x = x & mask
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & mask
    return (x ^ (x >> 16)) & 0x7FFFFFFF


def hash_unit(x: Tensor) -> Tensor:
    """Integer hash to float64 strictly inside (0, 1)."""
    return (hash_bits(x).double() + 0.5) / 2147483648.0


def _draw(parameters: tuple[Parameter, ...], n: int, seed: int, salt: int) -> Tensor:
    """(n, len(parameters)) float64; row k depends on seed, salt and k alone."""
    start = hash_bits(torch.tensor([(seed * 2654435761 + salt) & 0x7FFFFFFF]))
    rows = hash_bits(start + hash_bits(torch.arange(n) + 1))
    columns = torch.arange(len(parameters))
    unit = hash_unit(rows[:, None] + 7919 * (columns + 1)[None])
    normal = (torch.erfinv(2 * unit - 1) * math.sqrt(2.0)).clamp(-2.5, 2.5)
    out = torch.empty_like(unit)
    for i, p in enumerate(parameters):
        out[:, i] = p.a + p.b * normal[:, i] if p.kind == "normal" else p.a + (p.b - p.a) * unit[:, i]
    return out


def sample_identities(n: int, seed: int) -> Tensor:
    """(n, len(PARAMETERS)) float32 people. Person k is the same for every n > k.

    Couplings: the sex-like switch moves jaw, brows, lips, nose, neck, hair length and beard; age moves
    recession, folds and lips; dark skin goes with dark hair and eyes, more curl and fuller lips. All values
    returned are the effective ones, so attributes can be read straight from the columns.
    """
    x = _draw(PARAMETERS, n, seed, 0x1D)
    col = _INDEX
    sex, age, melanin = x[:, col["sex"]], x[:, col["age"]], x[:, col["melanin"]]
    woman = torch.sigmoid((sex - 0.5) * 14.0)
    tilt = 2.0 * woman - 1.0  # -1 man-like .. 1 woman-like

    def add(name: str, amount: Tensor) -> None:
        x[:, col[name]] += amount

    add("jaw_width", -0.030 * tilt)
    add("chin_width", -0.050 * tilt)
    add("cheekbone", 0.010 * tilt)
    add("face_length", -0.018 * tilt)
    add("brow_ridge", -0.022 * tilt)
    add("brow_thickness", -0.008 * tilt)
    add("brow_height", 0.012 * tilt)
    add("brow_arch", 0.012 * tilt)
    add("eye_opening", 0.005 * tilt - 0.008 * (age - 0.5))
    add("eye_width", 0.006 * tilt)
    add("nose_width", -0.010 * tilt + 0.035 * (melanin - 0.45))
    add("nose_tip", -0.014 * tilt + 0.02 * (age - 0.5))
    add("nose_length", -0.012 * tilt + 0.02 * (age - 0.5))
    add("upper_lip", 0.006 * tilt - 0.012 * (age - 0.5) + 0.014 * (melanin - 0.45))
    add("lower_lip", 0.006 * tilt - 0.012 * (age - 0.5) + 0.014 * (melanin - 0.45))
    add("lip_redness", 0.14 * tilt)
    add("neck_width", -0.060 * tilt)
    add("chin_boss", -0.012 * tilt)
    add("ear_size", 0.03 * (age - 0.5) - 0.012 * tilt)
    add("hairline", -0.02 * tilt)
    add("cheek_hollow", 0.02 * (age - 0.5) - 0.018 * tilt)
    length = x[:, col["hair_length"]]
    # Nine in ten man-like people have short hair, most woman-like ones medium to long hair.
    man_length = 0.42 * length + 1.8 * (length - 0.86).clamp(min=0.0)
    x[:, col["hair_length"]] = man_length * (1 - woman) + (0.22 + 0.78 * length) * woman
    recession = x[:, col["recession"]]
    x[:, col["recession"]] = (1 - woman) * (recession + 0.9 * (age - 0.45)) + woman * (0.3 * recession - 0.5)
    bald = ((x[:, col["recession"]] - 0.5) / 0.3).clamp(0.0, 1.0)
    x[:, col["hair_length"]] -= bald * (x[:, col["hair_length"]] - 0.22).clamp(min=0.0)
    x[:, col["beard"]] -= 2.0 * woman
    x[:, col["moustache"]] -= 2.0 * woman
    x[:, col["glasses"]] += 0.7 * (age - 0.4)
    dark = ((melanin - 0.4) / 0.35).clamp(0.0, 1.0)
    # Fewer red heads than a flat draw would give: knots of (drawn, wanted) values.
    drawn, knots = (
        x[:, col["hair_colour"]].clone(),
        ((0.0, 0.0), (0.18, 0.15), (0.55, 0.43), (0.70, 0.75), (1.0, 1.0)),
    )
    x[:, col["hair_colour"]] = sum(
        (
            (drawn - d0).clamp(0.0, d1 - d0) * ((w1 - w0) / (d1 - d0))
            for (d0, w0), (d1, w1) in pairwise(knots)
        ),
        torch.zeros_like(drawn),
    )
    x[:, col["hair_colour"]] *= 1.0 - 0.88 * dark
    x[:, col["iris_colour"]] *= 1.0 - 0.85 * dark
    x[:, col["curl"]] = x[:, col["curl"]] ** 1.6 * (1 - dark) + dark * (0.2 + 0.8 * x[:, col["curl"]])
    x[:, col["freckles"]] -= 0.9 * melanin
    x[:, col["pattern"]] = x[:, col["pattern"]].floor()
    for name, low, high in (
        ("eye_opening", 0.034, 0.110), ("upper_lip", 0.012, 0.110), ("lower_lip", 0.020, 0.120),
        ("brow_thickness", 0.010, 0.070), ("nose_width", 0.065, 0.190), ("hair_volume", 0.03, 0.26),
        ("lip_redness", 0.05, 1.1), ("ear_size", 0.04, 0.22), ("chin_width", 0.05, 0.50),
        ("lid_crease", 0.0, 1.2),
    ):  # fmt: skip
        x[:, col[name]].clamp_(low, high)
    return x.float()


FAMILY = 20
"""Look-alikes come in families of this many."""


def look_alikes(identities: Tensor, family: int = FAMILY) -> Tensor:
    """(n, P) people, every `family` of whom now share all but their shapes: sex, age, hair, beard, skin, eyes' colour,
    glasses and marks are those of the first of each family."""
    shared = [i for i, p in enumerate(PARAMETERS) if p.group != "shape" or p.name in ("sex", "age")]
    first = torch.arange(len(identities)) // family * family
    alike = identities.clone()
    alike[:, shared] = identities[first][:, shared]
    return alike


def sample_nuisance(n: int, seed: int) -> Tensor:
    """(n, len(NUISANCE)) float32 views: pose, light, expression, background, clothes, framing, noise."""
    x = _draw(NUISANCE, n, seed, 0x2E)
    x[:, _NUISANCE_INDEX["noise_seed"]].floor_()
    return x.float()


def canonical_nuisance(n: int) -> Tensor:
    """(n, len(NUISANCE)) float32: frontal, neutral, soft light, grey background and clothes, no noise."""
    row = torch.tensor([_CANONICAL[p.name] for p in NUISANCE], dtype=torch.float32)
    return row.expand(n, -1).clone()


class Sheet:
    """Named columns of an identity or nuisance tensor, each as (B, 1, 1) for broadcasting over pictures."""

    def __init__(self, values: Tensor, columns: dict[str, int]) -> None:
        self._values, self._columns = values, columns

    def __getitem__(self, name: str) -> Tensor:
        return self._values[:, self._columns[name]].view(-1, 1, 1)


def identity_sheet(identity: Tensor) -> Sheet:
    """Named view of (B, len(PARAMETERS)); raises ValueError for another width."""
    if identity.ndim != 2 or identity.shape[1] != len(PARAMETERS):
        raise ValueError(f"identity must be (B, {len(PARAMETERS)}), got {tuple(identity.shape)}")
    return Sheet(identity, _INDEX)


def nuisance_sheet(nuisance: Tensor) -> Sheet:
    """Named view of (B, len(NUISANCE)); raises ValueError for another width."""
    if nuisance.ndim != 2 or nuisance.shape[1] != len(NUISANCE):
        raise ValueError(f"nuisance must be (B, {len(NUISANCE)}), got {tuple(nuisance.shape)}")
    return Sheet(nuisance, _NUISANCE_INDEX)
