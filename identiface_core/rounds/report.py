"""`report.html`: the whole case on one page that needs nothing else: pictures inside, no script."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from identiface_core.errors import GalleryError
from identiface_core.imaging import png_bytes
from identiface_core.weights.files import write_atomic

from .case import BY_BOTH, BY_EVIDENCE, BY_GENERATED, LISTS, NOTICE, Case, ListedCandidate, RoundRecord
from .page_style import STYLE
from .prepare import Prepared
from .scoring import WEIGHTS
from .wording import DRAWN, agreement_words, ending, fate, headline, left_out, meaning, percent, redrawn

FILE = "report.html"

TERMS = {
    "lq": "looks like the LQ photo when made as small",
    "sketch": "its lines meet the sketch",
    "words": "what was said can be read off it",
    "query": "what all evidence asks for",
}
"""What each evidence term means, in a reader's words."""

EXPLAINED = {
    BY_EVIDENCE: "Straight from LQ photo, sketch and words, without any generated face.",
    BY_GENERATED: "By the mean of all generated faces of the kept rounds.",
    BY_BOTH: "The two queries fused: the generated faces count {share:.3g} %, the evidence itself the rest. This is the case's "
    "candidate list.",
}


def write_report(folder: Path, case: Case, prepared: Prepared, faces: Mapping[int, Tensor]) -> None:
    """Write `report.html` into `folder`; `faces` are the rounds' faces by index. Raises `OutputError`."""
    write_atomic(folder / FILE, report(case, prepared, faces).encode())


def report(case: Case, prepared: Prepared, faces: Mapping[int, Tensor]) -> str:
    """The page as text. Everything that came from a user is escaped."""
    sections = [
        _head(case),
        _warnings(case),
        _evidence(case, prepared),
        _answer(case, faces),
        _lists(case, prepared),
        _rounds(case, faces),
        _made_with(case),
        _replay(case),
    ]
    body = "\n".join(part for part in sections if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>IdentiFace case report</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n"
        f"<footer><p><strong>Notice.</strong> {escape(NOTICE)}</p></footer>\n</body>\n</html>\n"
    )


def _head(case: Case) -> str:
    return (
        f'<header><h1>IdentiFace case report</h1><p class="quiet">{case.gallery["people"]:,} people searched '
        f"({escape(str(case.gallery['source']))}). {escape(ending(case))}</p>"
        '<p class="notice" role="note"><strong>A lead, not an identification.</strong> '
        f"{escape(NOTICE)}</p></header>"
    )


def _warnings(case: Case) -> str:
    if not case.warnings:
        return ""
    items = "".join(f"<li>{escape(one)}</li>" for one in case.warnings)
    title = '<h2 id="warnings">Warnings</h2>'
    return f'<section class="warn" aria-labelledby="warnings">{title}<ul>{items}</ul></section>'


def _evidence(case: Case, prepared: Prepared) -> str:
    evidence, cells = prepared.evidence, []
    if evidence.lq is not None:
        record = case.evidence["lq"]
        caption = (
            f'LQ photo <span class="quiet">{escape(record["file"])}, face {record["native_side"]} px wide, '
            f"recognisability {record['recognisability']:.2f} of 1</span>"
        )
        cells.append(_figure(evidence.lq, "The LQ photo, enlarged", caption, "captured", "pixels"))
    if evidence.sketch is not None:
        caption = f'Sketch <span class="quiet">{escape(case.evidence["sketch"]["file"])}, cleaned</span>'
        cells.append(_figure(evidence.sketch, "The sketch after cleaning", caption, "captured"))
    words = case.evidence["description"]
    if words:
        rows = "".join(f"<dt>{escape(part)}</dt><dd>{escape(text)}</dd>" for part, text in words.items())
        cells.append(f'<div class="words"><h3>Words</h3><dl>{rows}</dl></div>')
    missing = [
        name
        for name, there in (
            ("LQ photo", evidence.lq is not None),
            ("sketch", evidence.sketch is not None),
            ("words", bool(words)),
        )
        if not there
    ]
    note = f'<p class="quiet">Not given: {", ".join(missing)}.</p>' if missing else ""
    return _section("Evidence", f'<div class="row">{"".join(cells)}</div>{note}')


def _answer(case: Case, faces: Mapping[int, Tensor]) -> str:
    standing = next((one for one in case.rounds if one.image is not None and one.image == case.face), None)
    figure = ""
    if standing is not None:
        caption = (
            f'Final face <span class="tag">generated</span> <span class="quiet">round {standing.index}</span>'
        )
        figure = _figure(
            faces[standing.index], "The generated face that stands at the end", caption, "generated", "large"
        )
    sentences, nobody = [], headline(case.candidates)
    if nobody:
        sentences.append(f"<strong>{escape(nobody)}</strong>")
        first = case.candidates[0]
        sentences.append(f"First on the list: {escape(first.person)}, score {first.score:.3f}.")
    elif case.candidates:
        first = case.candidates[0]
        sentences.append(
            f"The first candidate is <strong>{escape(first.person)}</strong>, score {first.score:.3f}. "
            + escape(meaning(first.fpir, case.gallery["people"]))
        )
    sentences.append(escape(agreement_words(case.agreement)))
    judge = next((one.judge for one in reversed(case.rounds) if one.judge is not None), None)
    if judge is not None:
        sentences.append(
            "A second matcher, which took no part in the search, gives the generated faces a cosine of "
            f"{judge.matcher_b:.2f} with <strong>{escape(judge.person)}</strong>, the searching one "
            f"{judge.matcher_a:.2f} (gap {judge.gap:+.2f}); by the second matcher alone that person would "
            f"stand at rank {judge.rank_b}."
        )
    if case.settings.get("identity_guidance"):
        sentences.append(_led(case))
    text = "".join(f"<p>{one}</p>" for one in sentences)
    return _section("Result", f'<div class="row">{figure}<div class="text">{text}</div></div>')


def _led(case: Case) -> str:
    """What guidance did to the whole face, for whoever reads the cosines of the matcher that led it."""
    led = next((one.led for one in case.rounds if one.led is not None), None)
    rates = "The false-positive rates of generated faces, measured without guidance, need not hold."
    start = "The searching matcher also led the drawing of the whole face"
    if led is None:
        return (
            f"{start}, so its cosines may be higher by construction; the gallery is too small for the second matcher to say "
            f"whether that helped. {rates}"
        )
    effect = (
        "so its cosines are higher by construction"
        if led.rises[0] > 0
        else "and led it away from the evidence"
    )
    return (
        f"{start}, {effect}: against the same seeds drawn without guidance, the cosine with the evidence query went from "
        f"{led.a_unguided:.2f} to {led.a:.2f}. By the second matcher, which never guides, the cosine with the people most like "
        f"the query went from {led.b_unguided:.2f} to {led.b:.2f}. {rates}"
    )


def _lists(case: Case, prepared: Prepared) -> str:
    columns, share = [], 100 * (1 - case.settings["evidence_weight"])
    for name in (BY_BOTH, *(one for one in LISTS if one != BY_BOTH)):
        rows = (
            "".join(_candidate(one, prepared) for one in case.lists[name])
            or '<tr><td colspan="5">no list</td></tr>'
        )
        columns.append(
            f'<div class="list"><h3>By {escape(name)}</h3><p class="quiet">{EXPLAINED[name].format(share=share)}</p><table>'
            '<thead><tr><th scope="col">#</th><th scope="col"><span class="hidden">Picture</span></th>'
            '<th scope="col">Person</th><th scope="col">Score</th>'
            '<th scope="col"><abbr title="false-positive '
            f'identification rate">FPIR</abbr></th></tr></thead><tbody>{rows}</tbody></table></div>'
        )
    people = case.gallery["people"]
    note = (
        '<p class="quiet">Score: cosine between query and stored template, -1 to 1. FPIR: the share of '
        f"searches, for people who are not in a gallery of {people:,}, whose best score reaches this one. It "
        "is measured on synthetic people and holds for evidence like theirs.</p>"
    )
    return _section("Candidates", f'<div class="lists">{"".join(columns)}</div>{note}')


def _candidate(one: ListedCandidate, prepared: Prepared) -> str:
    try:
        thumbnail = prepared.gallery.thumbnails[prepared.gallery.people.index(one.person)]
        prepared.gallery.thumbnail(one.person)  # only what decodes as a small JPEG goes into the page
        address = "data:image/jpeg;base64," + base64.b64encode(thumbnail).decode()
        picture = f'<img class="thumb" src="{address}" alt="Gallery picture of {escape(one.person)}">'
    except GalleryError:
        picture = '<span class="quiet">no picture</span>'
    tag = (
        f' <span class="tag" title="the gallery picture was generated">{DRAWN}</span>'
        if one.generated
        else ""
    )
    return (
        f'<tr title="{escape(meaning(one.fpir, len(prepared.gallery)))}">'
        f"<td>{one.rank}</td><td>{picture}</td>"
        f"<td>{escape(one.person)}{tag}</td><td>{one.score:.3f}</td><td>{percent(one.fpir)}</td></tr>"
    )


def _rounds(case: Case, faces: Mapping[int, Tensor]) -> str:
    blocks = [_round(one, faces) for one in case.rounds]
    if not blocks:
        return ""
    weights = ", ".join(f"{name} {share:g}" for name, share in WEIGHTS.items())
    note = (
        f'<p class="quiet">The evidence score is the weighted mean of its terms ({weights}; missing ones are '
        "left out). It decides which face of a round is shown, and whether it is kept and drawn further. No true "
        "photo takes part.</p>"
    )
    missing = left_out(case)
    note += f"<p>{escape(missing)}</p>" if missing else ""
    return _section("Rounds", note + "".join(blocks))


def _round(one: RoundRecord, faces: Mapping[int, Tensor]) -> str:
    verdict = fate(one)
    badge = f'<span class="verdict {verdict.split()[0]}">{verdict}</span>'
    title = f"<h3>Round {one.index}: {escape(one.part)} {badge}</h3>"
    if one.skipped:
        return f"<article>{title}<p>{escape(one.reason)}</p></article>"
    pictures = ""
    if one.parent is not None and one.parent in faces:
        pictures += _figure(
            faces[one.parent], f"Face before round {one.index}", "before", "generated", "small"
        )
    pictures += _figure(
        faces[one.index],
        f"Face of round {one.index}: {one.part}",
        "after" if pictures else "face",
        "generated",
        "small",
    )
    bars = _bar("evidence score", "all terms together", one.evidence_score or 0.0, strong=True)
    bars += "".join(_bar(name, TERMS[name], value) for name, value in one.evidence_terms.items())
    details = [
        f"Prompt: “{escape(one.prompt)}”" if one.prompt else "No words.",
        f"{escape(one.reason.capitalize())}. Redrawn: {escape(redrawn(one.part, one.mask))}. "
        f"Seed {one.seed}, best of {len(one.seeds)} by {escape(one.chosen_by)}."
        + ("" if one.agreement is None else f" Agreement between seeds {one.agreement:.2f}."),
    ]
    if one.candidates:
        names = ", ".join(escape(c.person) for c in one.candidates[:5])
        details.append(f"First candidates after this round: {names}.")
    text = "".join(f"<p>{line}</p>" for line in details)
    return f'<article>{title}<div class="row">{pictures}<div class="text">{bars}{text}</div></div></article>'


def _made_with(case: Case) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td><code>{escape(digest)}</code></td></tr>'
        for name, digest in case.models.items()
    )
    skipped = case.gallery.get("skipped") or []
    left_out = "".join(f"<li>{escape(one['file'])}: {escape(one['reason'])}</li>" for one in skipped)
    extra = f"<h3>Gallery pictures not enrolled</h3><ul>{left_out}</ul>" if left_out else ""
    head = '<thead><tr><th scope="col">File</th><th scope="col">sha256</th></tr></thead>'
    table = f"<table>{head}<tbody>{rows}</tbody></table>"
    return _section("Models", table + extra)


def _replay(case: Case) -> str:
    text = (
        "<p>Put this beside the evidence files as <code>CASE.toml</code>, then run "
        "<code>identiface run CASE.toml --out DIR</code>. The same files, settings and models give the same "
        f"<code>case.json</code> apart from its times.</p><pre>{escape(case_toml(case))}</pre>"
    )
    return _section("How to replay", text)


def case_toml(case: Case) -> str:
    """A CASE.toml that runs this case again, with file names relative to it."""
    evidence, lines = case.evidence, [f"gallery = {_toml(case.gallery['source'])}", ""]
    files = {name: evidence[name]["file"] for name in ("lq", "sketch") if evidence[name]}
    if evidence["lq"] and evidence["lq"]["face"] is not None:
        files["face"] = evidence["lq"]["face"]
    for title, table in (
        ("evidence", files),
        ("description", evidence["description"]),
        ("run", case.settings),
    ):
        if table:
            lines += [f"[{title}]", *(f"{key} = {_toml(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _section(title: str, content: str) -> str:
    anchor = title.lower().replace(" ", "-")
    return f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{title}</h2>{content}</section>'


def _bar(name: str, hint: str, value: float, *, strong: bool = False) -> str:
    share = min(max(value, 0.0), 1.0)
    return (
        f'<div class="bar{" strong" if strong else ""}"><span class="name">{escape(name)} '
        f'<span class="quiet">{escape(hint)}</span></span><span class="track" aria-hidden="true">'
        f'<span class="fill" style="width:{100 * share:.1f}%"></span></span>'
        f'<span class="value">{value:.2f}</span></div>'
    )


def _figure(image: Tensor, alt: str, caption: str, origin: str, kind: str = "") -> str:
    address = "data:image/png;base64," + base64.b64encode(png_bytes(image, origin=origin)).decode()
    picture = f'<img src="{address}" alt="{escape(alt)}">'
    return f'<figure class="{kind}">{picture}<figcaption>{caption}</figcaption></figure>'
