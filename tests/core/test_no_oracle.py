"""No oracle: nothing on the way from evidence to candidates can see the synthetic world and its truth."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import identiface_core

CORE = Path(identiface_core.__file__).parent
ROOMS = ("rounds", "embedded", "gallery", "matchers", "evidence", "faces", "diffusion")
FORBIDDEN = ("identiface_core.synthesis", "identiface_core.training", "identiface_core.evaluation")


def module_name(path: Path) -> str:
    parts = path.relative_to(CORE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(path: Path, source: str | None = None) -> set[str]:
    """Every module that a file's import statements name, inside of functions too, relative ones resolved."""
    name = module_name(path)
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(source if source is not None else path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.startswith(FORBIDDEN)
        ):
            found.add(node.value)  # importlib.import_module("...")
    return found


def forbidden(names: set[str]) -> set[str]:
    return {name for name in names if any(name == f or name.startswith(f + ".") for f in FORBIDDEN)}


def file_of(name: str) -> Path | None:
    base = CORE.parent.joinpath(*name.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def reachable(rooms: tuple[str, ...]) -> dict[Path, str]:
    """Every file of the library that the rooms can import, however indirectly -> the file that does."""
    waiting = {path: "a room" for room in rooms for path in (CORE / room).rglob("*.py")}
    seen: dict[Path, str] = {}
    while waiting:
        path, why = waiting.popitem()
        seen[path] = why
        for name in imported_by(path):
            target = file_of(name) if name.startswith("identiface_core") else None
            if target is not None and target not in seen:
                waiting[target] = module_name(path)
    return seen


def test_nothing_reachable_imports_the_truth() -> None:
    files = reachable(ROOMS)
    assert len(files) > 30
    for path, why in files.items():
        assert not forbidden(imported_by(path)), (
            f"{module_name(path)} (imported by {why}) names the synthetic world"
        )
        assert not forbidden({module_name(path)}), f"{why} imports {module_name(path)}"


@pytest.mark.parametrize(
    "line",
    [
        "import identiface_core.synthesis.identity",
        "from identiface_core.synthesis import witness",
        "from identiface_core import synthesis",
        "from ..synthesis.portrait import render",
        "from .. import synthesis",
        "def f():\n    from ..synthesis import identity",
        "import importlib\nimportlib.import_module('identiface_core.synthesis.identity')",
    ],
)
def test_the_check_would_notice(line: str) -> None:
    assert forbidden(imported_by(CORE / "rounds" / "runner.py", line))


RUN = """
import importlib.abc, sys, tempfile
from pathlib import Path

class Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        core, room, *_ = [*name.split("."), "", ""]
        if core == "identiface_core" and room in ("synthesis", "training", "evaluation"):
            raise SystemExit(f"asked for {name}")

sys.meta_path.insert(0, Guard())
from identiface_core.evidence.description import Description
from identiface_core.gallery import Gallery
from identiface_core.imaging import resize, write_png
from identiface_core.rounds.case_input import CaseInput, Settings
from identiface_core.rounds.runner import run_case
import identiface_core.embedded
import torch
torch.set_num_threads(1)
from tests.core.case_fakes import faces, fake_gallery, fake_model

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    fake_gallery(12).save(folder / "g.safetensors")
    write_png(folder / "lq.png", resize(faces(1)[0], 8, 8), origin="captured")
    words = Description.from_mapping({"overview": "A man", "eyes": "blue eyes", "glasses": "glasses"})
    case = CaseInput(lq=folder / "lq.png", description=words, gallery=folder / "g.safetensors",
                     settings=Settings(seeds=2, steps=1))
    assert run_case(case, fake_model(), folder / "out").candidates
print([name for name in sys.modules if name.startswith("identiface_core.synthesis")])
"""


def test_a_whole_case_runs_where_the_truth_cannot_be_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN], capture_output=True, text=True, cwd=CORE.parent, timeout=120
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.strip() == "[]"


def test_no_decision_takes_a_truth() -> None:
    from identiface_core.rounds import consensus, controller, engine, prepare, runner, scoring

    words = ("truth", "target", "mate", "true_", "ground", "oracle", "identity")
    for module in (controller, scoring, consensus, prepare, engine, runner):
        for name, function in inspect.getmembers(module, callable):
            if getattr(function, "__module__", "") != module.__name__:
                continue
            methods = [function, *vars(function).values()] if inspect.isclass(function) else [function]
            for one in filter(inspect.isfunction, methods):
                for parameter in inspect.signature(one).parameters:
                    assert not any(word in parameter for word in words), (
                        f"{module.__name__}.{name}({parameter})"
                    )
