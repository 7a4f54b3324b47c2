"""One answer in numbers: where the mate stands, how sure the search is, what the judging matcher says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from identiface_core.rounds.consensus import consensus

from .harness import Asked
from .images import ms_ssim, psnr
from .metrics import mate_ranks
from .studio import World
from .values import Truth

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Scores:
    """One system on one probe. What needs a mate, or faces, is None without."""

    seconds: float
    rounds: int
    best: float
    """Highest score of anybody in the gallery who is not the person searched for."""
    rank: int | None = None
    """Of the mate, by the searching matcher."""
    score: float | None = None
    """Of the mate, cosine."""
    judge_rank: int | None = None
    """Of the mate, if the judging matcher searched with the faces."""
    judge_cosine: float | None = None
    """The judging matcher's cosine of the faces' mean and the mate's template."""
    psnr: float | None = None
    ms_ssim: float | None = None
    features: Numbers | None = None
    """Of the first face, by the judging matcher."""
    trail: tuple[tuple[str, int], ...] = ()
    """Part of each round, and the mate's rank after it."""


@torch.no_grad()
def score(asked: Asked, world: World, truth: Truth, *, generated: bool) -> Scores:
    """Compare an answer with the truth. generated: whether its faces are, so that they can be held against the portrait."""
    answer, templates, judge = asked.answer, world.templates, world.model.matcher_b
    mated = truth.row >= 0
    all_scores = templates @ answer.query
    others = all_scores.clone()
    if mated:
        others[truth.row] = -2.0
    faces = answer.faces
    vectors = None if faces is None else judge.embed(faces).detach().float().cpu()
    judged = answer.judged if answer.judged is not None or vectors is None else consensus(vectors)
    pixels = faces if generated else None
    theirs = world.gallery.templates[judge.name]
    return Scores(
        seconds=asked.seconds,
        rounds=answer.rounds,
        best=float(others.max()),
        rank=_rank(answer.query, templates, truth.row),
        score=float(all_scores[truth.row]) if mated else None,
        judge_rank=None if judged is None else _rank(judged, theirs, truth.row),
        judge_cosine=float(theirs[truth.row] @ judged) if mated and judged is not None else None,
        psnr=None if pixels is None else _mean(psnr(pixels, truth.portrait.expand_as(pixels))),
        ms_ssim=None if pixels is None else _mean(ms_ssim(pixels, truth.portrait.expand_as(pixels))),
        features=None if vectors is None or not generated else tuple(vectors[0].tolist()),
        trail=tuple((part, _rank(query, templates, truth.row) or 0) for part, query in answer.trail),
    )


def _rank(query: Tensor, templates: Tensor, row: int) -> int | None:
    if row < 0:
        return None
    return int(mate_ranks(query[None], templates, torch.tensor([row]))[0])


def _mean(values: Tensor) -> float:
    return float(values.mean())
