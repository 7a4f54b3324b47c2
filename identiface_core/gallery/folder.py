"""A folder of pictures: who is in which, and what looks like a mistake."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from identiface_core.errors import GalleryError, WeightsError
from identiface_core.weights.files import sha256_of

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def pictures_of(folder: str | Path) -> list[tuple[str, Path]]:
    """(person, picture) of every picture in a folder, by name: a sub-folder is a person, so is the stem of a
    loose file.

    Raises `GalleryError` when the folder is missing, is no folder, or holds no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise GalleryError(
            f"{folder}: {'not a' if folder.exists() else 'no such'} folder: give a folder of pictures, "
            "one file or one sub-folder per person"
        )
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix.lower() in PICTURES and not path.name.startswith("."):
            inside = path.relative_to(folder)
            found.append((inside.parts[0] if len(inside.parts) > 1 else path.stem, path))
    if not found:
        raise GalleryError(
            f"{folder}: no pictures ({', '.join(PICTURES)}): put one file or one sub-folder per person there"
        )
    return found


def oddities(folder: str | Path, found: Sequence[tuple[str, Path]]) -> tuple[str, ...]:
    """What is odd about a folder that `pictures_of` found these in, in sentences; the files are read through.

    Pictures from several places that became one person, the same file under two names, sub-folders without a picture.
    """
    folder = Path(folder)
    places: dict[str, list[str]] = defaultdict(list)
    copies: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for person, path in found:
        inside = path.relative_to(folder)
        place = f"{inside.parts[0]}/" if len(inside.parts) > 1 else str(inside)
        if place not in places[person]:
            places[person].append(place)
        try:
            copies[sha256_of(path)].append((person, path))
        except WeightsError:
            continue  # who reads the picture says so
    said = [
        f"{' and '.join(names)} count as one person, {person}: rename one if they are two"
        for person, names in places.items()
        if len(names) > 1
    ]
    said += [
        f"{' and '.join(str(path.relative_to(folder)) for _, path in same)} are the same picture under two names: take one out"
        for same in copies.values()
        if len({person for person, _ in same}) > 1
    ]
    people = {person for person, _ in found}
    said += [
        f"{path.name}/ holds no picture"
        for path in sorted(folder.iterdir())
        if path.is_dir() and path.name not in people and not path.name.startswith(".")
    ]
    return tuple(said)
