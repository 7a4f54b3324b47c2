"""Trainings for comparison: the same start, the same batches, the same number of steps, one thing different.

Every variant starts from the trained transformer, as it ships, with a fresh control branch, so that none has a lead.
`identiface evaluate --trainings FOLDER` measures them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from identiface_core.diffusion.transformer import load_transformer
from identiface_core.embedded import TRANSFORMER

if TYPE_CHECKING:
    from identiface_core.training.embedded import Workshop
    from identiface_core.training.generator import GeneratorStage

PREFIX = "ablation-"
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
"""What is different, by name; the others are held against `REFERENCE`. See `identity.identity_term` for the identity losses."""
STEPS = 600
LR = 6e-4
RAMP = 100
"""Steps until the identity loss has its full weight."""


def ablation_stage(shop: Workshop, name: str) -> GeneratorStage:
    """The stage of one variant. The generator must be trained."""
    from identiface_core.training.embedded import generator_stage

    stage = generator_stage(
        shop,
        load_transformer(shop.run("generator") / "half" / TRANSFORMER),
        identity=name if name in ("published", "opened", "decoded", "latent") else "none",
        ramp=RAMP,
        said=name == "said",
        fused=name != "summed",
        steps=STEPS,
    )
    stage.name, stage.lr, stage.validate_every = f"{PREFIX}{name}", LR, STEPS
    return stage
