"""ONNX files from strangers: refused with an error of ours, before memory is taken or another file is opened."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from identiface_core.errors import IdentiFaceError, WeightsError
from identiface_core.matchers.load import load_matcher
from identiface_core.matchers.onnx_file import parse_onnx, read_onnx
from identiface_core.matchers.onnx_graph import OnnxGraph
from identiface_core.matchers.onnx_runtime import Runtime

from .matcher_files import arcface_like, faces, graph_of, quantised

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

from .onnx_cases import Arrays, N, drawn, ints  # noqa: E402


def external(path: str) -> bytes:
    model = onnx.ModelProto.FromString(arcface_like())
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", path), ("offset", "0"), ("length", "864")):
        weight.external_data.add(key=key, value=value)
    return model.SerializeToString()  # type: ignore[no-any-return]


def changed(**edits: Any) -> bytes:
    model = onnx.ModelProto.FromString(arcface_like())
    for edit in edits.values():
        edit(model)
    return model.SerializeToString()  # type: ignore[no-any-return]


def huge_weight(model: Any) -> None:
    model.graph.initializer[0].dims[:] = [2**20, 2**20, 2**20]


def short_weight(model: Any) -> None:
    weight = model.graph.initializer[2]
    weight.raw_data = weight.raw_data[:-4]


def negative_weight(model: Any) -> None:
    model.graph.initializer[0].dims[0] = -8


def circle(model: Any) -> None:
    model.graph.node[0].input[0] = "g"


def twice(model: Any) -> None:
    model.graph.node[1].output[0] = "c"


def no_output(model: Any) -> None:
    model.graph.output[0].name = "nowhere"


def two_inputs(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("x2", TensorProto.FLOAT, [1]))


def foreign(model: Any) -> None:
    model.graph.node[1].domain = "com.evil"


def unknown(model: Any) -> None:
    model.graph.node[1].op_type = "QLinearConv"


def inner_graph(model: Any) -> None:
    model.graph.node[1].op_type = "If"
    model.graph.node[1].attribute.add(name="then_branch", type=5).g.CopyFrom(
        onnx.ModelProto.FromString(arcface_like()).graph
    )


def version(model: Any) -> None:
    model.opset_import[0].version = 99


def text_weight(model: Any) -> None:
    model.graph.initializer[0].data_type = 8


def nan_weight(model: Any) -> None:
    weight = model.graph.initializer[0]
    weight.raw_data = b"\xff" * len(weight.raw_data)


def misfit(model: Any) -> None:
    model.graph.initializer[2].dims[:] = [32, 784]


HOSTILE = {
    "huge weight": (huge_weight, "more than any matcher needs"),
    "short weight": (short_weight, "truncated"),
    "negative side": (negative_weight, "more than any matcher needs"),
    "circle": (circle, "in a circle"),
    "made twice": (twice, "once more"),
    "no output": (no_output, "nothing makes its outputs"),
    "two inputs": (two_inputs, "has 2"),
    "foreign operators": (foreign, "com.evil"),
    "unknown operator": (unknown, r"node 'PRelu_1' is the operator QLinearConv"),
    "graph in a node": (inner_graph, "operator If"),
    "unknown version": (version, "version 99"),
    "weights of text": (text_weight, "type that is not read"),
    "not finite": (nan_weight, "not finite"),
    "shapes that do not fit": (misfit, "cannot be run"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_graphs_are_refused(name: str) -> None:
    edit, said = HOSTILE[name]
    with pytest.raises(WeightsError, match=said):
        OnnxGraph(parse_onnx(changed(edit=edit), "bad.onnx"), (1, 3, 112, 112), "bad.onnx")


def test_weights_in_other_files_are_never_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(864))
    for path in (str(secret), "../secret", "secret"):
        (tmp_path / "f.onnx").write_bytes(external(path))
        with pytest.raises(WeightsError, match="lies in another file"):
            read_onnx(tmp_path / "f.onnx")


BOMBS: dict[str, tuple[list[Any], Arrays]] = {
    "outer sum": ([N("Reshape", ["x", "a"], ["p"]), N("Reshape", ["x", "b"], ["q"]), N("Add", ["p", "q"], ["y"])],
                  {"a": ints(-1, 1), "b": ints(1, -1)}),
    "expansion": ([N("Expand", ["x", "a"], ["y"])], {"a": ints(1 << 20, 1 << 20, 1, 1, 1)}),
    "constant": ([N("ConstantOfShape", ["a"], ["c"]), N("Add", ["x", "c"], ["y"])], {"a": ints(1 << 40)}),
    "padding": ([N("Pad", ["x", "a"], ["y"])], {"a": ints(0, 0, 1 << 30, 1 << 30, 0, 0, 0, 0)}),
    "tiles": ([N("Tile", ["x", "a"], ["y"])], {"a": ints(1, 1 << 20, 1 << 10, 1)}),
    "range": ([N("Range", ["a", "b", "c"], ["r"]), N("Cast", ["r"], ["s"], to=1), N("Add", ["x", "s"], ["y"])],
              {"a": np.array(0, np.int64), "b": np.array(1 << 60, np.int64), "c": np.array(1, np.int64)}),
    "convolution": ([N("Conv", ["x", "w"], ["y"], pads=[1 << 20] * 4)], {"w": drawn(64, 3, 1, 1)}),
    "shape from pixels": ([N("Cast", ["x"], ["i"], to=7), N("Reshape", ["x", "i"], ["y"])], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_graphs_that_grow_without_bound_are_refused_before_memory_is_taken(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Runtime, "__call__", lambda *one: asked.append(one))
    nodes, weights = BOMBS[name]
    path = tmp_path / "bad.onnx"
    path.write_bytes(graph_of(nodes, weights=weights, outputs=[("y", ("n", 512))], shape=(1, 3, 112, 112)))
    with pytest.raises(WeightsError, match=r"bad\.onnx: node"):
        load_matcher(path)
    assert asked == [], "onnxruntime would take it"


def test_every_truncation_is_an_error_of_ours(tmp_path: Path) -> None:
    data = arcface_like(32)
    random = np.random.RandomState(0)
    path = tmp_path / "f.onnx"
    for cut in [*range(1, 200, 7), *random.randint(200, len(data), 40)]:
        path.write_bytes(data[:cut])
        with pytest.raises(WeightsError):
            load_matcher(path)


@pytest.mark.parametrize("make", [arcface_like, quantised], ids=["plain", "quantised"])
def test_every_damage_is_an_error_of_ours(tmp_path: Path, make: Any) -> None:
    """Nodes and names lie at both ends of the file, weights between."""
    data = make()
    random = np.random.RandomState(0)
    ends = [*range(900), *range(len(data) - 500, len(data))]
    survived = 0
    for place in [*random.randint(0, len(data), 20), *random.choice(ends, 80, replace=False)]:
        bad = bytearray(data)
        bad[place] = int(random.randint(256))
        (tmp_path / "f.onnx").write_bytes(bytes(bad))
        with suppress(IdentiFaceError):
            survived += load_matcher(tmp_path / "f.onnx").embed(faces(1)).shape[1] == 64
    assert survived > 20, "many bytes are weights, or names of nodes"


def test_a_name_that_is_no_text_is_damage(tmp_path: Path) -> None:
    for name in ("Conv_0", "PRelu_1"):
        (tmp_path / "f.onnx").write_bytes(arcface_like().replace(name.encode(), b"\xff" * len(name)))
        with pytest.raises(WeightsError, match="no text"):
            load_matcher(tmp_path / "f.onnx")


def test_a_constant_without_values_is_no_normalisation(tmp_path: Path) -> None:
    model = onnx.ModelProto.FromString(arcface_like())
    model.graph.node.insert(0, N("Sub", ["none", "none"], ["nothing"]))
    model.graph.node.insert(1, N("Mul", ["nothing", "none"], ["nowhere"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(0, np.float32), "none"))
    (tmp_path / "f.onnx").write_bytes(model.SerializeToString())
    assert load_matcher(tmp_path / "f.onnx").embed(faces(1)).shape == (1, 64)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        read_onnx(tmp_path / "none.onnx")


def test_a_missing_or_broken_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name == "onnx":
            raise failure
        return real(name, *args, **more)

    data = arcface_like()
    monkeypatch.setattr(builtins, "__import__", without)
    failure: Exception = ImportError("No module named 'onnx'")
    with pytest.raises(WeightsError, match="`pip install onnx`"):
        parse_onnx(data, "f")
    failure = TypeError("Descriptors cannot be created directly")
    with pytest.raises(WeightsError, match="installed but broken.*Descriptors"):
        parse_onnx(data, "f")
