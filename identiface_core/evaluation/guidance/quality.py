"""What a method's faces are worth: by the judging matcher, by the guiding one, and as a crowd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.embedded import load_embedded
from identiface_core.rounds.case_input import Settings

from ..images import frechet
from ..pool import spread
from .methods import FULL, UNGUIDED, Method, base_of
from .people import Person, people

if TYPE_CHECKING:
    from identiface_core.diffusion.generator import Sample
    from identiface_core.embedded import EmbeddedModel

PIECE = 5
"""People per piece of work."""
POOL = 4
"""Latent cells that are averaged for the crowd's features, along each axis."""


@dataclass(frozen=True)
class Face:
    """One face of one person by one method."""

    person: int
    method: str
    target: float
    """Matcher A's cosine to the estimate: what was asked for."""
    a: float
    """Matcher A's cosine to another picture of the person."""
    judge: float
    """Matcher B's: what counts."""
    asked: float
    """Matcher B's to the people whom the estimate means: what a case knows."""
    features: tuple[float, ...]
    """By matcher B."""
    cells: tuple[float, ...]
    """Its latents, averaged over `POOL` x `POOL` cells."""


def draw(model: EmbeddedModel, person: Person, method: Method, seeds: Sequence[int], steps: int) -> Sample:
    """Faces of a person's evidence as a case draws a whole face, guided by a method; one per seed."""
    settings = Settings()
    return model.generator.sample(
        [person.prompt],
        person.evidence,
        list(seeds),
        steps=steps,
        guidance_scale=settings.guidance(
            words=bool(person.prompt), photo=person.evidence.lq is not None, part=False
        ),
        estimate=person.estimate if method.estimate else None,
        guide=method.guide(model, person.estimate),
    )


@torch.no_grad()
def look_at(model: EmbeddedModel, person: Person, method: Method, made: Sample) -> Face:
    """The figures of the first face of a sample."""
    image = made.images[:1].float().clamp(0, 1)
    a, b = model.matcher_a.embed(image)[0], model.matcher_b.embed(image)[0]
    return Face(
        person.number,
        method.name,
        float(a @ person.estimate),
        float(a @ person.judged_a),
        float(b @ person.judged_b),
        float(b @ person.asked_b),
        tuple(b.tolist()),
        tuple(crowd(model, image)[0].tolist()),
    )


def crowd(model: EmbeddedModel, images: Tensor) -> Tensor:
    """Features (B, F) of pictures for comparing crowds: the autoencoder's latents, averaged in patches."""
    return F.avg_pool2d(model.generator.autoencoder.encode(images), POOL).flatten(1)


@dataclass(frozen=True)
class Truths:
    """The true portraits' features, in the order of people."""

    features: Tensor
    cells: Tensor


@dataclass(frozen=True)
class Job:
    """Some people of a group, asked with some methods."""

    group: int
    first: int
    count: int
    methods: tuple[Method, ...]
    steps: int
    limits: Mapping[str, int]
    """By method: people from this number on are left out."""


Answer = tuple[list[Face], list[list[float]], list[list[float]]]
_MODEL: list[EmbeddedModel] = []


def _open() -> None:
    if not _MODEL:
        _MODEL.append(load_embedded())


def _do(job: Job) -> Answer:
    model, faces = _MODEL[0], []
    asked = people(model, job.first, job.count, job.group)
    for person in asked:
        for method in job.methods:
            if person.number < job.limits[method.name]:
                made = draw(model, person, method, [person.number], job.steps)
                faces.append(look_at(model, person, method, made))
    portraits = torch.stack([person.portrait for person in asked])
    with torch.no_grad():
        truth = model.matcher_b.embed(portraits), crowd(model, portraits)
    return faces, *(one.tolist() for one in truth)  # type: ignore[return-value]


def faces_of(
    methods: Sequence[Method], group: int, count: int, steps: int, processes: int
) -> Iterator[tuple[int, int, Answer]]:
    """(people done, people, what came of them) for the first `count` people of a group, as it is done."""
    limits = {method.name: max(2, round(method.share * count)) for method in methods}
    jobs = [
        Job(group, first, min(PIECE, count - first), tuple(methods), steps, limits)
        for first in range(0, count, PIECE)
    ]
    done = 0
    for place, answer in spread(_do, jobs, processes, _open):
        done += jobs[place].count
        yield done, count, answer


def gathered(answers: Sequence[Answer]) -> tuple[dict[str, list[Face]], Truths]:
    """Faces by method in the order of people, and the truth's features."""
    faces: dict[str, list[Face]] = {}
    for face in sorted((face for found, _, _ in answers for face in found), key=lambda face: face.person):
        faces.setdefault(face.method, []).append(face)
    rows = [torch.tensor([row for answer in answers for row in answer[k]]) for k in (1, 2)]
    return faces, Truths(*rows)


def figures(faces: Mapping[str, Sequence[Face]], truths: Truths) -> dict[str, dict[str, float | None]]:
    """By method: mean cosines, what the judge gains over no guidance, and how far the crowd is from the true one."""
    found = {}
    for name, mine in faces.items():
        base = {face.person: face for face in faces[base_of(name)]}
        pairs = [(face, base[face.person]) for face in mine]
        gains = torch.tensor([face.judge - other.judge for face, other in pairs], dtype=torch.float64)
        asked = torch.tensor([face.asked - other.asked for face, other in pairs], dtype=torch.float64)
        spread_of = float(gains.std()) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
        full = {face.person: face.judge for face in faces.get(FULL, ())} if base_of(name) == UNGUIDED else {}
        yardstick = mean(full[face.person] - other.judge for face, other in pairs) if full else 0
        found[name] = {
            "people": len(mine),
            "judge_gain_share": float(gains.mean()) / yardstick if yardstick else None,
            "judge": mean(face.judge for face in mine),
            "judge_gain": float(gains.mean()),
            "judge_gain_error": spread_of,
            "judge_rises": float((gains > 0).double().mean()),
            "a": mean(face.a for face in mine),
            "a_gain": mean(face.a - other.a for face, other in pairs),
            "target": mean(face.target for face in mine),
            "target_spread": float(torch.tensor([face.target for face in mine]).std(correction=0)),
            "target_gain": mean(face.target - other.target for face, other in pairs),
            "asked_gain": float(asked.mean()),
            "asked_agrees": correlation(asked, gains),
            **crowd_figures(pairs, truths),
        }
    return found


def crowd_figures(pairs: Sequence[tuple[Face, Face]], truths: Truths) -> dict[str, float]:
    """Frechet distances to the true portraits, and their ratio to those of the same people unguided."""
    result: dict[str, float] = {}
    for name, true in (("features", truths.features), ("cells", truths.cells)):
        mine, other = (
            torch.tensor([getattr(pair[k], name) for pair in pairs], dtype=torch.float64) for k in (0, 1)
        )
        guided, unguided = frechet(mine, true), frechet(other, true)
        short = "judge" if name == "features" else "latent"
        if guided is not None and unguided:
            result |= {f"fid_{short}": guided, f"fid_{short}_ratio": guided / unguided}
    return result


def correlation(a: Tensor, b: Tensor) -> float | None:
    """Pearson's, of two rows of numbers; None where one of them does not vary."""
    both = torch.stack((a, b))
    return float(torch.corrcoef(both)[0, 1]) if len(a) > 2 and float(both.std(1).min()) > 0 else None


def mean(values: Iterator[float]) -> float:
    """Arithmetic mean."""
    kept = list(values)
    return sum(kept) / len(kept)
