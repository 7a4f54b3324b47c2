"""A matcher from a file, whatever it is called: what it is, its content tells."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from identiface_core.catalogue.manifest import read_manifest
from identiface_core.catalogue.places import own_folder
from identiface_core.catalogue.records import Lock
from identiface_core.errors import InputError, WeightsError
from identiface_core.matchers import edgeface, residual
from identiface_core.matchers.aligned import ASK, AlignedMatcher
from identiface_core.matchers.base import Colour, EmbeddedMatcher, Matcher
from identiface_core.matchers.network import FaceNet
from identiface_core.matchers.onnx_matcher import OnnxMatcher
from identiface_core.weights.families import Recognised
from identiface_core.weights.files import load_module, sha256_of
from identiface_core.weights.foreign import Tensors, format_of, open_tensors
from identiface_core.weights.layout import AGAIN, in_short, misfits
from identiface_core.weights.recognise import expected, unwrapped

KINDS = ("arcface", "edgeface", "matcher-onnx", "onnx", FaceNet.kind)
"""Kinds of files that make a matcher."""
PURPOSE = "Load Matcher"
WANTED = "a face matcher (ONNX, or safetensors of AdaFace, IResNet or EdgeFace)"
OTHER = (
    "It is damaged, or of another make under the same names, as face.evoLVe's: get it again, or export that network to ONNX, "
    "which is run as it is."
)


def load_matcher(
    path: str | Path,
    *,
    colour: Colour | None = None,
    scale: str | None = None,
    runtime: bool = True,
    purpose: str = PURPOSE,
) -> Matcher:
    """The matcher in the file at `path`, or in the InsightFace pack that the folder is, or that has this name.

    colour: order of channels that the network reads, where the usual one of such files is wrong. scale: range of values that an
    ONNX graph reads, one of `onnx_input.SCALES`, where what its nodes tell is wrong. runtime: see `OnnxMatcher`.
    purpose: what needs it, as the beginning of a sentence.
    WeightsError for a file that is missing, damaged, or something else, saying what it is; InputError for a scale that cannot be.
    """
    # Nodes run in inference mode; what is made there could never take part in a gradient.
    with torch.inference_mode(False):
        return _load(Path(path), colour, scale, runtime, purpose)


def _load(path: Path, colour: Colour | None, scale: str | None, runtime: bool, purpose: str) -> Matcher:
    known = {entry.name for entry in read_manifest()}
    pack = len(path.parts) == 1 and not path.suffix and not path.exists() and path.name not in known
    if path.is_dir() or pack:
        from identiface_core.matchers.insightface_pack import insightface_matcher

        return insightface_matcher(path, colour=colour, scale=scale, runtime=runtime)
    if not path.exists():
        raise WeightsError(
            f"{path}: no such file or folder. Give an existing path; `identiface weights list` says what there is, "
            "`identiface weights get NAME` brings it."
        )
    if format_of(path) == "torch":
        raise WeightsError(
            f"{path}: a PyTorch checkpoint (pickle), which is not opened. Get the same weights as safetensors or "
            "ONNX: `identiface weights list` says where."
        )
    found = expected(path, KINDS, purpose, WANTED)
    digest = sha256_of(path)
    if found.kind in ("matcher-onnx", "onnx"):
        return OnnxMatcher(path, colour=colour, scale=scale, licence=licence_of(digest), runtime=runtime)
    if scale is not None:
        raise InputError(
            f"{path}: scale {scale!r} is for ONNX graphs; this is {found.title}, whose range of values is known: leave it on "
            "automatic"
        )
    if found.kind == FaceNet.kind:
        return EmbeddedMatcher(load_module(path, FaceNet), f"{FaceNet.kind}-{digest[:8]}")
    build = {"arcface": _residual, "edgeface": _edgeface}[found.kind]
    tensors = unwrapped(open_tensors(path))
    net, name, config = build(tensors, found)
    read: Colour = colour or ("bgr" if found.facts["colour"] == "bgr" else "rgb")
    told = "" if colour in (None, found.facts["colour"]) else f"-{colour}"
    return AlignedMatcher(
        net,
        name=f"{name}-{digest[:8]}{told}",
        dimension=config["dimension"],
        fingerprint=digest if not told else hashlib.sha256((digest + told).encode()).hexdigest(),
        side=config.get("side", 112),
        colour=read,
        licence=licence_of(digest),
        typical=getattr(net, "typical", None),
    )


def licence_of(sha256: str) -> str:
    """Terms of the weights with that hash, as the manifest of weights has them; a sentence that says so if it does not.

    The hash of a file that no publisher states is known from its first download by `identiface weights get`.
    """
    lock = Lock(own_folder() / "lock.json")
    for entry in read_manifest():
        known = entry.pinned or _locked(lock, entry.name)
        if known == sha256:
            return f"{entry.weights_licence} ({entry.title}). Commercial use: {entry.commercial_use}. {entry.note}"
    return ASK


def _locked(lock: Lock, name: str) -> str | None:
    try:
        found = lock.get(name)
    except WeightsError:
        return None  # a damaged lock is no reason not to load a matcher
    return found.sha256 if found else None


Built = tuple[nn.Module, str, dict[str, Any]]
"""A network, what it is called, and its constructor's arguments."""


def _residual(tensors: Tensors, found: Recognised) -> Built:
    bare = tensors.below(str(found.facts["prefix"]))
    insight = found.facts["names"] == "insightface"
    renamed = residual.insightface_names(bare.shapes) if insight else {name: name for name in bare}
    net = _filled(residual.ResidualFaceNet, residual.config_of, bare, renamed, tensors.name)
    return net, f"{'iresnet' if insight else 'adaface-ir'}{residual.depth_of(net.config)}", net.config


def _edgeface(tensors: Tensors, found: Recognised) -> Built:
    bare = tensors.below(str(found.facts["prefix"]))
    net = _filled(edgeface.EdgeFace, edgeface.config_of, bare, {name: name for name in bare}, tensors.name)
    return net, f"edgeface-{net.config['widths'][-1]}", net.config


def _filled(
    cls: Callable[..., Any],
    config_of: Callable[[Mapping[str, tuple[int, ...]]], dict[str, Any]],
    tensors: Tensors,
    renamed: Mapping[str, str],
    path: str,
) -> Any:
    """The network of class `cls` with these tensors under their new names. Tensors of other parts, such as the classes of the
    training, are left out."""
    shapes = {new: tensors.shapes[old] for old, new in renamed.items()}
    try:
        with torch.device("meta"):
            net: nn.Module = cls(**config_of(shapes))
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError, ArithmeticError) as error:
        raise WeightsError(
            f"{path}: names and shapes are nearly those of a known matcher, but make none ({type(error).__name__}: {error}). "
            f"{OTHER}"
        ) from error
    wanted = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    parts = {name.split(".")[0] for name in wanted}
    own = {name: shape for name, shape in shapes.items() if name.split(".")[0] in parts}
    # Files without the counters of batches, which nothing reads, are as good.
    counters = {name for name in wanted if name.endswith("num_batches_tracked") and name not in own}
    faults = misfits({name: shape for name, shape in wanted.items() if name not in counters}, own)
    if faults:
        raise WeightsError(f"{path}: does not fit {type(net).__name__}: {in_short(faults)}. {OTHER}")
    state: dict[str, Tensor] = {name: torch.zeros((), dtype=torch.int64) for name in counters}
    for old, new in renamed.items():
        if new in own:
            tensor = tensors[old]
            state[new] = tensor.float() if tensor.is_floating_point() else tensor
            if not bool(torch.isfinite(state[new]).all()):
                raise WeightsError(f"{path}: tensor '{old}' holds values that are not finite. {AGAIN}")
    net.load_state_dict(state, assign=True)
    return net.eval()
