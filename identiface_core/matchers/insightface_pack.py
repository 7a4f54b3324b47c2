"""InsightFace's packs (buffalo_l and others): the recognition network in a folder of ONNX files.

InsightFace itself is not imported: it would look for a missing pack on the internet, call a folder that is empty an
AssertionError without a text, and give no gradients. Which file recognises faces, its inputs and outputs tell.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from identiface_core.errors import WeightsError
from identiface_core.matchers.base import Colour
from identiface_core.matchers.onnx_matcher import OnnxMatcher
from identiface_core.weights.recognise import recognise

ROOT = Path("~/.insightface")
"""Where InsightFace keeps packs, in a folder `models`."""
MANIFEST = "manifest.json"
"""In newer packs: which file does what, and how pictures are to be normalised."""
LICENCE = "InsightFace's pretrained models are for non-commercial research only, however they were obtained"


def insightface_matcher(
    pack: str | Path,
    root: str | Path | None = None,
    *,
    colour: Colour | None = None,
    scale: str | None = None,
    runtime: bool = True,
) -> OnnxMatcher:
    """The recognition network of a pack: a folder, or the name of one below `root`/models (default ~/.insightface).

    It is called as its file alone would be; of which pack it is, its remarks say. colour, scale, runtime: see `OnnxMatcher`.
    WeightsError says in a sentence what is wrong: no such folder, nothing in it, no recognition network, or several.
    """
    folder = pack_folder(pack, root)
    files = graphs_in(folder)
    if not files:
        inner = [one for one in sorted(folder.glob("*")) if graphs_in(one)]
        hint = (
            f"its files lie one folder too deep, in {inner[0]}: move them up, or choose that folder"
            if inner
            else "its download was broken off, or the zip was not unpacked: put the pack's .onnx files there"
        )
        raise WeightsError(f"{folder}: there is no .onnx file in this InsightFace pack; {hint}.")
    declared = _declared(folder)
    if declared is not None:
        file, said = declared
        return _matcher(file, folder, colour, scale or said, runtime)
    kinds = {file: _kind(file) for file in files}
    found = [file for file, kind in kinds.items() if kind == "matcher-onnx"]
    if len(found) != 1:
        seen = ", ".join(f"{file.name} ({kind})" for file, kind in kinds.items())
        many = (
            "no network that recognises faces" if not found else f"{len(found)} networks that recognise faces"
        )
        advice = "get the whole pack" if not found else "choose one of these files"
        raise WeightsError(f"{folder}: this InsightFace pack has {many}, among {seen}: {advice}.")
    return _matcher(found[0], folder, colour, scale, runtime)


def pack_folder(pack: str | Path, root: str | Path | None = None) -> Path:
    """The folder of a pack. WeightsError says where it was looked for, and which packs are there."""
    if Path(pack).is_dir():
        return Path(pack)
    models = Path(root if root is not None else ROOT).expanduser() / "models"
    if len(Path(pack).parts) == 1 and (models / pack).is_dir():
        return models / pack
    there = sorted(one.name for one in models.iterdir() if one.is_dir()) if models.is_dir() else []
    raise WeightsError(
        f"there is no InsightFace pack '{pack}': looked for a folder of that name, here and in {models} "
        f"({'there: ' + ', '.join(there) if there else 'nothing is there'}). Nothing is downloaded by itself: put the pack's "
        "folder of .onnx files there."
    )


def graphs_in(folder: Path) -> list[Path]:
    """The .onnx files in a folder, in whatever case they are written."""
    return sorted(one for one in folder.glob("*") if one.suffix.lower() == ".onnx")


def _matcher(
    file: Path, folder: Path, colour: Colour | None, scale: str | None, runtime: bool
) -> OnnxMatcher:
    matcher = OnnxMatcher(file, colour=colour, scale=scale, licence=LICENCE, runtime=runtime)
    matcher.remarks = (f"of the InsightFace pack {folder.name}: {file.name}", *matcher.remarks)
    return matcher


def _kind(file: Path) -> str:
    try:
        return recognise(file).kind
    except WeightsError as error:
        return f"cannot be read: {str(error).split(': ', 1)[-1]}"


def _declared(folder: Path) -> tuple[Path, str | None] | None:
    """The recognition network that the pack's own manifest names, and the range it wants; None without a manifest."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > 1_000_000:
            raise ValueError("too long")
        task: Any = json.loads(path.read_text(encoding="utf-8"))["tasks"]["recognition"]
        name = task["file"]
        preprocessing = task.get("preprocessing", {"mean": 127.5, "std": 127.5})
        file = folder / str(name)
        there = file.resolve().is_relative_to(folder.resolve()) and file.is_file()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError):
        return None  # the files themselves tell as much
    if not there:
        raise WeightsError(
            f"{folder}: its {MANIFEST} names '{name}' as the network that recognises faces, but there is no such file in the "
            "pack: get the whole pack."
        )
    if preprocessing == "embedded":
        return file, "bytes"
    if preprocessing == {"mean": 127.5, "std": 127.5}:
        return file, "signed"
    raise WeightsError(
        f"{folder}: its {MANIFEST} asks for the normalisation {preprocessing}, which is not known here; 127.5 and 127.5 is."
    )
