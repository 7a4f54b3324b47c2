"""Which weight files are here: found by what they hold, wherever they lie and whatever they are called."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from identiface_core.catalogue.manifest import Entry, read_manifest
from identiface_core.catalogue.places import Places
from identiface_core.catalogue.records import Hashes, Lock, Locked, Tell
from identiface_core.errors import WeightsError

UNFINISHED = (".part", ".rejected", ".json")
"""Suffixes of files that a download leaves behind, and of our own records: never weights."""


@dataclass(frozen=True)
class Candidate:
    """A file whose size fits."""

    path: Path
    verdict: str
    """What it turned out to be, in words."""
    good: bool
    """Whether it is what was looked for."""


@dataclass(frozen=True)
class Looked:
    """What was found in one place."""

    place: Path
    files: int | None
    """So many files lie there and below; None: there is no such folder."""
    candidates: tuple[Candidate, ...]


class Store:
    """The weight files of this machine. A place is listed once; make another store to see what is new."""

    def __init__(self, where: Places, tell: Tell | None = None) -> None:
        """`tell(path, bytes)` is called before a large file is read through."""
        self.where = where
        self.hashes = Hashes(where.own / "hashes.json", tell)
        self.lock = Lock(where.own / "lock.json")
        self._listed: dict[Path, list[tuple[Path, int]] | None] = {}

    def wanted(self, entry: Entry) -> str | None:
        """The sha256 that the file must have: pinned, or recorded when it first came; None if nobody knows."""
        locked = None if entry.pinned else self.lock.get(entry.name)
        return locked.sha256 if locked else entry.pinned

    def find(self, entry: Entry) -> Path | None:
        """The first file that is `entry`, by sha256, or by structure where no sha256 is known.

        Raises WeightsError for a damaged lock file only; files that cannot be read are passed over.
        """
        for place in self.where.folders:
            for candidate in self._candidates(entry, place):
                if candidate.good:
                    return candidate.path
        return None

    def need(self, entry: Entry) -> Path:
        """As `find`; WeightsError says what was looked for, where, and how to get it."""
        found = self.find(entry)
        if found is None:
            seen = [f"{one.place} ({count_of(one)})" for one in self.look(entry)]
            raise WeightsError(
                f"{entry.title} ('{entry.name}') is not here. Looked for {self.sign_of(entry)} in "
                f"{', '.join(seen)}. Get it with `identiface weights get {entry.name}`"
            )
        return found

    def look(self, entry: Entry) -> tuple[Looked, ...]:
        """Every place, and what was found there."""
        return tuple(
            Looked(place, None if files is None else len(files), tuple(self._candidates(entry, place)))
            for place in self.where.folders
            for files in [self._list(place)]
        )

    def sign_of(self, entry: Entry) -> str:
        """What the file is known by, in words."""
        wanted = self.wanted(entry)
        if wanted is not None:
            size = f"{entry.size:,} bytes with " if entry.size else ""
            return f"a file of {size}sha256 {wanted[:12]}..."
        if entry.recognised_as:
            return f"a file with the structure '{entry.recognised_as}'"
        return "nothing, since nobody states its sha256 and other files have its structure too,"

    def check(self, entry: Entry, path: Path, *, again: bool = False) -> str | None:
        """The sha256 of the file at `path` if it is `entry`, or None if nobody knows what it must be.

        WeightsError if it is another file. again: read it through even if it was read before.
        """
        wanted = self.wanted(entry)
        if wanted is None:
            return None
        found = self.hashes.sha256(path, again=again)
        if found != wanted:
            known = "pinned by its publisher" if entry.pinned else "what it had when it first came here"
            mend = "" if entry.pinned else f"; to accept it, take '{entry.name}' out of {self.lock.path}"
            raise WeightsError(
                f"{path}: its sha256 is {found}, wanted {wanted} ({known}): it is damaged, or the publisher "
                f"changed it{mend}"
            )
        return found

    def record(self, entry: Entry, path: Path, source: str) -> str:
        """As `check`, but what nobody knows yet is remembered from now on. `source`: where it came from."""
        found = self.check(entry, path)
        if found is None:
            found = self.hashes.sha256(path)
            self.lock.put(entry.name, Locked(found, path.stat().st_size, source))
        return found

    def _candidates(self, entry: Entry, place: Path) -> Iterator[Candidate]:
        locked = None if entry.pinned else self.lock.get(entry.name)
        wanted = locked.sha256 if locked else entry.pinned
        for path, size in sorted(self._list(place) or [], key=lambda one: one[0].name != entry.file):
            # Its usual name says where to look first, and nothing else.
            if size == locked.size if locked else entry.may_be(size):
                try:
                    candidate = self._judge(entry, path, wanted)
                except WeightsError as error:
                    candidate = Candidate(path, str(error), good=False)
                if candidate is not None:
                    yield candidate

    def _judge(self, entry: Entry, path: Path, wanted: str | None) -> Candidate | None:
        if wanted is not None:
            found = self.hashes.sha256(path)
            good = found == wanted
            return Candidate(path, "it is" if good else f"another file: sha256 {found[:12]}...", good)
        if entry.recognised_as and kind_of(path) == entry.recognised_as:
            return Candidate(path, "it has its structure", good=True)
        return None

    def _list(self, place: Path) -> list[tuple[Path, int]] | None:
        if place not in self._listed:
            self._listed[place] = list(_files_below(place)) if place.is_dir() else None
        return self._listed[place]


def named_file(name: str, role: str, where: Places, tell: Tell | None = None) -> Path | None:
    """The file that the manifest calls `name`; None if it knows no such name of this role.

    WeightsError says where a file that is not here was looked for, and how to get it. tell: see `Store`.
    """
    entries = [entry for entry in read_manifest() if entry.name == name and entry.role == role]
    return Store(where, tell).need(entries[0]) if entries else None


def kind_of(path: Path) -> str | None:
    """The kind of weights at `path`, by its header alone; None for anything that is not known."""
    from identiface_core.weights.recognise import recognise

    try:
        return recognise(path).kind
    except WeightsError:
        return None


def count_of(looked: Looked) -> str:
    """How many files were looked through, in words."""
    if looked.files is None:
        return "no such folder"
    return f"{looked.files} file{'' if looked.files == 1 else 's'}"


def _files_below(place: Path) -> Iterator[tuple[Path, int]]:
    seen: set[str] = set()
    # Model folders are often links to another disk.
    for folder, names, files in os.walk(place, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        names.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if name.startswith(".") or name.endswith(UNFINISHED):
                continue
            try:
                yield path, path.stat().st_size
            except OSError:
                continue  # a link that leads nowhere
