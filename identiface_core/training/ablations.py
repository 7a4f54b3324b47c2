"""Trainings for comparison: the same start, the same batches, the same number of steps, one thing different.

What is different is listed in `evaluation.trainings.VARIANTS`. Every variant
starts from the trained transformer, as it ships, with a fresh control branch, so that none has a lead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from identiface_core.diffusion.transformer import load_transformer
from identiface_core.embedded import TRANSFORMER
from identiface_core.evaluation.trainings import PREFIX

if TYPE_CHECKING:
    from identiface_core.training.embedded import Workshop
    from identiface_core.training.generator import GeneratorStage

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
