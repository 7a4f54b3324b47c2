"""Probes: people unseen in any training, with the evidence a witness would give of them.

The only place, with training, where the truth is known. What a system under test gets of a probe is its evidence alone; the
truth stays here, for scoring.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from identiface_core.evidence.description import Description
from identiface_core.evidence.values import Evidence
from identiface_core.synthesis import witness
from identiface_core.synthesis.attributes import attribute_values
from identiface_core.synthesis.identity import (
    canonical_nuisance,
    look_alikes,
    sample_identities,
    sample_nuisance,
)
from identiface_core.synthesis.portrait import render

from .values import KINDS, Probe, Truth

GALLERY_PEOPLE = 404
"""Seed of the people of the shipped gallery; nobody of them is in any training."""
STRANGERS = 707
"""Seed of people who are in no gallery: probes without a mate."""
LOOK_ALIKES = 808
"""Seed of the people of the look-alike gallery; the look-alikes of the training world have another."""
GALLERY_PICTURE, EVIDENCE_PICTURE = 404, 4049
"""Seeds of the views: the gallery's picture of a person, and the other one that the evidence was made from."""
CHUNK = 10
FAULTLESS = "careful"
"""The witness of `synthesis.witness.LEVELS` who says everything, and nothing wrong."""


def people_of(group: int, first: int, count: int) -> Tensor:
    """(count, P) identity parameters of people first .. first + count - 1 of a group, named by its seed."""
    people = sample_identities(first + count, group)
    return (look_alikes(people) if group == LOOK_ALIKES else people)[first:]


def pictures(group: int, first: int, count: int, view_seed: int | None) -> Tensor:
    """One picture each of people first .. first + count - 1 of a group: (count, 3, 128, 128) in [0, 1].

    view_seed: seed of the views (person k always has view k), or None for the canonical portrait.
    """
    people = people_of(group, first, count)
    views = (
        canonical_nuisance(count) if view_seed is None else sample_nuisance(first + count, view_seed)[first:]
    )
    pieces = zip(people.split(CHUNK), views.split(CHUNK), strict=True)
    return torch.cat([render(a, b).image for a, b in pieces])


@dataclass(frozen=True)
class Probes:
    """Evidence of N people, and behind it the truth."""

    lq: Tensor
    """(N, 3, s, s): tiny photos of a view that is in no gallery."""
    sketches: Tensor
    """(N, 1, 128, 128)."""
    words: tuple[Description, ...]
    values: Tensor
    """(N, SLOTS) true attribute values."""
    truth: Tensor
    """(N, 3, 128, 128): canonical portraits."""
    rows: Tensor
    """(N,) row of each person in the gallery, or -1."""
    photos: Tensor
    """(N, 3, 128, 128): the pictures that the LQ photos were made from."""
    right_words: tuple[Description, ...]
    """Complete and correct descriptions."""

    def __len__(self) -> int:
        return len(self.lq)

    def first(self, count: int) -> Probes:
        """The first `count` of these."""
        return Probes(
            self.lq[:count], self.sketches[:count], self.words[:count], self.values[:count], self.truth[:count],
            self.rows[:count], self.photos[:count], self.right_words[:count],
        )  # fmt: skip

    def evidence(self, i: int, kinds: tuple[str, ...] = KINDS) -> Evidence:
        """The evidence of probe i, only of these kinds."""
        return Evidence(
            self.lq[i] if "lq" in kinds else None,
            self.sketches[i] if "sketch" in kinds else None,
            self.words[i] if "words" in kinds else None,
        )


def draw_probes(
    count: int,
    level: str = "middle",
    *,
    first: int = 0,
    side: int = 8,
    group: int = GALLERY_PEOPLE,
    seed: int = 1,
) -> Probes:
    """Probes of people first .. first + count - 1 of a group, by default of those of the shipped gallery.

    level: a key of `synthesis.witness.LEVELS`. side: pixels of the LQ photo. seed: of the witnesses.
    """
    people = people_of(group, first, count)
    numbers = torch.arange(first, first + count)
    error, faultless = witness.LEVELS[level], witness.LEVELS[FAULTLESS]
    drawn = [
        witness.sketch(a, error, seed, b)
        for a, b in zip(people.split(CHUNK), numbers.split(CHUNK), strict=True)
    ]
    photos = pictures(group, first, count, EVIDENCE_PICTURE)
    return Probes(
        lq=witness.low_quality(photos, side),
        sketches=torch.cat(drawn),
        words=tuple(one.description for one in witness.testimony(people, error, seed, numbers)),
        values=attribute_values(people),
        truth=pictures(group, first, count, None),
        rows=torch.full((count,), -1) if group == STRANGERS else numbers,
        photos=photos,
        right_words=tuple(one.description for one in witness.testimony(people, faultless, seed, numbers)),
    )


def draw_probe(person: int, level: str, group: int = GALLERY_PEOPLE, number: int | None = None) -> Probe:
    """The probe of one person of a group; number: which probe of its list it is, by default the person's."""
    one = draw_probes(1, level, first=person, group=group)
    truth = Truth(
        row=int(one.rows[0]),
        photo=one.photos[0],
        portrait=one.truth[0],
        words=one.right_words[0],
        values=tuple(one.values[0].tolist()),
    )
    return Probe(person if number is None else number, one.evidence(0), truth)
