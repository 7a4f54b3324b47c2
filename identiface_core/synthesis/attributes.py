"""From the numbers of a synthetic person to what words would say about each attribute."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..evidence.lexicon import ATTRIBUTES
from .hair import ramp
from .identity import PARAMETERS, index
from .noise import pattern_unit

Reader = Callable[[Tensor], Tensor]

# Years are 18 + 62 * age: the edges are 30, 45 and 60 years.
# Edges of three-valued shapes lie near the 30 % and 70 % quantiles of people, so every value is common.
_BINS: dict[str, tuple[str, tuple[float, ...]]] = {
    "age": ("age", (0.1935, 0.4355, 0.6774)),
    "skin tone": ("melanin", (0.25, 0.50, 0.75)),
    "face width": ("cheek_width", (0.692, 0.737)),
    "face length": ("face_length", (0.964, 1.035)),
    "jaw": ("jaw_width", (0.504, 0.575)),
    "chin": ("chin_width", (0.213, 0.305)),
    "eye colour": ("iris_colour", (0.11, 0.48, 0.70)),
    "eye opening": ("eye_opening", (0.059, 0.073)),
    "eye spacing": ("eye_distance", (0.293, 0.317)),
    "eye tilt": ("eye_tilt", (0.002, 0.117)),
    "brow thickness": ("brow_thickness", (0.028, 0.040)),
    "brow shape": ("brow_arch", (0.022, 0.049)),
    "brow height": ("brow_height", (0.171, 0.199)),
    "nose width": ("nose_width", (0.106, 0.134)),
    "nose length": ("nose_length", (0.375, 0.424)),
    "nose bridge": ("nose_hump", (-0.013, 0.013)),
    "mouth width": ("mouth_width", (0.225, 0.255)),
    "upper lip": ("upper_lip", (0.041, 0.057)),
    "lower lip": ("lower_lip", (0.051, 0.070)),
    "lip colour": ("lip_redness", (0.44, 0.76)),
    "ear size": ("ear_size", (0.110, 0.149)),
    "hair length": ("hair_length", (0.14, 0.32, 0.60)),
    "hair texture": ("curl", (0.30, 0.62)),
    "glasses": ("glasses", (0.0,)),
    "freckles": ("freckles", (0.04,)),
    "mole": ("mole", (0.0,)),
}


def _bin(x: Tensor, edges: tuple[float, ...]) -> Tensor:
    return torch.bucketize(x.contiguous(), torch.tensor(edges, dtype=x.dtype, device=x.device))


def _column(identity: Tensor, name: str) -> Tensor:
    return identity[:, index(name)]


def _sex(x: Tensor) -> Tensor:
    return (_column(x, "sex") < 0.5).long()


def _build(x: Tensor) -> Tensor:
    return _bin(_column(x, "fullness") - 0.5 * _column(x, "cheek_hollow"), (-0.029, 0.009))


def _grey(x: Tensor) -> Tensor:
    """Whether hair is more grey than coloured; the renderer lets people grey at their own age."""
    own_age = 0.30 * (pattern_unit(_column(x, "pattern"), 9) - 0.5)
    return _column(x, "age") + own_age > 0.725


def _hair_colour(x: Tensor) -> Tensor:
    colour = _bin(_column(x, "hair_colour"), (0.15, 0.43, 0.75))
    return torch.where(_grey(x), torch.full_like(colour, 4), colour)


def _hairline(x: Tensor) -> Tensor:
    recession = _column(x, "recession")
    line = _bin(_column(x, "hairline") + 0.6 * _column(x, "forehead"), (0.626, 0.72))
    line = torch.where(recession > 0.15, torch.full_like(line, 2), line)
    return torch.where(recession > 0.80, torch.full_like(line, 3), line)


def _fringe(x: Tensor) -> Tensor:
    """How much of the fringe is left once short or receding hair has taken its share."""
    grown = ramp(_column(x, "hair_length"), 0.05, 0.25) * (1 - ramp(_column(x, "recession"), 0.3, 0.8))
    return _bin(_column(x, "fringe").clamp(min=0.0) * grown, (0.12, 0.45))


def _beard(x: Tensor) -> Tensor:
    beard = _bin(_column(x, "beard"), (0.0, 0.4))
    beard = torch.where(beard > 0, beard + 1, beard)
    only_moustache = (beard == 0) & (_column(x, "moustache") > 0.0)
    return torch.where(only_moustache, torch.ones_like(beard), beard)


_READERS: dict[str, Reader] = {
    "sex": _sex, "build": _build, "hair colour": _hair_colour, "hairline": _hairline, "fringe": _fringe,
    "beard": _beard,
}  # fmt: skip


def attribute_values(identity: Tensor) -> Tensor:
    """(n, len(PARAMETERS)) people -> (n, SLOTS) int64: the place of the true value of each attribute.

    Raises ValueError for another width.
    """
    if identity.ndim != 2 or identity.shape[1] != len(PARAMETERS):
        raise ValueError(f"identity must be (n, {len(PARAMETERS)}), got {tuple(identity.shape)}")
    columns = []
    for attribute in ATTRIBUTES:
        if attribute.name in _READERS:
            columns.append(_READERS[attribute.name](identity))
        else:
            name, edges = _BINS[attribute.name]
            columns.append(_bin(_column(identity, name), edges))
    return torch.stack(columns, dim=1)
