"""ONNX files read safely: one file, sizes checked before memory is taken, every node after what it uses.

A file comes from a stranger. Nothing outside of it is opened, and nothing in it is run here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from identiface_core.errors import WeightsError
from identiface_core.matchers.onnx_node import MAX_VALUES, TYPES, Node
from identiface_core.weights.files import unreadable
from identiface_core.weights.layout import AGAIN

MAX_BYTES = 2**30
"""Bytes of the largest file that is read; matchers have at most a third of that."""
MAX_NODES = 20_000
OPSETS = range(7, 24)
"""Versions of the standard whose operators mean what ours do; tested are 11 to 20."""

_WIDTHS = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8}
"""Bytes of a value by ONNX's number of its type."""
_STORED = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8"}
_TYPED = {
    1: "float_data",
    2: "int32_data",
    3: "int32_data",
    6: "int32_data",
    7: "int64_data",
    9: "int32_data",
}
_TYPED |= {10: "int32_data", 11: "double_data"}
_WHOLE, _FRACTIONS = (2, 6, 7), (1, 10, 11)
"""Types of inputs that hold a picture: of 0 to 255, and of any range."""


@dataclass(frozen=True)
class Content:
    """What an ONNX file holds, checked."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    """The weights by name."""
    input: str
    shape: tuple[int | None, ...]
    """Of the input; None for a side of any length."""
    outputs: tuple[str, ...]
    kind: int
    """ONNX's number of the input's type."""

    @property
    def whole(self) -> bool:
        """Whether the input is of whole numbers: pixels of 0 to 255."""
        return self.kind in _WHOLE


def read_onnx(path: str | Path) -> Content:
    """What is in the ONNX file at `path`, and in no other. WeightsError for one that is missing, damaged or not to be trusted.

    Refused: weights in other files, functions and sparse weights, sizes that do not fit the bytes, nodes that use what is made
    later (or in a circle), more than one input, inputs that hold no picture, versions of the standard that are not known.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise WeightsError(
                f"{path}: {size:,} bytes, at most {MAX_BYTES:,} are read as a matcher. Choose another file."
            )
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    return parse_onnx(data, str(path))


def parse_onnx(data: bytes, name: str) -> Content:
    """As `read_onnx`, from bytes. name: what a sentence calls them."""
    onnx = onnx_package(name)
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's own errors have no base that we could import without it
        raise WeightsError(f"{name}: no ONNX graph, or a damaged one ({error}). {AGAIN}") from error
    if not model.HasField("graph") or not model.graph.node:
        raise WeightsError(f"{name}: no graph is in this ONNX file. {AGAIN}")
    if not all(isinstance(one, str) for one in _names(model)):  # protobuf gives bytes where it cannot decode
        raise WeightsError(f"{name}: a name in this graph is no text (UTF-8). {AGAIN}")
    graph, opset = model.graph, _opset(model, name)
    if len(graph.node) > MAX_NODES or len(model.functions) or len(graph.sparse_initializer):
        raise WeightsError(
            f"{name}: {len(graph.node):,} nodes, {len(model.functions)} functions and {len(graph.sparse_initializer)} sparse "
            f"weights: at most {MAX_NODES:,} plain nodes are read. Choose another file."
        )
    constants = {one.name: tensor_of(one, name) for one in graph.initializer}
    inputs = [one for one in graph.input if one.name not in constants]
    if len(inputs) != 1:
        raise WeightsError(f"{name}: one input is wanted, this graph has {len(inputs)}. Choose another file.")
    nodes = tuple(_node(one, index, opset, name) for index, one in enumerate(graph.node))
    outputs = tuple(one.name for one in graph.output)
    _check_order(nodes, {inputs[0].name, *constants}, outputs, name)
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in (*_WHOLE, *_FRACTIONS):
        known = onnx.TensorProto.DataType.items()
        told = next((key for key, number in known if number == kind.elem_type), f"number {kind.elem_type}")
        raise WeightsError(
            f"{name}: its input '{inputs[0].name}' is of the type {told}; pictures are floats, or bytes (UINT8, INT32, INT64). "
            "Choose another file, or export it for floats."
        )
    sides = tuple(d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim)
    return Content(nodes, constants, inputs[0].name, sides, outputs, kind.elem_type)


def tensor_of(proto: Any, name: str) -> Tensor:
    """A weight of the graph; floats in single precision. WeightsError unless its bytes are all here and fit its shape."""
    what, shape, kind = f"{name}: tensor '{proto.name}'", list(proto.dims), proto.data_type
    if proto.data_location == 1 or len(proto.external_data):
        raise WeightsError(
            f"{what} lies in another file, which is not opened. Get the graph as one file, with its weights inside."
        )
    if kind not in _WIDTHS:
        raise WeightsError(
            f"{what} is of a type that is not read (ONNX's number {kind}). Get it in single precision."
        )
    count = math.prod(shape)
    if any(side < 0 for side in shape) or count > MAX_VALUES:
        raise WeightsError(f"{what} has the shape {tuple(shape)}, more than any matcher needs. {AGAIN}")
    if proto.HasField("raw_data"):
        have = len(proto.raw_data) // _WIDTHS[kind]
        values = np.frombuffer(proto.raw_data, _STORED[kind], have)
    else:
        typed = getattr(proto, _TYPED[kind])
        have = len(typed)
        values = (
            np.array(typed, dtype=np.int32).astype(np.uint16).view(np.float16)
            if kind == 10
            else np.array(typed)
        )
    if have != count:
        raise WeightsError(
            f"{what} of shape {tuple(shape)} has {have:,} values, wanted {count:,}: truncated. {AGAIN}"
        )
    found = torch.from_numpy(values.copy().reshape(shape)).to(TYPES[kind])
    if found.is_floating_point() and not bool(torch.isfinite(found).all()) and count > 1:
        raise WeightsError(f"{what} holds values that are not finite. {AGAIN}")
    return found


def onnx_package(name: str) -> Any:
    """The package onnx. WeightsError, naming what needs it, where it is missing or cannot be imported."""
    try:
        import onnx
    except ImportError as error:
        raise WeightsError(
            f"{name}: reading an ONNX graph needs the package onnx, which is not installed ({error}): `pip install onnx`"
        ) from error
    except Exception as error:  # a build against other libraries raises anything
        raise WeightsError(
            f"{name}: the package onnx is installed but broken ({error}): `pip install --force-reinstall onnx`"
        ) from error
    return onnx


def _names(model: Any) -> Iterator[Any]:
    """All names of the graph that are used."""
    yield from (one.domain for one in model.opset_import)
    for one in (*model.graph.initializer, *model.graph.input, *model.graph.output):
        yield one.name
    for node in model.graph.node:
        yield from (node.op_type, node.name, node.domain, *node.input, *node.output)
        yield from (one.name for one in node.attribute)


def _opset(model: Any, name: str) -> int:
    domains = {one.domain or "ai.onnx": one.version for one in model.opset_import}
    opset = int(domains.get("ai.onnx", 0))
    foreign = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    if foreign:
        raise WeightsError(
            f"{name}: it uses operators of '{foreign[0]}', which are not known here. Export it without them."
        )
    if opset not in OPSETS:
        raise WeightsError(
            f"{name}: version {opset} of ONNX's operators; {OPSETS[0]} to {OPSETS[-1]} are known. Export it for one of these."
        )
    return opset


def _node(proto: Any, index: int, opset: int, name: str) -> Node:
    settings = {one.name: _setting(one, name) for one in proto.attribute}
    label = proto.name or f"{proto.op_type}_{index}"
    return Node(proto.op_type, label, tuple(proto.input), tuple(proto.output), settings, opset)


def _setting(proto: Any, name: str) -> Any:
    """FLOAT 1, INT 2, STRING 3, TENSOR 4, FLOATS 6, INTS 7, STRINGS 8; graphs (5) and what is rarer stay unread."""
    if proto.type in (1, 2):
        return proto.f if proto.type == 1 else proto.i
    if proto.type == 3:
        return proto.s.decode("utf-8", "replace")
    if proto.type == 4:
        return tensor_of(proto.t, name)
    if proto.type in (6, 7):
        return list(proto.floats if proto.type == 6 else proto.ints)
    return None


def _check_order(nodes: Iterable[Node], known: set[str], outputs: tuple[str, ...], name: str) -> None:
    """Raise WeightsError unless each node uses only what is there before it, and makes what nobody made."""
    for node in nodes:
        early = [one for one in node.inputs if one and one not in known]
        if early:
            raise WeightsError(
                f"{name}: node '{node.name}' ({node.op}) uses '{early[0]}' before it is made: the graph runs in a circle or is "
                f"damaged. {AGAIN}"
            )
        again = [one for one in node.outputs if one and one in known]
        if again:
            raise WeightsError(
                f"{name}: node '{node.name}' ({node.op}) makes '{again[0]}' once more. {AGAIN}"
            )
        known |= {one for one in node.outputs if one}
    if not outputs or not known.issuperset(outputs):
        raise WeightsError(f"{name}: nothing makes its outputs {list(outputs)[:3]}. {AGAIN}")
