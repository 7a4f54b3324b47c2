"""One operation of an ONNX graph, and the table of those that we can run.

`onnx_layers` and `onnx_arithmetic` fill the table. A function takes the node and its inputs (None for one left out) and gives
its output, or a tuple of them. What differs between versions of the standard (7 to 23) is told by whether a setting comes as an
attribute or as an input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MAX_VALUES = 2**27
"""Values of the largest tensor that a graph may make for one face: half a gigabyte."""


@dataclass(frozen=True)
class Node:
    """One operation of a graph."""

    op: str
    name: str
    inputs: tuple[str, ...]
    """Names of tensors; empty for an optional one that is left out."""
    outputs: tuple[str, ...]
    settings: Mapping[str, Any]
    """ONNX's attributes: numbers, texts, lists of them, tensors."""
    opset: int


Result = Tensor | tuple[Tensor, ...]
Operator = Callable[..., Result]
OPERATORS: dict[str, Operator] = {}


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Enter a function for the operators of these names."""

    def enter(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return enter


def integers(values: Tensor | Sequence[int]) -> list[int]:
    """A list of whole numbers, such as a shape. ValueError for more than a shape has, or for values not known in advance."""
    if not isinstance(values, Tensor):
        return [int(v) for v in values]
    if values.is_meta or values.numel() > 64:
        raise ValueError("a shape depends on the picture, or is none")
    return [int(v) for v in values.flatten().tolist()]


def bounded(shape: Sequence[int]) -> list[int]:
    """`shape`, if a tensor of it may be made; ValueError otherwise."""
    if math.prod(shape) > MAX_VALUES or any(side < 0 for side in shape):
        raise ValueError(f"a tensor of shape {tuple(shape)} is wanted")
    return list(shape)


def axes_of(node: Node, given: Tensor | None) -> list[int]:
    """Sides that an operation is over: an input in newer versions, an attribute in older ones."""
    return integers(node.settings.get("axes", ()) if given is None else given)


def spread(pads: Sequence[int]) -> list[int]:
    """ONNX's padding as `F.pad` wants it: last side first, before and after."""
    half = len(pads) // 2
    return [pads[i + offset] for i in reversed(range(half)) for offset in (0, half)]


TYPES: Mapping[int, torch.dtype] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float32,
    11: torch.float32,
}
"""ONNX's numbers of types. Half and double precision are computed in single, as everything else."""
