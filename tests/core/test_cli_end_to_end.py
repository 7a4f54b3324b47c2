"""The commands from files to files, with a tiny model in place of the embedded one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from identiface_core import cli, embedded
from identiface_core.imaging import write_png
from tests.core.case_fakes import faces, fake_model


@pytest.fixture
def people(tmp_path: Path) -> Path:
    folder = tmp_path / "people"
    folder.mkdir()
    for i, face in enumerate(faces(12, seed=5)):
        write_png(folder / f"person {i:02d}.png", face, origin="captured")
    (folder / "broken.png").write_bytes(b"\x89PNG no more")
    return folder


@pytest.fixture
def case(tmp_path: Path, people: Path) -> Path:
    write_png(tmp_path / "lq.png", faces(12, seed=5)[3], origin="captured")
    path = tmp_path / "case.toml"
    path.write_text(
        'gallery = "people"\n[evidence]\nlq = "lq.png"\nface = "whole"\n'
        '[description]\noverview = "A man"\neyes = "blue eyes"\nnose = "a long nose"\n'
        "[run]\nseeds = 2\nsteps = 2\n",
        encoding="utf-8",
    )
    return path


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_run_stop_and_resume(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = fake_model(faces(12, seed=5)[3])
    monkeypatch.setattr(embedded, "load_embedded", lambda device: model)
    assert run("run", case, "--out", tmp_path / "whole") == 0
    text = capsys.readouterr().out
    assert "person 03" in text and "not enrolled" in text
    assert "report.html" in text and "candidates.png" in text

    model.generator.stop_at = model.generator.calls + 2
    assert run("run", case, "--out", tmp_path / "stopped") == 130
    assert "--resume" in capsys.readouterr().err
    model.generator.stop_at = None
    assert run("run", case, "--out", tmp_path / "stopped", "--resume") == 0

    both = [json.loads((tmp_path / name / "case.json").read_text("utf-8")) for name in ("whole", "stopped")]
    for content in both:
        content.pop("times")
    assert both[0] == both[1]


def test_enrol_info_and_search(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = fake_model()
    monkeypatch.setattr(embedded, "load_embedded", lambda device: model)
    gallery = tmp_path / "people.safetensors"
    assert run("gallery", "enrol", people, "--out", gallery, "--face", "whole") == 0
    text = capsys.readouterr().out
    assert "12 people enrolled, 1 pictures left out" in text and "broken.png" in text
    assert run("gallery", "info", gallery) == 0
    assert "people with captured pictures: 12" in capsys.readouterr().out

    image = tmp_path / "probe.png"
    write_png(image, (faces(12, seed=5)[7] + 0.05 * torch.rand(3, 128, 128)).clamp(0, 1), origin="generated")
    assert run("gallery", "search", gallery, image, "--face", "whole", "-k", 3) == 0
    text = capsys.readouterr().out
    assert "person 07" in text and "says that it was generated" in text and "not an identification" in text
    assert run("gallery", "search", gallery, people / "broken.png") == 2
