"""docs/benchmarks/photos.md, from the figures of `identiface bench photos --list`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEAD = """\
# Matchers of photographs, measured

Written by `identiface bench photos --list --page`; all figures are in [photos-figures.json](photos-figures.json). Photographs:
{photos} of {people} people, known by sha256 ([photos.json](photos.json)){missing}; every one is compared with every other one.

*EER* is the rate at which as many mated pairs (one person, two photos) are missed as pairs of strangers are let through, with its
95 % interval over people; *AUC* the probability that a mated pair is more alike than a pair of strangers. *Misses*: the share of
mated pairs below the threshold that one pair of strangers in {strangers:,.0f} reaches.
"""
SMALL = """\
Detector: {name}. Portraits of the faces, made so small the published simple way, are compared with the *other* photos. A portrait
frames the whole head: in one of 16 px the face is 8 px wide.
"""


def page(found: Mapping[str, Any]) -> str:
    """The page, as Markdown."""
    first = found["detectors"][0]
    missing = f", {found['missing']} of which were missing" if found["missing"] else ""
    fmr = first["rows"][0]["fmr"] or 1
    lines = [HEAD.format(photos=first["photos"], people=first["people"], missing=missing, strangers=1 / fmr)]
    lines += ["## Networks", "", "| | name | file | sha256 | terms of the weights |", "|---|---|---|---|---|"]
    for role in ("detector", "matcher"):
        lines += [
            f"| {role} | {one['name']} | `{one['path']}` of {one['repository']} at `{one['commit'][:12]}` | "
            f"`{one['sha256']}` | {one['terms']} |"
            for one in (entry.get("network", entry) for entry in found[f"{role}s"])
        ]
    lines += ["", "## Whole photos", ""]
    lines += [
        "| detector | left out | several faces | matcher | mated pairs | strangers | EER, % | AUC | threshold | misses, % |",
        "|" + "---|" * 10,
    ]
    for detector in found["detectors"]:
        lines += [
            f"| {detector['network']['name']} | {len(detector['skipped'])} | {_several(detector)} | {row['matcher']} | "
            f"{_cosines(row['mated'])} | {_cosines(row['strangers'])} | {_rate(row['eer'])} | {row['auc']:.4f} | "
            f"{_threshold(row)} |"
            for row in detector["rows"]
            if row["probe"] == "photo"
        ]
    if any(row["probe"] != "photo" for row in first["rows"]):
        matchers = list(dict.fromkeys(row["matcher"] for row in first["rows"]))
        lines += ["", "## Small portraits", "", SMALL.format(name=first["network"]["name"])]
        heads = "".join(f" EER {name}, % | AUC |" for name in matchers)
        lines += [f"| probe | recognisability |{heads}", "|" + "---|" * (2 + 2 * len(matchers))]
        for probe in dict.fromkeys(row["probe"] for row in first["rows"]):
            rows = [row for row in first["rows"] if row["probe"] == probe]
            cells = "".join(f" {_rate(row['eer'])} | {row['auc']:.4f} |" for row in rows)
            lines.append(f"| {probe} | {rows[0]['recognisability']:.2f} |{cells}")
    return "\n".join(lines) + "\n"


def _several(detector: Mapping[str, Any]) -> str:
    return str(len(detector["several"])) if "several" in detector else ""


def _cosines(moments: Mapping[str, float]) -> str:
    return (
        f"{moments['count']}: {moments['mean']:.2f} ± {moments['deviation']:.2f} "
        f"({moments['least']:.2f} to {moments['most']:.2f})"
    )


def _rate(rate: Mapping[str, float]) -> str:
    return f"{100 * rate['value']:.2f} ({100 * rate['low']:.1f} to {100 * rate['high']:.1f})"


def _threshold(row: Mapping[str, Any]) -> str:
    return "too few | " if row["threshold"] is None else f"{row['threshold']:.3f} | {100 * row['fnmr']:.1f}"
