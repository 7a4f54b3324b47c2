"""ONNX graphs run by torch, with gradients: checked before they run, executed node by node.

onnxruntime has no gradients, and converters lag behind exporters; face networks need few operators. The whole graph is walked
once on tensors without storage, so that a bad one fails when it is loaded. What cannot run here, `onnx_runtime` may.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

import identiface_core.matchers.onnx_arithmetic
import identiface_core.matchers.onnx_layers  # noqa: F401  both fill the table of operators
from identiface_core.errors import WeightsError
from identiface_core.matchers.onnx_file import Content
from identiface_core.matchers.onnx_node import MAX_VALUES, OPERATORS, Node
from identiface_core.weights.layout import AGAIN


class OnnxGraph(nn.Module):
    """A graph with one input, as a module: `forward(x)` gives its outputs; weights are frozen.

    Raises WeightsError, naming the node, for an operator that is not known, and for a graph that cannot work on `example`, a
    shape such as (1, 3, 112, 112).
    """

    def __init__(self, content: Content, example: tuple[int, ...], name: str = "the graph") -> None:
        super().__init__()
        self.content, self.name = content, name
        for node in content.nodes:
            if node.op not in OPERATORS:
                raise WeightsError(
                    f"{name}: node '{node.name}' is the operator {node.op}, which is not known here. Export the network again "
                    "without it, or get a graph in single precision that is not quantised."
                )
        self._places: dict[str, str] = {}
        self._fixed: dict[str, Tensor] = {}
        for index, (key, value) in enumerate(content.constants.items()):
            # Whole numbers are shapes and places: they stay where Python reads them.
            if value.is_floating_point():
                self._places[key] = f"w{index}"
                self.register_buffer(f"w{index}", value)
            else:
                self._fixed[key] = value
        self._last = _last_uses(content)
        self.shapes = walk(content, example, name)
        """Shape of every tensor that is made from the example."""
        # The weights are buffers now, which move to devices: a second set would stay behind.
        self.content = replace(content, constants={})

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """All outputs for pictures (B, ...)."""
        return self._run(x, self.content.outputs)

    def up_to(self, x: Tensor, name: str) -> Tensor:
        """The tensor called `name` for pictures (B, ...)."""
        return self._run(x, (name,))[0]

    def _run(self, x: Tensor, wanted: tuple[str, ...]) -> tuple[Tensor, ...]:
        buffers = dict(self.named_buffers())
        known = {**self._fixed, **{key: buffers[place] for key, place in self._places.items()}}
        known[self.content.input] = x.to(torch.float32)
        for index, node in enumerate(self.content.nodes):
            run_node(node, known, self.name)
            if all(name in known for name in wanted):
                break
            for name in self._last[index]:
                if name not in wanted:
                    known.pop(name, None)  # outputs that we leave out, as a mask of Dropout's, never came
        return tuple(known[name] for name in wanted)


def run_node(node: Node, known: dict[str, Tensor], name: str) -> None:
    """Run one node on what is known, by the names of tensors, and enter what it makes. name: what a sentence calls the graph.

    Raises WeightsError, naming the node, where it cannot be run.
    """
    given = [known[one] if one else None for one in node.inputs]
    device = next((t.device for t in given if t is not None and t.device.type != "cpu"), None)
    if device is not None:
        # Shapes are reckoned on the CPU; what they are reckoned into meets the picture wherever that is.
        given = [t if t is None or not t.is_floating_point() else t.to(device) for t in given]
    try:
        made = OPERATORS[node.op](node, *given)
    except WeightsError:
        raise
    except Exception as error:  # torch raises many kinds for shapes that do not fit
        reason = str(error).strip().split("\n")[0][:200]
        raise WeightsError(
            f"{name}: node '{node.name}' ({node.op}) cannot be run ({reason}). {AGAIN}"
        ) from error
    outputs = made if isinstance(made, tuple) else (made,)
    if len(outputs) < sum(bool(one) for one in node.outputs) and node.op != "Dropout":
        raise WeightsError(
            f"{name}: node '{node.name}' ({node.op}) has outputs that are not known here. Export the network again."
        )
    known |= {one: value for one, value in zip(node.outputs, outputs, strict=False) if one}


def walk(
    content: Content,
    example: tuple[int, ...],
    name: str,
    step: Callable[[Node, dict[str, Tensor], str], None] = run_node,
) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that a graph makes of an input of the shape `example`.

    Every node takes its `step`, but on tensors without storage: nothing is computed. Raises WeightsError, naming the node, where
    that fails, or makes more than any matcher needs.
    """
    last = _last_uses(content)
    known = {
        key: value.to("meta") if value.is_floating_point() else value
        for key, value in content.constants.items()
    }
    known[content.input] = torch.empty(example, device="meta")
    shapes = {}
    for index, node in enumerate(content.nodes):
        step(node, known, name)
        for made in filter(None, node.outputs):
            if made in known:
                shapes[made] = tuple(known[made].shape)
                if math.prod(shapes[made]) > MAX_VALUES * max(1, example[0]):
                    raise WeightsError(
                        f"{name}: node '{node.name}' ({node.op}) makes a tensor of shape {shapes[made]}, more than any matcher "
                        f"needs. {AGAIN}"
                    )
        for made in last[index]:
            known.pop(made, None)
    missing = [one for one in content.outputs if one not in shapes]
    if missing:
        raise WeightsError(f"{name}: nothing makes its output '{missing[0]}'. {AGAIN}")
    return shapes


def _last_uses(content: Content) -> list[tuple[str, ...]]:
    """For each node the made tensors that nobody needs after it."""
    last = {name: index for index, node in enumerate(content.nodes) for name in node.outputs if name}
    made = set(last)
    last |= {name: i for i, node in enumerate(content.nodes) for name in node.inputs if name in made}
    for name in content.outputs:
        last.pop(name, None)
    free: list[list[str]] = [[] for _ in content.nodes]
    for name, index in last.items():
        free[index].append(name)
    return [tuple(names) for names in free]
