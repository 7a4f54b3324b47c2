"""tasks.py and the project's own files: the commands of the README, and exact versions for each Python."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """tasks.py with its environment in an empty folder, and every started program noted instead of run."""
    spec = importlib.util.spec_from_file_location("tasks_under_test", ROOT / "tasks.py")
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "stamp")
    module.calls = []
    module.codes = {}
    module.python_works = True
    made = []

    def call(*command: str, cwd: Path | None = None, quiet: bool = False) -> int:
        if quiet:
            return 0 if module.python_works else 1
        module.calls.append(" ".join(command[1:]))
        return next((code for key, code in module.codes.items() if key in module.calls[-1]), 0)

    def create() -> str:
        made.append(1)
        python = Path(module.venv_python())
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()
        return ""

    monkeypatch.setattr(module, "call", call)
    monkeypatch.setattr(module, "create", create)
    module.made = made
    return module


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_environment_is_made_once(tasks: Any) -> None:
    assert tasks.install() == "" and len(tasks.made) == 1
    assert [line for line in tasks.calls if "pip install" in line][0].endswith("torch numpy setuptools")
    assert all("constraints.txt" in line for line in tasks.calls if "pip install" in line)
    tasks.calls.clear()
    assert tasks.install() == "" and tasks.calls == [] and len(tasks.made) == 1


def test_other_requirements_install_again_into_the_same_environment(tasks: Any) -> None:
    tasks.install()
    tasks.STAMP.write_text("of older constraints", encoding="utf-8")
    tasks.calls.clear()
    assert tasks.install() == "" and len(tasks.calls) == 4 and len(tasks.made) == 1


def test_an_interrupted_install_goes_on(tasks: Any) -> None:
    tasks.create()
    assert tasks.install() == "" and len(tasks.made) == 1 and tasks.STAMP.is_file()


def test_a_broken_environment_is_made_anew_once_and_then_given_up(tasks: Any) -> None:
    tasks.create()
    tasks.codes = {"import torch": 1}
    assert "did not succeed" in tasks.install()
    assert len(tasks.made) == 2 and not tasks.STAMP.exists()
    assert tasks.main(["demo"]) == 1


@pytest.mark.parametrize("where", ["pip install", "import torch"])
def test_ctrl_c_ends_the_install_and_the_next_call_goes_on(
    tasks: Any, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks.codes = {where: tasks.STOPPED}
    assert tasks.main(["demo"]) == tasks.STOPPED
    assert "goes on" in capsys.readouterr().err
    assert not tasks.STAMP.exists() and not any("identiface_core demo" in line for line in tasks.calls)
    tasks.codes = {}
    assert tasks.main(["demo"]) == 0 and len(tasks.made) == 1


def test_an_environment_of_another_python_is_made_anew(tasks: Any) -> None:
    tasks.install()
    tasks.python_works = False
    assert tasks.install() == "" and len(tasks.made) >= 2


def test_test_runs_all_three_and_sums_up(tasks: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tasks.install()
    tasks.calls.clear()
    tasks.codes = {"ruff": 1, "pytest": 1}
    assert tasks.main(["test", "-k", "house"]) == 1
    assert [line.split()[1] for line in tasks.calls] == ["ruff", "mypy", "pytest"]
    assert tasks.calls[-1].endswith("-k house")
    assert capsys.readouterr().out.splitlines()[-1].startswith("FAILED (ruff, pytest): ")
    tasks.codes = {}
    assert tasks.main(["test"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("PASSED (ruff, mypy, pytest): ")


def test_the_closing_line_counts(tasks: Any, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="9" failures="1" errors="1" skipped="3"/></testsuites>')
    assert tasks.summary(report) == "4 tests passed, 2 failed, 3 skipped"
    assert tasks.summary(tmp_path / "none.xml") == "no tests were run"


def test_other_commands_go_to_identiface(tasks: Any) -> None:
    tasks.install()
    tasks.calls.clear()
    tasks.codes = {"identiface_core": 130}
    assert tasks.main(["demo", "--out", "there"]) == 130
    assert tasks.calls == ["-m identiface_core demo --out there"]


def test_help_unknown_commands_and_wrong_pythons(
    tasks: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tasks.main([]) == 0 and "tasks.py demo" in capsys.readouterr().out
    assert tasks.main(["dmeo"]) == 2 and "unknown command 'dmeo'" in capsys.readouterr().err
    for version in ((3, 9, 18), (3, 14, 0)):
        monkeypatch.setattr(tasks.sys, "version_info", version)
        assert tasks.main(["demo"]) == 2
        error = capsys.readouterr().err
        assert "needs Python 3.10 to 3.13" in error and f"this is {version[0]}.{version[1]}" in error
    assert tasks.calls == []


def test_the_exit_code_of_a_program_comes_through() -> None:
    program = "import tasks, sys; sys.exit(tasks.call(sys.executable, '-c', 'raise SystemExit(7)'))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 7


def test_every_requirement_has_exactly_one_exact_version_on_every_python() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    table = project()["project"]
    extras = table["optional-dependencies"]
    wanted = [Requirement(line) for line in [*table["dependencies"], *extras["train"], *extras["dev"]]]
    for python in PYTHONS:
        held = [pin.name for pin in pins if not pin.marker or pin.marker.evaluate({"python_version": python})]
        assert len(held) == len(set(held)), python
        here = [one for one in wanted if not one.marker or one.marker.evaluate({"python_version": python})]
        assert {one.name for one in here} <= set(held), python
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins)


def test_comfyui_users_keep_their_torch_and_get_the_rest() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    hosts = {Requirement(line).name: line for line in lines if line and not line.startswith("#")}
    table = project()["project"]
    wanted = [*table["dependencies"], *table["optional-dependencies"]["photos"]]
    assert "torch" not in hosts and {Requirement(line).name for line in wanted} - {"torch"} == set(hosts)
    assert not any("==" in line.split(";")[0] for line in hosts.values())


def test_one_version_and_one_range_of_pythons(tasks: Any) -> None:
    from identiface_core import __version__

    table = project()["project"]
    assert table["version"] == __version__
    assert table["requires-python"] == f">={tasks.version(tasks.OLDEST)},<3.{tasks.NEWEST[1] + 1}"
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_registry_s_rules() -> None:
    table = project()
    assert "comfyui" not in table["project"]["name"].lower() and not table["project"]["name"][0].isdigit()
    assert re.fullmatch(r"\d+\.\d+\.\d+", table["project"]["version"])
    assert {"PublisherId", "DisplayName", "requires-comfyui"} <= table["tool"]["comfy"].keys()


def test_the_readme_names_commands_that_exist(tasks: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from identiface_core import cli

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"python tasks\.py (\w+)", text)
    assert {"demo", "test"} <= set(named)
    for name in set(named):
        tasks.install()
        assert tasks.main([name]) == 0
    for command in set(re.findall(r"^identiface ((?:[a-z]+ ?)+)", text, re.MULTILINE)):
        with pytest.raises(SystemExit) as end:
            cli.main([*command.split(), "--help"])
        assert end.value.code == 0, command
    capsys.readouterr()
