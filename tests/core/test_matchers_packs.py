"""ONNX files as matchers: how they want their pictures, onnxruntime beside torch, InsightFace's packs."""

from __future__ import annotations

import builtins
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from identiface_core.errors import WeightsError
from identiface_core.matchers.insightface_pack import insightface_matcher
from identiface_core.matchers.load import load_matcher
from identiface_core.matchers.onnx_matcher import OnnxMatcher
from identiface_core.matchers.template import ARCFACE_POINTS
from identiface_core.weights.recognise import recognise

from .matcher_files import arcface_like, faces, graph_of

pytest.importorskip("onnx")


def stored(path: Path, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(arcface_like(**more))
    return path


def small(path: Path, side: int, width: int) -> Path:
    """Another network of a pack: the mean colour, `width` times."""
    from onnx import helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["a"]),
        helper.make_node("Flatten", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    weights = {"w": np.ones((3, width), np.float32)}
    data = graph_of(nodes, weights=weights, shape=("n", 3, side, side), outputs=[("y", ("n", width))])
    path.write_bytes(data)
    return path


# One file


def test_embeddings_are_those_of_insightface(tmp_path: Path) -> None:
    """The same picture and points through InsightFace's own code."""
    theirs = pytest.importorskip("insightface.model_zoo.arcface_onnx")
    for sub in (None, 127.5):
        path = stored(tmp_path / "f.onnx", sub=sub)
        # Its rule looks at the names of nodes.
        import onnx

        model = onnx.ModelProto.FromString(path.read_bytes())
        for node in model.graph.node:
            if node.op_type in ("Sub", "Div"):
                node.name = {"Sub": "Sub_0", "Div": "Mul_1"}[node.op_type]
        path.write_bytes(model.SerializeToString())
        picture = (faces(1, 200) * 255).round()
        points = ARCFACE_POINTS[None] * 1.2 + 20
        reference = theirs.ArcFaceONNX(str(path))
        crop = theirs.face_align.norm_crop(
            picture[0].flip(0).movedim(0, -1).byte().numpy(), points[0].numpy() - 0.5, 112
        )
        wanted = torch.from_numpy(reference.get_feat(crop))
        found = OnnxMatcher(path).embed(picture / 255, points)
        assert float(torch.nn.functional.cosine_similarity(found, wanted)) > 0.9999


def test_onnxruntime_and_torch_agree(tmp_path: Path) -> None:
    path = stored(tmp_path / "f.onnx")
    one, plain = OnnxMatcher(path), OnnxMatcher(path, runtime=False)
    pictures = faces(3)
    assert one._runtime is not None and one._runtime.session is None
    torch.testing.assert_close(one.embed(pictures), plain.embed(pictures), atol=1e-5, rtol=1e-4)
    assert one._runtime.session is not None and plain._runtime is None
    wanted = pictures.clone().requires_grad_()
    vectors = one.embed(wanted)
    vectors[1].sum().backward()
    assert wanted.grad is not None and float(wanted.grad[1].abs().sum()) > 0 == float(
        wanted.grad[0].abs().sum()
    )
    torch.testing.assert_close(vectors.detach(), one.embed(pictures), atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        assert not one.embed(wanted).requires_grad


def test_matchers_loaded_in_inference_mode_carry_gradients(tmp_path: Path) -> None:
    """As the host's nodes load them; a copy does as well."""
    with torch.inference_mode():
        found = load_matcher(stored(tmp_path / "f.onnx"))
        found.embed(faces(1))
    for one in (found, copy.deepcopy(found)):
        wanted = faces(1).requires_grad_()
        one.embed(wanted).sum().backward()
        assert wanted.grad is not None and float(wanted.grad.abs().sum()) > 0


def test_without_onnxruntime_torch_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("onnxruntime"):
            raise ImportError(name)
        return real(name, *args, **more)

    one = OnnxMatcher(stored(tmp_path / "f.onnx"))
    monkeypatch.setattr(builtins, "__import__", without)
    assert one.embed(faces(2)).shape == (2, 64) and one._runtime is None


def test_a_file_that_changed_is_not_handed_on(tmp_path: Path) -> None:
    path = stored(tmp_path / "f.onnx")
    one = OnnxMatcher(path)
    stored(path, dimension=96)
    assert one.embed(faces(1)).shape == (1, 64) and one._runtime is None


@pytest.mark.parametrize(("sub", "scale"), [(None, "signed"), (127.5, "bytes"), (0.5, "unit")])
def test_the_graph_tells_how_it_wants_its_pictures(tmp_path: Path, sub: float | None, scale: str) -> None:
    one = OnnxMatcher(stored(tmp_path / "f.onnx", sub=sub))
    plain = OnnxMatcher(stored(tmp_path / "g.onnx"))
    assert one.scale == scale
    torch.testing.assert_close(one.embed(faces(2)), plain.embed(faces(2)), atol=1e-4, rtol=1e-3)


def test_adaface_is_known_by_the_names_of_its_weights(tmp_path: Path) -> None:
    rgb = OnnxMatcher(stored(tmp_path / "adaface.onnx"))
    bgr = OnnxMatcher(stored(tmp_path / "arcface.onnx", names="body.0.res_layer.0."))
    assert (rgb.colour, bgr.colour) == ("rgb", "bgr")
    torch.testing.assert_close(rgb.embed(faces(2)), bgr.embed(faces(2).flip(1)))
    told = OnnxMatcher(stored(tmp_path / "adaface.onnx"), colour="bgr")
    assert told.fingerprint != rgb.fingerprint and told.name.endswith("-bgr")
    assert OnnxMatcher(tmp_path / "adaface.onnx", colour="rgb").fingerprint == rgb.fingerprint


def test_a_second_output_is_the_length(tmp_path: Path) -> None:
    plain = OnnxMatcher(stored(tmp_path / "f.onnx"))
    split = OnnxMatcher(stored(tmp_path / "g.onnx", second=True))
    found, wanted = split.embed_with_quality(faces(2)), plain.embed_with_quality(faces(2))
    torch.testing.assert_close(found.norms, wanted.norms, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.vectors, wanted.vectors, atol=1e-5, rtol=1e-4)
    assert plain.typical == pytest.approx(2 * 64**0.5), "read off the last normalisation"
    assert split.typical is None and found.quality.tolist() == [1, 1]


def test_crops_of_128_px(tmp_path: Path) -> None:
    path = tmp_path / "f.onnx"
    small(path, 128, 64)
    one = OnnxMatcher(path)
    assert one.side == 128 and one.crops(faces(1)).shape == (1, 3, 128, 128)
    assert one.features(faces(1)) is None, "the mean colour has no places"


@pytest.mark.parametrize(
    ("side", "width", "said"),
    [
        (192, 212, "is a network for 106 points"),
        (224, 64, "crops of 224|224 px|an ONNX graph"),
        (112, 3, "3 values"),
    ],
)
def test_other_networks_are_no_matchers(tmp_path: Path, side: int, width: int, said: str) -> None:
    path = small(tmp_path / "w600k_r50.onnx", side, width)
    if side == 224:  # a multiple of 112: it could be one
        assert load_matcher(path).side == 224
        return
    with pytest.raises(WeightsError, match=said):
        load_matcher(path)


def test_channels_last_is_named(tmp_path: Path) -> None:
    from onnx import helper

    nodes = [helper.make_node("Flatten", ["x"], ["y"])]
    (tmp_path / "f.onnx").write_bytes(
        graph_of(nodes, shape=("n", 112, 112, 3), outputs=[("y", ("n", 112 * 112 * 3))])
    )
    with pytest.raises(WeightsError, match="channels first"):
        OnnxMatcher(tmp_path / "f.onnx")


# Packs


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "buffalo_x"
    stored(folder / "w600k_r50.onnx")
    small(folder / "2d106det.onnx", 192, 212)
    small(folder / "genderage.onnx", 96, 3)
    return folder


def test_a_pack_gives_its_recognition_network(pack: Path, tmp_path: Path) -> None:
    (pack / "w600k_r50.onnx").rename(pack / "aaa.onnx")
    assert [recognise(file).kind for file in sorted(pack.glob("*.onnx"))] == [
        "face-landmarks",
        "matcher-onnx",
        "onnx",
    ]
    found = insightface_matcher(pack)
    assert found.remarks == ("of the InsightFace pack buffalo_x: aaa.onnx",)
    assert found.name == OnnxMatcher(pack / "aaa.onnx").name and "non-commercial" in found.licence
    assert insightface_matcher("buffalo_x", tmp_path).fingerprint == found.fingerprint
    assert load_matcher(pack.rename(tmp_path / "other")).name == found.name, "galleries know it by its name"


def test_packs_are_known_by_their_names(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("identiface_core.matchers.insightface_pack.ROOT", pack.parents[1])
    assert load_matcher("buffalo_x").name == load_matcher(pack).name
    with pytest.raises(WeightsError, match=r"no InsightFace pack 'buffalo_l'.*there: buffalo_x"):
        load_matcher("buffalo_l")
    for name in ("buffalo_l.onnx", "some/buffalo_l", "sface"):
        with pytest.raises(WeightsError, match="no such file or folder. .*identiface weights get"):
            load_matcher(name)


def test_files_in_capitals_are_files(pack: Path, tmp_path: Path) -> None:
    (pack / "w600k_r50.onnx").rename(pack / "W600K_R50.ONNX")
    assert load_matcher(pack).dimension == 64
    with pytest.raises(WeightsError, match="one folder too deep"):
        load_matcher(pack.parent)


def test_packs_need_no_insightface(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is missing, half installed or built against another numpy: nothing of it is imported."""
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.split(".")[0] == "insightface":
            raise ValueError("numpy.dtype size changed, may indicate binary incompatibility")
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert insightface_matcher(pack).embed(faces(1)).shape == (1, 64)


def test_what_is_wrong_with_a_pack_is_said_in_a_sentence(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"no InsightFace pack 'bufallo_x'.*there: buffalo_x.*Nothing is downloaded"
    ):
        insightface_matcher("bufallo_x", tmp_path)
    with pytest.raises(WeightsError, match="nothing is there"):
        insightface_matcher("buffalo_x", tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        WeightsError, match="no .onnx file in this InsightFace pack; its download was broken off"
    ):
        load_matcher(tmp_path / "empty")
    deep = tmp_path / "antelopev2"
    stored(deep / "antelopev2" / "glintr100.onnx")
    with pytest.raises(WeightsError, match="one folder too deep, in .*antelopev2.antelopev2"):
        insightface_matcher(deep)
    (pack / "again.onnx").write_bytes(arcface_like(96))
    with pytest.raises(WeightsError, match="2 networks that recognise faces"):
        insightface_matcher(pack)
    for name in ("again.onnx", "w600k_r50.onnx"):
        (pack / name).write_bytes((pack / name).read_bytes()[:100])
    with pytest.raises(
        WeightsError, match=r"no network that recognises faces, among .*w600k_r50.onnx \(cannot be read"
    ):
        insightface_matcher(pack)


def test_a_manifest_in_the_pack_is_believed(pack: Path, tmp_path: Path) -> None:
    stored(pack / "other.onnx", dimension=96)

    def say(**task: Any) -> None:
        (pack / "manifest.json").write_text(
            json.dumps({"manifest_version": 2, "tasks": {"recognition": task}})
        )

    say(file="other.onnx", preprocessing="embedded")
    found = insightface_matcher(pack)
    assert (found.dimension, found.scale) == (96, "bytes")
    say(file="other.onnx")
    assert insightface_matcher(pack).scale == "signed"
    stored(tmp_path / "models" / "outside.onnx")
    for file in ("../outside.onnx", "none.onnx", str(tmp_path / "models" / "outside.onnx")):
        say(file=file)
        with pytest.raises(WeightsError, match="no such file in the pack"):
            insightface_matcher(pack)
    say(file="other.onnx", preprocessing={"mean": 0, "std": 255})
    with pytest.raises(WeightsError, match="normalisation"):
        insightface_matcher(pack)
    for nothing in ("[]", '{"tasks": {"recognition": {"file": "a\\u0000b"}}}'):
        (pack / "manifest.json").write_text(nothing)
        with pytest.raises(WeightsError, match="2 networks"):
            insightface_matcher(pack)
