"""What a run measured as one JSON object: rates with intervals, curves, differences, and the record of every search."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from identiface_core import __version__
from identiface_core.errors import InputError
from identiface_core.matchers.calibration import Calibration
from identiface_core.parts import PARTS
from identiface_core.rounds.prepare import gallery_digest
from identiface_core.synthesis.identity import FAMILY, RENDERER_VERSION

from .galleries import FAMILIES
from .images import frechet
from .metrics import Rate, alarms, cmc, difference, identification, misses, rate, threshold_for
from .part_words import summarise_words
from .scores import Scores
from .suite import HONEST, Measured, Searched
from .systems import PAIRS, SYSTEMS, AnySystem
from .trainings import REFERENCE, VARIANTS

RANKS = (1, 10, 50)
FPIRS = (0.01, 0.003)
PROMISED = 0.01
"""FPIR of the threshold that is asked of the shipped calibrations."""
PRODUCT = ("evidence_encoder", "rounds", "everything")
"""The product's three candidate lists: by the evidence, by the generated faces, by both."""
CURVES = {"noisy": "rounds", "right": "rounds_right_words", "everything": "everything"}
"""Curves over part rounds, and the system whose queries they follow."""
SHAPED_BY_MATE = ("reference", "oracle")
"""Systems whose faces are drawn towards, or chosen for, somebody in the gallery."""
TRAINING_FIGURES = ("rank1", "rank10", "judge_cosine", "psnr", "ms_ssim", "fid_matcher_b")
"""What is told of trainings for comparison; with their intervals, where they have any."""
PRINTED_DEPTH = 3
"""Levels of the JSON that are written line by line; what lies deeper stands on one line."""


def summarise(measured: Measured) -> dict[str, Any]:
    """The JSON object that `docs/evaluation.md` describes."""
    plan, size = measured.plan, len(measured.gallery)
    strangers = measured.strangers
    levels = {
        level: _level(found, strangers.get(level, []), measured, size)
        for level, found in measured.mated.items()
    }
    everybody = next(iter(measured.mated.values()), [])
    nobody = next(iter(strangers.values()), [])
    honest = HONEST if HONEST in measured.mated else next(iter(measured.mated), "")
    return {
        "suite": "embedded",
        "gallery": size,
        "probes": len(everybody),
        "unmated": len(nobody),
        "quick": plan.quick,
        "levels": levels,
        "pairs": {level: _pairs(found) for level, found in measured.mated.items()},
        "cmc": {
            level: {name: [_short(x) for x in cmc(_ranks(found, name))] for name in _names(found)}
            for level, found in measured.mated.items()
        },
        "look_alikes": _look_alikes(measured),
        "words": summarise_words(measured.words),
        "trainings": _trainings(measured),
        "rounds_curve": _curves(measured.mated.get(honest, [])),
        "rounds_curves": {level: _curves(found) for level, found in measured.mated.items()},
        "unmated_alarm": _alarms(levels),
        "notes": _notes(measured, size, len(nobody)),
        "versions": {
            "identiface": __version__,
            "renderer": str(RENDERER_VERSION),
            "gallery": gallery_digest(measured.gallery),
            **measured.versions,
        },
        "people": [one.values for one in everybody],
        "unmated_people": [one.values for one in nobody],
        "records": {level: _records(found) for level, found in measured.mated.items()},
        "unmated_records": {
            level: {name: [_short(one.scores[name].best, 6) for one in found] for name in _names(found)}
            for level, found in strangers.items()
        },
    }


def to_text(found: Mapping[str, Any]) -> str:
    """The object as JSON text: readable at the top, one line for what lies deep."""
    return _text(found, 0) + "\n"


def _text(value: Any, depth: int) -> str:
    if isinstance(value, Mapping) and value and depth < PRINTED_DEPTH:
        inner = ",\n".join(
            f"{' ' * (depth + 1)}{json.dumps(str(key))}: {_text(one, depth + 1)}"
            for key, one in value.items()
        )
        return f"{{\n{inner}\n{' ' * depth}}}"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _level(
    found: Sequence[Searched], strangers: Sequence[Searched], measured: Measured, size: int
) -> dict[str, dict[str, Any]]:
    return {
        name: row_of(SYSTEMS[name], found, strangers, measured.calibrations, size) for name in _names(found)
    }


def row_of(
    system: AnySystem,
    found: Sequence[Searched],
    strangers: Sequence[Searched],
    calibrations: Mapping[str, Calibration],
    size: int,
) -> dict[str, Any]:
    """All figures of one system at one level; None for what cannot be measured or does not apply."""
    name = system.name
    scores = [one.scores[name] for one in found]
    ranks = _ranks(found, name)
    mates = torch.tensor([one.score for one in scores], dtype=torch.float64)
    best = _best(strangers, name)
    row: dict[str, Any] = {}
    for k in RANKS:
        row |= _rate(f"rank{k}", identification(ranks, k))
    for fpir in FPIRS:
        threshold = None if best is None else threshold_for(fpir, best)
        missed = None if threshold is None else misses(mates, ranks, threshold)
        row |= _rate(f"fnir_at_fpir_{fpir:g}", missed)
        row[f"threshold_at_fpir_{fpir:g}"] = _short(threshold, 6)
        row |= _rate(f"fnir_pooled_at_fpir_{fpir:g}", _pooled(system, fpir, best, scores, ranks))
    promised, _ = promised_threshold(system, calibrations, size)
    row["threshold_calibrated"] = _short(promised, 6)
    row |= _rate("fpir_calibrated", None if promised is None or best is None else alarms(best, promised))
    row |= _rate("fnir_calibrated", None if promised is None else misses(mates, ranks, promised))
    row |= _rate("mate_cosine", rate(mates))
    row |= _rate("judge_cosine", _mean(one.judge_cosine for one in scores))
    judged = [one.judge_rank for one in scores if one.judge_rank is not None]
    for k in RANKS[:2]:
        row |= _rate(f"judge_rank{k}", identification(torch.tensor(judged), k) if judged else None)
    row |= {"psnr": _plain(one.psnr for one in scores), "ms_ssim": _plain(one.ms_ssim for one in scores)}
    row["fid_matcher_b"] = _fid(found, name)
    row["rounds"] = round(sum(one.rounds for one in scores) / len(scores), 2)
    row["seconds"] = round(sum(one.seconds for one in scores) / len(scores), 4)
    if system.label:
        row["label"] = system.label
    return row


def _pooled(
    system: AnySystem, fpir: float, best: Tensor | None, scores: Sequence[Scores], ranks: Tensor
) -> Rate | None:
    """FNIR at a threshold set on twice as many searches: strangers', and those of mated probes without their mate.

    None where the mate has shaped the query, for then taking it out of the gallery afterwards is not enough.
    """
    if best is None or system.name in SHAPED_BY_MATE:
        return None
    others = torch.tensor([one.best for one in scores], dtype=torch.float64)
    threshold = threshold_for(fpir, torch.cat([best, others]))
    mates = torch.tensor([one.score for one in scores], dtype=torch.float64)
    return None if threshold is None else misses(mates, ranks, threshold)


def promised_threshold(
    system: AnySystem, calibrations: Mapping[str, Calibration], size: int
) -> tuple[float | None, str]:
    """The score from which the shipped calibration shows an FPIR of `PROMISED` or less; None with the reason why not."""
    if not system.table:
        return None, "its scores have no calibration"
    own = f"{system.table}/{'+'.join(system.kinds)}"
    table = calibrations.get(own, calibrations.get(system.table))
    if table is None:
        return None, f"there is no calibration '{system.table}'"
    try:
        return table.threshold(PROMISED, size), ""
    except InputError as error:
        return None, str(error)


def _look_alikes(measured: Measured) -> dict[str, Any]:
    hard = measured.look_alike_gallery
    if hard is None or not measured.look_alikes:
        return {}
    level, found = next(iter(measured.look_alikes.items()))
    rows = {name: row_of(SYSTEMS[name], found, [], {}, len(hard)) for name in _names(found)}
    about = {
        "gallery": len(hard),
        "families": FAMILIES,
        "family": FAMILY,
        "probes": len(found),
        "level": level,
    }
    return {**about, **rows}


def _trainings(measured: Measured) -> dict[str, Any]:
    """Per training its systems' rates, and what it gains over `REFERENCE` on the same people, seeds and witnesses."""
    if not measured.trainings:
        return {}
    rows = {}
    reference, _ = measured.trainings[REFERENCE]
    for name, (found, words) in measured.trainings.items():
        systems = {system: row_of(SYSTEMS[system], found, [], {}, 0) for system in _names(found)}
        rows[name] = {
            "label": VARIANTS[name],
            "systems": {
                system: {key: row[key] for key in row if key.startswith(TRAINING_FIGURES)}
                for system, row in systems.items()
            },
            "gains": {} if name == REFERENCE else _gains(found, reference),
            "words": {
                word: {key: row[key] for key in ("right_way", "moved", "faces")}
                for word, row in summarise_words(words).items()
            },
        }
    first = reference[0].search
    return {"level": first.level, "probes": len(reference), "against": REFERENCE, "rows": rows}


def _gains(found: Sequence[Searched], reference: Sequence[Searched]) -> dict[str, dict[str, Any]]:
    """Paired differences to the reference by system: rank-1, rank-10, the judge's cosine, PSNR."""
    result: dict[str, dict[str, Any]] = {}
    for system in _names(found):
        ranks, before = _ranks(found, system), _ranks(reference, system)
        gains: dict[str, Any] = {}
        for k in RANKS[:2]:
            gains |= _rate(f"rank{k}", difference(ranks <= k, before <= k))
        for key in ("judge_cosine", "psnr"):
            pairs = [
                (getattr(one.scores[system], key), getattr(other.scores[system], key))
                for one, other in zip(found, reference, strict=True)
            ]
            if all(None not in pair for pair in pairs):
                ours, theirs = torch.tensor(pairs, dtype=torch.float64).T
                gains |= _rate(key, difference(ours, theirs))
        result[system] = gains
    return result


def _pairs(found: Sequence[Searched]) -> list[dict[str, Any]]:
    names, rows = _names(found), []
    for a, b in PAIRS:
        if a in names and b in names:
            first, second = _ranks(found, a), _ranks(found, b)
            row: dict[str, Any] = {"a": a, "b": b}
            for k in RANKS[:2]:
                row |= _rate(f"rank{k}", difference(first <= k, second <= k))
            rows.append(row)
    return rows


def _curves(found: Sequence[Searched]) -> dict[str, list[dict[str, Any]]]:
    """Find rates after each part's round; who has no round of a part stays where he was."""
    curves = {}
    for curve, name in CURVES.items():
        if name not in _names(found):
            continue
        trails = [dict(one.scores[name].trail) for one in found]
        steps: list[dict[str, Any]] = []
        ranks = [0] * len(trails)
        for part in PARTS:
            drawn = [part in trail for trail in trails]
            if not any(drawn):
                continue
            ranks = [trail.get(part, rank) for trail, rank in zip(trails, ranks, strict=True)]
            step: dict[str, Any] = {"round": len(steps), "part": part}
            for k in RANKS[:2]:
                step |= _rate(f"rank{k}", identification(torch.tensor(ranks), k))
            step["drawn"] = _short(sum(drawn) / len(drawn))
            steps.append(step)
        curves[curve] = steps
    return curves


def _alarms(levels: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """How often the product's lists raise an alarm for people without a mate, where the calibration gives a threshold."""
    return {
        level: {
            name: {
                "rate": rows[name]["fpir_calibrated"],
                "rate_ci": rows[name]["fpir_calibrated_ci"],
                "threshold": rows[name]["threshold_calibrated"],
            }
            for name in PRODUCT
            if name in rows and rows[name]["fpir_calibrated"] is not None
        }
        for level, rows in levels.items()
    }


def _notes(measured: Measured, size: int, strangers: int) -> list[str]:
    """What could not be measured, and why."""
    notes = [
        f"FNIR at FPIR {fpir:g} is not measured: of {strangers} searches without a mate not even one may raise an alarm"
        for fpir in FPIRS
        if strangers and fpir * strangers < 1
    ]
    asked = dict.fromkeys(name for found in measured.mated.values() for name in _names(found))
    reasons: dict[str, list[str]] = {}
    for name in asked:
        threshold, why = promised_threshold(SYSTEMS[name], measured.calibrations, size)
        if threshold is None:
            reasons.setdefault(why, []).append(name)
    notes += [f"no calibrated threshold for {', '.join(names)}: {why}" for why, names in reasons.items()]
    return notes


def _records(found: Sequence[Searched]) -> dict[str, list[dict[str, Any]]]:
    """Per system one record per probe; "person" is the place in "people"."""
    return {
        name: [
            {
                "person": place,
                "rank": one.scores[name].rank,
                "score": _short(one.scores[name].score, 6),
                "best_impostor": _short(one.scores[name].best, 6),
            }
            for place, one in enumerate(found)
        ]
        for name in _names(found)
    }


def _names(found: Sequence[Searched]) -> list[str]:
    """Systems that were asked, in the order of reports."""
    return list(found[0].scores) if found else []


def _ranks(found: Sequence[Searched], name: str) -> Tensor:
    return torch.tensor([one.scores[name].rank or 0 for one in found])


def _best(found: Sequence[Searched], name: str) -> Tensor | None:
    if not found or name not in found[0].scores:
        return None
    return torch.tensor([one.scores[name].best for one in found], dtype=torch.float64)


def _fid(found: Sequence[Searched], name: str) -> float | None:
    rows = [(one.scores[name].features, one.features) for one in found]
    made = [features for features, _ in rows if features is not None]
    if len(made) < len(rows):
        return None
    return _short(frechet(torch.tensor(made), torch.tensor([true for _, true in rows])))


def _mean(values: Iterable[float | None]) -> Rate | None:
    there = [one for one in values if one is not None]
    return rate(torch.tensor(there, dtype=torch.float64)) if there else None


def _plain(values: Iterable[float | None]) -> float | None:
    found = _mean(values)
    return None if found is None else _short(found.value)


def _rate(key: str, found: Rate | None) -> dict[str, Any]:
    if found is None:
        return {key: None, f"{key}_ci": None}
    return {key: _short(found.value), f"{key}_ci": [_short(found.low), _short(found.high)]}


def _short(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)
