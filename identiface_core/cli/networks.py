"""The networks that a command is given, as files or by their names in the manifest, and what is to be said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from identiface_core.cli.console import console, say
from identiface_core.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from identiface_core.faces.base import Finder
    from identiface_core.matchers.base import Matcher

DRAWN = (
    "Warning: {names} {know} drawn people only, and --detector is for photographs. What comes out for real people means nothing: "
    "give a --matcher of photographs, see `identiface weights list --role matcher`."
)


def matchers_from(given: Sequence[Path], screen: Console) -> list[Matcher]:
    """The matchers of --matcher; what there is to know of one is printed. Raises InputError for one that is given twice, and the
    errors of `load_matcher`."""
    from identiface_core.matchers.load import load_matcher

    loaded = [load_matcher(file_of(one, "matcher"), purpose="--matcher") for one in given]
    for path, matcher in zip(given, loaded, strict=True):
        for remark in getattr(matcher, "remarks", ()):
            say(screen, f"{path}: {remark}")
    name, often = Counter(matcher.name for matcher in loaded).most_common(1)[0] if loaded else ("", 0)
    if often > 1:
        same = ", ".join(str(path) for path, one in zip(given, loaded, strict=True) if one.name == name)
        raise InputError(f"--matcher: {same} are the same network, {name}: give each once")
    return loaded


def finder_from(given: Path) -> Finder:
    """The face finder of --detector. Raises the errors of `load_finder`."""
    from identiface_core.faces.onnx_finders import load_finder

    return load_finder(file_of(given, "detector"), "--detector")


def file_of(given: Path, role: str) -> Path:
    """The file itself, or that which the manifest calls so. InputError for weights of another role."""
    if given.exists() or len(given.parts) != 1:
        return given
    from identiface_core.catalogue.manifest import megabytes, read_manifest
    from identiface_core.catalogue.places import places
    from identiface_core.catalogue.store import named_file

    found = named_file(
        str(given),
        role,
        places(),
        lambda path, size: say(console(), f"reading {path} ({megabytes(size)}) ..."),
    )
    if found is not None:
        return found
    others = [entry.role for entry in read_manifest() if entry.name == str(given)]
    if others:
        raise InputError(
            f"--{role} {given}: these weights have another role, {others[0]}: see `identiface weights list --role {role}`"
        )
    return given


def warn_of_drawn(matchers: Sequence[Matcher], finder: Finder, screen: Console) -> bool:
    """Whether matchers that know drawn people are to look at photographs, which is said."""
    from identiface_core.faces.finder import FaceFinder
    from identiface_core.matchers.probe import reads_photographs

    drawn = list(dict.fromkeys(one.name for one in matchers if not reads_photographs(one)))
    if not drawn or isinstance(finder, FaceFinder):
        return False
    say(screen, DRAWN.format(names=" and ".join(drawn), know="knows" if len(drawn) == 1 else "know"))
    return True
