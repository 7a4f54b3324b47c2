"""What was promised before anything was measured, and whether a run keeps it: every verdict is computed from its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from identiface_core.evidence.lexicon import ATTRIBUTES

from ..metrics import Rate
from .questions import ENCODER, GENERATED, clue_steps
from .subgroups import wilson
from .tables import Found, best_honest, difference, in_sentence, interval, levels_of, points, row_of

MOVED_PARTS = ("hair", "brows", "nose", "glasses", "beard")
"""Parts whose words must move them by half of the true difference."""


@dataclass(frozen=True)
class Target:
    """One promise."""

    level: str
    """Witness it is about; empty if about none."""
    asked: str
    wanted: str
    found: str = ""
    """What the run says; empty if it does not say."""
    missed_by: str | None = None
    """By how much it is missed; empty if it is met, None if it was not measured."""

    @property
    def met(self) -> bool | None:
        """None if it was not measured."""
        return None if self.missed_by is None else not self.missed_by

    @property
    def verdict(self) -> str:
        """A word for a table."""
        return {None: "not measured", True: "met", False: f"**missed** by {self.missed_by}"}[self.met]


def targets(found: Found) -> list[Target]:
    """All promises with their verdicts, in the order in which they were made."""
    return [
        _rate(found, "careful", "true_photo", "rank1", 0.95, "rank-1 of the true other photo (the ceiling)"),
        _share_of_ceiling(found, "careful", 0.93),
        _rate(found, "careful", "everything", "rank10", 0.98, "rank-10 of everything"),
        _rate(
            found, "careful", "consensus_8", "rank1", 0.60, "rank-1 of generated faces alone, consensus of 8"
        ),
        _every_clue(found, "careful", GENERATED, "one generated face: every clue adds"),
        _every_clue(found, "careful", ENCODER, "evidence encoder: every clue adds"),
        _difference(found, "middle", "everything", "one_shot", 0.10, ("rank1",)),
        _rate(found, "middle", "everything", "rank10", 0.90, "rank-10 of everything"),
        _difference(found, "middle", "everything", "evidence_encoder", 0.0, ("rank1", "rank10")),
        *_words(found.get("words") or {}),
        _right_words(found),
        _alarms(found, 0.02),
        _look_alikes(found),
    ]


def _rate(found: Found, level: str, name: str, key: str, wanted: float, asked: str) -> Target:
    row = row_of(found, level, name)
    value = row.get(key)
    promise = Target(level, asked, f"at least {100 * wanted:.0f} %")
    if value is None:
        return promise
    return _judged(promise, f"{100 * value:.1f} %{interval(row.get(f'{key}_ci'))}", wanted - value)


def _judged(promise: Target, said: str, lack: float, unit: str = "points") -> Target:
    """lack: how much is missing, as a share; none at or below 0."""
    missed = "" if lack <= 1e-9 else f"{100 * lack:.1f} {unit}"
    return Target(promise.level, promise.asked, promise.wanted, said, missed)


def _share_of_ceiling(found: Found, level: str, share: float) -> Target:
    row, ceiling = row_of(found, level, "everything"), row_of(found, level, "true_photo").get("rank1")
    asked, value = "rank-1 of everything, as a share of the true photo's", row.get("rank1")
    if value is None or not ceiling:
        return Target(level, asked, f"at least {100 * share:.0f} %")
    promise = Target(level, asked, f"at least {100 * share:.0f} %, which is {100 * share * ceiling:.1f} %")
    said = f"{100 * value / ceiling:.1f} %, which is {100 * value:.1f} %{interval(row.get('rank1_ci'))}"
    return _judged(promise, said, share * ceiling - value, "points of rank-1")


def _every_clue(found: Found, level: str, family: str, asked: str) -> Target:
    promise = Target(level, asked, "all three > each pair > its better single, rank-1, 6 steps")
    steps = [one.rank1 for one in clue_steps(found, level, family) if one.rank1 is not None]
    if len(steps) < 6:
        return promise
    up, sure = [one for one in steps if one.value > 0], [one for one in steps if one.low > 0]
    least = min(steps, key=lambda one: one.value)
    said = f"{len(up)} of {len(steps)} steps up, {len(sure)} by more than the interval; smallest {points(least)} points"
    missed = "" if len(up) == len(steps) else f"{len(steps) - len(up)} of {len(steps)} steps"
    return Target(promise.level, promise.asked, promise.wanted, said, missed)


def _difference(found: Found, level: str, a: str, b: str, wanted: float, ranks: tuple[str, ...]) -> Target:
    names = {"rank1": "rank-1", "rank10": "rank-10"}
    told = " and ".join(names[key] for key in ranks)
    least = f"at least {100 * wanted:+.0f} points" if wanted else "never below"
    promise = Target(level, f"{told}, {in_sentence(a)} against {in_sentence(b)}", least)
    one = difference(found, level, a, b)
    made: dict[str, Rate] = {key: getattr(one, key) for key in ranks if getattr(one, key, None)}
    if len(made) < len(ranks):
        return promise
    said = "; ".join(f"{names[key]} {points(rate)}" for key, rate in made.items())
    return _judged(promise, said, wanted - min(rate.value for rate in made.values()))


def _words(words: Mapping[str, Mapping[str, Any]]) -> Iterator[Target]:
    right = Target(
        "", "part rounds: words that go the right way in at least 90 % of faces", "at least 8 words"
    )
    moved = Target(
        "", f"part rounds: share of the true difference, {', '.join(MOVED_PARTS)}", "at least 50 %, each word"
    )
    outside = Target("", "part rounds: largest change outside the mask", "at most 1 grey level of 255")
    ways = [row["right_way"] for row in words.values() if row.get("right_way") is not None]
    if ways:
        count = sum(way >= 0.9 for way in ways)
        faces = {row["faces"] for row in words.values() if row.get("faces")}
        said = f"{count} of {len(ways)} words{f', {min(faces)} faces each' if faces else ''}"
        yield Target("", right.asked, right.wanted, said, "" if count >= 8 else f"{8 - count} words")
    else:
        yield right
    parts = {attribute.name: attribute.part for attribute in ATTRIBUTES}
    shares = {
        name: row["moved"]
        for name, row in words.items()
        if parts.get(name) in MOVED_PARTS and row.get("moved") is not None
    }
    if shares:
        least, enough = min(shares, key=lambda name: shares[name]), [n for n in shares if shares[n] >= 0.5]
        said = f"{len(enough)} of {len(shares)} words do; least {least}, {100 * shares[least]:.0f} %"
        yield _judged(moved, said, 0.5 - shares[least])
    else:
        yield moved
    changes = [row["outside"] for row in words.values() if row.get("outside") is not None]
    if changes:
        worst = max(changes)
        yield Target(
            "", outside.asked, outside.wanted, f"{worst:.2f}", "" if worst <= 1 else f"{worst - 1:.2f}"
        )
    else:
        yield outside


def _right_words(found: Found) -> Target:
    promise = Target(
        "", "a round with right words raises the find rate (rank-1, first to last round)", "above 0 points"
    )
    rates = [step.get("rank1") for step in (found.get("rounds_curve") or {}).get("right") or ()]
    if len(rates) < 2 or rates[0] is None or rates[-1] is None:
        return promise
    rise = rates[-1] - rates[0]
    said = f"{100 * rise:+.1f} points ({100 * rates[0]:.1f} % to {100 * rates[-1]:.1f} %)"
    if rise > 1e-9:
        return Target("", promise.asked, promise.wanted, said, "")
    return Target(
        "",
        promise.asked,
        promise.wanted,
        said,
        f"{-100 * rise:.1f} points" if rise < -1e-9 else "a hair: no change",
    )


def alarms(found: Found) -> dict[str, dict[str, Any]]:
    """Alarms of people without a mate, by level and system as the run names them: {"rate", "rate_ci"}.

    A run that gives a bare rate gets its interval from the number of searches.
    """

    def flat(one: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(one, Mapping) and "rate" not in one:
            for key, inner in one.items():
                yield from flat(inner, f"{path}, {key}" if path else str(key))
            return
        row = dict(one) if isinstance(one, Mapping) else {"rate": one}
        if row["rate"] is not None:
            searches = found.get("unmated")
            if row.get("rate_ci") is None and searches:
                row["rate_ci"] = wilson(round(row["rate"] * searches), searches)
            yield path, row

    return dict(flat(found.get("unmated_alarm") or {}, ""))


def _alarms(found: Found, most: float) -> Target:
    promise = Target(
        "", "people without a mate who raise an alarm at FPIR 0.01", f"at most {100 * most:.0f} %"
    )
    rows = alarms(found)
    if not rows:
        return promise
    worst = max(rows, key=lambda name: rows[name]["rate"])
    rate = rows[worst]["rate"]
    said = f"{100 * rate:.1f} %{interval(rows[worst].get('rate_ci'), 1)}, worst of {len(rows)}: {worst}"
    return _judged(promise, said, rate - most)


def _look_alikes(found: Found) -> Target:
    promise = Target("", "look-alike gallery reported beside the easy one", "there")
    there = [name for name, row in (found.get("look_alikes") or {}).items() if isinstance(row, Mapping)]
    return Target("", promise.asked, promise.wanted, f"{len(there)} systems", "") if there else promise


def distances(found: Found) -> list[str]:
    """One sentence per level where a target is missed: how far that is from what the evidence can carry at all."""
    told = []
    for level in levels_of(found):
        ceiling, best = row_of(found, level, "true_photo").get("rank1"), best_honest(found, level)
        if best is None or not any(t.met is False and t.level == level for t in targets(found)):
            continue
        name, value = best
        text = f"*{level}*: the best system without an oracle is {in_sentence(name)} with rank-1 {100 * value:.1f} %"
        estimate = row_of(found, level, "evidence_ceiling").get("rank1")
        if estimate is not None:
            text += f"; what the evidence can carry is estimated at {100 * estimate:.1f} %"
        else:
            text += ", so the evidence carries at least that"
        if ceiling is not None:
            text += f"; a true photo, which nobody has, gives {100 * ceiling:.1f} %"
        told.append(f"{text}.")
    return told
