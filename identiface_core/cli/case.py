"""`identiface run` and `identiface demo`."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from identiface_core.cli.console import Stages, console, say, show_table

if TYPE_CHECKING:
    from rich.console import Console

    from identiface_core.rounds.case import Case

EXAMPLE = Path(str(files("identiface_core"))) / "examples" / "case" / "case.toml"


def demo(out: Path, *, resume: bool = False, device: str = "cpu") -> int:
    """Run the shipped example case into `out`."""
    return run(EXAMPLE, out, resume=resume, device=device)


def run(case_file: Path, out: Path, *, resume: bool = False, device: str = "cpu") -> int:
    """Run the case in `case_file` into the folder `out` and show what was found.

    Raises the library's errors; Ctrl-C gives 130 and says how to go on.
    """
    from identiface_core.rounds.case_input import read_case
    from identiface_core.rounds.ready import check_ready

    case = read_case(case_file)
    check_ready(case, out, resume=resume)
    screen = console()
    before = _written(out)
    try:
        with Stages(screen) as stages:
            stages("model", 0, 1, "loading the networks")
            from identiface_core.embedded import load_embedded
            from identiface_core.rounds.runner import run_case

            _one_thread()
            model = load_embedded(device)
            stages("model", 1, 1, "loaded")
            found = run_case(case, model, out, stages, resume=resume)
    except KeyboardInterrupt:
        saved = _written(out)
        if saved is not None and (resume or saved != before):
            print(f"\nStopped; the case so far is saved in {out}; go on with --resume", file=sys.stderr)
        else:
            print("\nStopped; the case had not begun yet, nothing was saved", file=sys.stderr)
        return 130
    _show(screen, found, out)
    return 0


def _one_thread() -> None:
    """Sums depend on how they are split among threads in the last digit. One thread gives the same case on any number of
    cores, and is hardly slower for networks this small."""
    import torch

    torch.set_num_threads(1)


def _written(out: Path) -> int | None:
    """When the case file was last written, or None when there is none."""
    try:
        return (out / "case.json").stat().st_mtime_ns
    except OSError:
        return None


def _show(screen: Console, case: Case, out: Path) -> None:
    from identiface_core.rounds.case import LISTS, NOTICE
    from identiface_core.rounds.wording import DRAWN, ending, headline, left_out, percent

    rows = [
        (
            str(one.rank),
            one.person + (f" ({DRAWN})" if one.generated else ""),
            f"{one.score:.3f}",
            percent(one.fpir),
        )
        for one in case.candidates
    ]
    if headline(case.candidates):
        say(screen, f"\n{headline(case.candidates)}\n")
    people = case.gallery.get("people", "?")
    show_table(screen, f"Candidates among {people} people", ("rank", "person", "score", "FPIR"), rows)
    say(screen, "FPIR: how often a search for somebody who is not in this gallery scores as high.")
    for name in LISTS[:-1]:
        first = ", ".join(one.person for one in case.lists[name][:3])
        say(screen, f"First by {name} alone: {first or 'none'}")
    for line in (ending(case), left_out(case)):
        if line:
            say(screen, line)
    for warning in case.warnings:
        say(screen, f"Note: {warning}")
    say(screen, "")
    for name, what in (
        ("report.html", "everything on one page"),
        ("candidates.png", "the candidates' pictures"),
        ("case.json", "the same for programs"),
    ):
        if (out / name).exists():
            say(screen, f"{out / name}  {what}")
    say(screen, f"\n{NOTICE}")
