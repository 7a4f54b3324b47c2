"""The figures of a measurement as Markdown tables, for the document that quotes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from identiface_core.errors import InputError
from identiface_core.weights.files import write_atomic

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def update_document(path: Path, figures: Mapping[str, Any]) -> None:
    """Replace what stands between the two markers of a document by the tables of `figures`.

    Raises `InputError` for a document without the markers.
    """
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise InputError(
            f"{path}: wanted the lines '{BEGIN}' and '{END}' once each, to put the tables between them"
        )
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    write_atomic(path, f"{before}{BEGIN}\n\n{markdown(figures)}\n{END}{after}".encode())


def markdown(figures: Mapping[str, Any]) -> str:
    """All tables. Rates in percent with their 95 % intervals over people."""
    people, probes = figures["gallery"], figures["probes"]
    parts = [
        f"Gallery: {people} people, one picture each. The true other photo of a person, the ceiling of everything below:",
        _table("matcher", figures["true photo"]),
    ]
    psnr = figures["autoencoder_psnr"]
    parts.append(
        f"Autoencoder, unseen people: portraits {psnr['portraits']} dB, sketches {psnr['sketches']} dB."
    )
    for level, found in figures["levels"].items():
        parts += [
            f"Evidence query alone, *{level}* witness, {probes} probes:",
            _table("evidence", found["evidence encoder"]),
        ]
    parts += [
        "The same, all evidence of the *middle* witness, against the first 500 people of the gallery only:",
        _table("evidence", {"lq+sketch+words": figures["evidence encoder, first 500 people"]}),
    ]
    made = dict(figures["levels"]["middle"]["generated"])
    psnr_made, seconds = made.pop("portrait_psnr"), made.pop("seconds_per_face")
    parts += [
        f"Search with generated whole faces (no rounds), *middle* witness, {figures['generated_probes']} probes; the column "
        "`cosine` is to the gallery's picture of the person, by the matcher named:",
        _table("from, seeds, matcher", made),
        f"The first face against the true portrait: {psnr_made} dB. {seconds} s a face.",
        "Part rounds by words on true portraits; one word at one end, then at the other:",
        _words_table(figures["words"]),
    ]
    return "\n\n".join(parts) + "\n"


def _table(first: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [f"| {first} | rank-1 | rank-10 | cosine |", "|---|---|---|---|"]
    for name, row in rows.items():
        one, ten = _rate(row, "rank1"), _rate(row, "rank10")
        lines.append(f"| {name} | {one} | {ten} | {row['mate_cosine']:.2f} |")
    return "\n".join(lines)


def _words_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| word | from, to | right way | moved | largest change outside |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row['from']}, {row['to']} | {100 * row['right_way']:.0f} % | {100 * row['moved']:.0f} % | "
            f"{row['outside']:.2f} of 255 |"
        )
    return "\n".join(lines)


def _rate(row: Mapping[str, Any], name: str) -> str:
    low, high = row[f"{name}_ci"]
    return f"{100 * row[name]:.1f} % ({100 * low:.0f} to {100 * high:.0f})"
