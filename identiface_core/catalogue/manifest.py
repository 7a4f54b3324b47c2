"""What weight files there are: one TOML per file in `weights_manifest/`, read and checked.

The folder lies beside the package, in a checkout as in an installed wheel. What its keys mean is written in
its README.md and at the fields of `Entry`; unknown keys are errors, so that a typo never becomes a default.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from identiface_core.errors import InputError, WeightsError
from identiface_core.toml import parse_toml

FOLDER = Path(__file__).resolve().parents[2] / "weights_manifest"
ROLES = (
    "embedded",
    "control",
    "transformer",
    "text encoder",
    "checkpoint",
    "controlnet",
    "vae",
    "matcher",
    "detector",
    "landmarks",
    "parsing",
    "annotator",
)
SHIPPED = "shipped"
HOSTS = ("huggingface", "github", "github-release", SHIPPED)
UNPINNED = "unpinned"
IN_FOLDER = "hashes.json"
"""`sha256` of a shipped folder: the file in it that holds one for each of its files."""
SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "safetensors": (".safetensors",),
    "onnx": (".onnx",),
    "pickle": (".pth", ".pt", ".bin", ".ckpt"),
}
MEGABYTE = 1_000_000
_MAX_BYTES = 1 << 16
_HASH = re.compile(r"[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True)
class Entry:
    """One weight file, or the shipped folder. The fields are the keys of its TOML."""

    name: str
    """What the command line calls it; the name of its TOML too."""
    role: str
    """Which part of the suite it plays; one of `ROLES`."""
    title: str
    """What it is, in one line."""
    host: str
    """Where the repository lies; one of `HOSTS`."""
    format: str
    """"safetensors", "onnx", or "pickle": fetched only to be converted, never read as it is."""
    folder: str
    """Folder under ComfyUI's models folder; of the repository for what is shipped."""
    sha256: str
    """64 hex digits, or "unpinned": recorded at the first download and checked from then on."""
    code_licence: str
    """Licence of the publisher's code."""
    weights_licence: str
    """Licence of the file itself, in the publisher's words."""
    commercial_use: str
    """Whether these weights may be used commercially: "yes", "no" or "unclear"; `note` says why."""
    repository: str = ""
    """`owner/name` on the host."""
    revision: str = ""
    """Commit, branch or release tag."""
    path: str = ""
    """Where the file lies in the repository."""
    file: str = ""
    """What it is called on disk; nothing is ever found by this name."""
    size: int | None = None
    """Bytes, where they are known exactly."""
    size_about_mb: float | None = None
    """10^6 bytes, where only about so many are known."""
    recognised_as: str = ""
    """Kind that `recognise` gives such a file, if its structure tells it from all others of the manifest."""
    note: str = ""
    """What else one should know before using it."""

    @property
    def shipped(self) -> bool:
        """Whether it came with the package, so that there is nothing to fetch."""
        return self.host == SHIPPED

    @property
    def pinned(self) -> str | None:
        """The sha256 that is known without having seen the file."""
        return self.sha256 if _HASH.fullmatch(self.sha256) else None

    def may_be(self, size: int) -> bool:
        """Whether a file of `size` bytes can be it: exactly, within a tenth of about, or unknown."""
        if self.size is not None:
            return size == self.size
        if self.size_about_mb is not None:
            return abs(size / MEGABYTE - self.size_about_mb) <= self.size_about_mb / 10
        return True


def read_manifest(folder: str | Path = FOLDER) -> tuple[Entry, ...]:
    """All entries, ordered by role and name.

    Raises `WeightsError` naming the file and the key: a TOML that cannot be read, an unknown or missing key, a
    bad value, or two entries that would be stored under one name.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise WeightsError(f"{folder}: no weight manifest there: reinstall IdentiFace")
    entries = [_read(path) for path in paths]
    stored: dict[tuple[str, str], str] = {}
    for entry in entries:
        other = stored.setdefault((entry.folder, entry.file), entry.name)
        if other != entry.name:
            raise WeightsError(
                f"{folder / entry.name}.toml: file: {entry.folder}/{entry.file} is also that of '{other}'"
            )
    return tuple(sorted(entries, key=lambda entry: (ROLES.index(entry.role), entry.name)))


def chosen(entries: Iterable[Entry], names: Iterable[str]) -> tuple[Entry, ...]:
    """The entries of these names, in the order given; InputError with the nearest name for an unknown one."""
    known = {entry.name: entry for entry in entries}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "`identiface weights list` shows all"
            raise InputError(f"no weights are called {name!r}: {hint}")
    return tuple(known[name] for name in dict.fromkeys(names))


def megabytes(size: float) -> str:
    """Bytes for reading."""
    mega = size / MEGABYTE
    return f"{mega / 1000:.2f} GB" if mega >= 1000 else f"{mega:.1f} MB"


def _read(path: Path) -> Entry:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise WeightsError(f"{path}: more than {_MAX_BYTES:,} bytes: this is no weight manifest")
        table = parse_toml(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise WeightsError(f"{path}: not valid TOML ({error})") from error
    try:
        entry = _entry(table)
        if entry.name != path.stem:
            raise ValueError(f"name: wanted '{path.stem}', as the file is called, got {entry.name!r}")
        return entry
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error


def _entry(table: Mapping[str, Any]) -> Entry:
    fields = {field.name: field for field in dataclasses.fields(Entry)}
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(fields)}"
            raise ValueError(f"unknown key '{key}': {hint}")
    for key, field in fields.items():
        if key not in table:
            if field.default is dataclasses.MISSING:
                raise ValueError(f"the key '{key}' is missing")
        elif key in ("size", "size_about_mb"):
            _check_size(key, table[key])
        elif not isinstance(table[key], str) or not table[key].strip():
            raise ValueError(f"{key}: wanted a text, got {table[key]!r}")
    entry = Entry(**table)
    _check_words(entry)
    _check_source(entry)
    return entry


def _check_size(key: str, value: Any) -> None:
    number = isinstance(value, int if key == "size" else (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value < float("inf"):
        raise ValueError(f"{key}: wanted a number above 0, got {value!r}")


def _check_words(entry: Entry) -> None:
    for key, known in (
        ("role", ROLES),
        ("host", HOSTS),
        ("format", tuple(SUFFIXES)),
        ("commercial_use", ("yes", "no", "unclear")),
    ):
        if getattr(entry, key) not in known:
            raise ValueError(f"{key}: wanted one of {', '.join(known)}, got {getattr(entry, key)!r}")
    if not _NAME.fullmatch(entry.name):
        raise ValueError(f"name: wanted lower-case letters, digits, '-' and '.', got {entry.name!r}")
    if not _inside(entry.folder):
        raise ValueError(f"folder: wanted a folder below the models folder, got {entry.folder!r}")
    if entry.size is not None and entry.size_about_mb is not None:
        raise ValueError("size: known exactly, so leave out 'size_about_mb'")


def _check_source(entry: Entry) -> None:
    if entry.shipped:
        for key in ("repository", "revision", "path", "file", "size"):
            if getattr(entry, key):
                raise ValueError(f"{key}: not for what is shipped")
        if entry.sha256 != IN_FOLDER:
            raise ValueError(f"sha256: wanted '{IN_FOLDER}' for what is shipped, got {entry.sha256!r}")
        return
    for key in ("repository", "revision", "path", "file"):
        if not getattr(entry, key):
            raise ValueError(f"the key '{key}' is missing")
    if not _REPOSITORY.fullmatch(entry.repository):
        raise ValueError(f"repository: wanted 'owner/name', got {entry.repository!r}")
    for key in ("revision", "path"):
        if not _inside(getattr(entry, key)):
            raise ValueError(f"{key}: wanted a path below the repository, got {getattr(entry, key)!r}")
    if not _inside(entry.file) or "/" in entry.file or not entry.file.endswith(SUFFIXES[entry.format]):
        wanted = " or ".join(SUFFIXES[entry.format])
        raise ValueError(f"file: wanted a plain name ending in {wanted}, got {entry.file!r}")
    if entry.sha256 != UNPINNED and entry.pinned is None:
        raise ValueError(f"sha256: wanted 64 lower-case hex digits or '{UNPINNED}', got {entry.sha256!r}")
    if entry.pinned and not (entry.size or entry.size_about_mb):
        raise ValueError("size: needed with a sha256, or every file would have to be read to find this one")


def _inside(path: str) -> bool:
    """Whether it is a relative path, with "/", that stays below where it starts."""
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and str(PurePosixPath(path)) == path
        and not any(part in ("..", ".", "/") for part in parts)
        and not set(path) & set('\\:*?"<>|')
        and path.isprintable()
    )
