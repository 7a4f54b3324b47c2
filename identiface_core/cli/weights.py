"""`identiface weights list`, `get`, `verify` and `where`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from identiface_core.catalogue.manifest import MEGABYTE, ROLES, Entry, chosen, megabytes, read_manifest
from identiface_core.cli.console import Stages, console, say, show_table
from identiface_core.errors import InputError, WeightsError

if TYPE_CHECKING:
    from rich.console import Console

    from identiface_core.catalogue.download import Progress
    from identiface_core.catalogue.store import Store

COLUMNS = ("name", "role", "size", "licence of the weights", "commercial", "sha256")
HASHES = (
    "sha256: publisher, who states it: any copy is known by it; unpinned, stated by nobody: what comes first "
    "is recorded, and known and checked by that from then on; shipped: in the package, with its hashes."
)
READ_ALOUD = 500 * MEGABYTE
"""Bytes from which on it is said that a file is being read through."""


def show(role: str | None = None, *, as_json: bool = False, as_markdown: bool = False) -> int:
    """List what can be fetched; `role` only those of one role (InputError if there is none of that name)."""
    entries = read_manifest()
    if role is not None:
        if role not in ROLES:
            raise InputError(f"no role is called {role!r}: choose one of {', '.join(ROLES)}")
        entries = tuple(entry for entry in entries if entry.role == role)
    if as_json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=1))
    elif as_markdown:
        print(licence_table(entries))
    else:
        screen = console()
        rows = [_row(entry) for entry in entries]
        show_table(screen, "Weights that the workflows can use", COLUMNS, rows)
        say(screen, HASHES)
        say(screen, "`identiface weights get NAME` shows the licence and asks before it downloads.")
    return 0


def get(
    names: Sequence[str], *, models: Path | None = None, yes: bool = False, mirror: str | None = None
) -> int:
    """Have these files here: taken where they lie, or downloaded after the licence was shown and agreed to.

    Raises InputError when nobody can be asked and `yes` was not given, and the errors of `fetch`.
    """
    from identiface_core.catalogue.fetch import fetch

    entries, screen, store = chosen(read_manifest(), names), console(), _store(models)
    missing = [entry for entry in entries if not _already(entry, store, screen)]
    for entry in missing:
        _show_terms(entry, store, screen, mirror)
    if not missing:
        return 0
    if not yes and not _agreed(missing):
        say(screen, "Nothing was downloaded.")
        return 0
    for entry in missing:
        first = store.wanted(entry) is None
        with Stages(screen) as stages:
            path = fetch(entry, store, mirror=mirror, progress=_progress(stages, entry))
        say(screen, f"{entry.name}: {path}")
        if first:
            say(
                screen,
                f"  Nobody states its sha256: it is checked from now on by the one in {store.lock.path}",
            )
        if entry.format == "pickle":
            say(screen, "  A pickle is never loaded as it is.")
    return 0


def verify(names: Sequence[str] = (), *, models: Path | None = None) -> int:
    """Read the files that are here through again; 2 if one is not what it should be, or a named one is absent."""
    manifest, screen, store = read_manifest(), console(), _store(models)
    here = bad = 0
    for entry in chosen(manifest, names) if names else manifest:
        verdict, text = _verdict(entry, store)
        if verdict != "absent" or names:
            say(screen, f"{verdict:8}{entry.name}: {text}")
        here += verdict != "absent"
        bad += verdict == "BAD" or (verdict == "absent" and bool(names))
    if not names:
        say(screen, f"{here} here, {bad} of them not as it should be; the others are not here")
    return 2 if bad else 0


def where(name: str, *, models: Path | None = None) -> int:
    """Show every place that was looked at for a file, and what was found there; 2 if it is nowhere."""
    from identiface_core.catalogue.fetch import by_hand
    from identiface_core.catalogue.sources import address
    from identiface_core.catalogue.store import count_of

    (entry,), screen, store = chosen(read_manifest(), [name]), console(), _store(models)
    if entry.shipped:
        say(screen, f"{entry.name} ships with the package, in {entry.folder}")
        return 0
    say(screen, f"{entry.name}: {entry.title}; looked for {store.sign_of(entry).rstrip(',')}")
    found = None
    for looked in store.look(entry):
        say(screen, f"  {looked.place}: {count_of(looked)}")
        for candidate in looked.candidates:
            say(screen, f"    {candidate.path}: {candidate.verdict}")
            found = found or (candidate.path if candidate.good else None)
    if found is not None:
        say(screen, f"Used: {found}")
        return 0
    say(screen, f"Not here. `identiface weights get {entry.name}` fetches {address(entry)}")
    say(screen, by_hand(entry, store))
    return 2


def licence_table(entries: Iterable[Entry]) -> str:
    """The table of docs/weights.md."""
    lines = [" | ".join(("", *COLUMNS[:5], "code", "")).strip(), "|---" * 6 + "|"]
    for entry in entries:
        name, role, size, licence, commercial, _ = _row(entry)
        lines.append(f"| `{name}` | {role} | {size} | {licence} | {commercial} | {entry.code_licence} |")
    return "\n".join(lines)


def _store(models: Path | None) -> Store:
    from identiface_core.catalogue.places import places
    from identiface_core.catalogue.store import Store

    def tell(path: Path, size: int) -> None:
        if size >= READ_ALOUD:
            say(console(), f"reading {path} ({megabytes(size)}) ...")

    return Store(places(models), tell)


def _already(entry: Entry, store: Store, screen: Console) -> bool:
    if entry.shipped:
        say(screen, f"{entry.name}: ships with the package, nothing to fetch")
        return True
    found = store.find(entry)
    if found is not None:
        say(screen, f"{entry.name}: already here: {found}")
    return found is not None


def _show_terms(entry: Entry, store: Store, screen: Console, mirror: str | None) -> None:
    from identiface_core.catalogue.sources import address, page

    say(screen, f"{entry.name}: {entry.title} ({_size(entry)})")
    for label, text in (
        ("from", address(entry, mirror)),
        ("to", str(store.where.place_of(entry))),
        ("code", entry.code_licence),
        ("weights", entry.weights_licence),
        ("commercial", f"{entry.commercial_use}; the publisher's terms: {page(entry)}"),
        ("note", entry.note),
    ):
        if text:
            say(screen, f"  {label:11}{text}")


def _agreed(entries: Sequence[Entry]) -> bool:
    if not sys.stdin.isatty():
        raise InputError("nobody can be asked here whether these licences are agreed to: say so with --yes")
    many = "this file" if len(entries) == 1 else f"these {len(entries)} files"
    return input(f"Download {many} under these terms? [y/N] ").strip().lower() in ("y", "yes")


def _verdict(entry: Entry, store: Store) -> tuple[str, str]:
    if entry.shipped:
        from identiface_core.embedded import FOLDER, check_files

        try:
            return "good", f"{len(check_files(FOLDER))} files as in {entry.sha256}"
        except WeightsError as error:
            return "BAD", str(error)
    target = store.where.place_of(entry)
    path = store.find(entry) or (target if target.exists() else None)
    if path is None:
        return "absent", f"get it with `identiface weights get {entry.name}`"
    try:
        known = store.check(entry, path, again=True)
    except WeightsError as error:
        return "BAD", f"{error}. Move it away and get it again"
    return ("good", str(path)) if known else ("unknown", f"{path}: no sha256 is known to check it by")


def _progress(stages: Stages, entry: Entry) -> Progress:
    def report(done: int, total: int) -> None:
        stages(entry.name, round(done / MEGABYTE), max(1, round(total / MEGABYTE)), "MB")

    return report


def _row(entry: Entry) -> tuple[str, ...]:
    known = "shipped" if entry.shipped else "publisher" if entry.pinned else "unpinned"
    return (entry.name, entry.role, _size(entry), entry.weights_licence, entry.commercial_use, known)


def _size(entry: Entry) -> str:
    if entry.shipped:
        return "shipped"
    if entry.size is not None:
        return megabytes(entry.size)
    return f"about {megabytes(entry.size_about_mb * MEGABYTE)}" if entry.size_about_mb else "unknown"
