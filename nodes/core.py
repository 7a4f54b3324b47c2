"""Finds the library: the copy that lies beside the nodes, under its own name, without touching sys.path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

NAME = "identiface_core"


def register_core() -> None:
    """Make `import identiface_core` find the pack's own copy.

    The pack's folder itself must stay off sys.path: ComfyUI has top-level modules of the same names.
    """
    home = Path(__file__).resolve().parents[1] / NAME
    if NAME in sys.modules or not home.is_dir():
        return
    spec = importlib.util.spec_from_file_location(
        NAME, home / "__init__.py", submodule_search_locations=[str(home)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
