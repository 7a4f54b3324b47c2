"""Any ArcFace-type matcher in an ONNX file: InsightFace's packs, AuraFace, OpenCV's SFace, AdaFace and EdgeFace exported.

With a gradient the graph runs in torch (`OnnxGraph`); where none is wanted and the graph lies on the CPU, in onnxruntime if that
is installed, which is faster.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from identiface_core.errors import WeightsError
from identiface_core.matchers.aligned import ASK, AlignedMatcher
from identiface_core.matchers.base import Colour
from identiface_core.matchers.onnx_file import Content, read_onnx
from identiface_core.matchers.onnx_graph import OnnxGraph
from identiface_core.matchers.onnx_node import Node
from identiface_core.matchers.template import SIDE, template
from identiface_core.weights.files import sha256_of

SCALES = {"signed": (2.0, -1.0), "unit": (1.0, 0.0), "bytes": (255.0, 0.0)}
"""Ranges that graphs want: [-1, 1], [0, 1], [0, 255], as factor and addend of values in [0, 1]."""
_FIRST = 8
"""Nodes among which InsightFace looks for a normalisation inside the graph."""


class OnnxMatcher(AlignedMatcher):
    """An ONNX graph (N, 3, S, S) -> (N, D) as a matcher; a second output (N, 1), as AdaFace's, is the length.

    colour: order of channels that it reads; None: known for what is known, else RGB, as InsightFace. scale: one of `SCALES`;
    None: by InsightFace's rule, a graph that begins with a subtraction and a multiplication normalises itself.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        colour: Colour | None = None,
        scale: str | None = None,
        licence: str = ASK,
        runtime: bool = True,
    ) -> None:
        """Raises WeightsError for a file that is no such graph, that is damaged, or that is not to be trusted.

        runtime: use onnxruntime where no gradient is wanted.
        """
        self.path = Path(path)
        content = read_onnx(self.path)
        side = _side_of(content, str(path))
        self._batch = content.shape[0]
        graph = OnnxGraph(content, (self._batch or 1, 3, side, side), str(path))
        dimension = _dimension_of(graph, self._batch or 1, str(path))
        digest = sha256_of(self.path)
        usual = (colour_of(content), scale_of(content))
        read, self.scale = colour or usual[0], scale or usual[1]
        # What is read differently gives other vectors: it must not pass for the same matcher.
        told = "".join(f"-{one}" for one in (read, self.scale) if one not in usual)
        super().__init__(
            graph,
            name=name or f"onnx-{dimension}-{digest[:8]}{told}",
            dimension=dimension,
            fingerprint=digest if not told else hashlib.sha256((digest + told).encode()).hexdigest(),
            side=side,
            colour=read,
            licence=licence,
            typical=typical_of(content),
        )
        self.graph = graph
        self._digest = digest
        self._runtime = runtime and content.single
        self._session: Any = None
        self._map = last_map(graph)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: not the session of onnxruntime, which it opens itself."""
        return {**vars(self), "_session": None}

    def prepared(self, crops: Tensor) -> Tensor:
        """Crops in the range that the graph wants."""
        factor, addend = SCALES[self.scale]
        return crops * factor + addend

    def features(self, pictures: Tensor, points: Tensor | None = None) -> Tensor | None:
        """(B, C, h, w): the last map of the graph; None if it keeps none."""
        name = self._map
        if name is None:
            return None
        given = self._input(pictures, points)
        return torch.cat([self.graph.up_to(part, name) for part in self._parts(given)]).to(pictures.device)

    def _vectors(self, given: Tensor) -> Tensor:
        wanted = torch.is_grad_enabled() and given.requires_grad
        run = self._by_runtime if not wanted and given.device.type == "cpu" and self._ready() else self.graph
        made = [run(part) for part in self._parts(given)]
        vectors = torch.cat([one[0] for one in made])
        lengths = torch.cat([one[1] for one in made]) if len(made[0]) > 1 else None
        return vectors if lengths is None else vectors * lengths

    def _parts(self, given: Tensor) -> tuple[Tensor, ...]:
        """A graph that was exported for so many pictures is given so many at a time."""
        if self._batch is None:
            return (given,)
        if len(given) % self._batch:
            raise WeightsError(
                f"{self.path}: the graph takes {self._batch} pictures at a time, not {len(given)}. Export it for any number."
            )
        return given.split(self._batch)

    def _by_runtime(self, given: Tensor) -> tuple[Tensor, ...]:
        found = self._session.run(None, {self.graph.content.input: given.detach().contiguous().numpy()})
        return tuple(torch.from_numpy(one) for one in found)

    def _ready(self) -> bool:
        """Whether onnxruntime can be asked; what it cannot load, torch runs."""
        if self._runtime and self._session is None:
            try:
                import onnxruntime

                options = onnxruntime.SessionOptions()
                options.log_severity_level = 4
                options.intra_op_num_threads = torch.get_num_threads()
                # From the bytes that were checked: without a path it has no folder to look for other files in.
                data = self.path.read_bytes()
                if hashlib.sha256(data).hexdigest() != self._digest:
                    raise OSError(f"{self.path} has changed since it was loaded")
                self._session = onnxruntime.InferenceSession(
                    data, sess_options=options, providers=["CPUExecutionProvider"]
                )
            except (
                Exception
            ):  # not installed, broken, or a graph that it refuses: torch gives the same, slower
                self._runtime = False
        return self._runtime


def scale_of(content: Content) -> str:
    """Which of `SCALES` the graph wants its pictures in.

    InsightFace's rule: if there are a subtraction and a multiplication among its first nodes, it normalises pictures itself
    and takes them as they are; else (x - 127.5) / 127.5. What "as they are" means, the subtracted number tells: at most 1 is of
    values in [0, 1].
    """
    first = content.nodes[:_FIRST]
    subtracted = [node for node in first if node.op == "Sub" or node.name.startswith(("Sub", "_minus"))]
    multiplied = [n for n in first if n.op in ("Mul", "Div") or n.name.startswith(("Mul", "_mul"))]
    if not subtracted or not multiplied:
        return "signed"
    known = dict(content.constants)
    known |= {
        n.outputs[0]: n.settings["value"] for n in first if n.op == "Constant" and "value" in n.settings
    }
    numbers = [float(known[name].float().abs().max()) for name in subtracted[0].inputs if name in known]
    return "unit" if numbers and max(numbers) <= 1 else "bytes"


def colour_of(content: Content) -> Colour:
    """ "bgr" for AdaFace's networks, known by the names of their weights; "rgb" for InsightFace's and all others."""
    return "bgr" if any(".res_layer." in name for name in content.constants) else "rgb"


def typical_of(content: Content) -> float | None:
    """Length of an average training face's embedding, if the graph ends in a batch normalisation that was not folded away."""
    made = {name: node for node in content.nodes for name in node.outputs}
    node: Node | None = made.get(content.outputs[0])
    while node is not None and node.op in ("Identity", "Flatten", "Reshape", "Squeeze"):
        node = made.get(node.inputs[0])
    if node is None or node.op != "BatchNormalization":
        return None
    scale, bias = (content.constants.get(name) for name in node.inputs[1:3])
    return None if scale is None or bias is None else float((scale.square() + bias.square()).sum().sqrt())


def last_map(graph: OnnxGraph) -> str | None:
    """Name of the last tensor (B, C, h, w) whose places are apart."""
    maps = [name for name, shape in graph.shapes.items() if len(shape) == 4 and min(shape[2:]) > 1]
    return maps[-1] if maps else None


def _side_of(content: Content, name: str) -> int:
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


def _dimension_of(graph: OnnxGraph, batch: int, name: str) -> int:
    shapes = [graph.shapes[one] for one in graph.content.outputs]
    shown = ", ".join(map(str, shapes))
    if len(shapes[0]) != 2 or shapes[0][0] != batch or shapes[1:] not in ([], [(batch, 1)]):
        raise WeightsError(
            f"{name}: a matcher gives one vector (N, D) a picture, this graph gives {shown}. Choose another file."
        )
    dimension = math.prod(shapes[0][1:])
    if dimension < 32:
        raise WeightsError(
            f"{name}: it gives {dimension} values a picture, too few for an embedding. Choose another file."
        )
    return dimension
