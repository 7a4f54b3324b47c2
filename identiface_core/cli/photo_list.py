"""`identiface bench photos --list`: the photographs and networks of a list, found by content."""

from __future__ import annotations

import json as formats
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from identiface_core.cli import photos as folders
from identiface_core.cli.console import Stages
from identiface_core.errors import InputError
from identiface_core.evaluation.photo_list import PhotoList, files_below, gather, need, read_list
from identiface_core.evaluation.photo_page import page as page_of
from identiface_core.evaluation.photos import measure
from identiface_core.faces.onnx_finders import load_finder
from identiface_core.matchers.load import load_matcher
from identiface_core.weights.files import check_writable, write_atomic


def photos(
    root: Path,
    listed: Path | None = None,
    *,
    matchers: Sequence[Path] = (),
    detector: Path | None = None,
    sizes: Sequence[int] = (),
    largest: bool = False,
    json: Path | None = None,
    page: Path | None = None,
) -> int:
    """Measure on the photos of `root`, or of a list, wherever below `root` they lie, with these matchers and this detector.

    With a list and neither of them, every detector and every matcher of the list is measured, and `page` written. Raises the
    library's errors.
    """
    if bool(matchers) != (detector is not None) or (listed is None and detector is None):
        raise InputError("--matcher and --detector are wanted both; with --list, both or neither")
    if page is not None and (listed is None or detector is not None):
        raise InputError("--page is of the networks of a list: give --list, without --matcher and --detector")
    on_folder = partial(folders.photos, sizes=sizes, largest=largest, json=json)
    if listed is None:
        assert detector is not None
        return on_folder(root, matchers=matchers, detector=detector)
    for path in (json, page):
        if path is not None:
            check_writable(path)
    known, files = read_list(listed), files_below(root)
    with TemporaryDirectory() as folder:
        for line in gather(known, files, folder):
            print(line, file=sys.stderr)
        if detector is not None:
            return on_folder(Path(folder), matchers=matchers, detector=detector)
        found = _figures(known, files, folder, sizes, largest)
    text = page_of(found)
    print(text)
    for path, content in ((json, formats.dumps(found, indent=1) + "\n"), (page, text)):
        if path is not None:
            write_atomic(path, content.encode())
            print(f"written: {path}", file=sys.stderr)
    return 0


def _figures(
    known: PhotoList, files: Mapping[str, Path], folder: str, sizes: Sequence[int], largest: bool
) -> dict[str, Any]:
    need((*known.detectors, *known.matchers), files)
    matchers = [load_matcher(files[one.sha256]) for one in known.matchers]
    names = {matcher.name: one.name for matcher, one in zip(matchers, known.matchers, strict=True)}
    detectors = []
    with Stages(Console(stderr=True, highlight=False)) as stages:
        for one in known.detectors:
            finder = load_finder(files[one.sha256], one.name)
            told = partial(_tell, stages, one.name)
            report = measure(folder, finder, matchers, sizes=sizes, largest=largest, on_progress=told)
            detectors.append({"network": asdict(one), **folders.figures(report)})
    for detector in detectors:
        for row in detector["rows"]:
            row["matcher"] = names[row["matcher"]]
    return {
        "missing": sum(photo not in files for person in known.people for photo in person.photos),
        "matchers": [asdict(one) for one in known.matchers],
        "detectors": detectors,
    }


def _tell(stages: Stages, name: str, _: str, done: int, total: int, text: str) -> None:
    stages(name, done, total, text)
