"""A matcher from a file: known by what is in it, refused with a sentence where it is something else or damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from identiface_core.catalogue.manifest import read_manifest
from identiface_core.catalogue.records import Lock, Locked
from identiface_core.errors import WeightsError
from identiface_core.matchers.agreement import Agreement, agreement
from identiface_core.matchers.aligned import ASK, AlignedMatcher
from identiface_core.matchers.base import EmbeddedMatcher, Matcher
from identiface_core.matchers.calibration import fit
from identiface_core.matchers.load import licence_of, load_matcher
from identiface_core.matchers.network import FaceNet
from identiface_core.matchers.picture import coloured, comparison_picture, detail_picture, text_picture
from identiface_core.matchers.verdict import meaning_of, verdict_on
from identiface_core.weights.files import save_module

from .matcher_files import arcface_like, faces, tiny_edgeface, tiny_residual


def stored(path: Path, prefix: str, net: Any, names: dict[str, str] | None = None, **more: Tensor) -> Path:
    state = {prefix + (names or {}).get(key, key): value.clone() for key, value in net.state_dict().items()}
    save_file({**state, **more}, path)
    return path


def test_files_are_known_by_their_content(tmp_path: Path) -> None:
    net = tiny_residual()
    pictures = faces(2)
    want = {
        colour: AlignedMatcher(net, name="n", dimension=64, fingerprint="", colour=colour).embed(pictures)
        for colour in ("rgb", "bgr")
    }
    head = {"head.kernel": torch.rand(64, 10)}
    for place, (prefix, colour, beside) in enumerate(
        [("model.net.", "rgb", {}), ("model.", "bgr", head), ("", "bgr", {}), ("net.", "rgb", {})]
    ):
        path = stored(tmp_path / f"edgeface_{place}.safetensors", prefix, net, **beside)
        found = load_matcher(path)
        assert (found.colour, found.side, found.dimension) == (colour, 112, 64), prefix
        assert torch.equal(found.embed(pictures), want[colour])
        assert found.name.startswith("adaface-ir1-2-1-1-") and found.licence == ASK
        wrapped = stored(tmp_path / "wrapped.safetensors", "module." + prefix, net)
        assert torch.equal(load_matcher(wrapped).embed(pictures), want[colour]), "trained on several devices"
    turned = load_matcher(path, colour="bgr")
    assert torch.equal(turned.embed(pictures), want["bgr"])
    assert (
        turned.fingerprint != load_matcher(path).fingerprint == load_matcher(path, colour="rgb").fingerprint
    )
    assert turned.name != load_matcher(path).name

    small = tiny_edgeface()
    found = load_matcher(stored(tmp_path / "adaface.safetensors", "model.", small))
    assert found.name.startswith("edgeface-16-")
    whole = AlignedMatcher(small, name="n", dimension=64, fingerprint="").embed(pictures)
    torch.testing.assert_close(found.embed(pictures), whole, atol=1e-6, rtol=1e-5)
    found = load_matcher(stored(tmp_path / "adaface.safetensors", "module.model.", small))
    torch.testing.assert_close(found.embed(pictures), whole, atol=1e-6, rtol=1e-5)


def test_insightface_names_load(tmp_path: Path) -> None:
    net = tiny_residual(pooled=False, affine=True)
    ours = {name: name for name in net.state_dict()}
    theirs = {
        "input_layer.0": "conv1", "input_layer.1": "bn1", "input_layer.2": "prelu", "output_layer.0": "bn2",
        "output_layer.3": "fc", "output_layer.4": "features",
    }  # fmt: skip
    units = ((1, 0), (2, 0), (2, 1), (3, 0), (4, 0))
    parts = dict(enumerate(("bn1", "conv1", "bn2", "prelu", "conv2", "bn3")))
    for name in ours:
        for old, new in theirs.items():
            if name.startswith(old + "."):
                ours[name] = name.replace(old, new)
        for index, (layer, unit) in enumerate(units):
            if name.startswith(f"body.{index}."):
                rest = name.removeprefix(f"body.{index}.").replace("shortcut_layer", "downsample")
                for place, part in parts.items():
                    rest = rest.replace(f"res_layer.{place}.", f"{part}.")
                ours[name] = f"layer{layer}.{unit}.{rest}"
    found = load_matcher(stored(tmp_path / "f.safetensors", "", net, ours))
    assert found.colour == "rgb" and found.name.startswith("iresnet1-2-1-1-")
    want = AlignedMatcher(net, name="n", dimension=64, fingerprint="").embed(faces(2))
    torch.testing.assert_close(found.embed(faces(2)), want)


def test_our_own_files_load(tmp_path: Path) -> None:
    net = FaceNet(dimension=8, widths=(4, 4), blocks=(1, 1)).eval()
    save_module(tmp_path / "f.safetensors", net, half=False)
    found = load_matcher(tmp_path / "f.safetensors")
    assert isinstance(found, EmbeddedMatcher)
    assert torch.equal(found.embed(faces(2)), EmbeddedMatcher(net, "x").embed(faces(2)))


def test_wrong_files_say_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "adaface_ir101.safetensors"
    save_file(
        {
            "decoder.conv_in.weight": torch.zeros(2, 4, 3, 3),
            "decoder.mid.block_1.conv1.weight": torch.zeros(1),
        },
        path,
    )
    with pytest.raises(
        WeightsError, match=r"Load Matcher needs a face matcher \([^)]*\); this is an autoencoder \(VAE\)"
    ):
        load_matcher(path)
    with pytest.raises(WeightsError, match="safetensors: --matcher needs a face matcher"):
        load_matcher(path, purpose="--matcher")
    torch.save({"state_dict": tiny_residual().state_dict()}, tmp_path / "adaface.ckpt")
    with pytest.raises(WeightsError, match="pickle.*safetensors"):
        load_matcher(tmp_path / "adaface.ckpt")
    with pytest.raises(WeightsError, match="no such file"):
        load_matcher(tmp_path / "none.safetensors")


@pytest.mark.parametrize("damage", ["missing", "shape", "nan", "unit", "squeeze"])
def test_damaged_networks_are_refused(tmp_path: Path, damage: str) -> None:
    state = {key: value.clone() for key, value in tiny_residual().state_dict().items()}
    if damage == "missing":
        del state["body.2.res_layer.3.weight"]
    elif damage == "shape":
        state["output_layer.3.weight"] = state["output_layer.3.weight"][:, :-7].clone()
    elif damage == "nan":
        state["body.1.res_layer.1.weight"][0, 0] = float("nan")
    elif damage == "unit":
        del state["body.1.res_layer.1.weight"]
    else:
        state["body.0.res_layer.se_block.fc1.weight"] = torch.zeros(1, 8, 1, 1)
    save_file(state, tmp_path / "f.safetensors")
    with pytest.raises(WeightsError, match=str(tmp_path / "f.safetensors")):
        load_matcher(tmp_path / "f.safetensors")


def test_networks_of_another_make_are_not_called_damaged(tmp_path: Path) -> None:
    """face.evoLVe's units lack the normalisation after the first convolution."""
    places = {"0": "0", "1": "1", "3": "2", "4": "3", "5": "4"}
    state = {}
    for key, value in tiny_residual().state_dict().items():
        unit, found, rest = key.partition(".res_layer.")
        place, _, part = rest.partition(".")
        if not found:
            state[key] = value.clone()
        elif place in places:
            state[f"{unit}.res_layer.{places[place]}.{part}"] = value.clone()
    save_file(state, tmp_path / "f.safetensors")
    with pytest.raises(WeightsError, match="of another make under the same names, as face.evoLVe's.*export"):
        load_matcher(tmp_path / "f.safetensors")


def test_licences_are_those_of_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    entry = next(one for one in read_manifest() if one.role == "matcher" and one.pinned)
    assert licence_of(str(entry.pinned)).startswith(f"{entry.weights_licence} ({entry.title})")
    assert licence_of("0" * 64) == ASK
    fetched = next(one for one in read_manifest() if one.role == "matcher" and not one.pinned)
    Lock(tmp_path / "identiface" / "lock.json").put(fetched.name, Locked("0" * 64, 3, "somewhere"))
    assert fetched.title in licence_of("0" * 64)
    (tmp_path / "identiface" / "lock.json").write_text("{")
    assert licence_of("1" * 64) == ASK


def test_an_onnx_file_is_a_matcher_too(tmp_path: Path) -> None:
    (tmp_path / "sface.bin").write_bytes(arcface_like())
    found = load_matcher(tmp_path / "sface.bin")
    assert isinstance(found, Matcher) and found.dimension == 64
    assert agreement(found, *faces(2)).how == "features"


# Pictures and sentences


def test_a_similarity_is_told_with_what_it_means() -> None:
    table = fit(0.2 * torch.randn(5000, generator=torch.Generator().manual_seed(1)))
    rate, said = meaning_of(0.4, table, " in the gallery")
    assert rate == table.fmr(0.4) < 0.1
    assert said == f"1 in {1 / rate:,.0f} pairs of strangers are as alike (5,000 compared in the gallery)."
    assert meaning_of(2.0, table)[1].startswith("fewer than 1 in 5,001")
    assert meaning_of(0.0, table)[1][:9] in ("49% of pa", "50% of pa", "51% of pa")
    assert meaning_of(0.4, None) == (1.0, meaning_of(0.9, None)[1])


def test_photos_without_detail_are_not_to_be_searched() -> None:
    verdicts = [verdict_on(score) for score in (0.0, 0.29, 0.31, 0.49, 0.51, 1.0)]
    assert [one.may_search for one in verdicts] == [False, False, True, True, True, True]
    assert "4 px" in verdicts[0].sentence and "64 px" in verdicts[-1].sentence
    assert "weak clue" in verdicts[2].sentence and "weak clue" not in verdicts[4].sentence
    assert verdict_on(0.4, 0.4).advice.endswith("to 0.40 of 1.")
    assert "trusts" not in verdict_on(0.2, 0.9).advice, "trust in a reading of nothing would contradict"


def test_matchers_of_photographs_want_more_detail() -> None:
    verdicts = [verdict_on(score, photographs=True) for score in (0.5, 0.57, 0.59, 0.82, 0.84)]
    assert [one.may_search for one in verdicts] == [False, False, True, True, True]
    assert ["weak clue" in one.sentence for one in verdicts] == [False, False, True, True, False]


def test_pictures_show_the_map_on_its_scale() -> None:
    crops = (torch.zeros(3, 112, 112), torch.ones(3, 112, 112))
    low, high = torch.zeros(7, 7), torch.ones(7, 7)
    dark, bright = (
        comparison_picture(Agreement(0.1, one, "features", crops), ["first line", "second"])
        for one in (low, high)
    )
    assert dark.shape == bright.shape and float(dark.min()) >= 0 and float(bright.max()) <= 1
    changed = (dark != bright).any(0).nonzero()
    assert changed[:, 1].min() > 2 * 288, "only the map differs"
    assert bright[:, changed[:, 0], changed[:, 1]].mean() > dark[:, changed[:, 0], changed[:, 1]].mean() + 0.2
    long = detail_picture(torch.rand(3, 40, 40), 0.5, ["word " * 60])
    assert long.shape[1] > detail_picture(torch.rand(3, 40, 40), 0.5, ["word"]).shape[1]
    assert text_picture(["a"]).shape == text_picture(["b"]).shape
    assert (
        coloured(torch.tensor([[-1.0, 1.0]]), -1.0, 1.0)[2, 0, 1]
        > coloured(torch.tensor([[-1.0, 1.0]]), -1.0, 1.0)[2, 0, 0]
    )
