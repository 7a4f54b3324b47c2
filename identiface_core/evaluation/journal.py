"""What a run has done so far, so that a run that ended early goes on: one line of JSON per piece of work.

A line holds the piece of work and what came of it. Whatever plan asks for the same piece later takes it from there: the same
plan after a kill, or one with further pieces beside.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from identiface_core.errors import InputError
from identiface_core.weights.files import check_writable

Job = TypeVar("Job")
Result = TypeVar("Result")
KIND = "identiface evaluate"


class Journal(Generic[Job, Result]):
    """Results by job in the file `path`, which is made if it is not there; None: nothing is kept.

    about: what the results rest on (weights, galleries, version); a file about anything else is refused with `InputError`.
    read: makes a result from what `dataclasses.asdict` made of it. A last line that a kill has cut off is dropped.
    """

    def __init__(self, path: Path | None, about: Mapping[str, Any], read: Callable[[Any], Result]) -> None:
        self.path, self._read = path, read
        self._known: dict[str, Any] = {}
        if path is None:
            return
        header = _text({"kind": KIND, **about})
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        ours = header.startswith("".join(lines)) if not whole else whole[0] == header + "\n"
        if not ours:
            raise InputError(
                f"{path} was begun with other weights or galleries, or is no journal of an evaluation: choose another file, or "
                "remove it to start anew"
            )
        if not whole:
            check_writable(path)
            whole = [header + "\n"]
        if lines != whole:
            path.write_text("".join(whole))
        for line in whole[1:]:
            entry = json.loads(line)
            self._known[_text(entry["job"])] = entry["result"]

    def done(self, jobs: Sequence[Job]) -> dict[int, Result]:
        """What is known of `jobs`, by their place."""
        if not self._known:
            return {}
        keys = [_key(job) for job in jobs]
        return {place: self._read(self._known[key]) for place, key in enumerate(keys) if key in self._known}

    def add(self, job: Job, result: Result) -> None:
        """Keep what came of a job."""
        if self.path is None:
            return
        file: IO[str]
        with self.path.open("a") as file:
            file.write(_text({"job": json.loads(_key(job)), "result": _plain(result)}) + "\n")


def _key(job: Any) -> str:
    return _text({"is": type(job).__name__, **dataclasses.asdict(job)})


def _plain(result: Any) -> Any:
    return [_plain(one) for one in result] if isinstance(result, list) else dataclasses.asdict(result)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
