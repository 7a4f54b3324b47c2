"""Graphs that the executor cannot run: onnxruntime runs them alone, without gradients, if their sizes can be told."""

from __future__ import annotations

import builtins
import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from identiface_core.errors import InputError, WeightsError
from identiface_core.matchers.agreement import agreement
from identiface_core.matchers.load import load_matcher
from identiface_core.matchers.onnx_matcher import OnnxMatcher

from .matcher_files import arcface_like, exported, faces, graph_of, quantised, tiny_edgeface

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from .onnx_cases import Arrays, N, drawn, ints  # noqa: E402


def stored(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_quantised_graph_runs_without_gradients(tmp_path: Path) -> None:
    one = load_matcher(stored(tmp_path / "f.onnx", quantised()))
    assert isinstance(one, OnnxMatcher) and not one.differentiable
    assert "without gradients: node 'Dequantize' is the operator DequantizeLinear" in one.remarks[0]
    wanted = OnnxMatcher(stored(tmp_path / "g.onnx", arcface_like()))
    assert wanted.differentiable
    # Weights of 8 bits are as near as that.
    assert float(F.cosine_similarity(one.embed(faces(3)), wanted.embed(faces(3))).min()) > 0.99
    assert one.embed_with_quality(faces(2)).vectors.shape == (2, 64)
    assert torch.equal(copy.deepcopy(one).embed(faces(2)), one.embed(faces(2)))
    assert one.features(faces(1)) is None and agreement(one, *faces(2)).how == "occlusion"
    pictures = faces(1).requires_grad_()
    with pytest.raises(InputError, match="no gradient goes through matcher 'onnx-64-"):
        one.embed(pictures)
    with torch.no_grad():
        assert one.embed(pictures).shape == (1, 64)


def test_a_graph_quantised_on_the_fly_runs(tmp_path: Path) -> None:
    """EdgeFace, whose shapes are reckoned in the graph: onnx tells the sizes of single nodes, the executor those of the rest."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    stored(tmp_path / "f.onnx", exported(tiny_edgeface(), 17))
    quantization.quantize_dynamic(tmp_path / "f.onnx", tmp_path / "g.onnx")
    found, wanted = (load_matcher(tmp_path / name) for name in ("g.onnx", "f.onnx"))
    assert not found.differentiable and wanted.differentiable
    assert float(F.cosine_similarity(found.embed(faces(3)), wanted.embed(faces(3))).min()) > 0.99


def test_a_setting_that_the_executor_lacks_is_no_hindrance(tmp_path: Path) -> None:
    nodes = [
        N("AveragePool", ["x"], ["a"], kernel_shape=[8, 8], strides=[8, 8]),
        N("CumSum", ["a", "axis"], ["b"], reverse=1),
        N("Flatten", ["b"], ["y"]),
    ]
    data = graph_of(
        nodes, weights={"axis": np.array(3, np.int64)}, shape=("n", 3, 112, 112), outputs=[("y", ("n", 588))]
    )
    one = load_matcher(stored(tmp_path / "f.onnx", data))
    assert "reverse sum" in one.remarks[0] and one.embed(faces(2)).shape == (2, 588)  # type: ignore[attr-defined]


def test_without_onnxruntime_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("onnxruntime"):
            raise ImportError(name)
        return real(name, *args, **more)

    path = stored(tmp_path / "f.onnx", quantised())
    with pytest.raises(WeightsError, match="operator DequantizeLinear, which is not known here"):
        load_matcher(path, runtime=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(WeightsError, match="operator DequantizeLinear.*`pip install onnxruntime`"):
        load_matcher(path)


def test_a_file_that_changed_is_not_run(tmp_path: Path) -> None:
    one = copy.deepcopy(load_matcher(stored(tmp_path / "f.onnx", quantised())))
    stored(tmp_path / "f.onnx", arcface_like())
    with pytest.raises(WeightsError, match="has changed since it was loaded"):
        one.embed(faces(1))


UNKNOWN = N("Selu", ["x"], ["z"])
"""An operator that is not among ours, so that what follows would be onnxruntime's alone."""
BOMBS: dict[str, tuple[list[Any], Arrays]] = {
    "expansion": ([UNKNOWN, N("Expand", ["z", "a"], ["y"])], {"a": ints(1 << 20, 1 << 20, 1, 1, 1)}),
    "constant": ([N("ConstantOfShape", ["a"], ["c"]), UNKNOWN, N("Add", ["z", "c"], ["y"])], {"a": ints(1 << 40)}),
    "tiles": ([UNKNOWN, N("Tile", ["z", "a"], ["y"])], {"a": ints(1, 1 << 20, 1 << 10, 1)}),
    "resize": ([N("Resize", ["x", "", "", "a"], ["y"])], {"a": ints(1, 3, 1 << 20, 1 << 20)}),
    "one hot": (
        [N("OneHot", ["i", "a", "v"], ["o"]), N("ReduceSum", ["o"], ["p"]), N("Add", ["x", "p"], ["y"])],
        {"i": ints(1, 2), "a": np.array(1 << 40, np.int64), "v": drawn(2)},
    ),
    "shape from pixels": ([UNKNOWN, N("NonZero", ["z"], ["y"])], {}),
    "a sequence": ([N("SplitToSequence", ["x"], ["s"], axis=1), N("ConcatFromSequence", ["s"], ["y"], axis=1)], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_what_may_grow_without_bound_is_onnxruntimes_neither(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *one, **_: asked.append(one))
    nodes, weights = BOMBS[name]
    data = graph_of(nodes, weights=weights, outputs=[("y", ("n", 512))], shape=(1, 3, 112, 112))
    with pytest.raises(WeightsError, match="which is not known here"):
        load_matcher(stored(tmp_path / "f.onnx", data))
    assert asked == []


def test_graphs_in_nodes_and_weights_elsewhere_stay_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.InferenceSession", None)
    model = onnx.ModelProto.FromString(quantised())
    inner = onnx.ModelProto.FromString(arcface_like()).graph
    model.graph.node[0].attribute.add(name="then_branch", type=5).g.CopyFrom(inner)
    with pytest.raises(WeightsError, match="DequantizeLinear") as caught:
        load_matcher(stored(tmp_path / "f.onnx", model.SerializeToString()))
    assert "a graph of its own" in str(caught.value.__cause__)
    model = onnx.ModelProto.FromString(quantised())
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(WeightsError, match="lies in another file"):
        load_matcher(stored(tmp_path / "f.onnx", model.SerializeToString()))
    model = onnx.ModelProto.FromString(quantised())
    model.graph.node[0].domain = "com.evil"
    with pytest.raises(WeightsError, match="operators of 'com.evil'"):
        load_matcher(stored(tmp_path / "f.onnx", model.SerializeToString()))
