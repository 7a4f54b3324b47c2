"""Sheets for the eye: what ten unseen people's evidence becomes. The first ten of the gallery, not picked."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.embedded import EmbeddedModel
from identiface_core.imaging import read_image, to_pil
from identiface_core.rounds.case_input import read_case
from identiface_core.rounds.runner import run_case

from .examples import write_case
from .probes import Probes
from .studio import draw_faces, estimate, only
from .values import KINDS

if TYPE_CHECKING:
    from PIL.Image import Image

CELL, WORDS, HEAD, GAP = 128, 250, 22, 4


def evidence_sheet(model: EmbeddedModel, probes: Probes, work: Path, say: Callable[[str], None]) -> Image:
    """One row per probe: LQ photo, sketch, words, face of round 0, final face, truth. Runs every case in `work`."""
    rows: list[list[Any]] = []
    for i in range(len(probes)):
        folder = work / f"case-{i:02d}"
        case = run_case(read_case(write_case(folder, probes, i)), model, folder / "out")
        first = next(one.image for one in case.rounds if one.image)
        faces = [read_image(folder / "out" / name) for name in (first, case.face or first)]
        rows.append([_big(probes.lq[i]), probes.sketches[i], _words(probes, i), *faces, probes.truth[i]])
        say(f"case {i + 1} of {len(probes)}")
    return _sheet(["LQ photo", "sketch", "words", "round 0", "final", "truth"], rows)


def kinds_sheet(model: EmbeddedModel, probes: Probes) -> Image:
    """One row per probe: the evidence, then a face from words alone, sketch alone, LQ photo alone, all three, and the truth."""
    subsets: tuple[tuple[str, ...], ...] = (("words",), ("sketch",), ("lq",), KINDS)
    columns = [first_faces(model, probes, kinds) for kinds in subsets]
    rows = [
        [_big(probes.lq[i]), probes.sketches[i], _words(probes, i), *(c[i] for c in columns), probes.truth[i]]
        for i in range(len(probes))
    ]
    return _sheet(
        ["LQ photo", "sketch", "words", "from words", "from sketch", "from LQ", "from all", "truth"], rows
    )


def first_faces(model: EmbeddedModel, probes: Probes, kinds: tuple[str, ...] = KINDS) -> Tensor:
    """(N, 3, 128, 128): one face per probe from these kinds of evidence, drawn with seed 0 towards their estimate."""
    faces = []
    for i in range(len(probes)):
        given = only(probes.evidence(i), kinds)
        faces.append(draw_faces(model, given, kinds, [0], estimate=estimate(model, given)).images)
    return torch.cat(faces)


def _big(lq: Tensor) -> Tensor:
    return F.interpolate(lq[None], (CELL, CELL), mode="nearest")[0]


def _words(probes: Probes, i: int) -> str:
    return probes.words[i].full_prompt()


def _sheet(titles: list[str], rows: list[list[Any]]) -> Image:
    from PIL import Image, ImageDraw, ImageFont

    widths = [WORDS if title == "words" else CELL for title in titles]
    size = (sum(widths) + GAP * (len(widths) + 1), HEAD + (CELL + GAP) * len(rows) + GAP)
    canvas = Image.new("RGB", size, "#f6f4ef")
    pen, small, head = ImageDraw.Draw(canvas), ImageFont.load_default(9), ImageFont.load_default(13)
    x = GAP
    for column, (title, width) in enumerate(zip(titles, widths, strict=True)):
        pen.text((x + 2, 4), title, font=head, fill="#1d1f24")
        for r, row in enumerate(rows):
            y = HEAD + r * (CELL + GAP)
            item = row[column]
            if isinstance(item, str):
                lines = textwrap.wrap(item, 52)[:11]
                pen.multiline_text((x + 2, y), "\n".join(lines), font=small, fill="#1d1f24", spacing=2)
            else:
                canvas.paste(to_pil(item.expand(3, -1, -1) if item.dim() == 3 else item), (x, y))
        x += width + GAP
    return canvas


def as_tensor(image: Image) -> Tensor:
    """(3, H, W) in [0, 1]."""
    import numpy as np

    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
