"""The command line: which function is called with what, exit codes, and what a person reads."""

from __future__ import annotations

import io
import os
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from identiface_core import __version__, cli
from identiface_core.cli import case as cli_case
from identiface_core.cli.console import Stages, rate, show_table
from identiface_core.errors import InputError
from identiface_core.gallery import Gallery
from identiface_core.gallery.store import encode_thumbnail
from identiface_core.rounds.case import BY_BOTH, BY_EVIDENCE, BY_GENERATED, NOTICE, Case, ListedCandidate


def found() -> Case:
    first = ListedCandidate(1, "person [red]1[/red]", 0.7123, 0.0042)
    listed = (first, ListedCandidate(2, "Ümit", 0.4, None, generated=True))
    return Case(
        evidence={},
        settings={},
        gallery={"people": 12},
        models={},
        lists={BY_EVIDENCE: listed, BY_GENERATED: (), BY_BOTH: listed},
        warnings=("the photo is hard to recognise",),
    )


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "case.toml"
    path.write_text('[description]\noverview = "A man in the fifties"\n', encoding="utf-8")
    return path


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Case]], None]:
    """Replaces the networks and the running of a case."""

    def install(run_case: Callable[..., Case]) -> None:
        embedded = types.ModuleType("identiface_core.embedded")
        embedded.load_embedded = lambda device: f"model on {device}"  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "identiface_core.embedded", embedded)
        rounds = types.ModuleType("identiface_core.rounds.runner")
        rounds.run_case = run_case  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "identiface_core.rounds.runner", rounds)

    return install


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"identiface {__version__}\n"
    assert cli.main([]) == 0
    assert "gallery" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["run", "case.toml"],
        ["gallery"],
        ["gallery", "search", "file"],
        ["gallery", "enrol", "folder", "--out", "f", "--face", "-1"],
        ["train", "embedded", "--minutes", "nan"],
        ["train", "embedded", "--minutes", "0"],
    ],
)
def test_wrong_arguments_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2 and "usage:" in capsys.readouterr().err


def test_run_shows_candidates_files_and_the_notice(
    runner: Any, toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    def run_case(case: Any, model: Any, out: Path, on_progress: Any, *, resume: bool) -> Case:
        seen.update(words=case.description.full_prompt(), model=model, resume=resume)
        on_progress("rounds", 0, 2, "round 0 (overview)")
        (out / "report.html").touch()
        return found()

    runner(run_case)
    out = tmp_path / "out"
    out.mkdir()
    (out / "case.json").touch()
    assert cli.main(["run", str(toml), "--out", str(out), "--resume"]) == 0
    text = capsys.readouterr().out
    assert "fifties" in seen["words"] and seen["model"] == "model on cpu" and seen["resume"]
    for piece in ("person [red]1[/red]", "0.712", "0.4 %", " - ", "Ümit (drawn person)"):
        assert piece in text
    assert "among 12 people" in text
    for piece in ("round 0 (overview)", "hard to recognise", "report.html", NOTICE):
        assert piece in text
    assert "candidates.png" not in text, "only files that were written are named"
    assert "does not single anybody out" not in text


def test_what_the_list_is_worth_why_the_case_ended_and_what_came_to_nothing(
    runner: Any, toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = (ListedCandidate(1, "Ann", 0.2, 0.97),)
    case = replace(
        found(),
        evidence={"description": {"overview": "a man", "ears": "large"}},
        lists={BY_EVIDENCE: listed, BY_GENERATED: (), BY_BOTH: listed},
        stopped=True,
        stop_reason="the witness said so",
    )
    runner(lambda *_, **__: case)
    assert cli.main(["run", str(toml), "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    headline = "does not single anybody out: people who are not in the gallery score as high as the first candidate in about 97"
    assert headline in text and text.index(headline) < text.index("Ann")
    assert "Finished: the witness said so." in text and "Not redrawn: ears (the case had ended)" in text


@pytest.mark.parametrize(
    ("line", "out", "resume", "says"),
    [
        ('gallery = "nobody"', "out", False, "nobody: no such folder or file"),
        ('evidence.lq = "none.png"', "out", False, "none.png: there is no such file"),
        ("", "case.toml", False, "this is a file"),
        ("", "out", True, "no case was begun there"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_loaded(
    toml: Path,
    line: str,
    out: str,
    resume: bool,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "identiface_core.embedded", None)
    toml.write_text(f"{line}\n{toml.read_text('utf-8')}", "utf-8")
    assert cli.main(["run", str(toml), "--out", str(toml.parent / out), *["--resume"] * resume]) == 2
    assert says in capsys.readouterr().err


def test_an_error_is_one_line_and_2(
    runner: Any, toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_case(*_: Any, **__: Any) -> Case:
        raise InputError("lq.png: no face was found: give a larger picture")

    runner(run_case)
    assert cli.main(["run", str(toml), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "identiface: lq.png: no face was found: give a larger picture\n"


def test_a_case_file_that_is_missing_is_said_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", str(tmp_path / "nowhere.toml"), "--out", str(tmp_path / "out")]) == 2
    assert "nowhere.toml" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("saved", [True, False])
def test_ctrl_c_says_whether_the_case_can_go_on(
    runner: Any, toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], saved: bool
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "case.json").write_text("of an earlier case", encoding="utf-8")
    os.utime(out / "case.json", (1, 1))

    def run_case(*_: Any, **__: Any) -> Case:
        if saved:
            (out / "case.json").write_text("{}", encoding="utf-8")
        raise KeyboardInterrupt

    runner(run_case)
    assert cli.main(["run", str(toml), "--out", str(out)]) == 130
    text = capsys.readouterr().err
    assert ("--resume" in text and str(out) in text) if saved else "nothing was saved" in text


def test_a_device_that_is_not_there_is_said(
    toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["run", str(toml), "--out", str(tmp_path / "out"), "--device", "cuda"]) == 2
    assert "--device cuda" in capsys.readouterr().err


def test_training_gets_its_arguments_and_ctrl_c_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []

    def train_embedded(stage: str, folder: Path, minutes: float | None, device: str) -> None:
        seen.append((stage, folder, minutes, device))
        raise KeyboardInterrupt

    training = types.ModuleType("identiface_core.training.embedded")
    training.train_embedded = train_embedded  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "identiface_core.training.embedded", training)
    command = ["train", "embedded", "--stage", "text", "--folder", str(tmp_path), "--minutes", "2.5"]
    assert cli.main(command) == 130
    assert seen == [("text", tmp_path, 2.5, "cpu")]
    assert "goes on" in capsys.readouterr().err


def test_a_programming_error_is_not_dressed_up(runner: Any, toml: Path, tmp_path: Path) -> None:
    def run_case(*_: Any, **__: Any) -> Case:
        raise ZeroDivisionError

    runner(run_case)
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", str(toml), "--out", str(tmp_path / "out")])


def test_demo_runs_the_shipped_case(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(cli_case, "run", lambda *a, **k: seen.append((a, k)) or 0)
    assert cli.main(["demo", "--out", "there"]) == 0
    (case_file, out), settings = seen[0]
    assert case_file.parts[-3:] == ("examples", "case", "case.toml") and out == Path("there")
    assert settings == {"resume": False, "device": "cpu"}


def test_gallery_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = torch.nn.functional.normalize(torch.ones(2, 4), dim=1)
    thumbnail = encode_thumbnail(torch.zeros(3, 128, 128))
    gallery = Gallery(("a", "b"), {"m": rows}, (thumbnail,) * 2, ("captured", "generated"), {"m": "f" * 64})
    gallery.save(tmp_path / "g.safetensors")
    assert cli.main(["gallery", "info", str(tmp_path / "g.safetensors")]) == 0
    text = capsys.readouterr().out
    for piece in (
        "2 people",
        "matcher m: 4-d",
        "people with captured pictures: 1",
        "people with generated pictures: 1",
    ):
        assert piece in text
    assert cli.main(["gallery", "info", str(tmp_path / "missing")]) == 2


def test_enrolling_a_missing_folder_is_said_at_once(
    runner: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner(lambda: pytest.fail("not called"))
    assert cli.main(["gallery", "enrol", str(tmp_path / "none"), "--out", str(tmp_path / "g")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_gallery_that_cannot_be_written_is_said_before_anybody_is_enrolled(
    runner: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = tmp_path / "people"
    people.mkdir()
    (people / "ann.png").write_bytes(b"never opened")
    runner(lambda: pytest.fail("not called"))
    sys.modules["identiface_core.embedded"].load_embedded = lambda device: pytest.fail("too late")  # type: ignore[attr-defined]
    for out, says in ((people, "this is a folder"), (people / "ann.png" / "g", "cannot be written")):
        assert cli.main(["gallery", "enrol", str(people), "--out", str(out)]) == 2
        text = capsys.readouterr().err
        assert str(out) in text and says in text and text.count("\n") == 1
    assert [path.name for path in people.iterdir()] == ["ann.png"]


def test_plain_progress_prints_a_line_per_tenth() -> None:
    screen = Console(file=io.StringIO(), force_terminal=False, width=80)
    with Stages(screen) as stages:
        for done in range(1, 1001):
            stages("enrol", done, 1000, f"picture [{done}].png")
    lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert 9 <= len(lines) <= 11 and "[1].png" in lines[0] and lines[-1].startswith("enrol 1000/1000")


def test_progress_bars_on_a_terminal_show_names_as_they_are() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Stages(screen) as stages:
        stages("enrol", 5, 10, "picture [bold]5[/bold].png")
    assert "[bold]5[/bold].png" in screen.file.getvalue()  # type: ignore[attr-defined]


def test_tables_show_texts_as_they_are() -> None:
    screen = Console(file=io.StringIO(), width=60)
    show_table(screen, "[title]", ("rank", "person"), [("1", "[/x]")])
    assert "[title]" in screen.file.getvalue() and "[/x]" in screen.file.getvalue()  # type: ignore[attr-defined]


def test_rates_are_readable() -> None:
    assert [rate(x) for x in (None, 1.0, 0.5, 0.00123)] == ["unknown", "over 99 %", "50 %", "0.12 %"]
    assert [rate(x, 0.0028) for x in (0.0028, 0.003)] == ["fewer than 1 in 360", "0.3 %"]
