"""Where weight files may lie: the model folders of a ComfyUI, and a folder of our own.

A ComfyUI is named with `--models`, or by COMFYUI_PATH, or is the one in whose `custom_nodes` this package
lies. The folders that its extra_model_paths.yaml adds are searched too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from identiface_core.catalogue.manifest import Entry

COMFYUI = "COMFYUI_PATH"
EXTRA = "extra_model_paths.yaml"
_REPOSITORY = Path(__file__).resolve().parents[2]
_SETTINGS = ("base_path", "is_default", "custom_nodes")
"""Keys of that file which name no folder of models."""


@dataclass(frozen=True)
class Places:
    """The folders to search, in order, and where a new file goes."""

    folders: tuple[Path, ...]
    own: Path
    """Our own folder: lock, known hashes, and the weights when there is no ComfyUI."""
    target: Path
    """The models folder that new files go to."""

    def place_of(self, entry: Entry) -> Path:
        """Where a download of `entry` is put."""
        return self.target / entry.folder / entry.file


def places(models: str | Path | None = None, also: Iterable[str | Path] = ()) -> Places:
    """Where to look and where to put.

    `models`: ComfyUI's models folder, or ComfyUI itself. `also`: further folders, such as those that the host
    itself lists. A folder need not exist.
    """
    own = own_folder()
    given = Path(models).expanduser() if models is not None else None
    hosts = [given if given and _is_comfyui(given) else None, _named_host(), _host_around_us()]
    roots = [given] if given and hosts[0] is None else []
    roots += [host / "models" for host in hosts if host is not None]
    added = [folder for root in roots for folder in extra_folders(root.parent / EXTRA)]
    searched = [*roots, *added, *(Path(folder) for folder in also), own / "models"]
    return Places(tuple(dict.fromkeys(searched)), own, searched[0] if roots else own / "models")


def own_folder() -> Path:
    """`identiface` in the user's cache folder: XDG_CACHE_HOME, or LOCALAPPDATA on Windows."""
    named = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "identiface"


def extra_folders(path: Path) -> tuple[Path, ...]:
    """The model folders named in an extra_model_paths.yaml; none if it cannot be read or understood.

    Only what such files consist of is read: sections, `base_path`, `key: folder`, and folders below `key: |`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return ()
    found: list[Path] = []
    for section in _sections(text):
        base = Path(os.path.expandvars(dict(section).get("base_path", ""))).expanduser()
        found += [path.parent / base / folder for key, folder in section if key not in _SETTINGS]
    return tuple(Path(os.path.normpath(folder)) for folder in dict.fromkeys(found))


def _sections(text: str) -> Iterator[list[tuple[str, str]]]:
    """Each section as (key, value); a block of several lines gives its key several times."""
    section: list[tuple[str, str]] = []
    key, depth = "", 0
    for line in text.splitlines():
        words = line.split(" #")[0].strip()
        indent = len(line) - len(line.lstrip())
        if not words or words.startswith("#"):
            continue
        name, colon, value = words.partition(":")
        if indent == 0:
            yield section
            section, key = [], ""
        elif key and indent > depth:
            section.append((key, _plain(words)))
        elif colon and (not value or value[0] == " "):
            key, depth = ("", 0) if value.strip() not in ("", "|", ">", "|-") else (name.strip(), indent)
            if not key:
                section.append((name.strip(), _plain(value)))
    yield section


def _plain(value: str) -> str:
    value = value.strip()
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value


def _is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def _named_host() -> Path | None:
    named = os.environ.get(COMFYUI)
    return Path(named).expanduser() if named else None


def _host_around_us() -> Path | None:
    """The ComfyUI in whose `custom_nodes` this package lies, if it does."""
    host = _REPOSITORY.parent.parent
    return host if _REPOSITORY.parent.name == "custom_nodes" and _is_comfyui(host) else None
