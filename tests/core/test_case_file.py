"""docs/case-file.md tells every key of a CASE.toml, with the defaults and bounds that it has."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from identiface_core.errors import CaseError, InputError
from identiface_core.parts import PARTS
from identiface_core.rounds.case_input import CaseInput, Settings, parse_case
from identiface_core.toml import parse_toml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "case-file.md").read_text(encoding="utf-8")
BEFORE, EVIDENCE, WORDS, RUN = re.split(r"^## \[\w+\]$", PAGE, flags=re.MULTILINE)


def rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line[:3] == "| `"
    ]


RUN_ROWS = {row[0].strip("`"): row[1:] for row in rows(RUN)}


def test_every_setting_is_told_with_its_default() -> None:
    told = {key: parse_toml(f"x = {row[0].strip('`')}".encode())["x"] for key, row in RUN_ROWS.items()}
    fields = dataclasses.fields(Settings)
    assert list(told) == [field.name for field in fields]
    found = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
    assert found == {field.name: field.default for field in fields}


@pytest.mark.parametrize(("key", "row"), [(key, row) for key, row in RUN_ROWS.items() if row[1]])
def test_bounds_are_as_told(key: str, row: list[str]) -> None:
    low, high = int(row[1]), int(row[2])
    for value in (low, high):
        assert getattr(Settings(**{key: value}), key) == value
    for value in (low - 1, high + 1):
        with pytest.raises(InputError, match=key):
            Settings(**{key: value})


def test_the_other_keys_are_told() -> None:
    """Those known are taken, and the errors for others list no more."""
    assert [row[:2] for row in rows(BEFORE)] == [["`gallery`", '`"embedded"`']]
    assert CaseInput(sketch=Path("a")).gallery is None, "the embedded one"
    keys = [row[0].strip("`") for row in rows(EVIDENCE)]
    with pytest.raises(CaseError, match=f"known here: {', '.join(keys)}$"):
        parse_case({"evidence": {"qqqq": 1}}, Path())
    for face in (1, [1, 2, 30, 40], "whole"):
        assert parse_case({"evidence": {"lq": "a", "face": face}}, Path()).face is not None
    parts = re.findall(r"`(\w+)`", WORDS.partition("Or all")[0])
    assert tuple(parts) == PARTS
    (example,) = re.findall(r"(    \[description\]\n(?:    .*\n)+)", WORDS)
    case = parse_case(parse_toml(example.replace("    ", "").encode()), Path())
    assert case.description is not None and case.description.parts() == ("overview",)


def test_the_readme_leads_there() -> None:
    assert "(docs/case-file.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
