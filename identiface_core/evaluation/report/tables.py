"""The figures of a benchmark run as Markdown: names of systems, cells, differences, and the short table of a document.

Reads the JSON of `identiface evaluate --suite embedded`. A run may be partial: what it lacks is left out of a table, and the
line below the table says what was left out.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from identiface_core.errors import InputError
from identiface_core.weights.files import write_atomic

from ..metrics import Rate
from ..metrics import difference as paired

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
LEVELS: tuple[str, ...] = ("careful", "middle", "poor")
"""Witnesses, from exact to bad."""
LIKE_A_LIST = re.compile(r" (?=(?:[-+*#]+|\d+[.)])(?: |$))")
"""The space before a word that begins a list or a heading where it begins a line of Markdown."""
NOTHING = "-"
"""A cell without a figure."""

GROUPS: dict[str, dict[str, str]] = {
    "Bounds": {
        "true_photo": "true other photo (ceiling)",
        "evidence_ceiling": "what the evidence can carry (estimate)",
    },
    "Nothing generated": {
        "raw_lq": "LQ photo itself, enlarged",
        "evidence_encoder": "evidence encoder",
    },
    "One generated face": {
        "text": "words alone",
        "sketch": "sketch alone",
        "lq": "LQ photo alone",
        "sketch_text": "sketch + words",
        "lq_text": "LQ + words",
        "lq_sketch": "LQ + sketch",
        "one_shot_unguided": "all clues, not towards the estimate",
        "one_shot": "all clues",
    },
    "Several generated faces": {
        "consensus_4": "consensus of 4",
        "consensus_8_unguided": "consensus of 8, not towards the estimate",
        "consensus_8": "consensus of 8",
        "reference": "consensus of 8, towards the best candidate",
    },
    "Rounds, and all together": {
        "rounds": "part rounds, by the generated faces",
        "everything": "everything (rounds and evidence query)",
    },
    "Told the truth, so not ours to claim": {
        "rounds_right_words": "part rounds, TOLD the right words",
        "everything_right_words": "everything, TOLD the right words",
        "oracle": "published protocol (ORACLE: chooses by the true photo)",
    },
}
"""Names of systems in the JSON and what a table calls them, in the order of the tables."""
OTHERS = "Others"
"""Group of every name that `GROUPS` does not know."""
IN_SENTENCES = {
    "true_photo": "the true photo",
    "one_shot_unguided": "one face not drawn towards the estimate",
    "consensus_8_unguided": "consensus of 8 not drawn towards it",
    "reference": "consensus of 8 drawn towards the best candidate",
    "rounds": "part rounds",
    "rounds_right_words": "part rounds told the right words",
    "everything": "everything",
    "everything_right_words": "everything told the right words",
    "oracle": "the ORACLE protocol",
}
"""The same where a label would break the sentence."""
TOLD = ("true_photo", "evidence_ceiling", *GROUPS["Told the truth, so not ours to claim"])
"""Systems that use what an investigator does not have."""

Found = Mapping[str, Any]
Row = Mapping[str, Any]


def of_this_format(found: Found) -> bool:
    """True for the JSON of `identiface evaluate --suite embedded`, False for anything older."""
    return found.get("suite") == "embedded"


def check(found: Found) -> None:
    """Raises `InputError` for a JSON that is not a benchmark's."""
    if not of_this_format(found):
        raise InputError(
            "wanted the JSON of `identiface evaluate --suite embedded` (its key 'suite' says 'embedded'), got one with "
            f"the keys {', '.join(sorted(found)) or 'none'}: run the benchmark again"
        )


def levels_of(found: Found) -> list[str]:
    """Levels that were measured, from exact to bad."""
    there = found.get("levels") or {}
    return [*(level for level in LEVELS if there.get(level)), *(x for x in there if x not in LEVELS)]


def row_of(found: Found, level: str, name: str) -> Row:
    """Figures of one system; empty if it was not measured."""
    return ((found.get("levels") or {}).get(level) or {}).get(name) or {}


def best_honest(found: Found, level: str) -> tuple[str, float] | None:
    """Name and rank-1 of the best system of a level that is told nothing of the truth."""
    rows = ((found.get("levels") or {}).get(level) or {}).keys() - set(TOLD)
    rates = {name: row_of(found, level, name).get("rank1") for name in sorted(rows)}
    known = {name: value for name, value in rates.items() if value is not None}
    best = max(known, key=lambda name: known[name], default=None)
    return None if best is None else (best, known[best])


def kinds_of(name: str) -> frozenset[str] | None:
    """Kinds of evidence (lq, sketch, words) that a system with that name gets; None if it is not about one set of them.

    "lq_sketch" is a face generated from two, "evidence_encoder/lq+sketch" the evidence query from two.
    """
    if name in ("one_shot", "evidence_encoder"):
        return frozenset(("lq", "sketch", "words"))
    encoder = name.startswith("evidence_encoder/")
    parts = name.split("/")[1].split("+") if encoder else name.split("_")
    kinds = frozenset("words" if part == "text" else part for part in parts)
    return kinds if kinds <= {"lq", "sketch", "words"} else None


def label(name: str) -> str:
    """What a table calls a system."""
    for names in GROUPS.values():
        if name in names:
            return names[name]
    kinds = kinds_of(name)
    if name.startswith("evidence_encoder/") and kinds:
        said = {"lq": "LQ", "sketch": "sketch", "words": "words"}
        return f"evidence encoder, {' + '.join(said[k] for k in said if k in kinds)}{' alone' * (len(kinds) == 1)}"
    return name.replace("_", " ").replace("/", ", ")


def title(name: str) -> str:
    """What a table without groups calls it."""
    return f"one face: {label(name)}" if name in GROUPS["One generated face"] else label(name)


def in_sentence(name: str) -> str:
    """The same inside a sentence, where a label needs its surroundings."""
    if name in IN_SENTENCES:
        return IN_SENTENCES[name]
    if name in GROUPS["One generated face"]:
        return f"one face from {label(name)}"
    return f"the {label(name)}" if name.startswith(("evidence_encoder", "raw_lq")) else label(name)


def grouped(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Names in the order of the tables, by group; groups of none left out."""
    left = list(names)
    result = []
    for group, known in GROUPS.items():
        inside = [name for name in known if name in left]
        if group == "Nothing generated":
            parts = [name for name in left if name.startswith("evidence_encoder/")]
            inside += sorted(parts, key=lambda name: -len(kinds_of(name) or ()))
        result.append((group, inside))
        left = [name for name in left if name not in inside]
    return [(group, inside) for group, inside in [*result, (OTHERS, left)] if inside]


# cells


def rate_cell(row: Row, key: str) -> str:
    """A rate in percent with its interval, if there is one."""
    value = row.get(key)
    if value is None:
        return NOTHING
    return f"{100 * value:.1f}{interval(row.get(f'{key}_ci'))}"


def interval(ci: Sequence[float] | None, digits: int = 0) -> str:
    """ " (52 to 66)" from shares; nothing for None."""
    if not ci or None in ci:
        return ""
    low, high = (f"{100 * end:.{digits}f}" for end in ci)
    return f" ({low} to {high})"


def number_cell(row: Row, key: str, digits: int) -> str:
    """A plain number."""
    value = row.get(key)
    return NOTHING if value is None else f"{value:.{digits}f}"


def points(one: Rate | None) -> str:
    """A difference of rates in percentage points with its interval: "+2.5 (-1.0 to +6.0)"."""
    if one is None:
        return NOTHING
    return f"{100 * one.value:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"


def decided(one: Rate | None) -> bool:
    """True if the interval leaves out zero."""
    return one is not None and (one.low > 0 or one.high < 0)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines])


def prose(text: str, start: str = "") -> str:
    """A paragraph, wrapped; start: "- " for one item of a list."""
    bound = LIKE_A_LIST.sub(
        "\0", " ".join(text.split())
    )  # such a word must not come to stand first in a line
    wrapped = textwrap.fill(
        bound,
        118,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return wrapped.replace("\0", " ")


def left_out(what: Iterable[str]) -> str:
    """The line that says what a run lacks; empty if it lacks nothing."""
    names = [name for name in what if name]
    return prose(f"*Not measured in this run: {'; '.join(names)}.*") if names else ""


# tables

SEARCH: tuple[tuple[str, str], ...] = (
    ("rank1", "rank-1 %"),
    ("rank10", "rank-10 %"),
    ("rank50", "rank-50 %"),
    ("fnir_at_fpir_0.01", "FNIR % at FPIR 0.01"),
    ("fnir_at_fpir_0.003", "FNIR % at FPIR 0.003"),
)
JUDGED: tuple[tuple[str, str, int], ...] = (
    ("psnr", "PSNR, dB", 1),
    ("ms_ssim", "MS-SSIM", 3),
    ("fid_matcher_b", "FID (features of matcher B)", 1),
    ("rounds", "rounds", 1),
    ("seconds", "processor seconds", 2),
)


def search_table(rows: Mapping[str, Row]) -> str:
    """Every system of one level: what it finds, and what the judge says."""
    head = ["system", *(name for _, name in SEARCH), "judge's cosine", "judge's rank-1 %"]
    return _by_group(
        head,
        rows,
        lambda row: [
            *(rate_cell(row, key) for key, _ in SEARCH),
            number_cell(row, "judge_cosine", 3),
            rate_cell(row, "judge_rank1"),
        ],
    )


def picture_table(rows: Mapping[str, Row]) -> str:
    """Every system of one level that makes pictures or takes time: how the pictures measure, and what they cost."""
    keys = [key for key, _, _ in JUDGED]
    rows = {name: row for name, row in rows.items() if any(row.get(key) is not None for key in keys)}
    if not rows:
        return ""
    head = ["system", *(name for _, name, _ in JUDGED)]
    return _by_group(head, rows, lambda row: [number_cell(row, key, digits) for key, _, digits in JUDGED])


def _by_group(head: Sequence[str], rows: Mapping[str, Row], cells: Any) -> str:
    lines: list[Sequence[str]] = []
    for group, names in grouped(rows):
        lines.append([f"**{group}**", *[""] * (len(head) - 1)])
        lines += [[label(name), *cells(rows[name])] for name in names]
    return table(head, lines)


@dataclass(frozen=True)
class Difference:
    """System `a` minus system `b` on the same probes."""

    a: str
    b: str
    rank1: Rate | None
    rank10: Rate | None

    @property
    def title(self) -> str:
        """How a table names it."""
        return f"{in_sentence(self.a)} - {in_sentence(self.b)}"


def difference(found: Found, level: str, a: str, b: str) -> Difference | None:
    """a minus b at one level: from the pairs of the run, else from its records of each person; None if neither is there."""
    for pair in (found.get("pairs") or {}).get(level) or ():
        if (pair.get("a"), pair.get("b")) in ((a, b), (b, a)):
            sign = 1 if pair.get("a") == a else -1
            return Difference(a, b, *(_signed(pair, key, sign) for key in ("rank1", "rank10")))
    records = (found.get("records") or {}).get(level) or {}
    first, second = (
        {r["person"]: r["rank"] for r in records.get(name) or () if r.get("rank")} for name in (a, b)
    )
    people = [person for person in first if person in second]
    if not people:
        return None
    rates = (
        _paired(tuple(first[p] <= k for p in people), tuple(second[p] <= k for p in people)) for k in (1, 10)
    )
    return Difference(a, b, *rates)


@lru_cache(
    maxsize=4096
)  # a page asks for the same pair in its answers, its tables, its targets and its picture
def _paired(a: tuple[bool, ...], b: tuple[bool, ...]) -> Rate:
    return paired(torch.tensor(a), torch.tensor(b))


def _signed(pair: Row, key: str, sign: int) -> Rate | None:
    value, ends = pair.get(key), pair.get(f"{key}_ci")
    if value is None or not ends:
        return None
    low, high = sorted(sign * end for end in ends)
    return Rate(sign * value, low, high)


def differences_table(found: Found, pairs: Iterable[tuple[str, str]], rank: str = "rank1") -> str:
    """One row per pair, one column per level; in bold where the interval leaves out zero. Empty for no pair measured."""
    levels = levels_of(found)
    rows = []
    for a, b in pairs:
        made = [difference(found, level, a, b) for level in levels]
        rates = [None if one is None else getattr(one, rank) for one in made]
        if any(rates):
            cells = [f"**{points(one)}**" if decided(one) else points(one) for one in rates]
            rows.append([Difference(a, b, None, None).title, *cells])
    return table(["difference", *levels], rows) if rows else ""


def words_table(words: Mapping[str, Row]) -> str:
    """Part rounds by words: does the word move its part."""
    head = [
        "word",
        "from, to",
        "right way %",
        "moved % of the true difference",
        "largest change outside, of 255",
    ]
    return table(
        head,
        [
            [
                name,
                f"{row.get('from', '?')}, {row.get('to', '?')}",
                f"{100 * row['right_way']:.0f}" if row.get("right_way") is not None else NOTHING,
                f"{100 * row['moved']:.0f}" if row.get("moved") is not None else NOTHING,
                number_cell(row, "outside", 2),
            ]
            for name, row in words.items()
        ],
    )


# the document that quotes a few of them

SHORT = (
    "true_photo", "raw_lq", "evidence_encoder", "one_shot", "consensus_8", "rounds", "rounds_right_words", "everything",
    "oracle",
)  # fmt: skip
"""Systems of the short table."""


def update_document(path: Path, found: Found, benchmark: str = "benchmarks/embedded.md") -> None:
    """Replace what stands between the two markers of a document by a short table of `found`, with a link to all of it.

    benchmark: that page, as seen from the document. Raises `InputError` for a document without the markers, and for a JSON
    that is not a benchmark's.
    """
    check(found)
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise InputError(
            f"{path}: wanted the lines '{BEGIN}' and '{END}' once each, to put the tables between them"
        )
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    write_atomic(path, f"{before}{BEGIN}\n\n{short(found, benchmark)}\n{END}{after}".encode())


def short(found: Found, benchmark: str) -> str:
    """A dozen lines: rank-1 at each level, rank-10 at the honest one, and where the rest is."""
    levels = levels_of(found)
    honest = "middle" if "middle" in levels else levels[-1] if levels else ""
    rows = [
        [
            title(name),
            *(rate_cell(row_of(found, level, name), "rank1") for level in levels),
            rate_cell(row_of(found, honest, name), "rank10"),
        ]
        for name in SHORT
        if any(row_of(found, level, name) for level in levels)
    ]
    missing = [title(name) for name in SHORT if not any(row_of(found, level, name) for level in levels)]
    head = ["system", *(f"rank-1 %, *{level}*" for level in levels), f"rank-10 %, *{honest}*"]
    parts = [
        prose(
            f"Gallery: {found.get('gallery', '?')} people, one picture each; {found.get('probes', '?')} probes"
            f"{', quick suite' if found.get('quick') else ''}. In brackets: 95 % intervals over people."
        ),
        table(head, rows) if rows else "",
        left_out(missing),
        prose(
            f"Every system, every level, open set, look-alikes, words, rounds and subgroups: [{Path(benchmark).name}]"
            f"({benchmark})."
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
