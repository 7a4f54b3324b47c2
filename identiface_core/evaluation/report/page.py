"""The page `docs/benchmarks/embedded.md`, written from the JSON of a benchmark run and from nothing else."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from identiface_core.errors import IdentiFaceError
from identiface_core.weights.files import write_atomic

from . import curves
from .questions import (
    ENCODER,
    FOREST,
    GENERATED,
    QUESTIONS,
    answer,
    clue_sentence,
    clue_table_pairs,
    main_pairs,
)
from .subgroups import FEWEST, FPIR, LOOSE, subgroup_sentence, subgroup_table, subgroups
from .tables import (
    GROUPS,
    NOTHING,
    Found,
    check,
    differences_table,
    label,
    left_out,
    levels_of,
    picture_table,
    prose,
    rate_cell,
    row_of,
    search_table,
    table,
    title,
    update_document,
    words_table,
)
from .targets import alarms, distances, targets
from .trainings import gains_table, trainings_table, trainings_words_table

HONEST = "middle"
"""The witness that single answers are given for."""
NOT_MEASURED = "*Not measured in this run.*"
BY_SUBGROUP = ("everything", "evidence_encoder", "true_photo")
"""Systems told by subgroup: the whole, the evidence query, and the matcher by itself, to see where a gap comes from."""


def write_benchmark(found: Found, path: Path, *, pictures: bool = True) -> list[Path]:
    """Write the page at `path` and its pictures beside it; returns the files written, the page first.

    pictures: False writes the page without any. Raises `InputError` for a JSON that is not a benchmark's, and if pictures
    are wanted but matplotlib is missing; then nothing has been written.
    """
    text = benchmark_text(found, pictures=pictures)
    if pictures:
        curves.require_matplotlib()
    write_atomic(path, text.encode())
    return [path, *(curves.draw(found, path.parent, FOREST) if pictures else ())]


def benchmark_text(found: Found, *, pictures: bool = True) -> str:
    """The whole page. The same JSON always gives the same text, with matplotlib or without."""
    check(found)
    drawn = curves.drawable(found, FOREST) if pictures else []
    sections: dict[str, Callable[[], Iterable[str]]] = {
        "Targets": lambda: _targets(found),
        "What adds what": lambda: _adds(found, drawn),
        "Every system": lambda: _systems(found, drawn),
        "Open set: people who are not in the gallery": lambda: _open_set(found),
        "Look-alikes": lambda: _look_alikes(found),
        "Words in part rounds": lambda: _words(found),
        "Find rate over part rounds": lambda: _rounds(found, drawn),
        "Trained otherwise": lambda: _trainings(found),
        "Subgroups": lambda: _subgroups(found),
    }
    parts = [*_opening(found)]
    for heading, write in sections.items():
        said = [part for part in write() if part]
        parts += [f"## {heading}", *(said or [NOT_MEASURED])]
    return "\n\n".join([*parts, *_closing(found)]) + "\n"


def _opening(found: Found) -> list[str]:
    quick = " **This is the quick suite: fewer probes, wider intervals.**" if found.get("quick") else ""
    return [
        "# Benchmark of the embedded model",
        "<!-- Written by `identiface evaluate --suite embedded` from the JSON beside it. Do not edit. -->",
        prose(
            "Every number on this page comes from [`embedded.json`](embedded.json) beside it. What was measured, and how, is "
            "in [the protocols](../evaluation.md), which were written first."
        ),
        prose(
            f"Gallery: {_said(found, 'gallery')} people, one picture each. {_said(found, 'probes')} probes whose mate is in "
            f"the gallery by another picture, {_said(found, 'unmated')} people who are not in it. Matcher A searches and "
            f"guides; matcher B, which took no part in either, judges. In brackets: 95 % intervals over people.{quick}"
        ),
    ]


def _said(found: Mapping[str, Any], key: str) -> str:
    return str(found.get(key, "an unknown number of"))


def _targets(found: Found) -> list[str]:
    made = targets(found)
    count = {verdict: sum(one.met is verdict for one in made) for verdict in (True, False, None)}
    rows = [
        [
            f"{f'*{one.level}*: ' if one.level else ''}{one.asked}",
            one.wanted,
            one.found or NOTHING,
            one.verdict,
        ]
        for one in made
    ]
    parts = [
        prose(
            f"Of {len(made)} targets set beforehand, {count[True]} are met, {count[False]} are missed and {count[None]} "
            "were not measured. A verdict goes by the measured value; the interval beside it says how far to trust it."
        ),
        table(["target", "wanted", "found", "verdict"], rows),
    ]
    told = distances(found)
    if told:
        parts += ["How far the missed ones are from what the evidence can carry at all:"]
        parts += ["\n".join(prose(one, "- ") for one in told)]
    return parts


def _adds(found: Found, drawn: list[str]) -> list[str]:
    levels = levels_of(found)
    if not levels:
        return []
    level = HONEST if HONEST in levels else levels[0]
    answers = [(question, answer(found, level, question)) for question in QUESTIONS]
    clues = [
        told
        for family in (GENERATED, ENCODER)
        for at in levels
        if at in ("careful", level) and (told := clue_sentence(found, at, family))
    ]
    said = [text for _, text in answers if text]
    if clues:
        said.append(f"**Does every clue add?** {' '.join(clues)}")
    if not said:
        return []
    silent = [question.asked for question, text in answers if not text]
    return [
        prose(
            "Both systems of a pair got the same probes, so the interval is that of the difference itself, in percentage "
            f"points; `+` is for the first of the two. The answers are those of the *{level}* witness; the tables have all."
        ),
        "\n".join(prose(text, "- ") for text in said),
        _picture(curves.DIFFERENCES, drawn, "differences of rank-1 between pairs of systems, with intervals"),
        "Rank-1, in points; bold where the interval leaves out zero:",
        differences_table(found, main_pairs(found)),
        "Rank-10:",
        differences_table(found, main_pairs(found), "rank10"),
        *_clues(found),
        prose(
            "With so many intervals of 95 %, about one in twenty misses its truth by chance; a bold cell that stands alone in "
            "its row is weak evidence."
        ),
        prose(f"*Not answered by this run: {' '.join(silent)}*") if silent else "",
    ]


def _clues(found: Found) -> list[str]:
    pairs = clue_table_pairs(found)
    made = differences_table(found, pairs)
    if not made:
        return []
    return ["More clues against fewer, rank-1:", made, "Rank-10:", differences_table(found, pairs, "rank10")]


def _picture(name: str, drawn: list[str], what: str) -> str:
    return f"![{what}]({name})" if name in drawn else ""


def _systems(found: Found, drawn: list[str]) -> list[str]:
    levels = levels_of(found)
    if not levels:
        return []
    parts = [
        _picture(
            curves.CMC,
            drawn,
            "CMC curves: share of mates among the first k candidates, one panel per witness",
        ),
        prose(
            f"`{NOTHING}` is what cannot be measured for that system. FNIR: share of mated searches whose mate is not on the "
            "list of 50 with a score that reaches the threshold, which is set so that the stated share of unmated searches "
            "raises an alarm. The judge's columns are matcher B's opinion of the faces; the published protocol also stops by "
            "matcher B, so there they judge nothing."
        ),
        "\n".join(prose(f"{note[0].upper()}{note[1:]}.", "- ") for note in found.get("notes") or () if note),
    ]
    known = [name for names in GROUPS.values() for name in names if name != "evidence_ceiling"]
    for level in levels:
        rows = found["levels"][level]
        parts += [f"### {level.capitalize()} witness", search_table(rows)]
        parts += [
            "What the pictures are worth and what they cost:" if picture_table(rows) else "",
            picture_table(rows),
        ]
        parts.append(left_out(title(name) for name in known if name not in rows))
    return parts


def _open_set(found: Found) -> list[str]:
    rows = alarms(found)
    parts = []
    if rows:
        parts += [
            prose(
                f"{_said(found, 'unmated')} people whose mate is nowhere in the gallery were searched for. Share of them for "
                "whom some candidate scores above the threshold that the shipped calibration gives for FPIR 0.01, in the "
                "lists that the product shows:"
            ),
            table(
                ["where", "alarms %"], [[_named(path), rate_cell(row, "rate")] for path, row in rows.items()]
            ),
        ]
    calibrated = {
        level: {
            name: row
            for name, row in found["levels"][level].items()
            if row.get("fpir_calibrated") is not None
        }
        for level in levels_of(found)
    }
    names = list(dict.fromkeys(name for rows in calibrated.values() for name in rows))
    if names:
        levels = [level for level in calibrated if calibrated[level]]
        parts += [
            "The same for every system that has a calibration. Where one holds, the interval reaches down to 1 %:",
            table(
                ["system", *(f"alarms %, *{level}*" for level in levels)],
                [
                    [
                        title(name),
                        *(rate_cell(calibrated[level].get(name, {}), "fpir_calibrated") for level in levels),
                    ]
                    for name in names
                ],
            ),
        ]
    return parts


def _named(path: str) -> str:
    return ", ".join(
        f"*{part}*" if part in ("careful", "middle", "poor") else title(part) for part in path.split(", ")
    )


def _look_alikes(found: Found) -> list[str]:
    hard = found.get("look_alikes") or {}
    level = str(hard.get("level", HONEST))
    rows = {name: row for name, row in hard.items() if isinstance(row, Mapping)}
    if not rows:
        return []
    keys = [("rank1", "rank-1 %"), ("rank10", "rank-10 %"), ("fnir_at_fpir_0.01", "FNIR % at FPIR 0.01")]
    kept = [(key, what) for key, what in keys if any(row.get(key) is not None for row in rows.values())]
    head = ["system", *(f"{what}, {where}" for _, what in kept for where in ("easy", "look-alikes"))]
    return [
        prose(
            f"A gallery of {_said(hard, 'gallery')} people in families that share what draws hair, skin, glasses and marks; "
            "what the renderer calls shape differs, age and sex included. Beside it the easy gallery of "
            f"{_said(found, 'gallery')}, *{level}* witness. "
            "Mind the sizes: a smaller gallery is easier by itself."
        ),
        table(
            head,
            [
                [
                    title(name),
                    *(rate_cell(one, key) for key, _ in kept for one in (row_of(found, level, name), row)),
                ]
                for name, row in rows.items()
            ],
        ),
    ]


def _words(found: Found) -> list[str]:
    words = found.get("words") or {}
    if not words:
        return []
    return [
        prose(
            "One word is asked for at one end and then at the other, with the same noise, on a true portrait. Right way: the "
            "attribute reader finds the second face nearer to the second word. Moved: by how much, as a share of what "
            "separates people who truly are so. Outside: the largest change of a pixel outside the mask."
        ),
        words_table(words),
    ]


def _rounds(found: Found, drawn: list[str]) -> list[str]:
    all_curves = {name: steps for name, steps in (found.get("rounds_curve") or {}).items() if steps}
    if not all_curves:
        return []
    longest = max(all_curves.values(), key=len)
    titles = {name: curves.CURVES[name][0] if name in curves.CURVES else name for name in all_curves}
    head = ["after the round of"]
    head += [f"{rank} %, {titles[name]}" for name in all_curves for rank in ("rank-1", "rank-10")]
    rows = []
    for i, step in enumerate(longest):
        at = [steps[i] if i < len(steps) else {} for steps in all_curves.values()]
        cells = [rate_cell(one, key) for one in at for key in ("rank1", "rank10")]
        rows.append([str(step.get("part", step.get("round", i))), *cells])
    told = []
    for name, steps in all_curves.items():
        first, last = steps[0].get("rank1"), steps[-1].get("rank1")
        if first is not None and last is not None:
            told.append(f"{titles[name]}: {100 * (last - first):+.1f} points of rank-1 from first to last")
    return [
        prose(
            "Each curve follows one system; after each round, the share of probes whose mate is then first, or among the "
            "first ten. Who has no round of a part stays where he was."
        ),
        prose(f"{'. '.join(one[0].upper() + one[1:] for one in told)}.") if told else "",
        _picture(curves.ROUNDS, drawn, "find rate after each part round"),
        table(head, rows),
    ]


def _trainings(found: Found) -> list[str]:
    told = found.get("trainings") or {}
    if not told:
        return []
    against = told["against"]
    return [
        prose(
            f"The same start (the shipped transformer, a fresh control branch), the same batches in the same order, the same "
            f"number of steps, one thing different. {told['probes']} probes of the *{told['level']}* witness. Short trainings "
            "show what a piece does to the first steps of learning, not where a long training ends."
        ),
        trainings_table(told["rows"]),
        prose(
            f"Gains over `{against}` on the same people, witnesses and seeds, rates in points; bold where the interval leaves "
            "out zero:"
        ),
        gains_table(told["rows"]),
        "Words in part rounds, moved in % of the true difference (right way in %):",
        trainings_words_table(told["rows"]),
    ]


def _subgroups(found: Found) -> list[str]:
    levels = levels_of(found)
    level = HONEST if HONEST in levels else levels[0] if levels else ""
    made = [one for name in BY_SUBGROUP if (one := subgroups(found, level, name)) is not None]
    if not made:
        return []
    parts = [
        prose(
            f"Probes of the *{level}* witness by age band, skin tone and sex, all at one common threshold. A search without a "
            "mate is that of a stranger, or that of a probe with its mate taken out of the gallery. "
            f"FPIR {FPIR:g} leaves few alarms to compare, so a looser threshold, FPIR {LOOSE:g}, stands beside it. Intervals: "
            f"Wilson, 95 %. A gap is the largest difference between groups of at least {FEWEST}; `chance` is the gap that "
            "95 of 100 shuffles of the labels stay under. In bold: larger than that, which one gap in twenty is by chance."
        )
    ]
    for one in made:
        searches, at = one["searches_without_mate"], one.get("threshold_fpir")
        where = f": threshold {at:.3f} from {searches} searches without a mate" if at is not None else ""
        parts += [f"**{label(one['system'])}**{where}", subgroup_table(one), prose(subgroup_sentence(one))]
    parts.append(
        prose(
            "What the suite does about it: it says so here, at every run. It has no threshold per group, since the group of the "
            "person sought is not known, and it does not hide a gap in a mean. The people are drawn: nothing follows from "
            "these gaps for a matcher that was trained on photographs, where every claim has to be measured anew."
        )
    )
    return parts


def _closing(found: Found) -> list[str]:
    versions = found.get("versions") or {}
    named = [
        f"{name} {str(value)[:16]}" for name, value in versions.items() if "." not in name and "/" not in name
    ]
    said = ", ".join(named)
    if len(versions) > len(named):
        said += f"; {len(versions) - len(named)} weight files by their hashes in the JSON"
    return [
        "## What this page cannot say",
        prose(
            "People, cameras and witnesses are drawn. The order of systems, and what a piece adds, can be learnt here; how "
            "often a real person is found cannot. See [what cannot be concluded](../evaluation.md#what-cannot-be-concluded)."
        ),
        *([prose(f"Versions: {said}.")] if versions else []),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, and the short table of another document, anew from a JSON: `python -m ...evaluation.report JSON`."""
    parser = argparse.ArgumentParser(
        prog="python -m identiface_core.evaluation.report", description=main.__doc__
    )
    parser.add_argument("json", type=Path, metavar="JSON", help="what `identiface evaluate --json` wrote")
    parser.add_argument("--page", type=Path, metavar="FILE", help="default: beside the JSON, ending in .md")
    parser.add_argument("--document", type=Path, metavar="FILE", help="put a short table between its markers")
    options = parser.parse_args(arguments)
    try:
        found = json.loads(options.json.read_text(encoding="utf-8"))
        files = write_benchmark(found, options.page or options.json.with_suffix(".md"))
        if options.document is not None:
            update_document(options.document, found)
    except (IdentiFaceError, OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(*files, sep="\n")
    return 0
