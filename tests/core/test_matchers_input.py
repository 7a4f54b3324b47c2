"""How an ONNX file wants its pictures and whether it is a matcher at all: told by its nodes, or by the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from identiface_core.errors import InputError, WeightsError
from identiface_core.matchers.agreement import agreement
from identiface_core.matchers.load import load_matcher
from identiface_core.matchers.onnx_matcher import OnnxMatcher
from identiface_core.weights.recognise import recognise

from .matcher_files import arcface_like, exported, faces, graph_of, tiny_edgeface, tiny_residual

onnx = pytest.importorskip("onnx")

from .onnx_cases import N, drawn, ints  # noqa: E402


def edited(path: Path, edit: Any, **more: Any) -> Path:
    """A small matcher, its graph changed by `edit`."""
    model = onnx.ModelProto.FromString(arcface_like(**more))
    edit(model.graph)
    path.write_bytes(model.SerializeToString())
    return path


def begun(path: Path, *nodes: Any, kind: int = 1, **weights: Any) -> Path:
    """A small matcher that begins with these nodes, from "x" to the last one's output; kind: type of its input."""

    def edit(graph: Any) -> None:
        old = list(graph.node)
        old[0].input[0] = nodes[-1].output[0]
        del graph.node[:]
        graph.node.extend([*nodes, *old])
        for name, value in weights.items():
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.float32), name))
        graph.input[0].type.tensor_type.elem_type = kind

    return edited(path, edit)


def plain(path: Path) -> OnnxMatcher:
    path.write_bytes(arcface_like())
    return OnnxMatcher(path)


# The range of values


def constant(value: float, name: str) -> Any:
    return N("Constant", [], [name], value_float=value)


TO_SIGNED: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "x / 127.5 - 1": ("bytes", [N("Div", ["x", "m"], ["n1"]), N("Sub", ["n1", "o"], ["n2"])], {"m": 127.5, "o": 1}),
    "x * k - 1": ("bytes", [N("Mul", ["x", "m"], ["n1"]), N("Sub", ["n1", "o"], ["n2"])], {"m": 1 / 127.5, "o": 1}),
    "x * k + (-1)": ("bytes", [N("Mul", ["m", "x"], ["n1"]), N("Add", ["o", "n1"], ["n2"])], {"m": 1 / 127.5, "o": -1}),
    "(x / 255 - .5) / .5": (
        "bytes",
        [N("Div", ["x", "m"], ["n1"]), N("Sub", ["n1", "o"], ["n3"]), N("Div", ["n3", "o"], ["n2"])],
        {"m": 255, "o": 0.5},
    ),
    "(x - 127.5) * k": ("bytes", [N("Sub", ["x", "m"], ["n1"]), N("Mul", ["n1", "o"], ["n2"])], {"m": 127.5, "o": 1 / 127.5}),
    "each channel": (
        "bytes",
        [N("Cast", ["x"], ["n0"], to=1), N("Sub", ["n0", "m"], ["n1"]), N("Div", ["n1", "o"], ["n2"])],
        {"m": np.full((1, 3, 1, 1), 127.5), "o": np.full((3, 1, 1), 127.5)},
    ),
    "channels last": (
        "bytes",
        [
            N("Transpose", ["x"], ["n4"], perm=[0, 2, 3, 1]),
            constant(1 / 127.5, "k"),
            N("Mul", ["n4", "k"], ["n1"]),
            N("Sub", ["n1", "o"], ["n3"]),
            N("Transpose", ["n3"], ["n2"], perm=[0, 3, 1, 2]),
        ],
        {"o": np.ones(3)},
    ),
    "x * 2 - 1": ("unit", [N("Mul", ["x", "m"], ["n1"]), N("Sub", ["n1", "o"], ["n2"])], {"m": 2, "o": 1}),
    "there and back": ("signed", [N("Add", ["x", "m"], ["n1"]), N("Sub", ["n1", "m"], ["n2"])], {"m": 1}),
    "only passed on": ("signed", [N("Identity", ["x"], ["n2"])], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", TO_SIGNED)
def test_the_first_nodes_tell_the_range(tmp_path: Path, name: str) -> None:
    scale, nodes, weights = TO_SIGNED[name]
    one = load_matcher(begun(tmp_path / "f.onnx", *nodes, **weights))
    assert one.scale == scale  # type: ignore[attr-defined]
    wanted = plain(tmp_path / "g.onnx").embed(faces(3))
    torch.testing.assert_close(one.embed(faces(3)), wanted, atol=1e-4, rtol=1e-3)


MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("scale", "mean", "std"),
    [
        ("unit", MEAN, STD),
        ("bytes", MEAN * 255, STD * 255),
        ("unit", 0.5, 1.0),
        ("bytes", 127.5, 1.0),
        ("bytes", np.array([104, 117, 123]), 1.0),
        ("bytes", 0.0, 255.0),
        ("signed", -1.0, 2.0),
    ],
    ids=str,
)
def test_other_normalisations_are_read_too(tmp_path: Path, scale: str, mean: Any, std: Any) -> None:
    nodes = [N("Sub", ["x", "m"], ["n1"]), N("Div", ["n1", "s"], ["n2"])]
    sides = {
        "m": np.broadcast_to(mean, 3).reshape(1, 3, 1, 1),
        "s": np.broadcast_to(std, 3).reshape(1, 3, 1, 1),
    }
    assert OnnxMatcher(begun(tmp_path / "f.onnx", *nodes, **sides)).scale == scale


def test_the_user_knows_better(tmp_path: Path) -> None:
    own = plain(tmp_path / "f.onnx")
    told = load_matcher(tmp_path / "f.onnx", scale="unit")
    assert told.scale == "unit" and told.name == own.name + "-unit" and told.fingerprint != own.fingerprint  # type: ignore[attr-defined]
    # What it then sees is what the usual one sees of pictures from -1 to 1 that are told to be from 0 to 1.
    torch.testing.assert_close(own.embed(faces(2) / 2 + 0.5), told.embed(faces(2)), atol=1e-4, rtol=1e-3)
    assert load_matcher(tmp_path / "f.onnx", scale="signed").fingerprint == own.fingerprint
    with pytest.raises(InputError, match="signed or unit or bytes, not 'percent'"):
        load_matcher(tmp_path / "f.onnx", scale="percent")
    (tmp_path / "pack").mkdir()
    (tmp_path / "f.onnx").rename(tmp_path / "pack" / "f.onnx")
    assert load_matcher(tmp_path / "pack", scale="unit").fingerprint == told.fingerprint
    save_file({"model." + k: v.clone() for k, v in tiny_residual().state_dict().items()}, tmp_path / "f")
    with pytest.raises(InputError, match=r"scale 'bytes' is for ONNX graphs; this is a face matcher"):
        load_matcher(tmp_path / "f", scale="bytes")


@pytest.mark.parametrize("kind", [2, 6], ids=["uint8", "int32"])
def test_whole_numbers_are_bytes(tmp_path: Path, kind: int) -> None:
    nodes = [N("Cast", ["x"], ["n0"], to=1), N("Mul", ["n0", "m"], ["n1"]), N("Add", ["n1", "o"], ["n2"])]
    path = begun(tmp_path / "f.onnx", *nodes, kind=kind, m=1 / 127.5, o=-1)
    wanted = plain(tmp_path / "g.onnx").embed(faces(2))
    quick, slow = OnnxMatcher(path), OnnxMatcher(path, runtime=False)
    assert quick.scale == slow.scale == "bytes"
    for one in (quick, slow):
        assert float(F.cosine_similarity(one.embed(faces(2)), wanted).min()) > 0.999
    torch.testing.assert_close(quick.embed(faces(2)), slow.embed(faces(2)), atol=1e-5, rtol=1e-4)
    pictures = faces(1).requires_grad_()
    quick.embed(pictures)[0, 0].backward()
    assert pictures.grad is not None and float(pictures.grad.abs().sum()) > 0, "gradients pass the rounding"

    class Session:
        def run(self, _: None, given: dict[str, Any]) -> list[Any]:
            assert given["x"].dtype == (np.uint8 if kind == 2 else np.int32)
            exact = quick.crops(many).double() * 255
            assert float((torch.from_numpy(given["x"]) - exact).abs().max()) < 0.501, "rounded, not cut off"
            return [np.ones((len(many), 64), np.float32)]

    many = faces(8)
    assert quick._runtime is not None
    quick._runtime.session = Session()
    quick.embed(many)
    with pytest.raises(InputError, match="can be bytes, not 'signed'"):
        OnnxMatcher(path, scale="signed")


@pytest.mark.parametrize(("kind", "said"), [(9, "BOOL"), (3, "INT8"), (8, "STRING"), (16, "BFLOAT16")])
def test_inputs_that_hold_no_picture_are_named(tmp_path: Path, kind: int, said: str) -> None:
    with pytest.raises(WeightsError, match=f"its input 'x' is of the type {said};"):
        load_matcher(begun(tmp_path / "f.onnx", N("Cast", ["x"], ["n1"], to=1), kind=kind))


# The order of channels


class Wrapped(nn.Module):
    def __init__(self, **inner: nn.Module) -> None:
        super().__init__()
        for name, one in inner.items():
            setattr(self, name, one)

    def forward(self, x: Tensor) -> Tensor:
        return next(self.children())(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("wrap", "colour"), [("model.net.", "rgb"), ("model.", "bgr"), ("", "bgr")])
def test_one_rule_for_colours_in_both_kinds_of_files(tmp_path: Path, wrap: str, colour: str) -> None:
    net: Any = tiny_residual()
    for name in reversed(wrap.split(".")[:-1]):
        net = Wrapped(**{name: net})
    save_file({key: value.clone() for key, value in net.state_dict().items()}, tmp_path / "f.safetensors")
    (tmp_path / "f.onnx").write_bytes(exported(net, 17))
    first, second = (load_matcher(tmp_path / f"f.{kind}") for kind in ("safetensors", "onnx"))
    assert first.colour == second.colour == colour
    torch.testing.assert_close(first.embed(faces(2)), second.embed(faces(2)), atol=1e-4, rtol=1e-3)


# What is no matcher, and what may be none


@pytest.mark.parametrize("side", [112, 224])
def test_classifiers_are_no_matchers(tmp_path: Path, side: int) -> None:
    (tmp_path / "f.onnx").write_bytes(arcface_like(1000, side=side))
    with pytest.raises(WeightsError, match="1000 values a picture, as a classifier"):
        load_matcher(tmp_path / "f.onnx")


def test_what_is_not_known_as_a_matcher_says_so(tmp_path: Path) -> None:
    assert plain(tmp_path / "f.onnx").remarks == ()

    def untold(graph: Any) -> None:
        graph.output[0].type.tensor_type.ClearField("shape")

    path = edited(tmp_path / "f.onnx", untold)
    assert recognise(path).kind == "onnx" and OnnxMatcher(path).remarks == (), "what it gives tells as much"
    (tmp_path / "f.onnx").write_bytes(arcface_like(64, side=224))
    assert OnnxMatcher(tmp_path / "f.onnx").remarks[0].startswith("not known as a face matcher")


@pytest.mark.parametrize("made", ["zero", "infinite"])
def test_vectors_without_direction_are_refused(tmp_path: Path, made: str) -> None:
    def edit(graph: Any) -> None:
        last = [N("Sub", ["y", "y"], ["z"])]
        last += [N("Reciprocal", ["z"], ["i"])] if made == "infinite" else []
        graph.node.extend(last)
        graph.output[0].name = last[-1].output[0]

    one = load_matcher(edited(tmp_path / "f.onnx", edit))
    for ask in (one.embed, one.embed_with_quality):
        with pytest.raises(WeightsError, match=r"f\.onnx: what it gives for picture 0 is zero or not finite"):
            ask(faces(2))


# Fixed batches, masks, maps


def test_graphs_for_so_many_pictures_take_any_number(tmp_path: Path) -> None:
    free = plain(tmp_path / "f.onnx")
    for batch, count in ((1, 3), (2, 3), (64, 2), (3, 3)):
        (tmp_path / "g.onnx").write_bytes(arcface_like(batch=batch))
        fixed, slow = OnnxMatcher(tmp_path / "g.onnx"), OnnxMatcher(tmp_path / "g.onnx", runtime=False)
        for one in (fixed, slow):
            torch.testing.assert_close(
                one.embed(faces(count)), free.embed(faces(count)), atol=1e-5, rtol=1e-4
            )
        maps = fixed.features(faces(count))
        assert maps is not None and len(maps) == count
    (tmp_path / "g.onnx").write_bytes(arcface_like(batch=100_000))
    with pytest.raises(WeightsError, match="100,000 pictures at a time, at most 256"):
        OnnxMatcher(tmp_path / "g.onnx")


def test_a_dropout_with_its_mask_runs(tmp_path: Path) -> None:
    def edit(graph: Any) -> None:
        place = next(i for i, node in enumerate(graph.node) if node.op_type == "Gemm")
        graph.node[place].input[0] = "kept"
        graph.node.insert(place, N("Dropout", ["f"], ["kept", "mask"]))

    path = edited(tmp_path / "f.onnx", edit)
    wanted = plain(tmp_path / "g.onnx").embed(faces(2))
    for one in (OnnxMatcher(path), OnnxMatcher(path, runtime=False)):
        torch.testing.assert_close(one.embed(faces(2)), wanted, atol=1e-5, rtol=1e-4)
    pictures = faces(1).requires_grad_()
    one.embed(pictures).sum().backward()
    assert pictures.grad is not None


def test_maps_lie_evenly_over_the_crop(tmp_path: Path) -> None:
    """EdgeFace's last map, 3 x 3 of 112 px without its last row and column, and its attention, as square, are none."""
    (tmp_path / "f.onnx").write_bytes(exported(tiny_edgeface(), 17))
    found = OnnxMatcher(tmp_path / "f.onnx").features(faces(2))
    assert found is not None and found.shape == (2, 12, 7, 7)


def test_attention_without_maps_has_no_map(tmp_path: Path) -> None:
    nodes = [
        N("Conv", ["x", "w"], ["c"], strides=[16, 16]),
        N("Reshape", ["c", "heads"], ["q"]),
        N("Transpose", ["q"], ["k"], perm=[0, 1, 3, 2]),
        N("MatMul", ["q", "k"], ["a"]),
        N("Softmax", ["a"], ["s"], axis=-1),
        N("MatMul", ["s", "q"], ["o"]),
        N("Flatten", ["o"], ["y"]),
    ]
    weights = {"w": drawn(16, 3, 16, 16) / 30, "heads": ints(0, 4, 49, 4)}
    data = graph_of(nodes, weights=weights, shape=("n", 3, 112, 112), outputs=[("y", ("n", 784))])
    (tmp_path / "f.onnx").write_bytes(data)
    one = OnnxMatcher(tmp_path / "f.onnx")
    assert one.features(faces(1)) is None and agreement(one, *faces(2)).how == "occlusion"
