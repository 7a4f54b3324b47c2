"""Small ONNX graphs over the input "x" (2, 3, 8, 8) that between them use every operator: nodes, weights, version."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

Arrays = dict[str, np.ndarray[Any, Any]]

N = helper.make_node


def ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def drawn(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.RandomState(1).standard_normal(shape).astype(np.float32)


def chain(*ops: str) -> list[Any]:
    """Nodes of one input, one after the other."""
    names = ["x", *(f"t{i}" for i in range(1, len(ops))), "y"]
    return [N(op, [names[i]], [names[i + 1]]) for i, op in enumerate(ops)]


CASES: dict[str, tuple[list[Any], Arrays, int]] = {
    "convolutions": (
        [
            N("Conv", ["x", "w", "b"], ["a"], pads=[1, 0, 2, 1], strides=[2, 1], name="uneven"),
            N("Conv", ["a", "g"], ["c"], group=2, dilations=[2, 2], pads=[2, 2, 2, 2]),
            N("Conv", ["c", "v"], ["e"], auto_pad="SAME_UPPER", strides=[2, 2]),
            N("Conv", ["e", "v"], ["f"], auto_pad="SAME_LOWER", strides=[2, 2]),
            N("Conv", ["f", "one"], ["y"], auto_pad="VALID"),
        ],
        {"w": drawn(4, 3, 3, 3), "b": drawn(4), "g": drawn(4, 2, 3, 3), "v": drawn(4, 4, 2, 2), "one": drawn(2, 4, 1, 1)},
        17,
    ),
    "pooling": (
        [
            N("MaxPool", ["x"], ["a"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
            N("MaxPool", ["x"], ["b"], kernel_shape=[2, 2], strides=[2, 2], pads=[0, 1, 0, 0]),
            N("MaxPool", ["x"], ["c"], kernel_shape=[1, 1], strides=[2, 2]),
            N("AveragePool", ["x"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
            N("AveragePool", ["x"], ["e"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
            N("AveragePool", ["x"], ["f"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
            N("GlobalAveragePool", ["x"], ["g"]),
            N("GlobalMaxPool", ["x"], ["h"]),
            N("Sum", ["a", "c", "d", "e", "f", "g", "h"], ["s"]),
            N("GlobalAveragePool", ["b"], ["bg"]),
            N("Mean", ["s", "bg"], ["y"]),
        ],
        {},
        17,
    ),
    "ceil": ([N("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}, 11),
    "normalisation": (
        [
            N("BatchNormalization", ["x", "s", "b", "m", "v"], ["a"], epsilon=1e-3),
            N("InstanceNormalization", ["a", "s", "b"], ["c"]),
            N("LayerNormalization", ["c", "ls", "lb"], ["d"], axis=-2),
            N("LpNormalization", ["d"], ["e"], axis=1, p=2),
            N("PRelu", ["e", "slope"], ["f"]),
            N("PRelu", ["f", "each"], ["y"]),
        ],
        {
            "s": drawn(3), "b": drawn(3), "m": drawn(3), "v": np.abs(drawn(3)) + 0.5, "ls": drawn(8, 8), "lb": drawn(8, 8),
            "slope": drawn(3, 1, 1), "each": drawn(1, 1, 8),
        },
        17,
    ),  # fmt: skip
    "activations": (
        [
            *chain("Relu", "Sigmoid", "Tanh", "HardSwish", "Erf", "Exp", "Log", "Abs", "Sqrt", "Neg", "Sin", "Cos")[:-1],
            N("Cos", ["t11"], ["u"]),
            N("LeakyRelu", ["x"], ["a"], alpha=0.2),
            N("HardSigmoid", ["a"], ["b"], alpha=0.3, beta=0.4),
            N("Elu", ["x"], ["c"], alpha=0.7),
            N("Softplus", ["c"], ["d"]),
            N("Mish", ["d"], ["e"]),
            N("Reciprocal", ["d"], ["f"]),
            N("Floor", ["x"], ["g"]),
            N("Ceil", ["g"], ["h"]),
            N("Max", ["u", "b", "e"], ["i"]),
            N("Min", ["f", "h"], ["j"]),
            N("Add", ["i", "j"], ["y"]),
        ],
        {},
        18,
    ),
    "gelu": ([N("Gelu", ["x"], ["a"]), N("Gelu", ["a"], ["y"], approximate="tanh")], {}, 20),
    "clip": (
        [
            N("Clip", ["x", "low", "high"], ["a"]),
            N("Clip", ["a", "", "high"], ["b"]),
            N("Clip", ["b", "low"], ["c"]),
            N("Clip", ["c"], ["y"]),
        ],
        {"low": np.float32(-0.5), "high": np.float32(0.8)},
        11,
    ),  # fmt: skip
    "softmax before 13": ([N("Softmax", ["x"], ["a"], axis=2), N("Softmax", ["a"], ["y"])], {}, 11),
    "softmax from 13": ([N("Softmax", ["x"], ["a"], axis=2), N("Softmax", ["a"], ["y"])], {}, 13),
    "arithmetic": (
        [
            N("Sub", ["x", "half"], ["a"]),
            N("Mul", ["a", "row"], ["b"]),
            N("Div", ["b", "two"], ["c"]),
            N("Pow", ["c", "two"], ["d"]),
            N("Transpose", ["d"], ["e"], perm=[0, 1, 3, 2]),
            N("MatMul", ["d", "e"], ["f"]),
            N("Mod", ["f", "two"], ["g"], fmod=1),
            N("Less", ["g", "half"], ["h"]),
            N("Greater", ["g", "zero"], ["i"]),
            N("And", ["h", "i"], ["j"]),
            N("Or", ["j", "h"], ["k"]),
            N("Not", ["k"], ["l"]),
            N("Where", ["l", "g", "c"], ["y"]),
        ],
        {"half": np.float32(0.5), "row": drawn(8), "two": np.float32(2.0), "zero": np.float32(0.0)},
        17,
    ),
    "gemm": (
        [
            N("Flatten", ["x"], ["a"], axis=1),
            N("Gemm", ["a", "w", "b"], ["c"], transB=1, alpha=0.5, beta=2.0),
            N("Gemm", ["c", "v"], ["d"], transA=1),
            N("Flatten", ["x"], ["flat"], axis=-2),
            N("ReduceMean", ["flat"], ["m"], axes=[0, 1]),
            N("Mul", ["d", "m"], ["y"]),
        ],
        {"w": drawn(5, 192), "b": drawn(5), "v": drawn(2, 4)},
        13,
    ),
    "reductions": (
        [
            *(N(op, ["x"], [op.lower()], axes=[2, 3]) for op in ("ReduceMean", "ReduceMax", "ReduceMin")),
            *(N(op, ["x"], [op.lower()], axes=[-1, 2], keepdims=1) for op in ("ReduceL1", "ReduceL2", "ReduceSumSquare")),
            N("ReduceSum", ["x", "axes"], ["sum"]),
            N("Concat", ["reducemean", "reducemax", "reducemin", "reducel1"], ["some"], axis=1),
            N("Concat", ["some", "reducel2", "reducesumsquare", "sum"], ["all"], axis=1),
            N("ReduceMean", ["all"], ["m"], keepdims=0),
            N("Mul", ["all", "m"], ["y"]),
        ],
        {"axes": ints(2, 3)},
        13,
    ),  # fmt: skip
    "reductions from 18": (
        [
            N("ReduceMean", ["x", "axes"], ["a"], keepdims=0),
            N("ReduceL2", ["x", "axes"], ["b"], keepdims=0),
            N("ReduceSum", ["x"], ["c"], noop_with_empty_axes=1),
            N("ReduceMax", ["c", "axes"], ["d"], keepdims=0),
            N("Sum", ["a", "b", "d"], ["y"]),
        ],
        {"axes": ints(-1, 2)},
        18,
    ),
    "shapes": (
        [
            N("Shape", ["x"], ["s"]),
            N("Gather", ["s", "place"], ["n"], axis=0),
            N("Unsqueeze", ["n", "zero"], ["n1"]),
            N("Concat", ["n1", "rest"], ["to"], axis=0),
            N("Reshape", ["x", "to"], ["a"]),
            N("Slice", ["a", "starts", "ends", "axes", "steps"], ["b"]),
            N("Slice", ["b", "back", "front", "axes", "minus"], ["c"]),
            N("Split", ["c", "sizes"], ["d", "e"], axis=1),
            N("Concat", ["e", "d"], ["f"], axis=1),
            N("Unsqueeze", ["f", "zero"], ["g"]),
            N("Squeeze", ["g", "zero"], ["h"]),
            N("Gather", ["h", "columns"], ["i"], axis=2),
            N("Identity", ["i"], ["j"]),
            N("Dropout", ["j"], ["y"]),
        ],
        {
            "place": np.array(0, np.int64), "zero": ints(0), "rest": ints(3, -1), "starts": ints(1, 2), "ends": ints(3, 99),
            "axes": ints(1, 2), "steps": ints(1, 3), "back": ints(-1, -1), "front": ints(-99, -99), "minus": ints(-1, -2),
            "sizes": ints(1, 1), "columns": np.array([[0, -1], [2, 2]], np.int64),
        },
        13,
    ),  # fmt: skip
    "shapes before 13": (
        [
            N("Unsqueeze", ["x"], ["a"], axes=[0, -1]),
            N("Squeeze", ["a"], ["b"], axes=[0, 5]),
            N("Split", ["b"], ["c", "d"], axis=3, split=[3, 5]),
            N("Split", ["d"], ["e", "f", "g", "h", "i"], axis=3),
            N("Concat", ["h", "c", "f"], ["j"], axis=3),
            N("Reshape", ["j", "keep"], ["y"]),
        ],
        {"keep": ints(0, -1, 0)},
        11,
    ),
    "old attributes": (
        [
            N("Slice", ["x"], ["a"], starts=[1], ends=[3], axes=[1]),
            N("Clip", ["a"], ["b"], min=-0.4, max=0.3),
            N("Pad", ["b"], ["y"], pads=[0, 0, 1, 0, 0, 0, 0, 2], value=0.5),
        ],
        {},
        9,
    ),
    "padding": (
        [
            N("Pad", ["x", "pads", "value"], ["a"]),
            N("Pad", ["a", "pads"], ["b"], mode="reflect"),
            N("Pad", ["b", "pads"], ["c"], mode="edge"),
            N("Tile", ["c", "times"], ["d"]),
            N("Expand", ["d", "wide"], ["y"]),
        ],
        {"pads": ints(0, 0, 1, 2, 0, 0, 0, 1), "value": np.float32(0.3), "times": ints(1, 1, 2, 1),
         "wide": ints(5, 1, 1, 1, 1)},
        13,
    ),  # fmt: skip
    "constants": (
        [
            N("Constant", [], ["k"], value_float=2.5),
            N("Constant", [], ["l"], value_floats=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
            N("Constant", [], ["n"], value_int=8),
            N("Constant", [], ["o"], value_ints=[1, 1, 8, 8]),
            N("Constant", [], ["t"], value=helper.make_tensor("t", TensorProto.FLOAT, [1], [0.25])),
            N("ConstantOfShape", ["o"], ["p"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [3.0])),
            N("Range", ["first", "n", "step"], ["q"]),
            N("Cast", ["q"], ["r"], to=TensorProto.FLOAT),
            N("CumSum", ["x", "axis"], ["u"]),
            N("Equal", ["q", "three"], ["w"]),
            N("Cast", ["w"], ["w1"], to=TensorProto.FLOAT),
            N("Size", ["x"], ["z"]),
            N("Cast", ["z"], ["z1"], to=TensorProto.FLOAT),
            N("ReduceProd", ["l"], ["lp"], keepdims=0),
            N("Sum", ["u", "k", "l", "t", "p", "r", "w1", "z1", "lp"], ["y"]),
        ],
        {"first": np.array(0, np.int64), "step": np.array(1, np.int64), "axis": np.array(3, np.int64), "three": ints(3)},
        13,
    ),
}  # fmt: skip
