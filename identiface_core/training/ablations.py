"""Trainings for comparison: the same start, the same batches, the same number of steps, one thing different.

Every variant starts from the trained transformer with a fresh control branch, so that none has a lead. "fused" is the
branch as published, without an identity loss; "summed" adds the two pictures' latents up instead of fusing their
frequencies, as a switch in the published code does; "published" and "ours" add an identity loss to "fused", in the form
of the published code and in ours (see `losses`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from identiface_core.diffusion.transformer import make_transformer
from identiface_core.training.loop import load_trained
from identiface_core.training.losses import IdentityLoss

if TYPE_CHECKING:
    from identiface_core.training.embedded import Workshop
    from identiface_core.training.generator import GeneratorStage

STEPS = 600
LR = 6e-4


def ablation_stage(shop: Workshop, name: str) -> GeneratorStage:
    """The stage of one variant: "fused", "summed", "published" or "ours". The generator must be trained."""
    from identiface_core.training.embedded import generator_stage

    # On every step and from the start, for the runs are short.
    rules = {
        form: IdentityLoss(every=1, warmup=0, ramp=100, published=form == "published")
        for form in ("published", "ours")
    }
    base = make_transformer()
    trained = generator_stage(shop, base, None)
    load_trained(trained.modules, shop.run("generator"))
    stage = generator_stage(shop, base, rules.get(name), fused=name != "summed", steps=STEPS)
    stage.name, stage.lr, stage.validate_every = f"ablation-{name}", LR, STEPS
    return stage
