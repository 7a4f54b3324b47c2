"""docs/benchmarks/guidance.md, from the figures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .methods import DEFAULT, ESTIMATE, FULL, STOP, UNGUIDED

HEAD = """\
# Guidance, measured

Written by `identiface bench guidance --page`. {people} people whom no network was trained on, one face each, {steps} steps,
the same seeds for every method. Evidence: an LQ photo of 8 x 8 pixels, a misremembered sketch, words with gaps and errors (the
*middle* witness). **Target**: the evidence encoder's estimate, in matcher A's space; never the truth. **Judge**: matcher B,
which never guides, on a picture of the person that the evidence was not made from. *Judge gain* is the rise of B's cosine over
the same seed unguided, mean over people, with its standard error; *rises* is the share of people for whom it is above zero.
Wall time and memory are ratios to no guidance, measured in turns in one process ({threads} thread, {faces} faces per sampling,
a whole call with encoding and decoding; memory is the most that tensors held at once, networks included). *Crowd* is the
Frechet distance to the true portraits by the autoencoder's latents and by matcher B's features, as a ratio to no guidance;
methods that take steps with fresh noise are best held against `unguided_noise`, which takes them too. Every method has the
scale that was best for the judge on people of the validation world (`identiface bench guidance --tune`), whatever number of
people is measured here.
"""
SCHEDULES = {"constant": "constant", "sigma": "following sigma", "early": "following sqrt(1 + sigma^2)"}
COLUMNS = (
    "method", "wall", "memory", "judge", "judge gain", "share of full", "gain per second", "rises", "A's rise to the target",
    "crowd: latents", "crowd: B",
)  # fmt: skip


SHAPES_NOTE = """\
Random weights at the true sizes: what is drawn means nothing, the time does. One face of 256 px, {steps} steps, two passes a
step as guidance on words needs, on the {device} with {threads} threads; decoder of TAESD's shape, matcher of IR-50's.
`default` is what Identity Guidance does with *decoded*: a look at every fourth step. The others look at each, as published.
Methods take turns; *wall* is the median over rounds of a method's time by that of no guidance in the same round."""
STOP_METHOD = "default_stop"
STOP_NOTE = """\
With `stop_at` {stop}, faces end at a cosine of {target:.2f} ± {spread:.2f} to the target by matcher A (mean and spread over
people); the critic, which guides, is not A."""
ASKED_NOTE = """\
A case has no truth to ask the judge about. It asks B about the people of the gallery whom the estimate finds most alike
(`rounds.led`); here without the person sought: B rose by {gain:+.3f} towards them, and over people that rise goes with the rise
towards the true person with a correlation of {agrees:.2f}."""


def page(found: Mapping[str, Mapping[str, Any]], seeds: int) -> str:
    """The page, as Markdown."""
    if UNGUIDED not in found:
        return "\n".join(["# Guidance at the shapes of other models", "", *_shapes(found)]) + "\n"
    about = found[UNGUIDED]["about"]
    lines = [HEAD.format(**about, faces=seeds)]
    plain = [name for name in found if not name.startswith(ESTIMATE) and "/" not in name]
    lines += [
        "## Guidance alone",
        "",
        "The generator does not read the estimate: all the gain is the guide's.",
        "",
    ]
    lines += [*_table(found, plain), ""]
    lines += [f"- `{name}`: {found[name]['label']}; {_options(found[name]['options'])}" for name in plain[1:]]
    if STOP_METHOD in found:
        row = found[STOP_METHOD]
        lines += ["", STOP_NOTE.format(stop=STOP, target=row["target"], spread=row["target_spread"])]
    both = [name for name in found if name.startswith(ESTIMATE)]
    if both:
        lines += ["", "## On top of the condition", ""]
        lines += [
            "The generator reads the estimate as a condition too, as a case lets it: what a user gets.",
            "",
        ]
        lines += [*_table(found, both), "", *_asked(found)]
    lines += ["", "## Against the targets", "", *_targets(found)]
    if any("/" in name for name in found):
        lines += ["", "## Cost at the shapes of other models", "", *_shapes(found)]
    return "\n".join(lines).rstrip() + "\n"


def _table(found: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for name in names:
        row = found[name]
        share, rate = row["judge_gain_share"], row["judge_gain_per_second"]
        guided = not name.endswith(UNGUIDED)
        cells = [
            f"`{name}`"
            + ("" if row["people"] == found[UNGUIDED]["people"] else f" ({row['people']} people)"),
            f"{row['wall_ratio']:.2f}",
            f"{row['memory_ratio']:.2f}",
            f"{row['judge']:.3f}",
            f"{row['judge_gain']:+.3f} ± {row['judge_gain_error']:.3f}" if guided else "",
            f"{100 * share:.0f} %" if share is not None and guided else "",
            f"{rate:.2f}" if rate is not None and guided else "",
            f"{100 * row['judge_rises']:.0f} %" if guided else "",
            f"{row['target_gain']:+.3f}" if guided else "",
            *(f"{row[f'fid_{kind}_ratio']:.2f}" if guided else "" for kind in ("latent", "judge")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _asked(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    row = found.get(ESTIMATE + DEFAULT)
    if row is None or row["asked_agrees"] is None:
        return []
    return [ASKED_NOTE.format(gain=row["asked_gain"], agrees=row["asked_agrees"])]


def _shapes(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = {name: row for name, row in found.items() if "/" in name}
    lines = [SHAPES_NOTE.format(**next(iter(rows.values()))), ""]
    lines += ["| model | method | wall | rounds | memory | seconds, unguided |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        lines.append(
            f"| {row['label']} | `{name.split('/')[1]}` | {row['wall_ratio']:.3f} | {row['rounds']} | "
            f"{row['memory_ratio']:.2f} | {row['seconds_unguided']:.1f} |"
        )
    return lines


def _targets(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if DEFAULT not in found or FULL not in found:
        return ["Not measured: the default and `full` are needed."]
    mine, full = found[DEFAULT], found[FULL]
    half = mine["wall_ratio"] / full["wall_ratio"]
    rows = [
        ("wall time of the default at most 1.25 x unguided", f"{mine['wall_ratio']:.2f}", mine["wall_ratio"] <= 1.25),
        ("under half of full's time", f"{half:.2f}", half < 0.5),
        ("at least 90 % of full's judge gain", f"{100 * mine['judge_gain_share']:.0f} %", mine["judge_gain_share"] >= 0.9),
        ("judge rises for at least 80 % of people", f"{100 * mine['judge_rises']:.0f} %", mine["judge_rises"] >= 0.8),
        ("crowd by latents at most 5 % worse", f"{mine['fid_latent_ratio']:.2f}", mine["fid_latent_ratio"] <= 1.05),
        ("crowd by B at most 5 % worse", f"{mine['fid_judge_ratio']:.2f}", mine["fid_judge_ratio"] <= 1.05),
    ]  # fmt: skip
    rows += [
        (f"{name}: at most 1.10 x unguided", f"{row['wall_ratio']:.3f}", row["wall_ratio"] <= 1.10)
        for name, row in found.items()
        if name.endswith(f"/{DEFAULT}")
    ]
    lines = ["| target | measured | kept |", "|---|---|---|"]
    return lines + [f"| {what} | {value} | {'yes' if kept else '**no**'} |" for what, value, kept in rows]


def _options(options: Mapping[str, Any]) -> str:
    if options["start"] == options["end"]:
        return "no look"
    told = [f"scale {options['scale']:g}"]
    if options["every_n"] > 1:
        told.append(f"a look every {options['every_n']} steps")
    if (options["start"], options["end"]) != (0.0, 1.0):
        told.append(f"from {options['start']:g} to {options['end']:g}")
    told.append(SCHEDULES[options["schedule"]])
    if not options["normalise"]:
        told.append("gradients as they are")
    return ", ".join(told)
