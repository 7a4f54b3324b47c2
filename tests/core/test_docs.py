"""What the documents tell people to type works as printed."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_of_guidance_draws_a_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "guidance.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(example.replace("identiface_core/examples", (ROOT / "identiface_core/examples").as_posix()), {})  # noqa: S102
    with Image.open(tmp_path / "guided.png") as picture:
        assert picture.size == (128, 128)


@pytest.mark.parametrize(
    "module",
    sorted(
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for path in (ROOT / "identiface_core").rglob("*.py")
        if ">>> " in path.read_text(encoding="utf-8")
    ),
)
def test_examples_in_docstrings_are_true(module: str) -> None:
    loaded = importlib.import_module(module)
    found = doctest.testmod(loaded, extraglobs={"torch": torch})
    assert found.attempted and not found.failed


def test_nobody_is_told_to_install_a_package_of_this_name() -> None:
    """There is none in the public index; a checkout is installed."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert [
        page.name for page in pages if re.search(r"pip install \"?identiface", page.read_text("utf-8"))
    ] == []
