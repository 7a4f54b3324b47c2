"""A witness: sees one view of a person, remembers the face with errors, and gives evidence of it.

The evidence is honest: the low-quality photo is of another view than the one to be found, the sketch is
drawn from a misremembered head without colours, and the words omit and err. Person k's evidence depends on
(k, seed) alone, never on the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .attributes import attribute_values
from .identity import PARAMETERS, hash_bits, hash_unit
from .phrases import Said, describe
from .portrait import draw_sketch

_SHAPE, _WARP, _BLOBS, _WORDS = 0x51, 0x52, 0x53, 0x54
_CONTROL_POINTS = 5
_MAX_DEVIATIONS = 2.5


@dataclass(frozen=True)
class ErrorLevel:
    """How well a witness remembers."""

    name: str
    sketch_error: float
    """Standard deviation of the error of each shape or style parameter, in deviations of that parameter."""
    warp: float
    """Standard deviation of the drawing's smooth distortion, in pixels of a 128 px drawing."""
    missing_strokes: tuple[int, int]
    """Fewest and most erased places of the drawing."""
    omit: float
    """Share of attributes that the words leave out."""
    wrong: float
    """Share of the stated attributes that are stated wrongly."""


LEVELS: dict[str, ErrorLevel] = {
    level.name: level
    for level in (
        ErrorLevel("careful", 0.0, 0.0, (0, 0), 0.0, 0.0),
        ErrorLevel("middle", 0.50, 1.4, (2, 5), 0.30, 0.10),
        ErrorLevel("poor", 0.90, 2.4, (4, 8), 0.50, 0.20),
    )
}
"""The witnesses of our evaluations: "careful" forgets nothing and never errs, as the published experiments assume;
"middle" is the honest witness that results are quoted for."""


def misremember(identity: Tensor, level: ErrorLevel, seed: int, person: Tensor | None = None) -> Tensor:
    """The people as remembered: (n, len(PARAMETERS)) -> the same shape.

    Shape and style carry errors of `level.sketch_error` deviations, kept within the range of real people;
    colours and the pattern seed are those of nobody, marks are absent. person: (n,) int64 numbers of the
    people, 0..n-1 if None.
    """
    people = _people(identity, person)
    unit = _unit(people, seed, _SHAPE, len(PARAMETERS))
    error = level.sketch_error * _normal(unit).to(identity)
    remembered = identity.clone()
    for column, parameter in enumerate(PARAMETERS):
        low, high, deviation = _range(column)
        true = identity[:, column]
        if parameter.group in ("shape", "style"):
            wrong = true + deviation * error[:, column]
            # Real people may lie outside the drawn range, for sex and age shift some parameters.
            remembered[:, column] = torch.maximum(
                torch.minimum(wrong, true.clamp(min=high)), true.clamp(max=low)
            )
        elif parameter.group == "colour":
            remembered[:, column] = 0.5 * (low + high)
        else:
            remembered[:, column] = 0.0 if parameter.name == "pattern" else -1.0
    return remembered


def sketch(
    identity: Tensor, level: ErrorLevel, seed: int, person: Tensor | None = None, size: int = 128
) -> Tensor:
    """Drawings of misremembered people, frontal: (n, 1, size, size) in [0, 1], paper 1."""
    people = _people(identity, person)
    ink = 1.0 - draw_sketch(misremember(identity, level, seed, person), size=size)
    ink = _distort(ink, people, seed, level.warp * size / 128)
    return 1.0 - ink * (1.0 - _erased(people, seed, level.missing_strokes, size).to(ink))


def testimony(
    identity: Tensor, level: ErrorLevel, seed: int, person: Tensor | None = None, filler: float = 0.15
) -> list[Said]:
    """What each witness says, with the value stated for each attribute."""
    values = attribute_values(identity).cpu()
    seeds = hash_bits(hash_bits(_people(identity, person).cpu() + 1) + seed * 7919 + _WORDS).tolist()
    return [
        describe(row, torch.Generator().manual_seed(own), level.omit, level.wrong, filler)
        for row, own in zip(values, seeds, strict=True)
    ]


def words(identity: Tensor, level: ErrorLevel, seed: int, person: Tensor | None = None) -> list[str]:
    """What each witness says, in the published bracket format."""
    return [said.text for said in testimony(identity, level, seed, person)]


def low_quality(view: Tensor, side: int = 8) -> Tensor:
    """Tiny photos of a view, (n, 3, H, W) -> (n, 3, side, side) in [0, 1]: antialiased bicubic.

    Give ANOTHER view of the person than the one that is to be found or drawn.
    """
    return F.interpolate(view, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(
        0.0, 1.0
    )


def _people(identity: Tensor, person: Tensor | None) -> Tensor:
    if person is None:
        return torch.arange(identity.shape[0], device=identity.device)
    if person.shape != identity.shape[:1]:
        raise ValueError(
            f"person must be ({identity.shape[0]},), one number per row, got {tuple(person.shape)}"
        )
    return person.to(device=identity.device, dtype=torch.int64)


def _unit(people: Tensor, seed: int, salt: int, columns: int) -> Tensor:
    """(n, columns) float64 in (0, 1), a hash of person, seed, salt and column: the same on every device."""
    start = hash_bits(hash_bits(people + 1) + (seed * 2654435761 + salt) % 2**31)
    return hash_unit(start[:, None] + 7919 * (torch.arange(columns, device=people.device) + 1))


def _normal(unit: Tensor) -> Tensor:
    return (torch.erfinv(2.0 * unit - 1.0) * math.sqrt(2.0)).clamp(-_MAX_DEVIATIONS, _MAX_DEVIATIONS)


def _range(column: int) -> tuple[float, float, float]:
    """(low, high, standard deviation) of a parameter over people."""
    p = PARAMETERS[column]
    if p.kind == "normal":
        return p.a - _MAX_DEVIATIONS * p.b, p.a + _MAX_DEVIATIONS * p.b, p.b
    return p.a, p.b, (p.b - p.a) / math.sqrt(12.0)


def _distort(ink: Tensor, people: Tensor, seed: int, deviation: float) -> Tensor:
    """Smooth random warp; what comes from outside the sheet is blank."""
    n, _, height, width = ink.shape
    points = _normal(_unit(people, seed, _WARP, 2 * _CONTROL_POINTS**2)).to(ink)
    shift = points.view(n, 2, _CONTROL_POINTS, _CONTROL_POINTS) * deviation
    shift = F.interpolate(shift, (height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    straight = torch.eye(2, 3, device=ink.device, dtype=ink.dtype).expand(n, 2, 3)
    grid = F.affine_grid(straight, [n, 1, height, width], align_corners=False)
    grid = grid + 2.0 * shift / torch.tensor([width, height], device=ink.device, dtype=ink.dtype)
    return F.grid_sample(ink, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _erased(people: Tensor, seed: int, count: tuple[int, int], size: int) -> Tensor:
    """(n, 1, size, size) in [0, 1]: soft blobs over the head where no stroke is left."""
    fewest, most = count
    erased = torch.zeros(people.shape[0], 1, size, size, dtype=torch.float64, device=people.device)
    if most == 0:
        return erased
    unit = _unit(people, seed, _BLOBS, 1 + 5 * most)
    number = fewest + (unit[:, 0] * (most - fewest + 1)).floor()
    axis = (torch.arange(size, device=people.device, dtype=torch.float64) + 0.5) / size
    y, x = axis[:, None], axis[None, :]
    for k in range(most):
        cx, cy, wide, tall, turn = (unit[:, 1 + 5 * k + j].view(-1, 1, 1) for j in range(5))
        angle = math.pi * turn
        dx, dy = x - (0.25 + 0.5 * cx), y - (0.15 + 0.65 * cy)
        u = (dx * angle.cos() + dy * angle.sin()) / (0.04 + 0.07 * wide)
        v = (dy * angle.cos() - dx * angle.sin()) / (0.04 + 0.05 * tall)
        blob = ((1.0 - (u * u + v * v).sqrt()) / 0.25 + 0.5).clamp(0.0, 1.0)
        there = (k < number).view(-1, 1, 1)
        erased = torch.maximum(erased, (blob * there)[:, None])
    return erased
