"""What a person sees: progress bars on a terminal, plain lines everywhere else, tables on both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 110
PLAIN_SHARE = 0.1
"""Without a terminal, a line is printed for every tenth of a stage, and for its end."""
FPIR = "FPIR: how often a search for somebody who is not in this gallery scores as high."


def console() -> Console:
    """Standard output; wide enough for our tables when it is no terminal."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


class Stages:
    """Progress over named stages: `stages(stage, done, total, text)`, as `rounds` and `gallery` report it."""

    def __init__(self, out: Console) -> None:
        self.out = out
        self.tasks: dict[str, TaskID] = {}
        self.printed: dict[str, float] = {}
        self.bars = Progress(
            TextColumn("{task.fields[stage]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            # No markup: file names may hold square brackets.
            TextColumn("{task.description}", markup=False),
            console=out,
            disable=not out.is_terminal,
        )

    def __enter__(self) -> Stages:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def __call__(self, stage: str, done: int, total: int, text: str) -> None:
        if not self.out.is_terminal:
            self._print(stage, done, total, text)
            return
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(text, total=total, stage=stage)
        self.bars.update(self.tasks[stage], completed=done, total=total, description=text)

    def _print(self, stage: str, done: int, total: int, text: str) -> None:
        share = done / total if total else 1.0
        before = self.printed.get(stage, -1.0)
        if share - before >= PLAIN_SHARE or (share >= 1 and before < 1):
            self.printed[stage] = share
            self.out.print(f"{stage} {done}/{total} {text}", markup=False)


def show_table(out: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; texts are shown as they are, never read as markup."""
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column in ("rank", "score", "FPIR") else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    out.print(table)


def say(out: Console, text: str) -> None:
    """Print one text as it is."""
    out.print(text, markup=False, soft_wrap=True)


def rate(fpir: float | None, least: float | None = None) -> str:
    """A false-positive rate for reading: in per cent, two digits. least: what the table can tell, a bound on all below."""
    if fpir is None:
        return "unknown"
    if least and fpir <= least * (1 + 1e-9):
        return f"fewer than 1 in {float(f'{1 / least:.2g}'):,.0f}"
    return "over 99 %" if fpir > 0.99 else f"{100 * fpir:.2g} %"
