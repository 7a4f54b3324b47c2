"""Any ArcFace-type matcher in an ONNX file: InsightFace's packs, AuraFace, OpenCV's SFace, AdaFace and EdgeFace exported.

With a gradient the graph runs in torch (`OnnxGraph`); where none is wanted and the graph lies on the CPU, in onnxruntime if that
is installed, which is faster. A graph that our executor cannot run is onnxruntime's alone, without gradients.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from identiface_core.errors import InputError, WeightsError
from identiface_core.matchers.aligned import ASK, AlignedMatcher
from identiface_core.matchers.base import Colour
from identiface_core.matchers.onnx_file import Content, read_onnx
from identiface_core.matchers.onnx_graph import OnnxGraph
from identiface_core.matchers.onnx_input import SCALES, scale_of, side_of
from identiface_core.matchers.onnx_node import Node
from identiface_core.matchers.onnx_runtime import Runtime, shapes_told
from identiface_core.weights.families import matcher_colour
from identiface_core.weights.files import sha256_of
from identiface_core.weights.onnx_families import face_matcher
from identiface_core.weights.onnx_graph import Graph, Port

CLASSES = 1000
"""Values that a classifier of ImageNet gives, and no known matcher."""
MAX_BATCH = 256
"""Pictures at a time that a graph may insist on: the last ones are made up to as many."""
_PLACED = ("Conv", "BatchNormalization", "PRelu", "Relu", "Add", "MaxPool", "AveragePool")
"""Operators whose outputs, if they have four sides, are maps; those of attention have four sides as well."""


class OnnxMatcher(AlignedMatcher):
    """An ONNX graph (N, 3, S, S) -> (N, D) as a matcher; a second output (N, 1), as AdaFace's, is the length.

    colour: order of channels that it reads; None: known for what is known, else RGB, as InsightFace. scale: one of `SCALES`;
    None: as `scale_of` tells. A graph of whole numbers is given whole numbers; gradients pass their rounding.
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
        """Raises WeightsError for a file that is no such graph, that is damaged, or that is not to be trusted; InputError for
        a scale that is not known, or none for whole numbers.

        runtime: use onnxruntime where no gradient is wanted, and alone where the executor cannot run the graph.
        """
        self.path = Path(path)
        content = read_onnx(self.path)
        _check_scale(scale, content, str(path))
        side = side_of(content, str(path))
        self._batch = _batch_of(content, str(path))
        example = (self._batch or 1, 3, side, side)
        digest = sha256_of(self.path)
        self._runtime: Runtime | None = None
        if runtime and content.kind not in (10, 11):  # half and double precision are single here
            self._runtime = Runtime(self.path, digest, content)
        self.remarks: tuple[str, ...] = ()
        """What there is to know of this file, in sentences."""
        self.graph: OnnxGraph | None = None
        try:
            self.graph = OnnxGraph(content, example, str(path))
            shapes = self.graph.shapes
        except WeightsError as refused:
            if not runtime:
                raise
            self._runtime = Runtime(self.path, digest, content)
            shapes = _alone(self._runtime, content, example, refused)
            reason = str(refused).removeprefix(f"{path}: ").split(". ")[0]
            self.remarks += (f"onnxruntime runs it alone, without gradients: {reason}",)
        self.differentiable = self.graph is not None
        dimension = _dimension_of(content, shapes, example[0], str(path))
        outputs = tuple(Port(one, shapes[one]) for one in content.outputs)
        if face_matcher(Graph((Port(content.input, content.shape),), outputs)) is None:
            self.remarks += ("not known as a face matcher: a graph that makes vectors of pictures",)
        usual = (matcher_colour(content.constants), scale_of(content))
        read, self.scale = colour or usual[0], scale or usual[1]
        # What is read differently gives other vectors: it must not pass for the same matcher.
        told = "".join(f"-{one}" for one in (read, self.scale) if one not in usual)
        super().__init__(
            self.graph or nn.Identity(),
            name=name or f"onnx-{dimension}-{digest[:8]}{told}",
            dimension=dimension,
            fingerprint=digest if not told else hashlib.sha256((digest + told).encode()).hexdigest(),
            side=side,
            colour=read,
            licence=licence,
            typical=typical_of(content),
        )
        self._whole = content.whole
        self._map = None if self.graph is None else last_map(self.graph, side)

    def prepared(self, crops: Tensor) -> Tensor:
        """Crops in the range that the graph wants."""
        factor, addend = SCALES[self.scale]
        values = crops * factor + addend
        if not self._whole:
            return values
        # Whole to the last bit, with the gradient of what they were.
        return values + (values.round().clamp(0, 255) - values).detach()

    def features(self, pictures: Tensor, points: Tensor | None = None) -> Tensor | None:
        """(B, C, h, h): the last map of the graph, h places a side of the crop; None if it keeps none."""
        graph, name = self.graph, self._map
        if graph is None or name is None:
            return None
        given = self._input(pictures, points)
        maps = torch.cat([graph.up_to(part, name) for part in self._parts(given)])
        return maps[: len(given)].to(pictures.device)

    def _vectors(self, given: Tensor) -> Tensor:
        made = [self._run(part) for part in self._parts(given)]
        vectors = torch.cat([one[0] for one in made])[: len(given)]
        if len(made[0]) > 1:
            vectors = vectors * torch.cat([one[1] for one in made])[: len(given)]
        lengths = vectors.detach().float().norm(dim=1)
        bad = (~((lengths > 0) & lengths.isfinite())).nonzero().flatten().tolist()
        if bad:
            raise WeightsError(
                f"{self.path}: what it gives for picture {bad[0]} is zero or not finite, no embedding. If that picture is sound, "
                "the file is not: choose another one."
            )
        return vectors

    def _run(self, given: Tensor) -> tuple[Tensor, ...]:
        wanted = torch.is_grad_enabled() and given.requires_grad
        if self.graph is None:
            if wanted:
                raise InputError(
                    f"no gradient goes through matcher '{self.name}', which onnxruntime runs: use a matcher of safetensors, or "
                    "guide by search"
                )
            assert self._runtime is not None
            return self._runtime(given)
        if self._runtime is not None and not wanted and given.device.type == "cpu":
            try:
                return self._runtime(given)
            except WeightsError:
                # Missing, broken, or it refuses this graph: torch gives the same, slower.
                self._runtime = None
        return self.graph(given)

    def _parts(self, given: Tensor) -> tuple[Tensor, ...]:
        """A graph that was exported for so many pictures is given so many at a time, the last one again where some lack."""
        if self._batch is None:
            return (given,)
        lacking = -len(given) % self._batch
        return torch.cat((given, given[-1:].expand(lacking, -1, -1, -1))).split(self._batch)


def typical_of(content: Content) -> float | None:
    """Length of an average training face's embedding, if the graph ends in a batch normalisation that was not folded away."""
    made = {name: node for node in content.nodes for name in node.outputs}
    node: Node | None = made.get(content.outputs[0])
    while node is not None and node.op in ("Identity", "Flatten", "Reshape", "Squeeze") and node.inputs:
        node = made.get(node.inputs[0])
    if node is None or node.op != "BatchNormalization" or len(node.inputs) < 3:
        return None
    scale, bias = (content.constants.get(name) for name in node.inputs[1:3])
    if scale is None or bias is None or scale.shape != bias.shape:
        return None
    return float((scale.square() + bias.square()).sum().sqrt())


def last_map(graph: OnnxGraph, side: int) -> str | None:
    """Name of the last map (B, C, h, h), h > 1, whose places lie evenly over crops of `side` px; None if it has none so late."""
    nodes = graph.content.nodes
    # Maps of the first layers are of pixels, not of what is seen: the only ones where attention goes on without.
    for node in reversed(nodes[(len(nodes) - 1) // 2 :]):
        for name in node.outputs[:1] if node.op in _PLACED else ():
            shape = graph.shapes.get(name, ())
            if len(shape) == 4 and shape[2] == shape[3] > 1 and side % shape[2] == 0:
                return name
    return None


def _check_scale(scale: str | None, content: Content, name: str) -> None:
    known = ("bytes",) if content.whole else tuple(SCALES)
    if scale is not None and scale not in known:
        raise InputError(
            f"{name}: its values can be {' or '.join(known)}, not {scale!r}: choose one, or automatic"
        )


def _batch_of(content: Content, name: str) -> int | None:
    """Pictures at a time that the graph insists on; None for any number."""
    batch = content.shape[0]
    if batch is not None and batch > MAX_BATCH:
        raise WeightsError(
            f"{name}: the graph takes {batch:,} pictures at a time, at most {MAX_BATCH} are made up. Export it for any number."
        )
    return batch


def _alone(
    runtime: Runtime, content: Content, example: tuple[int, ...], refused: WeightsError
) -> dict[str, tuple[int, ...]]:
    """The shapes of a graph that only onnxruntime can run; `refused`, why the executor cannot, if it cannot either."""
    try:
        shapes = shapes_told(content, example, str(runtime.path))
        runtime(torch.zeros(example))
    except WeightsError as error:
        if isinstance(error.__cause__, ImportError):
            raise WeightsError(
                f"{refused} Or install onnxruntime, which may run it, without gradients: `pip install onnxruntime`"
            ) from error
        raise refused from error
    return shapes


def _dimension_of(content: Content, known: dict[str, tuple[int, ...]], batch: int, name: str) -> int:
    shapes = [known[one] for one in content.outputs]
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
    if dimension == CLASSES:
        raise WeightsError(
            f"{name}: it gives {CLASSES} values a picture, as a classifier of ImageNet: it sorts pictures and compares no faces. "
            "Choose another file."
        )
    return dimension
