"""Trainings for comparison: the same start, the same batches, the same number of steps, one thing different.

Every variant starts from the trained transformer, as it ships, with a fresh control branch, so that none has a lead.

- "fused": the branch as published, with no loss but the velocity error;
- "summed": the two pictures' latents are added up instead of fusing their frequencies, a switch of the published code;
- "published", "decoded", "latent": "fused" with the identity loss in that form (see `identity.identity_term`);
- "said": "fused" with the words' loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from identiface_core.diffusion.transformer import load_transformer
from identiface_core.embedded import TRANSFORMER

if TYPE_CHECKING:
    from identiface_core.training.embedded import Workshop
    from identiface_core.training.generator import GeneratorStage

STEPS = 600
LR = 6e-4


def ablation_stage(shop: Workshop, name: str) -> GeneratorStage:
    """The stage of one variant. The generator must be trained."""
    from identiface_core.training.embedded import generator_stage

    stage = generator_stage(
        shop,
        load_transformer(shop.run("generator") / "half" / TRANSFORMER),
        identity=name if name in ("published", "decoded", "latent") else "none",
        said=name == "said",
        fused=name != "summed",
        steps=STEPS,
    )
    stage.name, stage.lr, stage.validate_every = f"ablation-{name}", LR, STEPS
    return stage
