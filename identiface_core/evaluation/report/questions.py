"""What adds what: the questions a benchmark run is asked, as pairs of systems, and the answers as sentences with numbers."""

from __future__ import annotations

from dataclasses import dataclass

from .tables import (
    Difference,
    Found,
    decided,
    difference,
    in_sentence,
    kinds_of,
    label,
    levels_of,
    points,
    row_of,
)

Pair = tuple[str, str]


@dataclass(frozen=True)
class Question:
    """A question, and the pairs (a, b) whose differences a - b answer it."""

    asked: str
    pairs: tuple[Pair, ...]


QUESTIONS: tuple[Question, ...] = (
    Question(
        "What does generation add to the evidence query?",
        (("everything", "evidence_encoder"), ("consensus_8", "evidence_encoder")),
    ),
    Question(
        "What does guidance towards the estimate add to the generated face?",
        (("one_shot", "one_shot_unguided"), ("consensus_8", "consensus_8_unguided")),
    ),
    Question("What do several seeds add to one?", (("consensus_4", "one_shot"), ("consensus_8", "one_shot"))),
    Question("What does the best candidate as reference add?", (("reference", "consensus_8"),)),
    Question(
        "What do part rounds add, and what do corrected words add to them?",
        (
            ("rounds", "consensus_4"),
            ("rounds_right_words", "rounds"),
            ("rounds_right_words", "consensus_4"),
            ("everything_right_words", "everything"),
        ),
    ),
    Question(
        "What does all of it add to one generated face, and to the raw photo?",
        (("everything", "one_shot"), ("everything", "raw_lq")),
    ),
    Question("How far is all of it from the true photo?", (("everything", "true_photo"),)),
    Question("What does an oracle pretend?", (("oracle", "rounds"), ("oracle", "everything"))),
)
FOREST: tuple[Pair, ...] = (
    ("everything", "evidence_encoder"),
    ("consensus_8", "evidence_encoder"),
    ("one_shot", "one_shot_unguided"),
    ("consensus_8", "consensus_8_unguided"),
    ("consensus_8", "one_shot"),
    ("reference", "consensus_8"),
    ("rounds", "consensus_4"),
    ("rounds_right_words", "rounds"),
    ("everything", "one_shot"),
)
"""Rows of the picture of differences."""
GENERATED, ENCODER = "one_shot", "evidence_encoder"
"""The two families of systems that exist for every set of clues, by the name that gets all clues."""


def main_pairs(found: Found) -> list[Pair]:
    """Every pair of the questions, then every other pair that the run lists and that is not about clues."""
    pairs = [pair for question in QUESTIONS for pair in question.pairs]
    for pair in _listed(found):
        if pair not in pairs and pair[::-1] not in pairs and not about_clues(*pair):
            pairs.append(pair)
    return pairs


def clue_table_pairs(found: Found) -> list[Pair]:
    """Every step of `clue_pairs`, then every other pair of more clues with fewer that the run lists."""
    steps = [p for f in (GENERATED, ENCODER) for at in levels_of(found) for p in clue_pairs(found, at, f)]
    return list(dict.fromkeys([*steps, *(pair for pair in _listed(found) if about_clues(*pair))]))


def _listed(found: Found) -> list[Pair]:
    made = ((one.get("a"), one.get("b")) for rows in (found.get("pairs") or {}).values() for one in rows)
    return list(dict.fromkeys((a, b) for a, b in made if a and b))


def about_clues(a: str, b: str) -> bool:
    """True for two systems of one family that differ in the clues they get."""
    same = a.startswith(ENCODER) == b.startswith(ENCODER)
    return same and kinds_of(a) is not None and kinds_of(b) is not None


def answer(found: Found, level: str, question: Question) -> str:
    """The answer at one level, as a sentence with intervals; empty if no pair of the question was measured."""
    made = [
        one for pair in question.pairs if (one := difference(found, level, *pair)) is not None and one.rank1
    ]
    if not made:
        return ""
    probes = found.get("probes", "these")
    told = [_told(one, probes) for one in made]
    return f"**{question.asked}** {' '.join(f'{one[0].upper()}{one[1:]}.' for one in told)}"


def _told(one: Difference, probes: object) -> str:
    start = f"{in_sentence(one.a)} against {in_sentence(one.b)}: {points(one.rank1)} points of rank-1"
    if one.rank10 is not None:
        start += f" and {points(one.rank10)} of rank-10"
    first, ten = (_sign(rate) for rate in (one.rank1, one.rank10))
    if first == ten == 0:
        return f"{start}, no difference that {probes} probes can show"
    if first == ten:
        return f"{start}, a {'gain' if first > 0 else 'loss'} in both"
    if first and ten:
        return f"{start}, a {'gain' if first > 0 else 'loss'} in the first and the opposite in the second"
    kind = "gain" if first + ten > 0 else "loss"
    return f"{start}, a {kind} in rank-{1 if first else 10} only"


def _sign(rate: object) -> int:
    value = getattr(rate, "value", 0.0)
    return (1 if value > 0 else -1) if decided(rate) else 0  # type: ignore[arg-type]


def clue_pairs(found: Found, level: str, family: str) -> list[Pair]:
    """Steps of the claim "every clue adds": all three clues over each pair, each pair over its better single clue.

    family: `GENERATED` or `ENCODER`. Steps that were not measured are left out.
    """
    names: dict[frozenset[str], str] = {}
    for name in (found.get("levels") or {}).get(level) or {}:
        encoder = name == ENCODER or name.startswith(f"{ENCODER}/")
        kinds = kinds_of(name)
        if kinds and encoder == (family == ENCODER) and row_of(found, level, name).get("rank1") is not None:
            names.setdefault(kinds, name)
    steps = []
    for kinds, name in sorted(names.items(), key=lambda item: sorted(item[0])):
        if len(kinds) != 2:
            continue
        whole = names.get(frozenset(("lq", "sketch", "words")))
        if whole:
            steps.append((whole, name))
        singles = [names[frozenset((kind,))] for kind in sorted(kinds) if frozenset((kind,)) in names]
        if len(singles) == 2:
            steps.append((name, max(singles, key=lambda one: row_of(found, level, one)["rank1"])))
    return sorted(steps, key=lambda pair: pair[0] != family)


def clue_steps(found: Found, level: str, family: str) -> list[Difference]:
    """The differences of `clue_pairs`, those that have one."""
    made = (difference(found, level, *pair) for pair in clue_pairs(found, level, family))
    return [one for one in made if one is not None and one.rank1 is not None]


def clue_sentence(found: Found, level: str, family: str) -> str:
    """How many of the steps hold, and which do not; empty if none was measured."""
    steps = clue_steps(found, level, family)
    if not steps:
        return ""
    up = [one for one in steps if one.rank1 and one.rank1.value > 0]
    sure = [one for one in up if decided(one.rank1)]
    who = "one generated face" if family == GENERATED else "the evidence encoder"
    text = (
        f"With the *{level}* witness, {who}: {len(up)} of {len(steps)} steps from fewer clues to more raise rank-1, "
        f"{len(sure)} of them by more than the interval."
    )
    down = [f"{label(one.a)} against {label(one.b)}: {points(one.rank1)}" for one in steps if one not in up]
    return f"{text} Not so: {'; '.join(down)}." if down else text
