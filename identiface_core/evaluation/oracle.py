"""The published iteration (IdentiFace, arXiv 2605.00526, released code), which has the true photo at hand.

It is here so that its figures can be set beside honest ones, and nowhere else. As published: a whole face, then the parts in
order; a round is accepted if its similarity to the TRUE photo did not drop against the round before; it stops once both
matchers have had the TRUE person at rank 1; the round with a match and the highest similarity is reported. Two things are
more generous here: every round draws several faces and takes the one nearest to the true photo, and a part that is not
visible is skipped. One is less: the mask comes from the generated face alone, not from the true photo as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from identiface_core.diffusion.generator import Sample
from identiface_core.rounds.engine import SEED_STRIDE
from identiface_core.rounds.masks import RoundMask, round_mask
from identiface_core.rounds.plan import plan_rounds

from .studio import Studio, draw_faces
from .values import KINDS, Truth


@dataclass(frozen=True)
class End:
    """What the loop reports."""

    query: Tensor
    """(D,) embedding of the reported face."""
    face: Tensor
    """(3, 128, 128)."""
    rounds: int


@torch.no_grad()
def published_loop(studio: Studio, truth: Truth, photo: Tensor) -> End:
    """Run the loop; photo: (3, 128, 128) the true photo, aligned. The faces are not conditioned on the evidence query."""
    world, settings = studio.world, studio.settings
    model, words = world.model, studio.evidence.description
    target = model.matcher_a.embed(photo[None])[0]
    standing: Sample | None = None
    before, drawn = -1.0, 0
    found: dict[str, bool] = {model.matcher_a.name: False, model.matcher_b.name: False}
    best: tuple[bool, float, Tensor, Tensor] | None = None
    for order, planned in enumerate(plan_rounds(words, limit=settings.rounds)):
        where = RoundMask(None, "whole face")
        if standing is not None:
            said = {} if words is None else model.text_encoder.understood(words.segment_text(planned.part))
            where = round_mask(standing.images[0], planned.part, said, model.segmenter)
            if where.mask is None:
                continue
        first = settings.seed + SEED_STRIDE * order
        made = draw_faces(
            model,
            studio.evidence,
            KINDS,
            range(first, first + settings.seeds),
            prompt=planned.prompt,
            settings=settings,
            known=standing,
            mask=where.mask,
        )
        drawn += 1
        vectors = model.matcher_a.embed(made.images)
        near = vectors @ target
        chosen = int(near.argmax())
        similarity, face = float(near[chosen]), made.images[chosen]
        ranks = {
            matcher.name: _rank(
                matcher.embed(face[None])[0], world.gallery.templates[matcher.name], truth.row
            )
            for matcher in (model.matcher_a, model.matcher_b)
        }
        match = 1 in ranks.values()
        if best is None or (match, similarity) > best[:2]:
            best = match, similarity, vectors[chosen], face
        if standing is None or similarity >= before:
            standing = Sample(face[None], made.latents[chosen : chosen + 1])
        before = similarity  # of the round before, also of a rejected one, as released
        found = {name: was or ranks[name] == 1 for name, was in found.items()}
        if all(found.values()):
            break
    assert best is not None, "every plan begins with a whole face"
    return End(best[2].float().cpu(), best[3], drawn)


def _rank(vector: Tensor, templates: Tensor, row: int) -> int:
    scores = templates @ vector.float().cpu()
    return int((scores >= scores[row]).sum())
