"""`python -m identiface_core.evaluation --out DIR [--quick]`: measures the embedded model and draws its sheets."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

from identiface_core.embedded import load_demo_gallery, load_embedded
from identiface_core.imaging import write_png
from identiface_core.weights.files import write_atomic

from .measure import evaluate
from .probes import draw_probes
from .sheets import as_tensor, evidence_sheet, kinds_sheet
from .tables import update_document


def main() -> None:
    """Write `embedded.json`, `ten-people.png` and `single-clues.png` into a folder."""
    parser = argparse.ArgumentParser(prog="python -m identiface_core.evaluation", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="fewer probes")
    parser.add_argument("--only", choices=("figures", "sheets"), help="half of the work")
    parser.add_argument("--document", type=Path, metavar="FILE", help="put the tables between its markers")
    options = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    options.out.mkdir(parents=True, exist_ok=True)
    model = load_embedded()
    if options.only != "sheets":
        found = evaluate(model, load_demo_gallery(), quick=options.quick, say=say)
        write_atomic(options.out / "embedded.json", (json.dumps(found, indent=1) + "\n").encode())
        if options.document is not None:
            update_document(options.document, found)
    if options.only != "figures":
        ten = draw_probes(10)
        with tempfile.TemporaryDirectory() as work, torch.no_grad():
            sheet = evidence_sheet(model, ten, Path(work), say)
        write_png(options.out / "ten-people.png", as_tensor(sheet), origin="generated")
        write_png(options.out / "single-clues.png", as_tensor(kinds_sheet(model, ten)), origin="generated")


if __name__ == "__main__":
    main()
