"""`identiface train embedded`."""

from __future__ import annotations

import sys
from pathlib import Path


def embedded(stage: str, folder: Path, *, minutes: float | None = None, device: str = "cpu") -> int:
    """Train one stage of the embedded model, or all, in `folder`; a run that was stopped goes on."""
    from identiface_core.training.embedded import train_embedded

    try:
        train_embedded(stage, folder, minutes=minutes, device=device)
    except KeyboardInterrupt:
        print(f"\nStopped; the same command goes on from the last checkpoint in {folder}", file=sys.stderr)
        return 130
    return 0
