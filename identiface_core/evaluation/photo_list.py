"""A list of public photographs and networks, known by content: what `identiface bench photos --list` measures with.

The list tells which photos show one person, never who that is. It holds no picture, only the sha256 of each, and which public
repositories they and the networks lie in.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from identiface_core.errors import InputError
from identiface_core.gallery.folder import PICTURES
from identiface_core.weights.files import sha256_of


@dataclass(frozen=True)
class Network:
    """A detector or a matcher."""

    name: str
    repository: str
    """On GitHub, owner/name."""
    commit: str
    path: str
    sha256: str
    terms: str
    """Of use, in the publisher's words or nearly."""


@dataclass(frozen=True)
class Person:
    """Photos of one person."""

    repository: str
    photos: tuple[str, ...]
    """The sha256 of each."""


@dataclass(frozen=True)
class PhotoList:
    """Photos by person, and the networks to measure with."""

    commits: Mapping[str, str]
    """Of each repository that photos lie in."""
    people: tuple[Person, ...]
    detectors: tuple[Network, ...]
    matchers: tuple[Network, ...]


def read_list(path: str | Path) -> PhotoList:
    """Raises `InputError` for a file that is no such list."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        return PhotoList(
            {one["repository"]: one["commit"] for one in found["sources"]},
            tuple(Person(one["repository"], tuple(one["photos"])) for one in found["people"]),
            tuple(Network(**one) for one in found["detectors"]),
            tuple(Network(**one) for one in found["matchers"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: a list of photographs is wanted, such as docs/benchmarks/photos.json ({error!r})"
        ) from error


def files_below(root: str | Path) -> dict[str, Path]:
    """sha256 -> file, of every picture and ONNX file in a folder and its sub-folders. Raises `InputError` without the folder."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder: give the one that the listed repositories lie in")
    return {
        sha256_of(path): path
        for path in root.rglob("*")
        if path.suffix.lower() in (*PICTURES, ".onnx") and path.is_file()
    }


def gather(known: PhotoList, files: Mapping[str, Path], folder: str | Path) -> list[str]:
    """Copy the photos into `folder`: a sub-folder per person, called by number, the files by the first 16 digits of their sha256.

    Returns a line of text for each repository of which some are missing; raises `InputError` when all are.
    """
    missing: dict[str, list[str]] = {}
    for number, person in enumerate(known.people, start=1):
        place = Path(folder) / f"{number:03d}"
        place.mkdir()
        for sha256 in person.photos:
            if sha256 in files:
                shutil.copyfile(files[sha256], place / f"{sha256[:16]}{files[sha256].suffix.lower()}")
            else:
                missing.setdefault(person.repository, []).append(sha256)
    lines = [
        f"{len(photos)} photos of {name} are not here: clone it at {known.commits.get(name)} "
        f"({', '.join(photo[:12] for photo in photos)})"
        for name, photos in missing.items()
    ]
    if sum(map(len, missing.values())) == sum(len(person.photos) for person in known.people):
        raise InputError("none of the listed photos is here:\n" + "\n".join(lines))
    return lines


def need(networks: Iterable[Network], files: Mapping[str, Path]) -> None:
    """Raises `InputError` that names the networks whose files are missing, and where to get them."""
    missing = [
        f"{one.name}: {one.path} of {one.repository} at {one.commit}, sha256 {one.sha256}"
        for one in networks
        if one.sha256 not in files
    ]
    if missing:
        raise InputError("these listed networks are not here:\n" + "\n".join(missing))
