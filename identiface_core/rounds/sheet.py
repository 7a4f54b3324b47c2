"""Contact sheets: `candidates.png` (evidence, final face, first ten candidates) and `rounds.png` (the faces
in order)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from identiface_core.errors import GalleryError
from identiface_core.imaging import to_pil, write_png

from .case import NOTICE, Case, ListedCandidate, RoundRecord
from .prepare import Prepared
from .wording import DRAWN, agreement_words, ending, fate, headline, left_out, meaning, percent

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw

WIDTH, MARGIN, GAP, COLUMN = 1480, 40, 24, 300
PAPER, INK, QUIET, LINE, CARD, ACCENT, WARN = (
    "#f6f4ef",
    "#1d1f24",
    "#6b6f78",
    "#d9d5cb",
    "#ffffff",
    "#2f5d8a",
    "#9a3b1f",
)
CARDS_PER_ROW = 5
ROUNDS_PER_ROW = 9
SHOWN = 10


def write_sheets(folder: Path, case: Case, prepared: Prepared, faces: Mapping[int, Tensor]) -> None:
    """Write both sheets into `folder`; `faces` are the rounds' faces (3, 128, 128) by index. Raises
    `OutputError`."""
    data = {"sheet": "candidates", "contains": "generated pictures", "notice": NOTICE}
    write_png(
        folder / "candidates.png", _tensor(candidate_sheet(case, prepared, faces)), origin="edited", data=data
    )
    drawn = [one for one in case.rounds if one.index in faces]
    if drawn:
        strip = _tensor(round_strip(drawn, faces))
        write_png(folder / "rounds.png", strip, origin="generated", data={"sheet": "rounds"})


def candidate_sheet(case: Case, prepared: Prepared, faces: Mapping[int, Tensor]) -> Picture:
    """Evidence on the left, the face that stands, the first ten candidates; the notice at the bottom."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (WIDTH, 2400), PAPER)
    pen = ImageDraw.Draw(canvas)
    pen.text((MARGIN, 34), "IdentiFace case", font=_font(34), fill=INK)
    pen.text(
        (MARGIN, 78),
        f"{case.gallery['people']:,} people searched. {ending(case)}",
        font=_font(17),
        fill=QUIET,
    )
    pen.line((MARGIN, 112, WIDTH - MARGIN, 112), fill=LINE, width=2)

    left_end = _evidence_column(canvas, pen, case, prepared, faces, top=132)
    right_end = _candidate_cards(canvas, pen, case, prepared, left=MARGIN + COLUMN + 2 * GAP, top=132)
    right_end = _rounds_row(canvas, pen, case, faces, left=MARGIN + COLUMN + 2 * GAP, top=right_end + GAP)
    bottom = max(left_end, right_end) + GAP
    pen.line((MARGIN, bottom, WIDTH - MARGIN, bottom), fill=LINE, width=2)
    y = bottom + 16
    y = _paragraph(pen, "Contains generated pictures. " + NOTICE, MARGIN, y, WIDTH - 2 * MARGIN, 17, WARN)
    return canvas.crop((0, 0, WIDTH, y + 24))


def round_strip(rounds: list[RoundRecord], faces: Mapping[int, Tensor]) -> Picture:
    """The faces of the rounds side by side, each with its part, score and verdict."""
    from PIL import Image, ImageDraw

    side, gap, head = 192, 16, 36
    canvas = Image.new("RGB", (gap + len(rounds) * (side + gap), head + side + 104), PAPER)
    pen = ImageDraw.Draw(canvas)
    pen.text((gap, 10), "Rounds (generated pictures)", font=_font(16), fill=QUIET)
    for place, one in enumerate(rounds):
        x = gap + place * (side + gap)
        canvas.paste(_enlarged(faces[one.index], side), (x, head))
        colour = ACCENT if one.accepted else WARN
        pen.rectangle((x - 2, head - 2, x + side + 1, head + side + 1), outline=colour, width=2)
        pen.text((x, head + side + 8), f"{one.index}  {one.part}", font=_font(17), fill=INK)
        pen.text((x, head + side + 32), fate(one), font=_font(15), fill=colour)
        pen.text((x, head + side + 53), f"evidence {one.evidence_score:.2f}", font=_font(15), fill=QUIET)
        agree = "one face" if one.agreement is None else f"agreement {one.agreement:.2f}"
        pen.text((x, head + side + 74), agree, font=_font(15), fill=QUIET)
    return canvas


def _evidence_column(
    canvas: Picture, pen: ImageDraw, case: Case, prepared: Prepared, faces: Mapping[int, Tensor], top: int
) -> int:
    from PIL import Image

    evidence, x, y, side = prepared.evidence, MARGIN, top, 142
    y = _heading(pen, "Evidence", x, y)
    pictures: list[tuple[str, Picture]] = []
    if evidence.lq is not None:
        enlarged = to_pil(evidence.lq).resize((side, side), Image.Resampling.NEAREST)
        pictures.append((f"LQ photo, {case.evidence['lq']['native_side']} px", enlarged))
    if evidence.sketch is not None:
        pictures.append(
            ("Sketch", to_pil(evidence.sketch).convert("RGB").resize((side, side), Image.Resampling.LANCZOS))
        )
    for place, (label, picture) in enumerate(pictures):
        left = x + place * (side + 16)
        canvas.paste(picture, (left, y))
        pen.rectangle((left, y, left + side - 1, y + side - 1), outline=LINE)
        pen.text((left, y + side + 6), label, font=_font(15), fill=QUIET)
    if pictures:
        y += side + 36
    words = case.evidence["description"]
    for part, text in (words or {}).items():
        y = _paragraph(pen, f"{part}: {text}", x, y, COLUMN, 16, INK, most=4) + 4
    if not words:
        y = _paragraph(pen, "no words", x, y, COLUMN, 16, QUIET)

    y = _heading(pen, "Final face", x, y + 18)
    standing = next(
        (one.index for one in case.rounds if one.image is not None and one.image == case.face), None
    )
    if standing is None:
        return _paragraph(pen, "no face was drawn", x, y, COLUMN, 16, QUIET)
    canvas.paste(_enlarged(faces[standing], COLUMN), (x, y))
    y += COLUMN + 8
    y = _paragraph(pen, "Generated picture: a plausible face, not a photograph.", x, y, COLUMN, 15, WARN)
    guidance = case.settings.get("identity_guidance")
    if guidance:
        led = f"The searching matcher led its drawing (identity guidance {guidance:g}): its score with this face proves less."
        y = _paragraph(pen, led, x, y + 4, COLUMN, 15, WARN)
    return _paragraph(pen, agreement_words(case.agreement), x, y + 4, COLUMN, 14, QUIET)


def _candidate_cards(
    canvas: Picture, pen: ImageDraw, case: Case, prepared: Prepared, left: int, top: int
) -> int:
    y = _heading(pen, "Candidates (evidence and generated faces together)", left, top)
    shown, nobody = case.candidates[:SHOWN], headline(case.candidates)
    if nobody:
        y = _paragraph(pen, nobody, left, y - 4, WIDTH - MARGIN - left, 17, WARN) + 10
    wide = (WIDTH - MARGIN - left - (CARDS_PER_ROW - 1) * 14) // CARDS_PER_ROW
    tall = wide + 92
    for place, one in enumerate(shown):
        x = left + place % CARDS_PER_ROW * (wide + 14)
        at = y + place // CARDS_PER_ROW * (tall + 14)
        _card(canvas, pen, one, prepared, x, at, wide, tall, marked=place == 0 and not nobody)
    y += -(-len(shown) // CARDS_PER_ROW) * (tall + 14)
    if shown and not nobody:
        y = _paragraph(
            pen,
            "First candidate: " + meaning(shown[0].fpir, case.gallery["people"]),
            left,
            y + 6,
            WIDTH - MARGIN - left,
            17,
            INK,
        )
    for warning in case.warnings:
        y = _paragraph(pen, "Warning: " + warning, left, y + 4, WIDTH - MARGIN - left, 16, WARN, most=3)
    return y


def _rounds_row(
    canvas: Picture, pen: ImageDraw, case: Case, faces: Mapping[int, Tensor], left: int, top: int
) -> int:
    """The faces of the rounds, small: what was redrawn, and whether it was kept."""
    drawn = [one for one in case.rounds if one.index in faces]
    if not drawn:
        return top
    y = _heading(pen, "The face, round by round (generated pictures)", left, top)
    side, gap = 108, 10
    for place, one in enumerate(drawn):
        x = left + place % ROUNDS_PER_ROW * (side + gap)
        at = y + place // ROUNDS_PER_ROW * (side + 50)
        canvas.paste(_enlarged(faces[one.index], side), (x, at))
        colour = ACCENT if one.accepted else WARN
        pen.rectangle((x - 2, at - 2, x + side + 1, at + side + 1), outline=colour, width=2)
        pen.text((x, at + side + 5), f"{one.index}  {one.part}", font=_font(15), fill=INK)
        pen.text((x, at + side + 24), fate(one), font=_font(13), fill=colour)
    y += -(-len(drawn) // ROUNDS_PER_ROW) * (side + 50)
    missing = left_out(case)
    return _paragraph(pen, missing, left, y, WIDTH - MARGIN - left, 15, QUIET, most=4) if missing else y


def _card(
    canvas: Picture,
    pen: ImageDraw,
    one: ListedCandidate,
    prepared: Prepared,
    x: int,
    y: int,
    wide: int,
    tall: int,
    *,
    marked: bool,
) -> None:
    outline, width = (ACCENT, 3) if marked else (LINE, 1)
    pen.rounded_rectangle((x, y, x + wide, y + tall), 8, fill=CARD, outline=outline, width=width)
    try:
        canvas.paste(_enlarged(prepared.gallery.thumbnail(one.person), wide - 20), (x + 10, y + 10))
    except GalleryError:
        pen.text((x + 20, y + wide // 2), "no picture", font=_font(16), fill=QUIET)
    base = y + wide - 4
    pen.text((x + 12, base), f"{one.rank}", font=_font(22), fill=ACCENT)
    number = _font(22).getlength(f"{one.rank}")
    left = x + 22 + round(number)
    name = _fit(one.person.replace("_", " "), _font(17), x + wide - 12 - left)
    pen.text((left, base + 4), name, font=_font(17), fill=INK)
    pen.text((x + 12, base + 32), f"score {one.score:.3f}", font=_font(15), fill=INK)
    pen.text((x + 12, base + 53), f"FPIR {percent(one.fpir)}", font=_font(15), fill=QUIET)
    track = (x + 12, base + 78, x + wide - 12, base + 84)
    pen.rounded_rectangle(track, 3, fill=LINE)
    length = (track[2] - track[0]) * min(max(one.score, 0.0), 1.0)
    if length >= 6:
        pen.rounded_rectangle((track[0], track[1], track[0] + length, track[3]), 3, fill=ACCENT)
    if one.generated:
        left = x + wide - 12 - round(_font(13).getlength(DRAWN))
        pen.text((left, base + 34), DRAWN, font=_font(13), fill=QUIET)


def _heading(pen: ImageDraw, text: str, x: int, y: int) -> int:
    pen.text((x, y), text, font=_font(20), fill=ACCENT)
    return y + 34


def _paragraph(
    pen: ImageDraw, text: str, x: int, y: int, width: int, size: int, colour: str, most: int = 12
) -> int:
    """Draw text wrapped to `width` pixels, at most `most` lines; the y below it."""
    font, lines = _font(size), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], _fit(" ".join(lines[most - 1 :]), font, width)]
    for line in lines:
        pen.text((x, y), line, font=font, fill=colour)
        y += round(size * 1.4)
    return y


def _fit(text: str, font: Any, width: int) -> str:
    """`text`, cut with an ellipsis where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _enlarged(image: Tensor, side: int) -> Picture:
    from PIL import Image

    return to_pil(image).convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _tensor(picture: Picture) -> Tensor:
    pixels = np.array(picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
