"""Tables of the trainings for comparison."""

from __future__ import annotations

from collections.abc import Mapping

from ..metrics import Rate
from .tables import NOTHING, Row, decided, label, number_cell, points, rate_cell, table

MAIN = "consensus_4"
"""The system whose figures are given in full."""
Rows = Mapping[str, Row]


def trainings_table(rows: Rows) -> str:
    """One row per training: what consensus of four of its faces finds, what the judge says, how they look."""
    head = [
        "training",
        "what is different",
        "rank-1 %",
        "rank-10 %",
        "judge's cosine",
        "PSNR, dB",
        "FID (matcher B)",
    ]
    lines = []
    for name, row in rows.items():
        main = row["systems"].get(MAIN, {})
        lines.append(
            [
                f"`{name}`",
                row["label"],
                rate_cell(main, "rank1"),
                rate_cell(main, "rank10"),
                number_cell(main, "judge_cosine", 3),
                number_cell(main, "psnr", 1),
                number_cell(main, "fid_matcher_b", 3),
            ]
        )
    return table(head, lines)


def gains_table(rows: Rows) -> str:
    """One row per training and system: differences to the one that all are held against."""
    lines = [
        [
            f"`{name}`",
            label(system),
            *(_gain(gains, key) for key in ("rank1", "rank10", "judge_cosine", "psnr")),
        ]
        for name, row in rows.items()
        for system, gains in row["gains"].items()
    ]
    return table(["training", "system", "rank-1", "rank-10", "judge's cosine", "PSNR, dB"], lines)


def trainings_words_table(rows: Rows) -> str:
    """One column per training, one row per word."""
    words = list(dict.fromkeys(word for row in rows.values() for word in row["words"]))
    if not words:
        return ""
    return table(
        ["word", *(f"`{name}`" for name in rows)],
        [[word, *(_moved(row["words"].get(word, {})) for row in rows.values())] for word in words],
    )


def _moved(row: Row) -> str:
    if row.get("moved") is None:
        return NOTHING
    return f"{100 * row['moved']:.0f} ({100 * row['right_way']:.0f})"


def _gain(gains: Row, key: str) -> str:
    value, ends = gains.get(key), gains.get(f"{key}_ci")
    if value is None or not ends:
        return NOTHING
    one = Rate(value, *ends)
    digits = 3 if key == "judge_cosine" else 2
    said = (
        points(one)
        if key.startswith("rank")
        else f"{one.value:+.{digits}f} ({one.low:+.{digits}f} to {one.high:+.{digits}f})"
    )
    return f"**{said}**" if decided(one) else said
