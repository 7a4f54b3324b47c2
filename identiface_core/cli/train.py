"""`identiface train embedded` and `identiface train control`."""

from __future__ import annotations

import sys
from argparse import Namespace
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


def control(options: Namespace) -> int:
    """Train a control on a Stable Diffusion 1.5 of the user's; a run that was stopped goes on."""
    from identiface_core.training.stable import train_control

    try:
        train_control(
            options.base,
            options.photos,
            options.out,
            tokenizer=options.tokenizer,
            steps=options.steps,
            batch=options.batch,
            side=options.side,
            lr=options.lr,
            minutes=options.minutes,
            checkpointing=options.checkpointing,
            device=options.device,
        )
    except KeyboardInterrupt:
        print(f"\nStopped; the same command goes on from what is in {options.out}", file=sys.stderr)
        return 130
    return 0
