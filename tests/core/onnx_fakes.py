"""Small ONNX graphs with the names and shapes of published ones, made for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
OPSET = 13


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Mapping[str, Sequence[Any]],
    weights: Mapping[str, Array],
) -> Path:
    """A checked graph; shapes may hold names for sides of any length."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(s)) for name, s in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(s)) for name, s in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def constant(
    path: Path, outputs: Mapping[str, Array], *, name: str = "input", shape: Sequence[Any] = (1, 3, 640, 640)
) -> Path:
    """Gives the same `outputs` for any picture."""
    nodes = [helper.make_node("Identity", [f"w.{key}"], [key]) for key in outputs]
    weights = {f"w.{key}": value.astype(np.float32) for key, value in outputs.items()}
    return save(path, nodes, {name: shape}, {key: value.shape for key, value in outputs.items()}, weights)


def scrfd_outputs(height: int = 640, width: int = 640, anchors: int = 2) -> dict[str, Array]:
    """Nine outputs of det_10g's shapes that find nothing: scores, boxes, points at strides 8, 16 and 32."""
    found = {}
    for kind, size in (("score", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            rows = anchors * (-(-height // stride)) * (-(-width // stride))
            found[f"{kind}_{stride}"] = np.zeros((rows, size), np.float32)
    return found


def yunet_outputs(side: int = 640) -> dict[str, Array]:
    """Twelve outputs of YuNet's names and shapes that find nothing."""
    sizes = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    return {
        f"{kind}_{stride}": np.zeros((1, (side // stride) ** 2, size), np.float32)
        for kind, size in sizes.items()
        for stride in (8, 16, 32)
    }


def blob_detector(path: Path) -> Path:
    """A SCRFD of any input size that finds white squares: each cell's score is the mean brightness in it."""
    nodes = [helper.make_node("ReduceMean", ["input"], ["grey"], axes=[1], keepdims=1)]
    weights: dict[str, Array] = {
        "column": np.array([-1, 1], np.int64),
        "none": np.zeros(1, np.float32),
        "scale": np.array([128 / 255], np.float32),
        "shift": np.array([0.5], np.float32),
        # from the cell's corner to a box of three cells around it, and five points at its middle
        "sides": np.array([[1, 1, 2, 2]], np.float32),
        "points": np.full((1, 10), 0.5, np.float32),
    }
    for s in (8, 16, 32):
        nodes += [
            helper.make_node("AveragePool", ["grey"], [f"mean{s}"], kernel_shape=[s, s], strides=[s, s]),
            helper.make_node("Reshape", [f"mean{s}", "column"], [f"flat{s}"]),
            helper.make_node("Mul", [f"flat{s}", "scale"], [f"half{s}"]),
            helper.make_node("Add", [f"half{s}", "shift"], [f"score_{s}"]),
            helper.make_node("Mul", [f"flat{s}", "none"], [f"zero{s}"]),
            helper.make_node("Add", [f"zero{s}", "sides"], [f"bbox_{s}"]),
            helper.make_node("Add", [f"zero{s}", "points"], [f"kps_{s}"]),
        ]
    outputs = {
        f"{kind}_{s}": ("n", n) for kind, n in (("score", 1), ("bbox", 4), ("kps", 10)) for s in (8, 16, 32)
    }
    return save(path, nodes, {"input": (1, 3, "h", "w")}, outputs, weights)


def colour_parser(
    path: Path, colours: Array, *, name: str = "input", size: Sequence[Any] = (512, 512)
) -> Path:
    """A parsing network that takes each pixel for the class of the nearest colour: `colours` (classes, 3), normalised."""
    sharp = 200.0
    weights = {
        "weight": (2 * sharp * colours)[:, :, None, None].astype(np.float32),
        "bias": (-sharp * np.square(colours).sum(1)).astype(np.float32),
    }
    nodes = [helper.make_node("Conv", [name, "weight", "bias"], ["output"], kernel_shape=[1, 1])]
    return save(path, nodes, {name: ("batch", 3, *size)}, {"output": ("batch", len(colours), *size)}, weights)


def matcher(path: Path, dimension: int = 64, seed: int = 0) -> Path:
    """ArcFace's input and output around a mean per place and channel and a random projection of these."""
    draw = np.random.default_rng(seed)
    nodes = [
        helper.make_node("AveragePool", ["input"], ["coarse"], kernel_shape=[14, 14], strides=[14, 14]),
        helper.make_node("Flatten", ["coarse"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["embedding"]),
    ]
    weights = {
        "weight": draw.standard_normal((3 * 64, dimension)).astype(np.float32),
        "bias": np.zeros(dimension, np.float32),
    }
    return save(path, nodes, {"input": ("N", 3, 112, 112)}, {"embedding": ("N", dimension)}, weights)
