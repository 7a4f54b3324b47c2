"""Pictures of a benchmark run: CMC curves, differences with their intervals, find rate over part rounds.

Colours are those of Okabe and Ito, which colour-blind people tell apart; lines also differ by dashes, points by shape.
Needs matplotlib, which a user of the suite does not: it is in the extras "dev" and "train".
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from identiface_core.errors import InputError
from identiface_core.weights.files import write_atomic

from .tables import Found, difference, in_sentence, levels_of, title

CMC, DIFFERENCES, ROUNDS = "cmc.png", "differences.png", "rounds.png"
BLACK, BLUE, ORANGE, GREEN, PINK, GREY = "#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8a8a8a"
LINES: dict[str, tuple[str, Any]] = {
    "true_photo": (BLACK, (0, (1, 1))),
    "everything": (ORANGE, "-"),
    "evidence_encoder": (BLUE, "-"),
    "consensus_8": (GREEN, (0, (6, 2))),
    "one_shot": (PINK, (0, (4, 1.5, 1, 1.5))),
    "raw_lq": (GREY, (0, (2, 2))),
}
"""The six systems of the CMC picture, from ceiling to floor, with colour and dashes."""
LEVEL_MARKS: dict[str, tuple[str, str]] = {
    "careful": (GREEN, "s"),
    "middle": (BLUE, "o"),
    "poor": (ORANGE, "^"),
}
CURVES: dict[str, tuple[str, str, str]] = {
    "right": ("told the right words", ORANGE, "s"),
    "noisy": ("words as the witness gave them", BLUE, "o"),
    "everything": ("the same, fused with the evidence query", GREEN, "^"),
}
TICKS = (1, 2, 5, 10, 20, 50)
DPI = 130


def drawable(found: Found, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Names of the pictures that this run has figures for."""
    there = {
        CMC: any(_lines(found, level) for level in levels_of(found)),
        DIFFERENCES: any(difference(found, level, a, b) for a, b in pairs for level in levels_of(found)),
        ROUNDS: bool(_rounds(found)),
    }
    return [name for name, is_there in there.items() if is_there]


def draw(found: Found, folder: Path, pairs: Sequence[tuple[str, str]]) -> list[Path]:
    """Draw what can be drawn into `folder`; pairs: rows of the picture of differences. Returns the files.

    Raises `InputError` without matplotlib, before anything is written.
    """
    require_matplotlib()
    drawn = {CMC: _cmc, DIFFERENCES: lambda one: _forest(one, pairs), ROUNDS: _rounds_picture}
    paths = []
    for name in drawable(found, pairs):
        page = io.BytesIO()
        drawn[name](found).savefig(page, format="png", dpi=DPI, metadata={"Software": None})
        write_atomic(folder / name, page.getvalue())
        paths.append(folder / name)
    return paths


def require_matplotlib() -> None:
    """Raises `InputError`, saying what to do, if matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise InputError(
            "the curves of a benchmark are drawn with matplotlib, which is not installed: "
            "`pip install matplotlib` (or the extra 'dev'), or write the page without pictures"
        ) from error


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=11)


def _lines(found: Found, level: str) -> dict[str, list[float]]:
    curves = (found.get("cmc") or {}).get(level) or {}
    return {name: curves[name] for name in LINES if curves.get(name)}


def _cmc(found: Found) -> Any:
    """A panel per level: share of people found among the first k, k on a logarithmic axis."""
    levels = [level for level in levels_of(found) if _lines(found, level)]
    figure = _figure(1.3 + 3.6 * len(levels), 4.6)
    figure.get_layout_engine().set(wspace=0.06)
    panels = figure.subplots(1, len(levels), sharey=True, squeeze=False)[0]
    shown: dict[str, Any] = {}
    for axes, level in zip(panels, levels, strict=True):
        for name, rates in _lines(found, level).items():
            colour, dashes = LINES[name]
            xs = range(1, len(rates) + 1)
            shown[name] = axes.plot(
                xs, [100 * r for r in rates], color=colour, linestyle=dashes, linewidth=2.2
            )[0]
        axes.set_xscale("log")
        axes.set_xticks(TICKS, [str(k) for k in TICKS])
        axes.minorticks_off()
        axes.set_xlim(1, 50)
        axes.set_ylim(0, 101)
        axes.grid(color="#dddddd", linewidth=0.7)
        axes.set_title(f"{level} witness", fontsize=13)
        axes.set_xlabel("length of the candidate list", fontsize=12)
        _plain(axes)
    panels[0].set_ylabel("mates on the list, %", fontsize=12)
    order = [name for name in LINES if name in shown]
    figure.legend(
        [shown[n] for n in order], [title(n) for n in order], loc="outside lower center",
        ncols=min(3, len(order)), frameon=False, fontsize=12, handlelength=3.2,
    )  # fmt: skip
    return figure


def _forest(found: Found, pairs: Sequence[tuple[str, str]]) -> Any:
    """A row per pair, a point with its interval per level; right of zero, the first of the two finds more."""
    levels = levels_of(found)
    made = {(a, b): {level: difference(found, level, a, b) for level in levels} for a, b in pairs}
    rows = [pair for pair, by_level in made.items() if any(one and one.rank1 for one in by_level.values())]
    figure = _figure(10.5, 1.7 + 0.62 * len(rows))
    axes = figure.subplots()
    axes.axvline(0, color=BLACK, linewidth=1)
    step = 0.22
    for k, level in enumerate(levels):
        colour, shape = LEVEL_MARKS.get(level, (GREY, "D"))
        drawn = False
        for y, pair in enumerate(rows):
            one = made[pair][level]
            if one is None or one.rank1 is None:
                continue
            x, low, high = (100 * v for v in (one.rank1.value, one.rank1.low, one.rank1.high))
            place = y + (k - (len(levels) - 1) / 2) * step
            axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="round")
            name = None if drawn else f"{level} witness"
            axes.plot([x], [place], shape, color=colour, markersize=6.5, label=name, linestyle="none")
            drawn = True
    for y in range(1, len(rows), 2):
        axes.axhspan(y - 0.5, y + 0.5, color="#f3f3f3", zorder=0)
    titles = [f"{in_sentence(a)}\nminus {in_sentence(b)}" for a, b in rows]
    axes.set_yticks(range(len(rows)), titles)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("difference of rank-1 in percentage points, with 95 % interval over people", fontsize=11)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    _plain(axes)
    axes.tick_params(axis="y", labelsize=10, length=0)
    figure.legend(loc="outside upper center", ncols=len(levels), frameon=False, fontsize=11)
    return figure


def _rounds(found: Found) -> dict[str, list[dict[str, Any]]]:
    curves = found.get("rounds_curve") or {}
    return {name: curves[name] for name in CURVES if curves.get(name)}


def _rounds_picture(found: Found) -> Any:
    """Find rate after each part round, with the witness's words and with corrected ones."""
    curves = _rounds(found)
    figure = _figure(10.5, 4.4)
    left, right = figure.subplots(1, 2)
    for axes, key, rank in ((left, "rank1", "rank-1"), (right, "rank10", "rank-10")):
        for name, steps in curves.items():
            said, colour, shape = CURVES[name]
            ys = [None if s.get(key) is None else 100 * s[key] for s in steps]
            xs = [x for x, y in enumerate(ys) if y is not None]
            axes.plot(
                xs, [ys[x] for x in xs], color=colour, marker=shape, linewidth=2.2, markersize=6, label=said
            )
        longest = max(curves.values(), key=len)
        names = [str(s.get("part", s.get("round", i))) for i, s in enumerate(longest)]
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_ylabel(f"{rank}, %", fontsize=12)
        low, high = axes.get_ylim()
        middle, half = (low + high) / 2, max((high - low) / 2, 7.5)  # a flat curve must look flat
        axes.set_ylim(max(0, middle - half), min(101, middle + half))
        axes.grid(color="#dddddd", linewidth=0.7)
        axes.set_xlabel("after the round of", fontsize=12)
        _plain(axes)
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False, fontsize=12)
    return figure
