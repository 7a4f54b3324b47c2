"""`identiface bench photos`: does a matcher separate the people of a folder."""

from __future__ import annotations

import json as formats
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from identiface_core.cli.console import Stages, say, show_table
from identiface_core.cli.networks import finder_from, matchers_from, warn_of_drawn
from identiface_core.evaluation.photos import PEOPLE, Pair, Report, Separation, measure
from identiface_core.weights.files import check_writable, write_atomic

WIDTH = 150
"""Columns of the table where the output is no terminal."""
LISTED = 10
"""So many photos that were left out, or that have several faces, are named."""
BIN, BAR = 0.05, 40
"""Width of a row of the histogram, the same for all matchers, and the longest bar."""


def photos(
    folder: Path,
    *,
    matchers: Sequence[Path],
    detector: Path,
    sizes: Sequence[int] = (),
    largest: bool = False,
    json: Path | None = None,
) -> int:
    """Measure and print; write the figures to `json`. Raises the library's errors."""
    if json is not None:
        check_writable(json)
    screen = Console(stderr=True, highlight=False)
    finder, loaded = finder_from(detector), matchers_from(matchers, screen)
    warn_of_drawn(loaded, finder, screen)
    with Stages(screen) as stages:
        report = measure(folder, finder, loaded, sizes=sizes, largest=largest, on_progress=stages)
    show(report)
    if json is not None:
        write_atomic(json, (formats.dumps(figures(report), indent=1) + "\n").encode())
        print(f"written: {json}", file=sys.stderr)
    return 0


def figures(report: Report) -> dict[str, Any]:
    """The report as JSON; of the cosines their number, mean and deviation."""
    return {
        "photos": len(report.people),
        "people": len(set(report.people)),
        "skipped": [{"file": one.path.name, "reason": one.reason} for one in report.skipped],
        "several": [{"file": path.name, "reason": reason} for path, reason in report.several],
        "rows": [
            {
                **asdict(row),
                "mated": _moments(row.mated),
                "strangers": _moments(row.strangers),
                "least_alike": [_named(pair, report) for pair in row.least_alike],
                "most_alike": [_named(pair, report) for pair in row.most_alike],
            }
            for row in report.rows
        ],
    }


def show(report: Report) -> None:
    """Print the figures, and how the cosines lie."""
    out = Console(highlight=False)
    out = out if out.is_terminal else Console(highlight=False, width=WIDTH)
    say(
        out,
        f"{len(report.people)} photos of {len(set(report.people))} people; {len(report.skipped)} left out",
    )
    _listed(out, [(one.path, one.reason) for one in report.skipped])
    if report.several:
        say(out, f"several faces in {len(report.several)} of the photos that were used; taken was")
        _listed(out, report.several)
    heads = ("matcher", "probe", "recog.", "mated pairs", "strangers", "EER, %", "AUC", "threshold", "misses")
    show_table(
        out,
        "each probe against all other photos; EER with its 95 % interval over people",
        heads,
        [_row(row) for row in report.rows],
    )
    for row in report.rows:
        if row.probe == "photo":
            _histogram(out, row)
            _pairs(out, "mated pairs that are least alike", row.least_alike, report)
            _pairs(out, "strangers that are most alike", row.most_alike, report)
    say(out, "")
    for row in report.rows:
        say(out, f"{row.matcher}, {row.probe}: {row.verdict}")
    if len(set(report.people)) < PEOPLE:
        say(out, f"Of fewer than {PEOPLE} people nothing can be told about others.")
    if all(row.threshold is None for row in report.rows):
        say(out, "No threshold: it wants at least 100 pairs of strangers.")
    else:
        say(out, "Thresholds were set on these very people: among others expect somewhat more errors.")


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _named(pair: Pair, report: Report) -> dict[str, Any]:
    return {"cosine": pair.cosine, "photos": [_short(report.files[i]) for i in (pair.first, pair.second)]}


def _pairs(out: Console, what: str, pairs: Sequence[Pair], report: Report) -> None:
    say(out, f"{what} (a wrong label would show here)")
    for pair in pairs:
        say(out, f"  {pair.cosine:6.3f}  {' and '.join(_named(pair, report)['photos'])}")


def _listed(out: Console, photos: Sequence[tuple[Path, str]]) -> None:
    for path, reason in photos[:LISTED]:
        say(out, f"  {_short(path)}: {reason}")
    if len(photos) > LISTED:
        say(out, f"  and {len(photos) - LISTED} more")


def _row(row: Separation) -> tuple[str, ...]:
    def cosines(values: Tensor) -> str:
        found = _moments(values)
        return f"{found['count']}: {found['mean']:.2f} ± {found['deviation']:.2f}"

    eer = row.eer
    told = (eer.low, eer.high) != (0.0, 1.0)
    interval = f"{100 * eer.low:.1f}-{100 * eer.high:.1f}" if told else "too few people for an interval"
    return (
        row.matcher,
        row.probe,
        f"{row.recognisability:.2f}",
        cosines(row.mated),
        cosines(row.strangers),
        f"{100 * eer.value:.1f} ({interval})",
        f"{row.auc:.4f}",
        "too few" if row.threshold is None else f"{row.threshold:.3f} (FMR 1 in {1 / (row.fmr or 1):,.0f})",
        "" if row.fnmr is None else f"{100 * row.fnmr:.1f} %",
    )


def _histogram(out: Console, row: Separation) -> None:
    """One line for each step of the cosine between the lowest and the highest, empty ones too."""
    # A hundredth of a step more, so that 0.35 does not fall below itself.
    steps = [((one.double() / BIN) + 0.01).floor().long() for one in (row.mated, row.strangers)]
    low, high = (int(end) for end in torch.cat(steps).aminmax())
    shares = [torch.bincount(one - low, minlength=high - low + 1) / len(one) for one in steps]
    most = max(float(one.max()) for one in shares)
    say(out, f"\n{row.matcher}: share of pairs by cosine (= mated, . strangers)")
    for step, (mated, strangers) in enumerate(zip(*(one.tolist() for one in shares), strict=True), start=low):
        bars = [
            f"{sign * max(1, round(BAR * share / most))} {100 * share:.1f} %"
            for share, sign in ((mated, "="), (strangers, "."))
            if share > 0
        ]
        say(out, f"{step * BIN:6.2f} to {(step + 1) * BIN:5.2f} {'  '.join(bars)}".rstrip())


def _moments(values: Tensor) -> dict[str, float]:
    return {
        "count": len(values),
        "mean": float(values.mean()),
        "deviation": float(values.std(correction=0)),
        "least": float(values.min()),
        "most": float(values.max()),
    }
