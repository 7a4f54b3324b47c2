"""onnxruntime beside the executor: faster where no gradient is wanted, and alone for graphs that the executor cannot run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from identiface_core.errors import WeightsError
from identiface_core.matchers.onnx_file import Content, onnx_package
from identiface_core.matchers.onnx_graph import run_node, walk
from identiface_core.matchers.onnx_node import OPERATORS, TYPES, Node, bounded
from identiface_core.weights.files import unreadable
from identiface_core.weights.layout import AGAIN

_FED = {1: "float32", 2: "uint8", 6: "int32", 7: "int64", 10: "float16", 11: "float64"}
"""numpy's types by ONNX's numbers."""
_NUMBERS = {TYPES[number]: number for number in (1, 2, 3, 6, 7, 9)}


class Runtime:
    """A graph run by onnxruntime on the CPU. The session is opened when it is first asked, and once more by a copy."""

    def __init__(self, path: Path, digest: str, content: Content) -> None:
        self.path, self.digest = path, digest
        self.input, self.kind = content.input, content.kind
        self.session: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "session": None}

    def __call__(self, given: Tensor) -> tuple[Tensor, ...]:
        """All outputs for crops (B, 3, S, S). WeightsError where onnxruntime is missing, or cannot load or run the graph."""
        values = given.detach().cpu().contiguous().numpy().astype(_FED[self.kind])
        try:
            self.session = self.session or self._opened()
            return tuple(torch.from_numpy(one) for one in self.session.run(None, {self.input: values}))
        except WeightsError:
            raise
        except Exception as error:  # onnxruntime raises many kinds of errors, without a common base
            reason = str(error).strip().split("\n")[0][:200]
            raise WeightsError(
                f"{self.path}: onnxruntime cannot run this graph ({reason}). {AGAIN}"
            ) from error

    def data(self) -> bytes:
        """The bytes of the file, if they are still those that were checked."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise unreadable(self.path, error) from error
        if hashlib.sha256(data).hexdigest() != self.digest:
            raise WeightsError(f"{self.path} has changed since it was loaded: load it again.")
        return data

    def _opened(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        # From the bytes that were checked: without a path it has no folder to look for other files in.
        return onnxruntime.InferenceSession(
            self.data(), sess_options=options, providers=["CPUExecutionProvider"]
        )


def shapes_told(content: Content, example: tuple[int, ...], name: str) -> dict[str, tuple[int, ...]]:
    """Shape of all that a graph makes of an input of the shape `example`: nodes that the executor cannot run, onnx tells of.

    onnxruntime takes memory unasked: WeightsError where a shape is not told, is more than any matcher needs, or where a node
    holds what we have not read, such as a graph of its own.
    """
    onnx = onnx_package(name)
    unread = next((node for node in content.nodes if None in node.settings.values()), None)
    if unread is not None:
        raise WeightsError(
            f"{name}: node '{unread.name}' ({unread.op}) holds what is not read, such as a graph of its own. {AGAIN}"
        )

    def attribute(key: str, value: Any) -> Any:
        return onnx.helper.make_attribute(
            key, onnx.numpy_helper.from_array(value.numpy()) if isinstance(value, Tensor) else value
        )

    def step(node: Node, known: dict[str, Tensor], name: str) -> None:
        if node.op in OPERATORS:
            try:
                return run_node(node, known, name)
            except WeightsError:
                pass  # a setting that the executor lacks
        given = {one: known[one] for one in node.inputs if one}
        types = {
            one: onnx.helper.make_tensor_type_proto(_NUMBERS[value.dtype], value.shape)
            for one, value in given.items()
        }
        values = {
            one: onnx.numpy_helper.from_array(value.numpy(), one)
            for one, value in given.items()
            if not value.is_meta and value.numel() <= 64
        }
        try:
            schema = onnx.defs.get_schema(node.op, node.opset)
            proto = onnx.helper.make_node(node.op, node.inputs, node.outputs)
            proto.attribute.extend(attribute(key, value) for key, value in node.settings.items())
            told = onnx.shape_inference.infer_node_outputs(schema, proto, types, values)
            for one in filter(None, node.outputs):
                sides = told[one].tensor_type.shape.dim
                if not told[one].tensor_type.HasField("shape") or not all(
                    s.HasField("dim_value") for s in sides
                ):
                    raise ValueError(f"nothing tells how large '{one}' is")
                shape, kind = [side.dim_value for side in sides], TYPES[told[one].tensor_type.elem_type]
                known[one] = torch.empty(bounded(shape), dtype=kind, device="meta")
        except Exception as error:  # onnx's own errors have no base that we could import without it
            reason = str(error).strip().split("\n")[0][:200]
            raise WeightsError(f"{name}: node '{node.name}' ({node.op}): {reason}. {AGAIN}") from error
        return None

    return walk(content, example, name, step)
