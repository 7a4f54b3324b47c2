"""The networks of the command line: named or as files, with what must be said of them; and which face is meant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core import cli, embedded
from identiface_core.catalogue import store
from identiface_core.catalogue.manifest import read_manifest
from identiface_core.cli import networks
from identiface_core.cli.options import build_parser
from identiface_core.faces.alignment import CANONICAL_POINTS
from identiface_core.faces.base import Face, box_of
from identiface_core.imaging import write_png
from tests.core.case_fakes import faces, fake_gallery, fake_model
from tests.core.weights_server import WEIGHTS, entry_toml, manifest


class Two:
    """A detector of photographs that sees two faces in wide pictures, the second one larger."""

    def find_faces(self, image: Tensor, *, threshold: float = 0.5) -> list[Face]:
        found = [CANONICAL_POINTS]
        if image.shape[-1] > 128:
            found.append(CANONICAL_POINTS * 1.1 + torch.tensor([128.0, 0.0]))
        return [Face(box_of(points), points, 0.9) for points in found]


@dataclass(eq=False)
class Photos:
    """A matcher of photographs: mean colours of the middle of a face."""

    name: str = "photos"
    dimension: int = 48
    side: int = 112
    fingerprint: str = "f" * 64
    remarks: tuple[str, ...] = ("not known as a face matcher",)

    def embed_with_quality(self, pictures: Tensor, points: Tensor | None = None) -> Any:
        rows = F.normalize((F.adaptive_avg_pool2d(pictures, 4) - 0.5).flatten(1), dim=1)
        return SimpleNamespace(vectors=rows, quality=torch.ones(len(rows)))


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded, "load_embedded", lambda device: fake_model())
    monkeypatch.setattr("identiface_core.faces.onnx_finders.load_finder", lambda *_: Two())
    monkeypatch.setattr(
        "identiface_core.matchers.load.load_matcher", lambda path, **_: Photos(Path(path).stem.split("_")[0])
    )
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))


@pytest.fixture
def people(tmp_path: Path) -> Path:
    for i, face in enumerate(faces(8, seed=5)):
        write_png(tmp_path / "people" / f"p{i}" / "0.png", face, origin="captured")
    return tmp_path / "people"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> tuple[int, str]:
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


# Networks that do not belong together


def test_photographs_for_networks_of_drawn_people_are_warned_of(
    people: Path, tmp_path: Path, run: Any
) -> None:
    gallery = tmp_path / "g.safetensors"
    code, text = run("gallery", "enrol", people, "--out", gallery, "--detector", "yunet.onnx")
    assert code == 0 and "Warning: embedded-a and embedded-b know drawn people only" in text
    code, text = run("gallery", "search", gallery, people / "p3" / "0.png", "--detector", "yunet.onnx")
    assert code == 0 and "Warning: embedded-a" in text and "give a --matcher of" in text
    assert "%" not in text.split("Candidates")[1] and "those of drawn people" in text
    code, text = run("gallery", "search", gallery, people / "p3" / "0.png", "--face", "whole")
    assert code == 0 and "Warning" not in text and "Measured on drawn people" in text


def test_what_a_gallery_was_enrolled_with_is_said_before_the_picture_is_read(
    people: Path, tmp_path: Path, run: Any
) -> None:
    gallery, missing = tmp_path / "g.safetensors", tmp_path / "none.png"
    with_both = ("--matcher", "photos.onnx", "--detector", "yunet.onnx")
    code, text = run("gallery", "enrol", people, "--out", gallery, *with_both)
    assert code == 0 and "photos.onnx: not known as a face matcher" in text and "Warning" not in text
    code, text = run("gallery", "search", gallery, missing)
    assert code == 2 and "was enrolled with photos, not with embedded-a" in text
    assert "give --matcher FILE" in text and "--detector" in text and "none.png" not in text
    fake_gallery().save(tmp_path / "drawn.safetensors")
    code, text = run("gallery", "search", tmp_path / "drawn.safetensors", missing, "--matcher", "photos.onnx")
    assert code == 2 and "enrolled with embedded-a and embedded-b, not with photos of --matcher" in text
    assert "leave out --matcher" in text
    code, text = run("gallery", "search", gallery, people / "p3" / "0.png", *with_both)
    assert code == 0 and "unknown" in text and "at least 15 different people, got 8" in text
    assert "FPIR: how often" in text and "rounds" not in text


def test_a_matcher_that_is_given_twice_is_refused(people: Path, tmp_path: Path, run: Any) -> None:
    code, text = run("gallery", "enrol", people, "--out", tmp_path / "g.safetensors", "--face", "whole",
                     "--matcher", "x_1.onnx", "x_2.onnx")  # fmt: skip
    assert code == 2 and "x_1.onnx, x_2.onnx are the same network, x: give each once" in text


def test_names_of_the_manifest_stand_for_files(
    people: Path, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = read_manifest(
        manifest(tmp_path / "manifest", net=entry_toml(), eye=entry_toml("eye", b"e" * 9, role="detector"))
    )
    monkeypatch.setattr(store, "read_manifest", lambda: entries)
    monkeypatch.setattr("identiface_core.catalogue.manifest.read_manifest", lambda: entries)
    assert networks.file_of(Path("buffalo_l"), "matcher") == Path("buffalo_l")
    command = ("gallery", "enrol", people, "--out", tmp_path / "g.safetensors", "--matcher", "net")
    code, text = run(*command, "--detector", "eye")
    assert code == 2 and "('net') is not here" in text and "identiface weights get net" in text
    here = tmp_path / "cache" / "identiface" / "models" / "mine"
    here.parent.mkdir(parents=True)
    here.write_bytes(WEIGHTS)
    assert networks.file_of(Path("net"), "matcher") == here
    code, text = run(*command, "--detector", "net")
    assert code == 2 and "--detector net: these weights have another role, matcher" in text


def test_no_rate_below_what_the_gallery_can_tell(tmp_path: Path, run: Any) -> None:
    for i, face in enumerate(faces(20, seed=6)):
        write_png(tmp_path / "people" / f"p{i}.png", face, origin="captured")
    gallery, networks = tmp_path / "g.safetensors", ("--matcher", "photos.onnx", "--detector", "yunet.onnx")
    assert run("gallery", "enrol", tmp_path / "people", "--out", gallery, *networks)[0] == 0
    code, text = run("gallery", "search", gallery, tmp_path / "people" / "p2.png", *networks)
    # 190 pairs of strangers, 20 people: 1 - (1 - 1 / 191) ** 20 at best
    assert code == 0 and "fewer than 1 in 10 " in text and "this gallery's 20 people with each other" in text


# What is typed


@pytest.mark.parametrize(
    ("typed", "read"),
    [("2", 2), ("178,73,274,179.5", (178, 73, 274, 179.5)), ("largest", "largest"), ("whole", "whole")],
)
def test_ways_to_say_which_face(typed: str, read: Any) -> None:
    options = build_parser().parse_args(["gallery", "search", "g", "i.png", "--face", typed])
    assert options.face == read


@pytest.mark.parametrize("typed", ["1,2,3", "biggest", "1,2,3,x", "-1"])
def test_other_ways_are_refused(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["gallery", "search", "g", "i.png", f"--face={typed}"])
    assert "a box x0,y0,x1,y1, largest or whole" in capsys.readouterr().err


def test_of_several_faces_the_one_that_is_meant_is_taken_and_said(
    people: Path, tmp_path: Path, run: Any
) -> None:
    pair = torch.cat(list(faces(2, seed=5)), 2)
    write_png(people / "p0" / "pair.png", pair, origin="captured")
    gallery, image = tmp_path / "g.safetensors", people / "p0" / "pair.png"
    networks = ("--matcher", "photos.onnx", "--detector", "yunet.onnx")
    code, text = run("gallery", "enrol", people, "--out", gallery, *networks)
    assert code == 0 and "pair.png: 2 faces were found" in text and "Say which with --face" in text
    assert text.count("pair.png: ") == 1, "a picture is named once"
    code, text = run("gallery", "enrol", people, "--out", gallery, *networks, "--face", "largest")
    assert code == 0 and "pair.png: face number 1 (counting from 0) of 2: the largest" in text
    code, text = run("gallery", "search", gallery, image, *networks)
    assert code == 2 and "Say which with --face" in text
    for which, told in (("0", "number 0"), ("largest", "number 1"), ("130,0,256,128", "number 1")):
        code, text = run("gallery", "search", gallery, image, *networks, "--face", which)
        assert code == 0 and f"pair.png: face {told} (counting from 0) of 2" in text


# Files


def test_files_that_are_no_galleries_are_said(people: Path, tmp_path: Path, run: Any) -> None:
    code, text = run("gallery", "enrol", people, "--out", tmp_path / "g.txt", "--face", "whole")
    assert code == 2 and "g.safetensors" in text and not list(tmp_path.glob("g.*"))
    code, text = run("gallery", "info", people)
    assert code == 2 and "a folder. `identiface gallery enrol" in text
    code, text = run("gallery", "search", people / "p0" / "0.png", tmp_path / "g.safetensors")
    assert code == 2 and "a picture, where a gallery file is wanted" in text
    (tmp_path / "renamed").write_bytes((people / "p0" / "0.png").read_bytes())
    code, text = run("gallery", "info", tmp_path / "renamed")
    assert code == 2 and "a picture, not weights" in text
    code, text = run("gallery", "info", tmp_path / "none.safetensors")
    assert code == 2 and "no such file" in text and "reinstalling" not in text


def test_people_of_generated_pictures_are_marked(tmp_path: Path, run: Any) -> None:
    for i, face in enumerate(faces(3, seed=5)):
        write_png(tmp_path / "people" / f"p{i}.png", face, origin="generated" if i == 1 else "captured")
    gallery = tmp_path / "g.safetensors"
    assert run("gallery", "enrol", tmp_path / "people", "--out", gallery, "--face", "whole")[0] == 0
    code, text = run("gallery", "search", gallery, tmp_path / "people" / "p2.png", "--face", "whole")
    assert code == 0 and "p1 (generated picture)" in text and "p0 (generated" not in text
