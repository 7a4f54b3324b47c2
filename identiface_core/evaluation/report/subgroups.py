"""Who is found less often, and who raises more false alarms: one table per age band, skin tone and sex.

All groups are measured at ONE threshold, as an investigator's system has one (NISTIR 8280). A gap between groups is the
largest difference of two; with few people a gap appears by chance, so beside it stands the gap that shuffled labels give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from identiface_core.evidence.lexicon import ATTRIBUTES

from ..metrics import LIST_LENGTH, threshold_for
from .tables import NOTHING, Found, in_sentence, interval, table

ASKED = ("age", "skin tone", "sex")
FEWEST = 20
"""People of a group below whom nothing is said about it, and it takes no part in a gap."""
FPIR, LOOSE = 0.01, 0.10
"""The FPIR that the common threshold is set for; and a looser one, at which there are alarms enough to compare groups."""
SHUFFLES = 1000
FIGURES = ("rank1", "fnir", "fpir", "fpir_loose")


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a rate of `hits` in `n`, which stays honest near 0 and 1 where a bootstrap gives no width at all."""
    if n == 0:
        return 0.0, 1.0
    p, square = hits / n, z * z
    middle, half = p + square / (2 * n), z * math.sqrt(p * (1 - p) / n + square / (4 * n * n))
    low, high = ((middle + sign * half) / (1 + square / n) for sign in (-1, 1))
    return (0.0 if hits == 0 else low), (1.0 if hits == n else high)


def subgroups(found: Found, level: str, name: str) -> dict[str, Any] | None:
    """Figures of one system at one level by subgroup, ready for JSON; None if the run kept no record of each person.

    A search without a mate is that of a stranger, or that of a person with the own picture taken out of the gallery (the
    best score of anybody else). The threshold is the lowest that at most `FPIR` of all these searches reach.
    """
    records = ((found.get("records") or {}).get(level) or {}).get(name) or []
    people: Sequence[Mapping[str, str]] = found.get("people") or []
    records = [r for r in records if 0 <= r.get("person", -1) < len(people) and r.get("rank")]
    if not records:
        return None
    known = [people[r["person"]] for r in records]
    alarms, alarmed = _without_mate(found, level, name, records, known)
    result: dict[str, Any] = {"level": level, "system": name, "searches_without_mate": len(alarms)}
    figures: dict[str, tuple[list[float], Sequence[Mapping[str, str]]]] = {
        "rank1": ([float(r["rank"] == 1) for r in records], known)
    }
    for key, fpir in (("fpir", FPIR), ("fpir_loose", LOOSE)):
        at = threshold_for(fpir, torch.tensor(alarms, dtype=torch.float64)) if alarms else None
        if at is None:
            continue
        result[f"threshold_{key}"] = at
        if key == "fpir" and all(r.get("score") is not None for r in records):
            figures["fnir"] = ([float(r["score"] < at or r["rank"] > LIST_LENGTH) for r in records], known)
        if alarmed:
            own = alarms[-len(alarmed) :]  # strangers of whom nothing is known stand in front
            figures[key] = ([float(score >= at) for score in own], alarmed)
    result["attributes"] = {
        attribute: _by_value(attribute, figures)
        for attribute in ASKED
        if all(attribute in person for person in known)
    }
    return result


def _without_mate(
    found: Found,
    level: str,
    name: str,
    records: Sequence[Mapping[str, Any]],
    known: Sequence[Mapping[str, str]],
) -> tuple[list[float], list[Mapping[str, str]]]:
    """Best scores of all searches without a mate, and who the last of them are (as many as are known)."""
    strangers = found.get("unmated_records") or {}
    for key in (level, name):  # scores by level and name, or by name, or plain
        if isinstance(strangers, Mapping) and key in strangers:
            strangers = strangers[key] or []
    found_scores = [] if isinstance(strangers, Mapping) else [_score(one) for one in strangers]
    scores = [one for one in found_scores if one is not None]
    who: list[Mapping[str, str]] = list(found.get("unmated_people") or [])
    who = who if len(who) == len(scores) == len(found_scores) else []
    own = [
        (r["best_impostor"], k)
        for r, k in zip(records, known, strict=True)
        if r.get("best_impostor") is not None
    ]
    return [*scores, *(score for score, _ in own)], [*who, *(person for _, person in own)]


def _score(one: Any) -> float | None:
    if isinstance(one, Mapping):
        one = one.get("score", one.get("best_impostor"))
    return None if one is None else float(one)


def _by_value(
    attribute: str, figures: Mapping[str, tuple[list[float], Sequence[Mapping[str, str]]]]
) -> dict[str, Any]:
    order = next(([v.name for v in a.values] for a in ATTRIBUTES if a.name == attribute), [])
    said = {person[attribute] for _, people in figures.values() for person in people if attribute in person}
    values = [*(v for v in order if v in said), *sorted(said - set(order))]
    groups: dict[str, dict[str, Any]] = {value: {"n": 0} for value in values}
    gaps = {}
    for key, (hits, people) in figures.items():
        row = torch.tensor(hits, dtype=torch.float64)
        place = torch.tensor([values.index(p[attribute]) if attribute in p else -1 for p in people])
        for i, value in enumerate(values):
            own = row[place == i]
            n = len(own)
            if key == "rank1":
                groups[value]["n"] = n
            ends = wilson(int(own.sum()), n)
            groups[value] |= {
                key: round(float(own.mean()), 4) if n else None,
                f"{key}_ci": [round(end, 4) for end in ends],
                f"{key}_n": n,
            }
        gaps[key] = _gap(row, place, values)
    return {"groups": groups, "gap": gaps, "too_few": [v for v in values if groups[v]["n"] < FEWEST]}


def _gap(hits: Tensor, place: Tensor, values: Sequence[str]) -> dict[str, Any] | None:
    """Largest difference between groups that are large enough, and the gap that 95 of 100 shuffles of the labels stay under."""
    large = [i for i in range(len(values)) if int((place == i).sum()) >= FEWEST]
    if len(large) < 2:
        return None
    kept = torch.stack([place == i for i in large])  # (groups, people)
    share = kept.double() / kept.sum(1, keepdim=True)
    inside = kept.any(0)
    share, hits = share[:, inside], hits[inside]
    rates = share @ hits
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.stack([hits[torch.randperm(len(hits), generator=generator)] for _ in range(SHUFFLES)])
    chance = shuffled @ share.T  # (shuffles, groups)
    spread = chance.amax(1) - chance.amin(1)
    return {
        "gap": round(float(rates.max() - rates.min()), 4),
        "lowest": values[large[int(rates.argmin())]],
        "highest": values[large[int(rates.argmax())]],
        "by_chance": round(float(spread.quantile(0.95)), 4),
    }


def subgroup_table(found: Mapping[str, Any]) -> str:
    """The result of `subgroups` as one table; a group of fewer than `FEWEST` people shows its number and nothing else."""
    rows = []
    for attribute, one in found["attributes"].items():
        for value, row in one["groups"].items():
            few = value in one["too_few"]
            cells = [_cell(row, key, few) for key in FIGURES]
            rows.append([attribute, value, f"{row['n']}{' (too few to say)' * few}", *cells])
        cells = [_gap_cell(one["gap"].get(key)) for key in FIGURES]
        rows.append([f"**gap by {attribute}**", "", "", *cells])
    head = ["", "group", "people", "rank-1 %", f"FNIR % at FPIR {FPIR:g}", f"FPIR % at FPIR {FPIR:g}"]
    return table([*head, f"FPIR % at FPIR {LOOSE:g}"], rows)


def _cell(row: Mapping[str, Any], key: str, few: bool) -> str:
    if few or row.get(key) is None:
        return NOTHING
    return f"{100 * row[key]:.1f}{interval(row[f'{key}_ci'])}"


def _gap_cell(gap: Mapping[str, Any] | None) -> str:
    if gap is None:
        return NOTHING
    sign = "**" if gap["gap"] > gap["by_chance"] else ""
    return f"{sign}{100 * gap['gap']:.1f}{sign} (chance: up to {100 * gap['by_chance']:.1f})"


def subgroup_sentence(found: Mapping[str, Any]) -> str:
    """Which gaps are larger than chance makes them, in words with numbers."""
    names = {"rank1": "rank-1", "fnir": f"FNIR at FPIR {FPIR:g}", "fpir": f"FPIR at the threshold for {FPIR:g}",
             "fpir_loose": f"FPIR at the threshold for {LOOSE:g}"}  # fmt: skip
    said, silent, small = [], [], 0
    for attribute, one in found["attributes"].items():
        for key, gap in one["gap"].items():
            if gap is None:
                silent.append(f"{attribute} ({names[key]})")
            elif gap["gap"] <= gap["by_chance"]:
                small += 1
            else:
                said.append(
                    f"{names[key]} by {attribute}: {100 * gap['gap']:.1f} points between {gap['lowest']} and "
                    f"{gap['highest']}, where chance gives up to {100 * gap['by_chance']:.1f}"
                )
    told = in_sentence(found["system"])
    parts = []
    if said:
        parts.append(f"Larger than chance for {told}: {'; '.join(said)}.")
    elif small:
        parts.append(
            f"No gap for {told} is larger than shuffled labels give in 95 of 100 cases. That is no proof of fairness: with so "
            "few people only large gaps could show."
        )
    if silent:
        parts.append(
            f"No gap can be stated for {', '.join(silent)}: fewer than two groups have {FEWEST} people."
        )
    return " ".join(parts)
