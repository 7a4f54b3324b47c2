"""People whom guidance is tried on: evidence of theirs, where it points, and another picture of them for the judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from identiface_core.embedded import load_demo_gallery
from identiface_core.rounds.led import judge_target

from ..probes import GALLERY_PEOPLE, GALLERY_PICTURE, draw_probes, pictures
from ..studio import World, estimate
from ..systems import portrait_of_or_whole

if TYPE_CHECKING:
    from identiface_core.embedded import EmbeddedModel
    from identiface_core.evidence.values import Evidence

VALIDATION = 202
"""Seed of the people of the validation world (`training.data.SPLITS`). Scales are chosen on them; figures are of
`GALLERY_PEOPLE`. Nobody of either is in any training.
"""
LEVEL = "middle"


@dataclass(frozen=True)
class Person:
    """One person as the benchmark meets them."""

    number: int
    evidence: Evidence
    prompt: str
    estimate: Tensor
    """(D,) where the evidence points in matcher A's space: the target. The truth never is."""
    judged_a: Tensor
    """(D,) matcher A on a picture that the evidence was not made from."""
    judged_b: Tensor
    """(D',) matcher B on the same."""
    asked_b: Tensor
    """(D',) whom a case would ask matcher B about (`rounds.led`), without this person."""
    portrait: Tensor
    """(3, 128, 128): the true canonical portrait, to compare crowds of pictures with."""


def people(model: EmbeddedModel, first: int, count: int, group: int = GALLERY_PEOPLE) -> list[Person]:
    """People first .. first + count - 1 of a group, with the evidence of the middle witness."""
    probes = draw_probes(count, LEVEL, first=first, group=group)
    shown = pictures(group, first, count, GALLERY_PICTURE)
    gallery = load_demo_gallery()
    world, names = World(model, gallery), (model.matcher_a.name, model.matcher_b.name)
    aligned = torch.stack([portrait_of_or_whole(one, world) for one in shown])
    with torch.no_grad():
        a, b = (m.embed(aligned).float().cpu() for m in (model.matcher_a, model.matcher_b))
    found = []
    for i in range(count):
        towards = estimate(model, probes.evidence(i))
        themselves = gallery.people[first + i : first + i + 1] if group == GALLERY_PEOPLE else ()
        asked = judge_target(gallery, *names, towards, themselves)
        assert asked is not None, "the shipped gallery is large"
        prompt = probes.words[i].full_prompt()
        found.append(
            Person(first + i, probes.evidence(i), prompt, towards, a[i], b[i], asked, probes.truth[i])
        )
    return found
