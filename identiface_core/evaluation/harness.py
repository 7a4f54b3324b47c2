"""Asks systems and catches leaks: nothing that is measured may have seen the truth.

By type, a `System` is given a `Studio`, which holds the evidence of one person and no truth. Types do not see everything, so
two things are checked on the numbers as well, each for a leak that published evaluations have:

- the gallery holds the very picture that the evidence was made from: `check_pictures`, for every probe;
- the truth reaches whoever chooses, accepts or stops: `check_decoy`, which asks again with other people's truth behind the
  same evidence. An answer that changes by a single bit has seen the truth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from identiface_core.errors import IdentiFaceError
from identiface_core.gallery import Gallery
from identiface_core.imaging import resize

from .images import psnr
from .studio import Studio, World
from .systems import Answer, AnySystem, System, portrait_of_or_whole
from .values import Probe

SEED_OF_PROBE = 100_000
"""Distance of the first seeds of two probes; further apart than those of the rounds of one case."""
SAME_TINY = 0.02
"""Root mean square difference below which two tiny photos are of one picture. Two pictures of one person differ by 0.06 or
more (120 people), copies of one picture by 0.
"""
SAME_PICTURE = 30.0
"""PSNR in dB from which two aligned portraits are of one picture, once through JPEG."""
SAME_TEMPLATE = 0.9995
"""Cosine, with both matchers, from which two templates are of one picture."""


class LeakError(IdentiFaceError):
    """What is being measured has seen the truth. The text names the system or the probe."""


@dataclass(frozen=True)
class Asked:
    """One system's answer about one probe."""

    answer: Answer
    seconds: float
    """Processor seconds on one core, as if the system had been asked alone."""


Ask = Callable[[Iterable[AnySystem], Probe, World], Mapping[str, Asked]]


def ask(systems: Iterable[AnySystem], probe: Probe, world: World) -> dict[str, Asked]:
    """Ask each system about one probe; what they have in common is made once."""
    studio = Studio(world, probe.evidence, world.settings.seed + SEED_OF_PROBE * probe.number)
    return {system.name: answer_of(system, studio, probe) for system in systems}


def answer_of(system: AnySystem, studio: Studio, probe: Probe) -> Asked:
    """Ask one system. Only an experiment, which says so in its label, is given the truth."""
    key = ("answer", system.name)
    if isinstance(system, System):
        honest = system
        answer = studio.once(key, lambda: honest.answer(studio))
    else:
        informed = system
        answer = studio.once(key, lambda: informed.answer(studio, probe.truth))
    return Asked(answer, studio.seconds(key))


def check_decoy(
    systems: Iterable[AnySystem],
    probe: Probe,
    decoy: Probe,
    world: World,
    *,
    first: Mapping[str, Asked] | None = None,
    by: Ask = ask,
) -> None:
    """Ask every honest system about `probe` again with the truth of `decoy`, another person, behind it.

    first: answers to compare with, where there are some already. by: what asks, the way it is done for the figures. Raises
    `LeakError`, naming system and probe, for the first answer that differs in any bit.
    """
    honest = [system for system in systems if isinstance(system, System)]
    before = first if first is not None else by(honest, probe, world)
    after = by(honest, probe.with_truth(decoy.truth), world)
    for system in honest:
        where = differs(before[system.name].answer, after[system.name].answer)
        if where:
            raise LeakError(
                f"system '{system.name}' has seen the truth: with another person's truth behind probe {probe.number}, and "
                f"the same evidence, its {where} is another one. Nothing it gives is a result"
            )


def differs(a: Answer, b: Answer) -> str:
    """Name of the first field in which two answers are not the same to the bit; "" if there is none."""
    for one in dataclasses.fields(Answer):
        if not _same(getattr(a, one.name), getattr(b, one.name)):
            return one.name
    return ""


def _same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(type(a) is type(b) and a == b)


def check_views(evidence: int, gallery: int) -> None:
    """Raise `LeakError` if evidence and gallery are made from views of the same seed: then the pictures are the same."""
    if evidence == gallery:
        raise LeakError(
            f"evidence and gallery are both made from the views of seed {evidence}: every mate's picture is the very picture "
            "that the evidence was made from"
        )


def check_pictures(probe: Probe, world: World, drawn: Tensor | None = None) -> None:
    """Check that the mate's entry in the gallery is another picture than the one the evidence was made from.

    drawn: (3, 128, 128) the mate's gallery picture, drawn anew. It is compared with the LQ photo at the size of that, what
    the gallery keeps of its picture with the aligned true photo, and their templates by both matchers. Raises `LeakError`
    naming probe and person. Nothing to check for a stranger.
    """
    if probe.truth.row < 0:
        return
    person = world.gallery.people[probe.truth.row]
    lq = probe.evidence.lq
    if lq is not None and drawn is not None and _tiny_difference(drawn, lq) < SAME_TINY:
        raise _same_picture(probe, person, "the LQ photo is the gallery's picture made small")
    photo = portrait_of_or_whole(probe.truth.photo, world)
    kept = _thumbnail(world.gallery, person)
    if kept is not None and float(psnr(kept[None], photo[None])[0]) > SAME_PICTURE:
        raise _same_picture(probe, person, "the gallery keeps the photo that the LQ photo was made from")
    with torch.no_grad():
        cosines = [
            float(world.gallery.templates[matcher.name][probe.truth.row] @ matcher.embed(photo[None])[0])
            for matcher in (world.model.matcher_a, world.model.matcher_b)
        ]
    if min(cosines) > SAME_TEMPLATE:
        raise _same_picture(
            probe, person, "its template is that of the photo that the LQ photo was made from"
        )


def _same_picture(probe: Probe, person: str, what: str) -> LeakError:
    return LeakError(
        f"probe {probe.number}, person {person}: {what}. Finding that again is no identification: the gallery must hold "
        "another picture of the person"
    )


def _tiny_difference(picture: Tensor, lq: Tensor) -> float:
    small = resize(picture[None], lq.shape[-2], lq.shape[-1])[0]
    return float((small - lq).square().mean().sqrt())


def _thumbnail(gallery: Gallery, person: str) -> Tensor | None:
    """The picture that the gallery keeps of a person; None if it keeps embeddings only."""
    if not gallery.thumbnails[gallery.people.index(person)]:
        return None
    return resize(gallery.thumbnail(person)[None], 128, 128)[0]
