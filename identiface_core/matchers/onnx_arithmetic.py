"""Operators of ONNX: arithmetic, shapes, constants. See `onnx_node`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.matchers.onnx_node import TYPES, Node, axes_of, bounded, integers, operator, spread

# Arithmetic

_BINARY: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Pow": lambda a, b: torch.pow(a, b).to(a.dtype),
    "Equal": torch.eq,
    "Less": torch.lt,
    "Greater": torch.gt,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "MatMul": torch.matmul,
}


@operator(*_BINARY)
def binary(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return _BINARY[node.op](a, b)


@operator("Div")
def divide(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@operator("Mod")
def modulo(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if node.settings.get("fmod", 0) else torch.remainder(a, b)


@operator("Min", "Max", "Sum", "Mean")
def variadic(node: Node, first: Tensor, *others: Tensor) -> Tensor:
    run = {"Min": torch.minimum, "Max": torch.maximum}.get(node.op, torch.add)
    for one in others:
        first = run(first, one)
    return first / (1 + len(others)) if node.op == "Mean" else first


@operator("Gemm")
def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.mT if node.settings.get("transA", 0) else a
    b = b.mT if node.settings.get("transB", 0) else b
    found = node.settings.get("alpha", 1.0) * (a @ b)
    return found if c is None else found + node.settings.get("beta", 1.0) * c


@operator("Where")
def where(node: Node, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition.to(a.device), a, b)


_REDUCTIONS: Mapping[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keepdim=keep),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
    "ReduceProd": lambda x, axes, keep: x.flatten().prod().reshape([1] * x.ndim if keep else []),
}


@operator(*_REDUCTIONS)
def reduce(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    over = axes_of(node, axes)
    if not over:
        if node.settings.get("noop_with_empty_axes", 0):
            return x
        over = list(range(x.ndim))
    if node.op == "ReduceProd" and len(over) != x.ndim:
        raise ValueError("a product over some of the sides")
    return _REDUCTIONS[node.op](x, over, bool(node.settings.get("keepdims", 1)))


@operator("CumSum")
def cumulative_sum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    if node.settings.get("exclusive", 0) or node.settings.get("reverse", 0):
        raise ValueError("an exclusive or reverse sum")
    return x.cumsum(integers(axis)[0])


# Shapes


@operator("Identity", "Dropout")
def identity(node: Node, x: Tensor, *_: Tensor | None) -> Tensor:
    return x


@operator("Flatten")
def flatten(node: Node, x: Tensor) -> Tensor:
    axis = int(node.settings.get("axis", 1))
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), -1)


@operator("Reshape")
def reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    wanted = integers(shape)
    if not node.settings.get("allowzero", 0):
        wanted = [x.shape[i] if side == 0 else side for i, side in enumerate(wanted)]
    return x.reshape(wanted)


@operator("Transpose")
def transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(integers(node.settings.get("perm", range(x.ndim)[::-1])))


@operator("Concat")
def concat(node: Node, *parts: Tensor) -> Tensor:
    return torch.cat(parts, int(node.settings["axis"]))


@operator("Split")
def split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = int(node.settings.get("axis", 0))
    given = node.settings.get("split") if sizes is None else sizes
    if given is not None:
        return x.split(integers(given), axis)
    return x.split(math.ceil(x.shape[axis] / len(node.outputs)), axis)


@operator("Slice")
def slice_(node: Node, x: Tensor, *given: Tensor | None) -> Tensor:
    starts, ends, axes, steps = (
        integers(node.settings[name]) if not given and name in node.settings else _optional(given, place)
        for place, name in enumerate(("starts", "ends", "axes", "steps"))
    )
    assert starts is not None and ends is not None
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis, step = (i if axes is None else axes[i]) % x.ndim, 1 if steps is None else steps[i]
        places = range(x.shape[axis])[start:end:step]
        if step > 0:
            x = x[(slice(None),) * axis + (slice(places.start, places.stop, step),)]
        else:
            x = x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))
    return x


def _optional(given: Sequence[Tensor | None], place: int) -> list[int] | None:
    found = given[place] if place < len(given) else None
    return None if found is None else integers(found)


@operator("Shape")
def shape_of(node: Node, x: Tensor) -> Tensor:
    sides = x.shape[node.settings.get("start", 0) : node.settings.get("end", x.ndim)]
    return torch.tensor(sides, dtype=torch.int64)


@operator("Size")
def size_of(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.numel())


@operator("Gather")
def gather(node: Node, x: Tensor, places: Tensor) -> Tensor:
    axis = int(node.settings.get("axis", 0)) % max(x.ndim, 1)
    index = places.to(x.device).long().flatten() % x.shape[axis]
    return x.index_select(axis, index).reshape(x.shape[:axis] + places.shape + x.shape[axis + 1 :])


@operator("Unsqueeze")
def unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    over = axes_of(node, axes)
    rank = x.ndim + len(over)
    for axis in sorted(one % rank for one in over):
        x = x.unsqueeze(axis)
    return x


@operator("Squeeze")
def squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    over = axes_of(node, axes)
    return x.squeeze(tuple(over)) if over else x.squeeze()


@operator("Expand")
def expand(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(bounded(torch.broadcast_shapes(x.shape, integers(shape))))


@operator("Tile")
def tile(node: Node, x: Tensor, repeats: Tensor) -> Tensor:
    times = integers(repeats)
    bounded([side * n for side, n in zip(x.shape, times, strict=True)])
    return x.repeat(times)


@operator("Pad")
def pad(node: Node, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, *_: Tensor) -> Tensor:
    sides = integers(node.settings["pads"] if pads is None else pads)
    if len(sides) != 2 * x.ndim:
        raise ValueError("padding of some of the sides")
    bounded([n + a + b for n, a, b in zip(x.shape, sides, sides[x.ndim :], strict=False)])
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[
        node.settings.get("mode", "constant")
    ]
    around = spread(sides)
    if mode != "constant":
        while len(around) > 2 and around[-2:] == [0, 0]:
            around = around[:-2]
        return F.pad(x, around, mode=mode)
    filled = node.settings.get("value", 0.0) if value is None or value.is_meta else float(value)
    return F.pad(x, around, value=filled)


# Constants and types


@operator("Constant")
def constant(node: Node) -> Tensor:
    for name, kind in (
        ("value_float", torch.float32),
        ("value_floats", torch.float32),
        ("value_int", torch.int64),
        ("value_ints", torch.int64),
    ):
        if name in node.settings:
            return torch.tensor(node.settings[name], dtype=kind)
    found = node.settings["value"]
    if not isinstance(found, Tensor):
        raise ValueError("a constant that is no tensor")
    return found


@operator("ConstantOfShape")
def constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    value = node.settings.get("value", torch.zeros(1))
    return value.reshape(()).expand(bounded(integers(shape)))


@operator("Range")
def range_(node: Node, start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    first, last, by = start.item(), end.item(), step.item()
    bounded([max(math.ceil((last - first) / by), 0)])
    return torch.arange(first, last, by, dtype=start.dtype)


@operator("Cast", "CastLike")
def cast(node: Node, x: Tensor, like: Tensor | None = None) -> Tensor:
    return x.to(TYPES[int(node.settings["to"])] if like is None else like.dtype)
