"""What can be asked of a case before the networks are loaded, which takes seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from identiface_core.errors import CaseError, GalleryError, OutputError

from .case import FILE

if TYPE_CHECKING:
    from pathlib import Path

    from .case_input import CaseInput


def check_ready(case: CaseInput, out: Path, *, resume: bool = False) -> None:
    """Whether `case` can be run into the folder `out`, as far as that can be told without a network; nothing is written.

    Raises `GalleryError` (no such gallery), `OutputError` (no folder, or one that cannot be written), `CaseError` (nothing to
    resume there), `InputError` (a picture that is missing or cannot be opened).
    """
    if case.gallery is not None and not case.gallery.exists():
        raise GalleryError(
            f"{case.gallery}: no such folder or file: name a folder of pictures, a .safetensors gallery, "
            'or "embedded"'
        )
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: a folder is wanted for the results, this is a file: name another")
    if resume and not (out / FILE).exists():
        raise CaseError(f"{out}: no case was begun there: leave out --resume, or name its folder")
    # Last, since these bring torch along.
    from identiface_core.imaging import open_bounded
    from identiface_core.weights.files import check_writable

    check_writable(out / FILE)
    for picture in (case.lq, case.sketch):
        if picture is not None:
            open_bounded(picture).close()
