"""`identiface bench guidance`: what guidance gains and costs, as a table and as JSON."""

from __future__ import annotations

import json as formats
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from identiface_core.cli.console import Stages, show_table
from identiface_core.errors import InputError
from identiface_core.evaluation.guidance.bench import SEEDS, Plan, run
from identiface_core.evaluation.guidance.methods import METHODS
from identiface_core.evaluation.guidance.page import page as page_of
from identiface_core.evaluation.guidance.tune import tune
from identiface_core.weights.files import check_writable, write_atomic

WIDTH = 150
"""Columns of the table where the output is no terminal."""


def guidance(
    *,
    json: Path | None,
    people: int,
    steps: int,
    shapes: Sequence[str],
    methods: Sequence[str],
    processes: int,
    page: Path | None = None,
    tuning: bool = False,
    keep: bool = False,
) -> int:
    """Measure guidance; print the table, write its JSON to `json` and its page to `page`.

    tuning: try scales on the validation people instead, and print what each gives. keep: figures that `json` already holds of
    what is not measured now stay there. Raises `InputError` for names and numbers that are not known.
    """
    before = kept_figures(json) if keep else {}
    plan = Plan(people, steps, tuple(shapes), tuple(methods) or tuple(METHODS), processes=processes)
    for path in (json, page):
        if path is not None:
            check_writable(path)
    with Stages(Console(stderr=True, highlight=False)) as stages:
        found = tune(plan, stages) if tuning else run(plan, stages)
    found = {**{name: row for name, row in before.items() if name not in found}, **found}
    found = dict(sorted(found.items(), key=lambda one: _place(one[0])))
    show(found)
    if json is not None:
        write_atomic(json, (formats.dumps(found, indent=1) + "\n").encode())
        print(f"written: {json}", file=sys.stderr)
    if page is not None and not tuning:
        write_atomic(page, page_of(found, SEEDS).encode())
        print(f"written: {page}", file=sys.stderr)
    return 0


def kept_figures(path: Path | None) -> dict[str, dict[str, Any]]:
    """The figures of an earlier run. Raises `InputError` where there are none."""
    if path is None or not path.is_file():
        raise InputError("--keep wants --json with a file of an earlier run")
    try:
        return dict(formats.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: no figures of an earlier run ({error}): leave out --keep") from error


def _place(name: str) -> int:
    """Where figures stand in a report: methods in their order, then shapes as they come."""
    return list(METHODS).index(name) if name in METHODS else len(METHODS)


def show(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the figures of a run."""
    out = Console(highlight=False)
    out = out if out.is_terminal else Console(highlight=False, width=WIDTH)
    keys = (
        "wall_ratio", "memory_ratio", "judge", "judge_gain", "judge_gain_share", "judge_gain_per_second", "judge_rises",
        "gap", "fid_latent_ratio", "fid_judge_ratio",
    )  # fmt: skip
    heads = (
        "wall",
        "memory",
        "judge",
        "gain",
        "of full",
        "per second",
        "rises",
        "gap A-B",
        "FID latents",
        "FID B",
    )
    rows = [(name, *(_number(row.get(key)) for key in keys)) for name, row in found.items()]
    show_table(out, "guidance", ("method", *heads), rows)
    for name, row in found.items():
        if row.get("warning"):
            print(f"{name}: {row['warning']}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
