"""What a weight file is, by its content: `recognise` says it, `expected` raises where it is something else.

Only names and shapes are read, never a tensor, and the file's own name counts for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from identiface_core.errors import WeightsError
from identiface_core.weights.families import RULES, Fact, Recognised
from identiface_core.weights.files import read_header
from identiface_core.weights.foreign import Tensors, format_of, open_tensors
from identiface_core.weights.onnx_families import ONNX_RULES
from identiface_core.weights.onnx_graph import read_graph
from identiface_core.weights.released import CONTROL, OFFICIAL

STABLE_CONTROL = "stable-control"
"""Kind of a control that `identiface train control` writes."""

KINDS: Mapping[str, str] = {
    CONTROL: "an IdentiFace control",
    STABLE_CONTROL: "an IdentiFace control for Stable Diffusion",
    OFFICIAL: "the released IdentiFace checkpoint",
    "pixart": "a PixArt transformer",
    "pixart-controlnet": "a PixArt ControlNet",
    "sd15-checkpoint": "a Stable Diffusion 1.5 checkpoint",
    "sd2-checkpoint": "a Stable Diffusion 2 checkpoint",
    "sdxl-checkpoint": "an SDXL checkpoint",
    "sd15-unet": "a Stable Diffusion 1.5 U-Net",
    "sd2-unet": "a Stable Diffusion 2 U-Net",
    "sdxl-unet": "an SDXL U-Net",
    "sd15-controlnet": "a Stable Diffusion 1.5 ControlNet",
    "sd2-controlnet": "a Stable Diffusion 2 ControlNet",
    "sdxl-controlnet": "an SDXL ControlNet",
    "vae": "an autoencoder (VAE)",
    "taesd": "a tiny autoencoder (TAESD)",
    "t5-encoder": "a T5 text encoder",
    "clip-text": "a CLIP text encoder",
    "lora": "a LoRA",
    "arcface": "a face matcher (ArcFace, AdaFace)",
    "edgeface": "a face matcher (EdgeFace)",
    "matcher-onnx": "a face matcher (ONNX)",
    "face-detector": "a face detector (SCRFD or YuNet, ONNX)",
    "face-parsing": "a face parsing network (ONNX)",
    "face-landmarks": "a network for points of a face (ONNX)",
    "onnx": "an ONNX graph",
    "unknown": "a file of tensors that IdentiFace does not know",
}
"""Kinds that can be asked for, and what a sentence calls them. SDXL's refiner has kinds of its own, and so have files that
IdentiFace wrote: the kind in their header."""

_IMPORTED = (OFFICIAL, "pixart-controlnet")
"""What `identiface weights import` makes a control of."""


def recognise(path: str | Path) -> Recognised:
    """What the weight file at `path` is; kind "unknown" for tensors that no rule knows.

    WeightsError for a file that is missing, truncated, damaged, a web page or a git-lfs pointer, or of no format that we
    open (safetensors, PyTorch's archives, ONNX).
    """
    path = Path(path)
    if format_of(path) == "onnx":
        return _graph(path)
    tensors = open_tensors(path, pickles=True)
    if tensors.notes.get("format") == "identiface":
        return _ours(path)
    shapes = unwrapped(tensors).shapes
    for rule in RULES:
        found = rule(shapes)
        if found is not None:
            return found
    names = ", ".join(f"'{name}'" for name in list(tensors)[:2])
    return Recognised(
        "unknown",
        f"{KINDS['unknown']} ({len(tensors)} tensors, such as {names})"
        if names
        else "a file without tensors",
        {"tensors": len(tensors)},
    )


def expected(
    path: str | Path, wanted: str | Collection[str], purpose: str, titled: str | None = None
) -> Recognised:
    """What the file at `path` is, if it is of a kind that is wanted. WeightsError says what came instead.

    wanted: one of `KINDS`, or several. purpose: what needs it, as the beginning of a sentence: "Apply Control".
    titled: what the kinds are called together.
    """
    found = recognise(path)
    kinds = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    if found.kind in kinds:
        return found
    titles = titled or " or ".join(KINDS.get(kind, f"an IdentiFace file of kind '{kind}'") for kind in kinds)
    advice = "Choose another file; `identiface weights list` says where to get what."
    if CONTROL in kinds and found.kind in _IMPORTED:
        advice = f"Convert it once: `identiface weights import {OFFICIAL} {Path(path).name} --out FILE`."
    elif CONTROL in kinds and found.kind.endswith("-controlnet"):
        advice = "The stock node Load ControlNet Model takes it; ours takes what IdentiFace wrote."
    raise WeightsError(f"{path}: {purpose} needs {titles}; this is {found.title}. {advice}")


def unwrapped(tensors: Tensors) -> Tensors:
    """Without the "module." that training on several devices puts before all names. Files are recognised by these names."""
    wrapped = bool(len(tensors)) and all(name.startswith("module.") for name in tensors)
    return tensors.below("module.") if wrapped else tensors


def _graph(path: Path) -> Recognised:
    graph = read_graph(path)
    for rule in ONNX_RULES:
        found = rule(graph)
        if found is not None:
            return found
    return Recognised("onnx", KINDS["onnx"], {})


def _ours(path: Path) -> Recognised:
    header = read_header(path)
    facts: dict[str, Fact] = {
        name: value for name, value in header.config.items() if isinstance(value, str | int | bool)
    }
    origin: Any = header.extra.get("origin")
    if isinstance(origin, str):
        facts["origin"] = origin
    title = KINDS.get(header.kind, f"an IdentiFace file of kind '{header.kind}'")
    if header.kind == CONTROL and origin == OFFICIAL:
        title = "an IdentiFace control converted from the released checkpoint"
    return Recognised(header.kind, title, facts)
