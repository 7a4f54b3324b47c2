"""Generators that were trained with one thing different (`training.ablations`), as worlds for the systems under test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from identiface_core.diffusion.control import ControlBranch
from identiface_core.diffusion.generator import FaceGenerator
from identiface_core.diffusion.transformer import load_transformer
from identiface_core.embedded import FILES, TRANSFORMER
from identiface_core.errors import InputError
from identiface_core.weights.files import load_module

from .studio import World

PREFIX = "ablation-"
"""How the runs of these trainings are called in the folder `runs` of a training."""
REFERENCE = "fused"
VARIANTS: Mapping[str, str] = {
    REFERENCE: "frequency fusion, no loss but the velocity error",
    "summed": "the two latents added up instead of fused, a switch of the published code",
    "published": "with the identity loss as published",
    "opened": "with the identity loss as published, but a gate for each sample, so that it acts",
    "decoded": "with the identity loss put right, on decoded faces",
    "latent": "with the identity loss put right, read off latents by the critic",
    "said": "with the words' loss",
}
"""What is different, by name; the others are held against `REFERENCE`. See `training.identity.identity_term`
for the identity losses."""
SYSTEMS = ("lq_sketch", "one_shot", "consensus_4")
"""What is asked of each."""
PROBES = 100
"""At most so many people are asked about."""
WORDS = 20
"""Faces on which the words of each are tried."""


@dataclass(frozen=True)
class Training:
    """One training's networks."""

    name: str
    folder: Path
    """Holds the networks as they would ship."""
    digest: str
    """Of the control branch's file: the start of its sha256."""

    @property
    def key(self) -> str:
        """Which weights these are, for a journal."""
        return f"{self.name}@{self.digest}"


def trainings_in(folder: Path) -> tuple[Training, ...]:
    """The trainings for comparison in a folder of `identiface train embedded`, in the order of `VARIANTS`.

    Raises `InputError` if there is none, or not the one that all are held against.
    """
    found = []
    for name in VARIANTS:
        half = folder / "runs" / f"{PREFIX}{name}" / "half"
        control = half / FILES["control"]
        if control.exists() and (half / TRANSFORMER).exists():
            digest = hashlib.sha256(control.read_bytes()).hexdigest()[:12]
            found.append(Training(name, half, digest))
    if not any(one.name == REFERENCE for one in found):
        raise InputError(
            f"there is no finished training '{PREFIX}{REFERENCE}' in {folder / 'runs'}, against which the others are held: "
            f"run `identiface train embedded --stage {PREFIX}{REFERENCE} --folder {folder}`, and the same for "
            f"{', '.join(PREFIX + name for name in VARIANTS if name != REFERENCE)}"
        )
    return tuple(found)


def world_of(training: Training, world: World) -> World:
    """The world in which that training's generator draws."""
    shipped = world.model.generator
    generator = FaceGenerator(
        load_transformer(training.folder / TRANSFORMER).to(shipped.device),
        load_module(training.folder / FILES["control"], ControlBranch).to(shipped.device),
        shipped.autoencoder,
        shipped.text_encoder,
    )
    return replace(world, model=replace(world.model, generator=generator))
