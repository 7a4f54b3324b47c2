"""Case folders made from probes: the shipped example, and the cases of the ten-person sheet. The truth stays behind."""

from __future__ import annotations

import json
from pathlib import Path

from identiface_core.imaging import write_png
from identiface_core.weights.files import write_atomic

from .probes import Probes, draw_probes
from .values import KINDS

EXAMPLE_PERSON = 0
"""Row of the shipped gallery whose witness gives the example case: simply the first."""
LQ_SIDE, LEVEL = 8, "middle"


def write_case(folder: Path, probes: Probes, i: int, kinds: tuple[str, ...] = KINDS, run: str = "") -> Path:
    """Write `lq.png`, `sketch.png` and `case.toml` with the evidence of probe i; gives the path of the last.

    run: further lines of its `[run]` table. Nothing in the folder says who the person is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = ['gallery = "embedded"', "", "[evidence]"]
    if "lq" in kinds:
        write_png(folder / "lq.png", probes.lq[i], origin="edited")
        lines += ['lq = "lq.png"', 'face = "whole"']
    if "sketch" in kinds:
        write_png(folder / "sketch.png", probes.sketches[i], origin="edited")
        lines.append('sketch = "sketch.png"')
    if "words" in kinds:
        lines += ["", "[description]"]
        said = probes.words[i].to_mapping()
        lines += [f"{part} = {json.dumps(text, ensure_ascii=False)}" for part, text in said.items()]
    if run:
        lines += ["", "[run]", run]
    path = folder / "case.toml"
    write_atomic(path, ("\n".join(lines) + "\n").encode())
    return path


def write_example(folder: Path) -> Path:
    """Write the shipped example case into `folder`."""
    return write_case(folder, draw_probes(1, LEVEL, first=EXAMPLE_PERSON, side=LQ_SIDE), 0)
