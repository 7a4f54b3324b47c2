"""A case in a folder: the engine's rounds, saved one by one, so that an interrupted case can go on."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from identiface_core.errors import CaseError, OutputError, WeightsError
from identiface_core.imaging import write_png
from identiface_core.weights.files import load_tensors, save_tensors

from .case import FILE, STATE, Case, RoundRecord
from .case_input import CaseInput
from .engine import CaseEngine, Pick
from .prepare import Progress, prepare
from .ready import check_ready

if TYPE_CHECKING:
    from .toolkit import Toolkit

KIND = "case-state"
PAGES = ("candidates.png", "rounds.png", "report.html")
"""What people read of a case, written when it has ended."""


def run_case(
    case: CaseInput,
    model: Toolkit,
    out: str | Path,
    on_progress: Progress | None = None,
    *,
    resume: bool = False,
    pick: Pick | None = None,
) -> Case:
    """Run a case into the folder `out`: `case.json`, a picture per round, `candidates.png`, `rounds.png`,
    `report.html`.

    With `resume`, a case that was interrupted in `out` goes on where it stopped, to the same end. Raises
    `InputError`, `GalleryError`, `OutputError`; `CaseError` when there is nothing to resume or it was run on
    something else.
    """
    runner = CaseRunner(case, model, out, on_progress, pick=pick, resume=resume)
    while runner.step():
        pass
    result = runner.finish()
    write_pages(Path(out), result, runner.engine)
    return result


class CaseRunner:
    """A case that is run round by round into a folder: `step()` until it gives False, then `finish()`."""

    engine: CaseEngine
    """The case itself."""
    folder: Path

    def __init__(
        self,
        case: CaseInput,
        model: Toolkit,
        out: str | Path,
        on_progress: Progress | None = None,
        *,
        pick: Pick | None = None,
        resume: bool = False,
    ) -> None:
        self.folder = Path(out)
        check_ready(case, self.folder, resume=resume)
        prepared = prepare(case, model, on_progress)
        self.engine = CaseEngine(prepared, case.settings, model, on_progress=on_progress, pick=pick)
        if resume:
            restore_from(self.folder, self.engine)
        else:
            clear(self.folder)
            save_case(self.folder, self.engine.case(), self.engine)

    def step(self) -> bool:
        """Draw, choose, judge and save the next round; False when the case has stopped."""
        if not self.engine.step():
            return False
        write_round(self.folder, self.engine.records[-1], self.engine)
        save_case(self.folder, self.engine.case(), self.engine)
        return True

    def finish(self) -> Case:
        """Note the end, save, and give the finished case."""
        case = self.engine.finish()
        save_case(self.folder, case, self.engine)
        return case


def clear(folder: Path, keep: Collection[str] = ()) -> None:
    """Remove the state, the rounds and the pages of a case that was run in `folder` before, but for the names in `keep`:
    they would pass for this one's. Raises `OutputError`."""
    if not (folder / FILE).exists():
        return
    try:
        for old in [*folder.glob("round-[0-9][0-9]-*.png"), *(folder / name for name in (STATE, *PAGES))]:
            if old.name not in keep:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}): choose another folder") from error


def save_case(folder: Path, case: Case, engine: CaseEngine) -> None:
    """Write `case`, which `engine` gave, and its state. Raises `OutputError`.

    The state goes first: a case file never names rounds that cannot be resumed.
    """
    save_tensors(folder / STATE, engine.tensors(), KIND, {})
    case.save(folder)


def write_round(folder: Path, record: RoundRecord, engine: CaseEngine) -> None:
    """Write the chosen face of a round, if it has one, marked as generated. Raises `OutputError`."""
    if record.image is not None:
        data = {"round": record.index, "part": record.part, "seed": record.seed, "prompt": record.prompt}
        write_png(folder / record.image, engine.drawn[record.index].image, origin="generated", data=data)


def write_pages(folder: Path, case: Case, engine: CaseEngine) -> None:
    """Write what people read of `case`: both sheets and the report. Raises `OutputError`."""
    from .report import write_report
    from .sheet import write_sheets

    write_sheets(folder, case, engine.prepared, engine.faces())
    write_report(folder, case, engine.prepared, engine.faces())


def restore_from(folder: Path, engine: CaseEngine) -> None:
    """Let `engine` go on with the case saved in `folder`.

    Raises `CaseError`, naming the folder, for one that is missing, damaged, or was run on something else.
    """
    before = Case.load(folder)
    try:
        tensors, _ = load_tensors(folder / STATE, KIND)
    except WeightsError as error:
        raise CaseError(
            f"{folder}: cannot go on, its {STATE} is missing or damaged ({error}): run it anew"
        ) from error
    try:
        engine.restore(before, tensors)
    except CaseError as error:
        raise CaseError(f"{folder}: {error}") from error
