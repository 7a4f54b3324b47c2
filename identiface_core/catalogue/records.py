"""What is remembered about weight files between runs: hashes of large files, and the lock.

Both are small JSON files in our own folder. The hashes are a convenience: a damaged file of them is begun
anew. The lock is a promise: a damaged one is an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from identiface_core.errors import OutputError, WeightsError
from identiface_core.weights.files import sha256_of, write_atomic

Tell = Callable[[Path, int], None]
"""Told (path, bytes) before a file is read through."""


class Hashes:
    """sha256 by path, size and time of change, so that a file of many GB is read through only once."""

    def __init__(self, path: Path, tell: Tell | None = None) -> None:
        self.path = path
        self.tell = tell
        self.known: dict[str, list[Any]] = _dict_in(path)
        self.fresh: set[str] = set()

    def sha256(self, path: Path, *, again: bool = False) -> str:
        """The hash of the file at `path`, read through if it is new or has changed.

        again: read it through unless this object did so already.

        WeightsError when it cannot be read.
        """
        key, state = os.path.abspath(path), _state(path)
        found = self.known.get(key)
        if (
            (key in self.fresh or not again)
            and isinstance(found, list)
            and len(found) == 3
            and found[:2] == state
        ):
            return str(found[2])
        if self.tell is not None:
            self.tell(path, state[0])
        digest = sha256_of(path)
        self._remember(key, state, digest)
        return digest

    def moved(self, path: Path, sha256: str) -> None:
        """Remember that the file now at `path` was just read through under another name."""
        self._remember(os.path.abspath(path), _state(path), sha256)

    def _remember(self, key: str, state: list[int], sha256: str) -> None:
        self.fresh.add(key)
        self.known[key] = [*state, sha256]
        with contextlib.suppress(OutputError):  # then it is read again next time
            write_atomic(self.path, json.dumps(self.known, indent=1, sort_keys=True).encode())


@dataclass(frozen=True)
class Locked:
    """What an unpinned file was when it first came."""

    sha256: str
    size: int
    source: str
    """URL, or the path of a file that was put there by hand."""


class Lock:
    """Name -> `Locked`, for files whose publisher states no hash."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, name: str) -> Locked | None:
        """What `name` was when it first came; WeightsError for a damaged lock file."""
        return self._read().get(name)

    def put(self, name: str, locked: Locked) -> None:
        """Remember it. If this raises (OutputError, WeightsError), nothing has changed."""
        lines = {key: asdict(one) for key, one in {**self._read(), name: locked}.items()}
        write_atomic(self.path, json.dumps(lines, indent=1, sort_keys=True).encode())

    def _read(self) -> dict[str, Locked]:
        if not self.path.exists():
            return {}
        try:
            lines = json.loads(self.path.read_bytes())
            found = {str(name): Locked(**line) for name, line in lines.items()}
            if not all(re.fullmatch("[0-9a-f]{64}", one.sha256) for one in found.values()):
                raise ValueError("a sha256 is no 64 hex digits")
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise WeightsError(
                f"{self.path}: the lock file is damaged ({error}): mend it, or remove it to have unpinned "
                "files recorded anew"
            ) from error
        return found


def _state(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    return [stat.st_size, stat.st_mtime_ns]


def _dict_in(path: Path) -> dict[str, list[Any]]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
