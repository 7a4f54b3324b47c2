"""Operators of ONNX: convolution, pooling, normalisation, activations. See `onnx_node`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.matchers.onnx_node import Node, integers, operator, spread

# Convolution and pooling


def _pads(node: Node, x: Tensor, kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """Padding before each side, then after each, as in ONNX."""
    auto = node.settings.get("auto_pad", "NOTSET")
    rank = len(kernel)
    if auto in ("NOTSET", "VALID"):
        return integers(node.settings.get("pads", [0] * 2 * rank)) if auto == "NOTSET" else [0] * 2 * rank
    before, after = [], []
    for side, k, stride, dilation in zip(x.shape[2:], kernel, _strides(node, rank), dilations, strict=True):
        total = max((math.ceil(side / stride) - 1) * stride + (k - 1) * dilation + 1 - side, 0)
        small, large = total // 2, total - total // 2
        before.append(small if auto == "SAME_UPPER" else large)
        after.append(large if auto == "SAME_UPPER" else small)
    return before + after


def _strides(node: Node, rank: int) -> list[int]:
    return integers(node.settings.get("strides", [1] * rank))


def _even(node: Node, x: Tensor, pads: list[int], value: float) -> tuple[Tensor, list[int]]:
    """Padding that is equal on both sides is left to the operator; any other is done here."""
    half = len(pads) // 2
    if pads[:half] == pads[half:]:
        return x, pads[:half]
    return F.pad(x, spread(pads), value=value), [0] * half


@operator("Conv")
def conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    kernel = weight.shape[2:]
    dilations = integers(node.settings.get("dilations", [1] * len(kernel)))
    x, padding = _even(node, x, _pads(node, x, kernel, dilations), 0.0)
    run = {1: F.conv1d, 2: F.conv2d}[len(kernel)]
    strides, groups = _strides(node, len(kernel)), int(node.settings.get("group", 1))
    return run(x, weight, bias, strides, padding, dilations, groups)


@operator("MaxPool")
def max_pool(node: Node, x: Tensor) -> Tensor:
    kernel = integers(node.settings["kernel_shape"])
    dilations = integers(node.settings.get("dilations", [1] * len(kernel)))
    pads = _pads(node, x, kernel, dilations)
    if any(2 * pad > k for pad, k in zip(pads, kernel * 2, strict=True)):
        x, pads = F.pad(x, spread(pads), value=-math.inf), [0] * len(pads)
    x, padding = _even(node, x, pads, -math.inf)
    ceil = bool(node.settings.get("ceil_mode", 0))
    return F.max_pool2d(x, kernel, _strides(node, 2), padding, dilations, ceil)


@operator("AveragePool")
def average_pool(node: Node, x: Tensor) -> Tensor:
    kernel = integers(node.settings["kernel_shape"])
    if any(d != 1 for d in integers(node.settings.get("dilations", ()))):
        raise ValueError("dilated pooling")
    pads, strides = _pads(node, x, kernel, [1, 1]), _strides(node, 2)
    ceil, counted = bool(node.settings.get("ceil_mode", 0)), bool(node.settings.get("count_include_pad", 0))
    if pads[:2] == pads[2:]:
        return F.avg_pool2d(x, kernel, strides, pads[:2], ceil, counted)
    total = F.avg_pool2d(F.pad(x, spread(pads)), kernel, strides, 0, ceil)
    share = F.avg_pool2d(F.pad(torch.ones_like(x), spread(pads)), kernel, strides, 0, ceil)
    return total if counted else total / share


@operator("GlobalAveragePool")
def global_average_pool(node: Node, x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(node: Node, x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


# Normalisation


@operator("BatchNormalization")
def batch_norm(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *_: Tensor
) -> Tensor:
    if node.settings.get("training_mode", 0) or len(node.outputs) > 1:
        raise ValueError("batch statistics as in training")
    epsilon = node.settings.get("epsilon", 1e-5)
    return F.batch_norm(x, mean, variance, scale, bias, training=False, eps=epsilon)


@operator("InstanceNormalization")
def instance_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=node.settings.get("epsilon", 1e-5))


@operator("LayerNormalization")
def layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = int(node.settings.get("axis", -1)) % x.ndim
    return F.layer_norm(x, x.shape[axis:], scale, bias, node.settings.get("epsilon", 1e-5))


@operator("LpNormalization")
def lp_norm(node: Node, x: Tensor) -> Tensor:
    return F.normalize(x, p=float(node.settings.get("p", 2)), dim=int(node.settings.get("axis", -1)))


# Activations

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Relu": F.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "HardSwish": F.hardswish,
    "Mish": F.mish,
    "Softplus": F.softplus,
    "Sqrt": torch.sqrt,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Neg": torch.neg,
    "Abs": torch.abs,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Reciprocal": torch.reciprocal,
    "Not": torch.logical_not,
}


@operator(*_ACTIVATIONS)
def activation(node: Node, x: Tensor) -> Tensor:
    return _ACTIVATIONS[node.op](x)


@operator("PRelu")
def prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    if slope.numel() == 1 or (slope.numel() == x.shape[1] and slope.ndim == x.ndim - 1):
        return F.prelu(x, slope.flatten())
    return torch.where(x >= 0, x, slope * x)


@operator("LeakyRelu")
def leaky_relu(node: Node, x: Tensor) -> Tensor:
    return F.leaky_relu(x, node.settings.get("alpha", 0.01))


@operator("Elu")
def elu(node: Node, x: Tensor) -> Tensor:
    return F.elu(x, node.settings.get("alpha", 1.0))


@operator("Gelu")
def gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=node.settings.get("approximate", "none"))


@operator("HardSigmoid")
def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    return (node.settings.get("alpha", 0.2) * x + node.settings.get("beta", 0.5)).clamp(0, 1)


@operator("Clip")
def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    bounds = [
        torch.tensor(node.settings[name], dtype=x.dtype, device=x.device)
        if given is None and name in node.settings
        else given
        for name, given in (("min", low), ("max", high))
    ]
    return x if bounds == [None, None] else torch.clamp(x, *bounds)


@operator("Softmax")
def softmax(node: Node, x: Tensor) -> Tensor:
    if node.opset >= 13:
        return x.softmax(int(node.settings.get("axis", -1)))
    # Before version 13 all sides from the axis on were taken together.
    axis = int(node.settings.get("axis", 1)) % x.ndim
    return x.flatten(axis).softmax(-1).reshape(x.shape)
