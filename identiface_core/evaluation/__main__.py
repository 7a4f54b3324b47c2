"""`python -m identiface_core.evaluation --out DIR`: sheets for the eye, of the embedded model on ten unseen people."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from identiface_core.embedded import load_embedded
from identiface_core.imaging import write_png

from .probes import draw_probes
from .sheets import as_tensor, evidence_sheet, kinds_sheet


def main() -> None:
    """Write `ten-people.png` and `single-clues.png` into a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m identiface_core.evaluation",
        description=__doc__,
        epilog="Figures come from `identiface evaluate`.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    options.out.mkdir(parents=True, exist_ok=True)
    model, ten = load_embedded(), draw_probes(10)
    with tempfile.TemporaryDirectory() as work, torch.no_grad():
        sheet = evidence_sheet(model, ten, Path(work), say)
    write_png(options.out / "ten-people.png", as_tensor(sheet), origin="generated")
    write_png(options.out / "single-clues.png", as_tensor(kinds_sheet(model, ten)), origin="generated")


if __name__ == "__main__":
    main()
