"""What every safetensors file has, whoever wrote it: a header of names, types, shapes and places.

Nothing here reads a tensor. Headers come from strangers: every number in one is checked before it is used.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from identiface_core.errors import WeightsError

MAX_HEADER = 4 * 1024 * 1024
"""Bytes. A longer header is refused before it is read."""

AGAIN = "Get or make it again."

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of every tensor by its name."""

_WEB_PAGES = (b"<!doctyp", b"<html", b"<head", b"<?xml")
_LFS = b"version "
_PICTURES = (b"\x89png", b"\xff\xd8\xff", b"riff")


@dataclass(frozen=True)
class Layout:
    """A header, parsed."""

    texts: dict[str, str]
    """The writer's own notes, `__metadata__` on disk."""
    entries: dict[str, Any]
    """safetensors' own entry for each tensor: type, shape, offsets from `start`."""
    start: int
    """Bytes from the beginning of the file to the first tensor's."""


def parse_layout(path: Path, first: bytes, read: Callable[[int], bytes], size: int) -> Layout:
    """The header of the file at `path`; WeightsError for one that is damaged, truncated or none.

    first: the first eight bytes. read(count): those after them. size: bytes of the whole file.
    """
    if size < 8:
        raise WeightsError(f"{path}: only {size} bytes long: the file is empty or truncated. {AGAIN}")
    refuse_text(path, first, size)
    length: int = struct.unpack("<Q", first[:8])[0]
    if length > MAX_HEADER:
        raise WeightsError(
            f"{path}: not a safetensors file (header of {length:,} bytes, at most {MAX_HEADER:,} are read). "
            "Pickled weights (.pt, .pth, .ckpt) are never read."
        )
    if size < 8 + length:
        raise WeightsError(f"{path}: truncated: {size:,} bytes, its header has {8 + length:,}. {AGAIN}")
    try:
        entries = json.loads(read(length))
        texts = entries.pop("__metadata__", {})
        ends = [int(entry["data_offsets"][1]) for entry in entries.values()]
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise WeightsError(f"{path}: not a safetensors file (its header cannot be read). {AGAIN}") from error
    wanted = 8 + length + max(ends, default=0)
    if size < wanted:
        raise WeightsError(f"{path}: truncated: {size:,} bytes, its header promises {wanted:,}. {AGAIN}")
    return Layout(texts if isinstance(texts, dict) else {}, entries, 8 + length)


def refuse_text(path: Path, first: bytes, size: int) -> None:
    """Raise WeightsError if the first eight bytes are those of a web page, a picture or a git-lfs pointer."""
    start = first[:8].lower()
    if start.lstrip().startswith(_WEB_PAGES):
        raise WeightsError(
            f"{path}: a web page, not weights: the site answered the download with a page, such as a login or "
            "an error. Open the address in a browser, accept what it asks for, and download again."
        )
    if start.startswith(_PICTURES):
        raise WeightsError(f"{path}: a picture, not weights. Choose another file.")
    if start == _LFS and size < 1024:
        raise WeightsError(
            f"{path}: a git-lfs pointer of {size} bytes, not the weights that it stands for. Run `git lfs pull` "
            "where it was cloned, or download the file itself."
        )


def misfits(wanted: Shapes, found: Shapes) -> list[str]:
    """What does not fit, in words: tensors that are missing or too many, then those of another shape."""
    faults = [f"'{name}' is missing" for name in wanted if name not in found]
    faults += [f"'{name}' is not part of the network" for name in found if name not in wanted]
    return faults + [
        f"'{name}' has shape {tuple(found[name])}, wanted {tuple(shape)}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]


def in_short(faults: list[str]) -> str:
    """The first three faults in one line, and how many more there are."""
    return "; ".join(faults[:3]) + (f" and {len(faults) - 3} more" if len(faults) > 3 else "")
