"""Matchers for tests: public names and shapes, weights drawn by a fixed recipe, tiny networks, small ONNX graphs."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from identiface_core.matchers.edgeface import EdgeFace
from identiface_core.matchers.residual import ResidualFaceNet

DATA = Path(__file__).parent / "data" / "matchers"


def published(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a public network's tensors."""
    return {key: tuple(shape) for key, shape in json.loads((DATA / f"{name}.json").read_text()).items()}


def drawn_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The weights behind `outputs.json`, in the order of their names."""
    random = np.random.RandomState(7)
    return {name: _drawn(name, shapes[name], random) for name in sorted(shapes)}


def drawn_pictures() -> Tensor:
    """(2, 3, 112, 112) in [-1, 1]: the pictures behind `outputs.json`."""
    values = np.random.RandomState(3).uniform(-1, 1, (2, 3, 112, 112))
    return torch.from_numpy(values.astype(np.float32))


def _drawn(name: str, shape: tuple[int, ...], random: np.random.RandomState) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    x = random.standard_normal(math.prod(shape)).astype(np.float32).reshape(shape)
    if name.endswith("running_var"):
        return torch.from_numpy(np.abs(x) * 0.2 + 0.8)
    if name.endswith(("running_mean", "bias")):
        return torch.from_numpy(0.1 * x)
    if len(shape) <= 1 or name.endswith("temperature"):
        return torch.from_numpy(0.5 + 0.1 * x)
    return torch.from_numpy(x * (1.4 / math.sqrt(math.prod(shape[1:]))))


def tiny_residual(dimension: int = 64, **more: Any) -> ResidualFaceNet:
    """AdaFace's network with few channels, and statistics that are not the initial ones."""
    stages = ((8, 1), (16, 2), (24, 1), (32, 1))
    return _warm(ResidualFaceNet(stem=8, stages=stages, dimension=dimension, **more))


def tiny_edgeface(dimension: int = 64) -> EdgeFace:
    """EdgeFace with few channels."""
    return _warm(
        EdgeFace(
            widths=(8, 12, 12, 16),
            local=(1, 1, 1, 1),
            kernels=(3, 3, 3, 3),
            heads=(1, 2, 2, 2),
            dimension=dimension,
        )
    )


def _warm(net: Any) -> Any:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point() and tensor.dim() > 1:
                tensor.copy_(torch.randn(tensor.shape) / math.sqrt(max(1, math.prod(tensor.shape[1:]))))
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point():
                start = 0.5 if name.endswith("weight") or "gamma" in name else 0.0
                tensor.copy_(start + 0.1 * torch.randn(tensor.shape))
    return net.eval()


def exported(net: nn.Module, opset: int, *, batch: int | None = None, side: int = 112) -> bytes:
    """`net` as ONNX, by torch's older exporter. batch: for so many pictures; None: for any number."""
    stream = io.BytesIO()
    axes = {"dynamic_axes": {"input": {0: "n"}, "out": {0: "n"}}} if batch is None else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.rand(batch or 2, 3, side, side),),
            stream,
            opset_version=opset,
            dynamo=False,
            input_names=["input"],
            output_names=["out"],
            **axes,
        )
    return stream.getvalue()


def graph_of(
    nodes: Sequence[Any],
    *,
    weights: dict[str, np.ndarray[Any, Any]] | None = None,
    shape: Sequence[Any] = ("n", 3, 8, 8),
    outputs: Sequence[tuple[str, Any]] = (("y", ("n", 64)),),
    opset: int = 17,
) -> bytes:
    """An ONNX file with the input "x"."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name, sides in outputs],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    found: bytes = model.SerializeToString()
    return found


def arcface_like(
    dimension: int = 64,
    *,
    side: int = 112,
    sub: float | None = None,
    batch: Any = "n",
    names: str = "",
    second: bool = False,
) -> bytes:
    """A small graph of the ArcFace kind: convolution, PReLU, pooling, Gemm, batch normalisation.

    sub: begins with a subtraction of that number and a division. names: before those of the weights. second: gives the length,
    too, as AdaFace's does.
    """
    from onnx import helper

    random = np.random.RandomState(2)

    def weight(*shape: int) -> np.ndarray[Any, Any]:
        return (random.standard_normal(shape) / math.sqrt(math.prod(shape[1:]) or 1)).astype(np.float32)

    weights = {
        f"{names}conv": weight(8, 3, 3, 3),
        f"{names}slope": np.full((8, 1, 1), 0.25, np.float32),
        f"{names}fc": weight(dimension, 8 * 49),
        f"{names}fb": weight(dimension) * 0.1,
        f"{names}scale": np.full(dimension, 2.0, np.float32),
        f"{names}bias": np.zeros(dimension, np.float32),
        f"{names}mean": weight(dimension) * 0.1,
        f"{names}var": np.full(dimension, 0.7, np.float32),
    }
    nodes, first = [], "x"
    if sub is not None:
        weights |= {"s": np.array(sub, np.float32), "d": np.array(sub, np.float32)}
        nodes = [helper.make_node("Sub", ["x", "s"], ["x1"]), helper.make_node("Div", ["x1", "d"], ["x2"])]
        first = "x2"
    last = "raw" if second else "y"
    nodes += [
        helper.make_node(
            "Conv", [first, f"{names}conv"], ["c"], strides=[4, 4], pads=[1, 1, 1, 1], name="Conv_0"
        ),
        helper.make_node("PRelu", ["c", f"{names}slope"], ["p"], name="PRelu_1"),
        helper.make_node(
            "AveragePool", ["p"], ["a"], kernel_shape=[side // 28] * 2, strides=[side // 28] * 2
        ),
        helper.make_node("Flatten", ["a"], ["f"]),
        helper.make_node("Gemm", ["f", f"{names}fc", f"{names}fb"], ["g"], transB=1),
        helper.make_node(
            "BatchNormalization", ["g", *(f"{names}{n}" for n in ("scale", "bias", "mean", "var"))], [last]
        ),
    ]
    outputs = [("y", (batch, dimension))]
    if second:
        nodes += [
            helper.make_node("ReduceL2", ["raw"], ["length"], axes=[1], keepdims=1),
            helper.make_node("Div", ["raw", "length"], ["y"]),
        ]
        outputs.append(("length", (batch, 1)))
    return graph_of(nodes, weights=weights, shape=(batch, 3, side, side), outputs=outputs)


def faces(count: int, side: int = 128, seed: int = 4, cells: int = 12) -> Tensor:
    """(count, 3, side, side) smooth random pictures in [0, 1]."""
    coarse = torch.rand(count, 3, cells, cells, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)


def quantised() -> bytes:
    """`arcface_like`, the weights of its last layer in 8 bits."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.ModelProto.FromString(arcface_like())
    weight = next(one for one in model.graph.initializer if one.name == "fc")
    values = numpy_helper.to_array(weight)
    scale = np.array(np.abs(values).max() / 127, np.float32)
    weight.CopyFrom(numpy_helper.from_array(np.round(values / scale).astype(np.int8), "fc8"))
    model.graph.initializer.append(numpy_helper.from_array(scale, "fc_scale"))
    model.graph.node.insert(
        0, helper.make_node("DequantizeLinear", ["fc8", "fc_scale"], ["fc"], name="Dequantize")
    )
    found: bytes = model.SerializeToString()
    return found
