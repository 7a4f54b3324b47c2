"""The pack's door: importing it is cheap, and the library is found under its own name without sys.path."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

IMPORT = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("pack", {str(ROOT / "__init__.py")!r},
                                              submodule_search_locations=[{str(ROOT)!r}])
pack = importlib.util.module_from_spec(spec)
sys.modules["pack"] = pack
spec.loader.exec_module(pack)
"""


def python(code: str) -> str:
    """What `code` prints in a new interpreter that starts elsewhere."""
    run = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_door_opens_without_loading_anything() -> None:
    heavy = "{'torch', 'numpy', 'diffusers', 'identiface_core', 'faiss', 'PIL'}"
    assert python(IMPORT + f"print({heavy} & set(sys.modules))") == "set()"


def test_door_holds_the_entry_point_and_nothing_else() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text())
    defined = [one.name for one in tree.body if isinstance(one, (ast.AsyncFunctionDef, ast.FunctionDef))]
    assert defined == ["comfy_entrypoint"]
    assert "NODE_CLASS_MAPPINGS" not in (ROOT / "__init__.py").read_text(), (
        "the host would ignore the entry point"
    )


def test_library_is_found_beside_the_nodes() -> None:
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("core", {str(ROOT / "nodes" / "core.py")!r})
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
before = list(sys.path)
core.register_core()
core.register_core()
import identiface_core.errors
assert sys.path == before
print(identiface_core.__file__)
"""
    assert Path(python(code)) == ROOT / "identiface_core" / "__init__.py"


LATER = {
    "native.py",
    "steering.py",
    "pixart.py",
    "stable.py",
    "drawing.py",
    "guiding.py",
    "hosted.py",
    "cases.py",
}
"""Imported only when a node runs."""
EARLY = sorted(path for path in (ROOT / "nodes").glob("*.py") if path.name not in LATER)


@pytest.mark.parametrize("path", EARLY, ids=lambda path: path.name)
def test_library_is_imported_only_when_a_node_runs(path: Path) -> None:
    """Files that every start of the host reads import neither the library nor torch at their top level."""
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in statement.names]
            names += [statement.module or ""] if isinstance(statement, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] not in {
                    "torch",
                    "identiface_core",
                    "native",
                    "steering",
                    "pixart",
                    "stable",
                    "hosted",
                    "guiding",
                    "cases",
                }, path
