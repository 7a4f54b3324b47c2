"""ONNX graphs run by torch: the same values as onnxruntime, the same gradients as autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from identiface_core.matchers.onnx_file import parse_onnx
from identiface_core.matchers.onnx_graph import OnnxGraph
from identiface_core.matchers.onnx_node import OPERATORS

from .matcher_files import DATA, exported, graph_of, tiny_edgeface, tiny_residual

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from .onnx_cases import CASES  # noqa: E402


def reference(data: bytes, x: Tensor) -> list[np.ndarray[Any, Any]]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(data, sess_options=options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray[Any, Any]] = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return found


def run(data: bytes, x: Tensor) -> tuple[Tensor, ...]:
    content = parse_onnx(data, "test.onnx")
    return OnnxGraph(content, tuple(x.shape), "test.onnx")(x)  # type: ignore[no-any-return]


# Whole networks, exported


@pytest.mark.parametrize(
    ("make", "opset"),
    [(tiny_residual, 11), (tiny_residual, 20), (tiny_edgeface, 11), (tiny_edgeface, 20)],
    ids=["residual-11", "residual-20", "edgeface-11", "edgeface-20"],
)
def test_exported_networks_give_the_same_values_and_gradients(make: Any, opset: int) -> None:
    net = make()
    data = exported(net, opset)
    x = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(3)) * 2 - 1
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, wanted = run(data, ours)[0], net(theirs)
    np.testing.assert_allclose(found.detach().numpy(), reference(data, x)[0], atol=1e-4, rtol=1e-4)
    probe = torch.linspace(-1, 1, 64)
    (found * probe).sum().backward()
    (wanted * probe).sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    # Folded normalisations and another order of sums: how far they lead apart differs between processors, up to 3e-4 so far.
    assert float((ours.grad - theirs.grad).abs().max()) < 1e-3 * float(theirs.grad.abs().max())


@pytest.mark.parametrize("name", ["residual", "edgeface"])
def test_networks_of_the_newer_exporter(name: str) -> None:
    """Made once, as data/matchers/README.md says: that exporter needs packages that nothing else does."""
    data = (DATA / f"dynamo-{name}.onnx").read_bytes()
    assert parse_onnx(data, name).nodes[0].opset >= 18, "as the newer one writes"
    for batch in (1, 3):
        x = torch.rand(batch, 3, 112, 112, generator=torch.Generator().manual_seed(3)).requires_grad_()
        found = run(data, x)[0]
        assert found.shape == (batch, 32)
        np.testing.assert_allclose(
            found.detach().numpy(), reference(data, x.detach())[0], atol=1e-4, rtol=1e-4
        )
        found.square().sum().backward()
        assert x.grad is not None and bool((x.grad.flatten(1).norm(dim=1) > 0).all())


# Operators


@pytest.mark.parametrize("name", CASES)
def test_operators_do_as_onnxruntime_does(name: str) -> None:
    nodes, weights, opset = CASES[name]
    data = graph_of(nodes, weights=weights, outputs=[("y", None)], opset=opset)
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 0.7
    found, wanted = run(data, x)[0], reference(data, x)[0]
    assert tuple(found.shape) == wanted.shape
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-4, rtol=1e-4)


def test_every_operator_is_compared() -> None:
    """Beside the cases above only those that the exported networks use, and one that onnxruntime has no use for."""
    used = {node.op_type for nodes, _, _ in CASES.values() for node in nodes}
    assert set(OPERATORS) - used == {"CastLike"}
