"""How an ONNX graph wants its pictures: their side, and the range of their values, told by its first nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from identiface_core.errors import WeightsError
from identiface_core.matchers.onnx_file import Content
from identiface_core.matchers.onnx_node import Node
from identiface_core.matchers.template import SIDE, template

SCALES = {"signed": (2.0, -1.0), "unit": (1.0, 0.0), "bytes": (255.0, 0.0)}
"""Ranges that graphs want: [-1, 1], [0, 1], [0, 255], as factor and addend of values in [0, 1]."""

Line = tuple[float, float]
"""Slope and offset: what a tensor is, seen from the picture; a constant has the slope 0, and the mean of its values."""

_KEEPING = {
    "Cast",
    "CastLike",
    "Clip",
    "Concat",
    "Dropout",
    "Flatten",
    "Gather",
    "Identity",
    "Pad",
    "Reshape",
    "Resize",
}
_KEEPING |= {"Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators that put values elsewhere and leave them as they are, those of a picture at least."""
_VALUES = ("value", "value_float", "value_floats", "value_int", "value_ints")


def scale_of(content: Content) -> str:
    """Which of `SCALES` the graph wants its pictures in: "bytes" for whole numbers, else the range that its first sums and
    products bring nearest to [-1, 1], which is "signed" if there are none.

    A normalisation that was folded into the first layer cannot be seen.
    """
    if content.whole:
        return "bytes"
    lines: dict[str, Line] = {content.input: (1.0, 0.0)}
    for node in content.nodes:
        line = _line(node, lines, content)
        if line is not None:
            lines |= dict.fromkeys(filter(None, node.outputs), line)
            continue
        read = [lines[name] for name in node.inputs if name in lines and lines[name][0] != 0]
        if read and node.op not in ("Shape", "Size"):
            return min(SCALES, key=lambda scale: _off(read[0], scale))
    return "signed"


def side_of(content: Content, name: str) -> int:
    """Side of the crops that a matcher reads. WeightsError for a graph that takes something else."""
    shape = content.shape
    if len(shape) == 4 and shape[3] == 3 and shape[1] != 3:
        raise WeightsError(
            f"{name}: it takes pictures with channels last, {shape}. Export it with channels first, (N, 3, H, W)."
        )
    if len(shape) != 4 or shape[1] not in (3, None) or shape[2] != shape[3]:
        raise WeightsError(
            f"{name}: a matcher takes pictures (N, 3, S, S), this graph takes {shape}. Choose another file."
        )
    side = shape[2] or SIDE
    if side % 112 and side % 128:
        raise WeightsError(
            f"{name}: it takes crops of {side} px; matchers are known that take 112 or 128. Choose another file."
        )
    template(side)
    return side


def _line(node: Node, lines: Mapping[str, Line], content: Content) -> Line | None:
    """What the node makes of what is known; None where that is no line."""
    if node.op == "Constant":
        value = next((node.settings[name] for name in _VALUES if name in node.settings), None)
        return _mean(value) if isinstance(value, Tensor | float | int | list) else None
    if node.op in _KEEPING:
        return _known(node.inputs[0], lines, content) if node.inputs else None
    if node.op not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    first, second = (_known(name, lines, content) for name in node.inputs)
    if first is None or second is None:
        return None
    (a, b), (c, d) = first, second
    if node.op in ("Add", "Sub"):
        sign = 1 if node.op == "Add" else -1
        return a + sign * c, b + sign * d
    if node.op == "Mul" and 0 in (a, c):
        return a * d + b * c, b * d
    return (a / d, b / d) if node.op == "Div" and c == 0 and d != 0 else None


def _known(name: str, lines: Mapping[str, Line], content: Content) -> Line | None:
    if name in content.constants:
        return _mean(content.constants[name])
    return lines.get(name)


def _mean(value: Any) -> Line:
    return 0.0, float(torch.as_tensor(value, dtype=torch.float32).mean())


def _off(line: Line, scale: str) -> float:
    """How far from [-1, 1] pictures in that range come out: first of all they are to lie around 0."""
    factor, addend = SCALES[scale]
    low, high = (line[0] * end + line[1] for end in (addend, factor + addend))
    half, middle = abs(high - low) / 2, abs(high + low) / 2
    return abs(math.log(half)) + 4 * middle / half if 0 < half < math.inf else math.inf
