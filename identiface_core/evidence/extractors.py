"""Lines out of a photo by the annotators that ControlNets were trained with, from the package controlnet_aux.

`canny` and `lineart_standard` need no weights; `hed`, `lineart`, `lineart-coarse` and `pidinet` take theirs from a local file
(`annotators`). `sketch.extract_sketch` needs neither package nor weights, and draws as the embedded model's drawings are.

The package imports everything that it has at once, and that fails where torchvision is missing. Then each annotator is imported
alone, below a stand-in for the package that is taken away again.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.errors import InputError, WeightsError
from identiface_core.evidence.annotators import ANNOTATORS, find_annotator, load_annotator
from identiface_core.evidence.sketch import strengthened
from identiface_core.evidence.values import SKETCH_SIDE
from identiface_core.imaging import from_uint8, resize, to_uint8

if TYPE_CHECKING:
    from torch import nn

PACKAGE = "controlnet_aux"
EXTRACTORS = ("canny", "lineart_standard", *ANNOTATORS)
RESOLUTION = 512
"""Shorter side, in pixels, at which lines are looked for; what ControlNet's annotators use."""


def extract_lines(
    photo: Tensor, how: str, *, folders: Iterable[str | Path] = (), resolution: int = RESOLUTION
) -> Tensor:
    """Line drawing of a photo, `(3 or 1, H, W)` in [0, 1] -> `(1, H, W)`: paper 1, lines dark.

    how: one of `EXTRACTORS`. folders: models folders in which weights are looked for first. resolution: brought to whole
    64ths by the annotator. Raises InputError for an unknown extractor or a missing package (with what to install),
    WeightsError for missing or unfit weights (with where they were looked for, and how to get them).
    """
    if how not in EXTRACTORS:
        raise InputError(f"lines are extracted by one of {', '.join(EXTRACTORS)}; this is {how!r}")
    path = find_annotator(how, folders) if how in ANNOTATORS else None
    detector = _detector(how, path)
    pixels = to_uint8(photo.expand(3, -1, -1)).permute(1, 2, 0).contiguous().cpu().numpy()
    sizes = {"detect_resolution": resolution, "output_type": "np"}
    if how != "lineart_standard":  # which brings its lines back to the photo's size itself
        sizes["image_resolution"] = resolution
    with torch.no_grad():
        white = torch.from_numpy(detector(pixels, **sizes))
    lines = 1 - from_uint8(white.reshape(*white.shape[:2], -1)[..., :1].permute(2, 0, 1))
    return resize(lines, photo.shape[-2], photo.shape[-1])


def lines_to_sketch(lines: Tensor, side: int = SKETCH_SIDE) -> Tensor:
    """Lines `(1, H, W)` as a sketch `(1, side, side)`: padded to the square with paper, faint lines brought up."""
    height, width = lines.shape[-2:]
    longest = max(height, width)
    top, left = (longest - height) // 2, (longest - width) // 2
    ink = F.pad(1 - lines, (left, longest - width - left, top, longest - height - top))
    return strengthened(resize(ink, side, side))


def _detector(how: str, path: Path | None) -> Any:
    """A callable of controlnet_aux: uint8 (H, W, 3) -> uint8 (h, w, 3), lines white on black."""
    if path is None:
        names = {"canny": "CannyDetector", "lineart_standard": "LineartStandardDetector"}
        return getattr(_submodule(how), names[how])()
    network = ANNOTATORS[how].network
    if network == "hed":
        module = _submodule("hed")
        return module.HEDdetector(_filled(module.ControlNetHED_Apache2(), path, how))
    if network == "pidinet":
        module = _submodule("pidi")
        return module.PidiNetDetector(_filled(module.pidinet(), path, how))
    module = _submodule("lineart")
    filled = _filled(module.Generator(3, 1, 3), path, how)
    return module.LineartDetector(filled, filled)


def _filled(network: nn.Module, path: Path, name: str) -> nn.Module:
    try:
        network.load_state_dict(load_annotator(path, name))
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[-1].strip()[:200]
        raise WeightsError(
            f"{path}: its tensors are not those of '{name}' ({reason}). Convert it again."
        ) from error
    return network.float().eval()


def _submodule(name: str) -> ModuleType:
    """`controlnet_aux.<name>`: by the package itself where torchvision lets it be imported, else alone."""
    whole = PACKAGE in sys.modules or importlib.util.find_spec("torchvision") is not None
    before = set(sys.modules)
    if whole:
        try:
            return importlib.import_module(f"{PACKAGE}.{name}")
        except Exception:  # a torchvision that does not fit torch raises anything
            _forget(before)
    try:
        return _alone(name, before)
    except Exception as error:  # its own imports, such as cv2, can be missing or broken
        raise InputError(_missing(f"{type(error).__name__}: {error}")) from error


def _alone(name: str, before: set[str]) -> ModuleType:
    """The submodule below a stand-in for the package; `sys.modules` holds nothing of the package afterwards."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(f"no module named '{PACKAGE}'")
    stand_in = ModuleType(PACKAGE)
    stand_in.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[PACKAGE] = stand_in
    try:
        return importlib.import_module(f"{PACKAGE}.{name}")
    finally:
        _forget(before)


def _forget(before: set[str]) -> None:
    """Take out what was imported of the package since then."""
    for name in set(sys.modules) - before:
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            del sys.modules[name]


def _missing(reason: str) -> str:
    return (
        f"extracting lines needs the package controlnet_aux, which cannot be imported here ({reason}): "
        "`pip install --no-deps controlnet-aux==0.0.10` and `pip install einops importlib_metadata huggingface_hub "
        "opencv-python-headless` (if there is no cv2 yet) into the Python that runs this"
    )
