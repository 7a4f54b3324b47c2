"""Get one weight file: take what is here, or download it, check it, and remember an unpinned one."""

from __future__ import annotations

from pathlib import Path

from identiface_core.catalogue.download import Progress, download, finish, reject
from identiface_core.catalogue.manifest import Entry
from identiface_core.catalogue.sources import address, token
from identiface_core.catalogue.store import Store
from identiface_core.errors import WeightsError


def fetch(entry: Entry, store: Store, *, mirror: str | None = None, progress: Progress | None = None) -> Path:
    """Download `entry` to its place and return it; a file put there by hand is checked and taken instead.

    Raises WeightsError when it cannot be had (with the address and the place for a file got by other means),
    or is not what it should be: then it is kept beside as `<file>.rejected`. OutputError for a full disk.
    """
    target, url = store.where.place_of(entry), address(entry, mirror)
    if target.exists():
        try:
            _recorded(entry, store, target, str(target))
        except WeightsError as error:
            raise WeightsError(f"{error}. Move it away to have it downloaded") from error
        return target
    try:
        part = download(url, target, size=entry.size, token=token(entry, mirror), progress=progress)
    except WeightsError as error:
        raise WeightsError(f"{error}. {by_hand(entry, store)}") from error
    try:
        sha256 = _recorded(entry, store, part, url)
    except WeightsError as error:
        aside = reject(part, target)
        raise WeightsError(f"{url}: {_of(error, part)}. What came is kept as {aside}") from error
    finish(part, target)
    store.hashes.moved(target, sha256)
    return target


def by_hand(entry: Entry, store: Store) -> str:
    """Where a file that was got by other means belongs, in one sentence."""
    target = store.where.place_of(entry)
    if store.wanted(entry) or entry.recognised_as:
        return f"By hand: fetch it elsewhere and put it, under any name, into {target.parent}"
    return f"By hand: fetch it elsewhere, save it as {target}, and run `identiface weights get {entry.name}`"


def _recorded(entry: Entry, store: Store, path: Path, source: str) -> str:
    if store.wanted(entry) is None:
        _check_format(entry, path)
    return store.record(entry, path, source)


def _check_format(entry: Entry, path: Path) -> None:
    """A glance where no sha256 can tell; WeightsError for a file of another sort, such as a proxy's notice."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(9)
    fits = {
        "safetensors": head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size,
        "onnx": head[:1] == b"\x08",
        "pickle": head[:2] in (b"PK", b"\x80\x02"),
    }
    if not fits[entry.format]:
        raise WeightsError(f"{path}: no {entry.format} file; it begins with {head!r}")
    if entry.size not in (None, size):
        raise WeightsError(f"{path}: {size:,} bytes long, wanted {entry.size:,}")


def _of(error: Exception, part: Path) -> str:
    """The text of an error about a part, without the part's name: it is about to be another."""
    return str(error).removeprefix(f"{part}: ")
