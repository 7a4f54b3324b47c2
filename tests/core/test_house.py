"""The rules of the house (ARCHITECTURE.md), read from the source: sizes, imports, what is never called."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 450

LEVELS = (
    {"errors", "toml", "parts", "provenance", "imaging", "weights", "catalogue"},
    {"faces", "evidence"},
    {"diffusion", "gallery", "matchers"},
    {"embedded"},
    {"rounds"},
    {"cli", "evaluation", "training", "__main__"},
)
"""Rooms from the ground up; a room imports its own level and those below. `synthesis` stands beside."""
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
KNOWS_SYNTHESIS = {"synthesis", "training", "evaluation"}
SYNTHESIS_MAY_IMPORT = {"synthesis", "evidence", "parts", "errors", "imaging"}

SLOW = {"diffusers", "faiss", "transformers", "matplotlib", "rich", "scipy", "aiohttp", "tomli"}
"""What a host has not loaded already, and what takes long to load."""
FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "cv2", "torchvision"}

CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "torch.save", "faiss.read_index"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def product() -> list[Path]:
    return [ROOT / "__init__.py", ROOT / "tasks.py", *sources("identiface_core", "nodes")]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def path_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    found = [path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()]
    return found[0] if found and module else None


def statements(body: list[ast.stmt], at_import: bool) -> Iterator[ast.AST]:
    """All nodes; with `at_import` only those that run when the module is imported."""
    for statement in body:
        if at_import and isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if at_import and isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            continue
        yield statement
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(statement, field, [])
            yield from statements([one for one in inner if isinstance(one, ast.AST)], at_import)


def imports(path: Path, at_import: bool = False) -> set[str]:
    """Full names of everything that the file imports: modules, and modules' members."""
    package = module_of(path).split(".") if path.name == "__init__.py" else module_of(path).split(".")[:-1]
    found: set[str] = set()
    for node in statements(tree_of(path).body, at_import):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{origin}.{alias.name}".lstrip(".") for alias in node.names} | {origin}
    return found


def closure(start: str, at_import: bool) -> set[str]:
    """Every name that importing (or, without `at_import`, ever using) the module can import."""
    waiting, seen, names = [(start, at_import)], set(), set()
    while waiting:
        module, light = waiting.pop()
        path = path_of(module)
        if path is None or (module, light) in seen:
            continue
        seen.add((module, light))
        new = imports(path, light)
        names |= new
        waiting += [(name, light) for name in new]
        # Importing a.b.c runs a/__init__ and a.b/__init__, but calls nothing in them.
        parts = module.split(".")
        waiting += [(".".join(parts[:n]), True) for n in range(1, len(parts))]
    return names


def room_of(name: str) -> str | None:
    parts = name.split(".")
    if parts[:3] == ["identiface_core", "evidence", "lexicon"]:
        return "parts"  # words for a face are ground, as the names of its parts are
    return parts[1] if parts[0] == "identiface_core" and len(parts) > 1 else None


def core_imports() -> Iterator[tuple[Path, str, str]]:
    """(file, its room, a room it imports) over the whole core."""
    rooms = LEVEL.keys() | {"synthesis"}
    for path in sources("identiface_core"):
        here = room_of(module_of(path))
        for name in imports(path) if here else ():
            there = room_of(name)
            if there in rooms:
                yield path, str(here), str(there)


def test_every_room_has_a_level() -> None:
    rooms = {room_of(module_of(path)) for path in sources("identiface_core")} - {None, "synthesis"}
    assert rooms <= LEVEL.keys(), f"give these a place in LEVELS and ARCHITECTURE.md: {rooms - LEVEL.keys()}"


def test_files_stay_small() -> None:
    files = [*product(), *sources("tests")]
    found = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in files}
    assert {name: lines for name, lines in found.items() if lines > MAX_LINES} == {}


def test_nothing_imports_upwards() -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {there}"
        for path, here, there in core_imports()
        if "synthesis" not in (here, there) and LEVEL[there] > LEVEL[here]
    }
    assert wrong == set()


def test_no_two_rooms_import_each_other() -> None:
    def one(room: str) -> str:
        return "imaging" if room == "provenance" else room  # one room in two files

    pairs = {(one(here), one(there)) for _, here, there in core_imports() if one(here) != one(there)}
    assert {pair for pair in pairs if pair[::-1] in pairs} == set()


def test_the_core_knows_no_host() -> None:
    hosts = ("comfy", "comfy_api", "comfy_execution", "folder_paths", "nodes", "server", "execution")
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources("identiface_core")
        for name in imports(path)
        if name.split(".")[0] in hosts
    }
    assert wrong == set()


def test_synthesis_stands_beside() -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {there}"
        for path, here, there in core_imports()
        if (there == "synthesis" and here not in KNOWS_SYNTHESIS)
        or (here == "synthesis" and there not in SYNTHESIS_MAY_IMPORT)
    }
    assert wrong == set()


@pytest.mark.parametrize(
    "start",
    [
        "identiface_core.cli.case",
        "identiface_core.cli.gallery",
        "identiface_core.rounds.engine",
        "identiface_core.rounds.runner",
        "identiface_core.embedded",
    ],
)
def test_no_way_leads_from_evidence_to_the_truth(start: str) -> None:
    """Nothing of the drawn world is among what a case can ever import, also late inside a function."""
    reached = {room_of(name) for name in closure(start, at_import=False)}
    assert reached & {"synthesis", "training", "evaluation"} == set()
    assert "weights" in reached, "the walk itself must work"


def test_no_node_reaches_the_truth() -> None:
    for path in [ROOT / "__init__.py", *sources("nodes")]:
        names = imports(path).union(*(closure(name, at_import=False) for name in imports(path)))
        assert {room_of(name) for name in names} & {"synthesis", "training", "evaluation"} == set(), path


def test_nothing_executes_foreign_code() -> None:
    wrong = []
    for path in product():
        wrong += [f"{path.name} imports {name}" for name in imports(path) if name.split(".")[0] in FORBIDDEN]
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in CALLS and not _opens_without_running(path, node):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} calls {called}")
            if any(key.arg == "allow_pickle" and ast.unparse(key.value) != "False" for key in node.keywords):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} passes allow_pickle")
    assert wrong == []


def _opens_without_running(path: Path, call: ast.Call) -> bool:
    """The one call that may open a foreign checkpoint: it builds tensors and plain values, and reads none of them."""
    safe = {("weights_only", "True"), ("mmap", "True")}
    return (
        path == ROOT / "identiface_core" / "weights" / "foreign.py"
        and ast.unparse(call.func) == "torch.load"
        and safe <= {(str(key.arg), ast.unparse(key.value)) for key in call.keywords}
    )


def test_the_pack_loads_nothing_slow_before_a_node_runs() -> None:
    loaded: set[str] = set()
    for path in [ROOT / "__init__.py", *sources("nodes")]:
        names = imports(path, at_import=True)
        loaded |= names.union(*(closure(name, at_import=True) for name in names))
    assert {name.split(".")[0] for name in loaded} & SLOW == set()


def test_the_command_line_starts_on_the_standard_library_alone() -> None:
    roots = {name.split(".")[0] for name in closure("identiface_core.cli", at_import=True)}
    assert roots - sys.stdlib_module_names == {"identiface_core"}


def test_importing_the_doors_loads_no_library() -> None:
    """The same once more with the real interpreter."""
    program = """
import importlib.util, sys
import identiface_core, identiface_core.cli
spec = importlib.util.spec_from_file_location("pack", "__init__.py", submodule_search_locations=["."])
pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
assert pack.comfy_entrypoint
print(*{"torch", "numpy", "PIL", "rich", "diffusers", "faiss"}.intersection(sys.modules))
"""
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
