"""What leads whole faces to where the evidence points, and what that did, by a judge that never guides.

The judge needs a target in its own space, and nobody has the truth. So it is asked about the people whom the evidence query
finds most alike in the gallery, fused as that matcher sees them, for the guided faces and for the same seeds without guidance.
`identiface bench guidance` tells how well that stands for the true person.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from identiface_core.diffusion.guidance.base import Guide
from identiface_core.diffusion.guidance.check import Check
from identiface_core.diffusion.guidance.latent import OPTIONS, latent_guide
from identiface_core.diffusion.guidance.targets import Towards, consensus_of_top
from identiface_core.errors import InputError

from .case import rounded
from .case_input import Settings

if TYPE_CHECKING:
    from identiface_core.gallery import Gallery
    from identiface_core.matchers.latent import LatentCritic

PEOPLE = 20
"""People of the gallery who stand for the one sought."""


def lead(settings: Settings, query: Tensor | None, critic: LatentCritic | None) -> Guide | None:
    """The guide of a case to its evidence query (D,), or None where none is wanted. Raises `InputError` where none can be."""
    if not settings.identity_guidance:
        return None
    if critic is None:
        raise InputError(
            "run.identity_guidance must be 0 here: no network reads this generator's latents. In ComfyUI, put Identity "
            "Guidance (decoded) before the MODEL instead"
        )
    if query is None:
        raise InputError(
            "run.identity_guidance must be 0 here: of this evidence the toolkit makes no query that faces could be led to"
        )
    return latent_guide(
        critic, Towards(query), replace(OPTIONS.over(settings.steps), scale=settings.identity_guidance)
    )


def judge_target(
    gallery: Gallery,
    guiding: str,
    judging: str,
    query: Tensor,
    exclude: Collection[str] = (),
    people: int = PEOPLE,
) -> Tensor | None:
    """(D',) whom the query (D,) of the guiding matcher means to the judging one, both by name: so many people of the gallery but
    those left out, fused; None for a gallery that has no more."""
    rows = [row for row, person in enumerate(gallery.people) if person not in exclude]
    if len(rows) <= people:
        return None
    return consensus_of_top(gallery.templates[guiding][rows], query, people, gallery.templates[judging][rows])


def checked(guided: Sequence[Tensor], unguided: Sequence[Tensor], query: Tensor, judged: Tensor) -> Check:
    """Of embeddings by both matchers, (S, D) and (S, D'), of guided faces and of the same seeds without guidance."""
    cosines = (
        rounded(float((rows @ to).mean()))
        for pair in (guided, unguided)
        for rows, to in zip(pair, (query, judged), strict=True)
    )
    return Check(*cosines)
