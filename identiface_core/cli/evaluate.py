"""`identiface evaluate`: the benchmark, as a table for reading and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from identiface_core.cli.console import Stages, say, show_table
from identiface_core.evaluation.report.curves import require_matplotlib
from identiface_core.evaluation.report.page import write_benchmark
from identiface_core.evaluation.suite import SUITES, check_known, plan_of, run
from identiface_core.evaluation.summary import summarise, to_text
from identiface_core.weights.files import check_writable, write_atomic

STANDARD_OUTPUT = "-"
WIDTH = 165
"""Columns of the tables where the output is no terminal."""
COLUMNS = (
    ("rank1", "rank-1"),
    ("rank10", "rank-10"),
    ("fnir_at_fpir_0.01", "FNIR at 0.01"),
    ("fpir_calibrated", "false alarms"),
    ("judge_rank1", "judge rank-1"),
)


def evaluate(
    suite: str,
    *,
    quick: bool,
    json: str | None,
    levels: Sequence[str],
    only: Sequence[str],
    probes: int | None,
    people: int,
    processes: int,
    page: Path | None = None,
    resume: Path | None = None,
    trainings: Path | None = None,
) -> int:
    """Run a suite; print its tables, or write its JSON to the file named `json` as well ("-": JSON only, to the output),
    and the report to `page`, with its pictures beside it. resume: journal of searches that were made before, and of those made
    now. trainings: folder of a training whose comparisons are measured too.

    Raises `InputError` for names and numbers that are not known, before anything is loaded.
    """
    check_known("suite", [suite], SUITES)
    plan = plan_of(
        quick=quick,
        levels=levels,
        only=only,
        probes=probes,
        people=people,
        processes=processes,
        trainings=trainings,
    )
    if page is not None:
        check_writable(page)
        require_matplotlib()
    target = None if json in (None, STANDARD_OUTPUT) else Path(str(json))
    if target is not None:
        check_writable(target)
    with Stages(Console(stderr=True, highlight=False)) as stages:
        found = summarise(run(plan, stages, resume))
    if page is not None:
        for path in write_benchmark(found, page):
            print(f"written: {path}", file=sys.stderr)
    if json == STANDARD_OUTPUT:
        sys.stdout.write(to_text(found))
        return 0
    show(_console(), found)
    if target is not None:
        write_atomic(target, to_text(found).encode())
        print(f"written: {target}", file=sys.stderr)
    return 0


def show(out: Console, found: Mapping[str, Any]) -> None:
    """Print the figures of a run: rates in percent with their 95 % intervals over people."""
    say(
        out,
        f"{found['gallery']} people in the gallery, {found['probes']} probes with a mate and {found['unmated']} without. "
        "Rates in percent, in brackets their 95 % intervals over people.",
    )
    for level, rows in found["levels"].items():
        if rows:
            _table(out, f"{level} witness", rows)
    hard = found["look_alikes"]
    if hard:
        rows = {name: row for name, row in hard.items() if isinstance(row, Mapping)}
        title = (
            f"look-alikes: {hard['gallery']} people in families of {hard['family']}, {hard['level']} witness"
        )
        _table(out, title, rows)
    for level, pairs in found["pairs"].items():
        if pairs:
            show_table(
                out,
                f"differences on the same probes, {level} witness",
                ("system", "minus", "rank-1", "rank-10"),
                [(one["a"], one["b"], *(_signed(one, key) for key in ("rank1", "rank10"))) for one in pairs],
            )
    if found["words"]:
        show_table(
            out,
            "words in part rounds",
            ("word", "from", "to", "right way", "moved", "largest change outside, of 255"),
            [
                (
                    name,
                    row["from"],
                    row["to"],
                    _percent(row["right_way"]),
                    _percent(row["moved"]),
                    str(row["outside"]),
                )
                for name, row in found["words"].items()
            ],
        )
    for note in found["notes"]:
        say(out, f"Note: {note}")


def _table(out: Console, title: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    columns = ("system", *(name for _, name in COLUMNS), "judge cosine", "PSNR", "rounds", "seconds")
    show_table(
        out,
        title,
        columns,
        [
            (
                f"{name} *" if row.get("label") else name,
                *(_rate(row, key) for key, _ in COLUMNS),
                *(_number(row[key], 2) for key in ("judge_cosine", "psnr", "rounds", "seconds")),
            )
            for name, row in rows.items()
        ],
    )
    for name, row in rows.items():
        if row.get("label"):
            say(out, f"* {name}: {row['label']}")


def _console() -> Console:
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=WIDTH)


def _rate(row: Mapping[str, Any], key: str) -> str:
    if row.get(key) is None:
        return "-"
    low, high = row[f"{key}_ci"]
    return f"{100 * row[key]:.1f} ({100 * low:.0f}-{100 * high:.0f})"


def _signed(row: Mapping[str, Any], key: str) -> str:
    low, high = row[f"{key}_ci"]
    return f"{100 * row[key]:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
