"""`identiface weights import` and `identiface parity`: published weights made ours, and proved.

Exit code of `parity`: 0 if all figures are within 1e-4, 1 if one is not.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from identiface_core.cli.console import console, say, show_table
from identiface_core.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from identiface_core.weights.released import Imported

KINDS = ("identiface-official", "hed", "lineart", "lineart-coarse", "pidinet")
"""The released control, and the line annotators of `evidence.annotators`."""
LISTED = 5
"""So many tensors that differ are named."""


def import_released(
    kind: str,
    source: Path,
    *,
    out: Path,
    base: Path | None = None,
    half: bool = True,
    heads: int | None = None,
) -> int:
    """Convert published weights of `kind` into a file of ours, and show what was found and whether its base is `base`.

    Raises InputError for a kind that is not known, and the errors of `released.import_control`.
    """
    if kind not in KINDS:
        raise InputError(
            f"no published weights of kind {kind!r} can be imported: there is {', '.join(KINDS)}"
        )
    if kind != KINDS[0]:
        from identiface_core.evidence.annotators import import_annotator

        if base is not None or heads is not None:
            raise InputError(f"--base and --heads are for {KINDS[0]}: leave them out for '{kind}'")
        say(console(), f"{out}: written, {import_annotator(kind, source, out)} tensors from {source}")
        return 0
    from identiface_core.weights.released import import_control

    screen = console()
    made = import_control(source, out, base=base, half=half, heads=heads)
    _show(screen, source, out, made)
    if made.base is not None and base is not None:
        _show_base(screen, base, made)
    return 0


def parity(weights: Path, case: Path, *, json: bool = False) -> int:
    """Show how far our network with `weights` is from the reference values in `case`: 0 if nowhere above 1e-4, else 1.

    json: print nothing but the figures, by name; null for one that is not a number. Raises the library's errors.
    """
    from identiface_core.diffusion.parity import TOLERANCE, differences, load_pair, read_reference

    reference = read_reference(case)
    base, branch = load_pair(weights, reference)
    found = differences(reference, base, branch)
    good = all(difference <= TOLERANCE for difference in found.values())
    if json:
        _print_json(found)
        return 0 if good else 1
    screen = console()
    rows = [
        (name, f"{difference:.2e}", "yes" if difference <= TOLERANCE else "NO")
        for name, difference in found.items()
    ]
    show_table(screen, f"{weights} against {case}", ("output", "largest difference", "within 1e-4"), rows)
    if base is None:
        say(screen, "Note: no base in these weights nor beside the case: only the fusion was compared.")
    return 0 if good else 1


def _show(screen: Console, source: Path, out: Path, made: Imported) -> None:
    found, config = made.found, made.config
    fusion = "with frequency fusion" if found.fused else "without frequency fusion"
    base = "no base" if found.base is None else f"on a base of {found.base.depth} blocks"
    noted = ", ".join(f"{name} {value}" for name, value in made.notes.items())
    say(
        screen,
        f"{source}: a control of {found.copies} copied blocks, width {found.width} in {config['heads']} heads, "
        f"{fusion}, {base}{f' ({noted})' if noted else ''}",
    )
    say(screen, f"{out}: written, {made.written / 1e6:,.1f} MB from {made.read / 1e6:,.1f} MB")


def _show_base(screen: Console, base: Path, made: Imported) -> None:
    check = made.base
    assert check is not None
    if check.equal:
        say(screen, f"{base}: equal to the frozen base in all {check.compared} tensors")
        return
    say(
        screen,
        f"Note: {base} is not the frozen base: {len(check.different)} of {check.compared} tensors differ, "
        f"{len(check.missing)} are missing. The control was trained on another base.",
    )
    for name in [*check.different, *check.missing][:LISTED]:
        say(screen, f"  {name}")


def _print_json(found: dict[str, float]) -> None:
    import json

    print(json.dumps({name: value if math.isfinite(value) else None for name, value in found.items()}))
