"""The embedded model: every network of a case, shipped beside this file, pinned by `hashes.json`, nothing to
download."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from identiface_core.errors import WeightsError
from identiface_core.weights.files import load_module, sha256_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from identiface_core.diffusion.generator import FaceGenerator
    from identiface_core.evidence.encoder import EvidenceEncoder
    from identiface_core.evidence.words import TextEncoder
    from identiface_core.faces.finder import FaceFinder
    from identiface_core.faces.reader import AttributeReader
    from identiface_core.faces.segmenter import PartSegmenter
    from identiface_core.gallery.store import Gallery
    from identiface_core.matchers.base import EmbeddedMatcher
    from identiface_core.matchers.calibration import Calibration
    from identiface_core.matchers.latent import LatentCritic

    ModuleT = TypeVar("ModuleT", bound=nn.Module)

FOLDER = Path(__file__).resolve().parent
HASHES = "hashes.json"
GALLERY = "gallery.safetensors"
CALIBRATIONS = "calibrations.safetensors"
FILES: Mapping[str, str] = {
    "autoencoder": "autoencoder.safetensors",
    "control": "control.safetensors",
    "text encoder": "text_encoder.safetensors",
    "evidence encoder": "evidence_encoder.safetensors",
    "matcher A": "matcher_a.safetensors",
    "matcher B": "matcher_b.safetensors",
    "segmenter": "segmenter.safetensors",
    "finder": "finder.safetensors",
    "reader": "reader.safetensors",
    "critic": "critic.safetensors",
    "calibrations": CALIBRATIONS,
}
"""Role -> file of every network kept as one file; the transformer is a folder in diffusers format."""
TRANSFORMER = "transformer"
MATCHER_A, MATCHER_B = "embedded-a", "embedded-b"
"""Names of the two matchers: A guides and searches, B judges."""


@dataclass(frozen=True)
class EmbeddedModel:
    """Everything a case needs, in eval mode on one device."""

    generator: FaceGenerator
    text_encoder: TextEncoder
    evidence_encoder: EvidenceEncoder
    matcher_a: EmbeddedMatcher
    """Searches; the evidence encoder answers in its space."""
    matcher_b: EmbeddedMatcher
    """Judges only: trained apart from A, so that a face that merely pleases A is noticed."""
    segmenter: PartSegmenter
    finder: FaceFinder
    reader: AttributeReader
    """Reads off a face what words would say of it."""
    hashes: Mapping[str, str]
    """File -> sha256 of everything that was loaded."""
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    """Impostor tables of matcher A by query: "portrait", "evidence", "generated"."""
    critic: LatentCritic | None = None
    """Reads latents, in matcher A's space: guides sampling, never judges. None in a model whose latents nobody reads."""


def load_embedded(device: str | torch.device = "cpu", folder: str | Path = FOLDER) -> EmbeddedModel:
    """Load the shipped networks onto `device`.

    Every file is checked against `hashes.json` before it is used. Raises `WeightsError` naming the file that
    is missing, truncated or changed, and what to do.
    """
    from identiface_core.diffusion.autoencoder import Autoencoder
    from identiface_core.diffusion.control import ControlBranch
    from identiface_core.diffusion.generator import FaceGenerator
    from identiface_core.diffusion.transformer import load_transformer
    from identiface_core.evidence.encoder import EvidenceEncoder
    from identiface_core.evidence.words import TextEncoder
    from identiface_core.faces.finder import FaceFinder
    from identiface_core.faces.reader import AttributeReader
    from identiface_core.faces.segmenter import PartSegmenter
    from identiface_core.matchers.base import EmbeddedMatcher
    from identiface_core.matchers.calibration import load_calibrations
    from identiface_core.matchers.latent import LatentCritic
    from identiface_core.matchers.network import FaceNet

    folder = Path(folder)
    hashes = check_files(folder)

    def network(role: str, cls: type[ModuleT]) -> ModuleT:
        return load_module(folder / FILES[role], cls).to(device)

    text_encoder = network("text encoder", TextEncoder)
    generator = FaceGenerator(
        load_transformer(folder / TRANSFORMER).to(device),
        network("control", ControlBranch),
        network("autoencoder", Autoencoder),
        text_encoder,
    )
    return EmbeddedModel(
        generator=generator,
        text_encoder=text_encoder,
        evidence_encoder=network("evidence encoder", EvidenceEncoder),
        matcher_a=EmbeddedMatcher(network("matcher A", FaceNet), MATCHER_A),
        matcher_b=EmbeddedMatcher(network("matcher B", FaceNet), MATCHER_B),
        segmenter=network("segmenter", PartSegmenter),
        finder=network("finder", FaceFinder),
        reader=network("reader", AttributeReader),
        hashes=hashes,
        calibrations=load_calibrations(folder / CALIBRATIONS),
        critic=network("critic", LatentCritic).eval().requires_grad_(False),
    )


def load_demo_gallery(folder: str | Path = FOLDER) -> Gallery:
    """The shipped gallery of synthetic people. Raises `WeightsError` for a changed file, `GalleryError` for a
    broken one."""
    from identiface_core.gallery.store import Gallery

    folder = Path(folder)
    _check(folder, GALLERY, _pins(folder))
    return Gallery.load(folder / GALLERY)


def check_files(folder: str | Path = FOLDER) -> dict[str, str]:
    """Check every pinned file but the gallery; file -> sha256, in the order of names."""
    folder = Path(folder)
    pins = _pins(folder)
    needed = [*FILES.values(), *(name for name in pins if name.startswith(TRANSFORMER + "/"))]
    return {name: _check(folder, name, pins) for name in sorted(needed)}


def write_hashes(folder: str | Path = FOLDER) -> dict[str, str]:
    """Pin every weight file of `folder` in its `hashes.json`: the last step of training. Gives file ->
    sha256."""
    from identiface_core.weights.files import write_atomic

    folder = Path(folder)
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".json") and p.name != HASHES)
    pins = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    write_atomic(folder / HASHES, (json.dumps(pins, indent=1) + "\n").encode())
    return pins


_REMEDY = "reinstall IdentiFace, or make the weights anew with `identiface train embedded`"


def _pins(folder: Path) -> dict[str, str]:
    path = folder / HASHES
    try:
        pins = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error}): {_REMEDY}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: damaged ({error}): {_REMEDY}") from error
    if not isinstance(pins, dict) or not all(isinstance(v, str) for v in pins.values()):
        raise WeightsError(f"{path}: must map files to sha256 digests: {_REMEDY}")
    return pins


def _check(folder: Path, name: str, pins: Mapping[str, str]) -> str:
    path = folder / name
    if name not in pins:
        raise WeightsError(f"{path}: not pinned in {HASHES}: {_REMEDY}")
    if not path.is_file():
        raise WeightsError(f"{path}: missing: {_REMEDY}")
    found = sha256_of(path)
    if found != pins[name]:
        raise WeightsError(
            f"{path}: damaged or changed: its sha256 is {found[:12]}..., {HASHES} has {pins[name][:12]}... "
            f"({path.stat().st_size:,} bytes): {_REMEDY}"
        )
    return found
