"""The systems under test. Each makes a search query, and mostly faces, of one person's evidence and of nothing else.

A `System` is given a `Studio`, which holds no truth. What needs the truth is an `Experiment`, says so in its label, and no
claim rests on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from identiface_core.errors import InputError, NoFaceError
from identiface_core.evidence.description import Description
from identiface_core.faces.choice import portrait_of
from identiface_core.imaging import resize
from identiface_core.rounds.case import rounded
from identiface_core.rounds.consensus import consensus
from identiface_core.rounds.engine import CaseEngine
from identiface_core.rounds.plan import plan_rounds

from .oracle import published_loop
from .studio import Story, Studio, World
from .values import KINDS, Truth

SUBSETS: tuple[tuple[str, ...], ...] = tuple(
    kinds for size in (3, 2, 1) for kinds in itertools.combinations(KINDS, size)
)
"""All, each pair, each single kind of evidence."""


@dataclass(frozen=True)
class Answer:
    """What a system makes of one person's evidence."""

    query: Tensor
    """(D,) unit vector in the searching matcher's space."""
    faces: Tensor | None = None
    """(S, 3, 128, 128) in [0, 1]: the faces that the query is of, or the one that stands at the end; None without any."""
    judged: Tensor | None = None
    """(D',) the judging matcher's view, where it is of more faces than `faces` holds."""
    rounds: int = 0
    """Rounds drawn; 0 if nothing is generated."""
    trail: tuple[tuple[str, Tensor], ...] = ()
    """Part of each round and the query after it."""


@dataclass(frozen=True)
class System:
    """A system under test: gets the evidence, never the truth."""

    name: str
    answer: Callable[[Studio], Answer]
    table: str = ""
    """Calibration that reads its scores; "" for none."""
    kinds: tuple[str, ...] = KINDS
    """Kinds of evidence that it uses."""
    draws: bool = True
    """Whether its faces are generated."""
    label: str = ""
    strangers: bool = True
    """Whether it also searches for people who are in no gallery."""


@dataclass(frozen=True)
class Experiment:
    """Something that is told the truth, for comparison only; the label says what it is told."""

    name: str
    answer: Callable[[Studio, Truth], Answer]
    label: str
    table: str = ""
    kinds: tuple[str, ...] = KINDS
    draws: bool = True
    strangers: bool = False


AnySystem = System | Experiment


def raw_lq(studio: Studio) -> Answer:
    """The LQ photo itself, enlarged."""
    if studio.evidence.lq is None:
        raise InputError("the LQ photo is searched with, and the evidence has none")
    photo = resize(studio.evidence.lq[None], 128, 128)
    return Answer(_embedded(studio.world, photo)[0], faces=photo)


def encoded(kinds: tuple[str, ...]) -> Callable[[Studio], Answer]:
    """The evidence query, from these kinds of evidence."""
    return lambda studio: Answer(studio.estimate(kinds))


def generated(kinds: tuple[str, ...], count: int, towards: str = "estimate") -> Callable[[Studio], Answer]:
    """Consensus of whole faces; arguments as in `Studio.faces`."""

    def answer(studio: Studio) -> Answer:
        faces = studio.faces(kinds, count, towards)
        return Answer(consensus(_embedded(studio.world, faces)), faces=faces, rounds=1)

    return answer


def rounds(studio: Studio) -> Answer:
    """The product's case, searched with the generated faces only."""
    return _by_generated(studio.case_finished())


def everything(studio: Studio) -> Answer:
    """The product's case, its list "by both"."""
    return _by_both(studio.case_finished())


def rounds_right_words(studio: Studio, truth: Truth) -> Answer:
    """The product's case, but after the whole face the witness's words are replaced by complete and correct ones."""
    return _by_generated(_right_words(studio, truth))


def everything_right_words(studio: Studio, truth: Truth) -> Answer:
    """The same case, its list "by both": the evidence query reads the right words too."""
    return _by_both(_right_words(studio, truth))


def _right_words(studio: Studio, truth: Truth) -> Story:
    return studio.once(("case, right words",), lambda: Story.of(corrected(studio.case_begun(), truth.words)))


def true_photo(studio: Studio, truth: Truth) -> Answer:
    """The person's other photo, found and aligned as gallery pictures are."""
    photo = portrait_of_or_whole(truth.photo, studio.world)[None]
    return Answer(_embedded(studio.world, photo)[0], faces=photo)


def oracle(studio: Studio, truth: Truth) -> Answer:
    """The published loop: chooses, accepts, stops and reports by the true photo."""
    end = published_loop(studio, truth, portrait_of_or_whole(truth.photo, studio.world))
    return Answer(end.query, faces=end.face[None], rounds=end.rounds)


def corrected(begun: CaseEngine, words: Description) -> CaseEngine:
    """A copy of a case after its whole face, going on with other words. The standing face is scored by them too."""
    engine = begun.copy()
    evidence = replace(engine.prepared.evidence, description=words)
    engine.prepared = replace(engine.prepared, evidence=evidence)
    model = engine.model
    with torch.no_grad():
        query = model.evidence_encoder.query(evidence, model.text_encoder)
    engine.query = None if query is None else query.detach().float().cpu()
    first, drawn = engine.state.rounds[0], engine.drawn[0]
    chosen = first.chosen or 0
    again = engine.score(drawn.image[None], drawn.a[chosen : chosen + 1])[0]
    scores = tuple(rounded(again.total) if i == chosen else score for i, score in enumerate(first.scores))
    engine.state = replace(
        engine.state,
        plan=plan_rounds(words, limit=engine.settings.rounds),
        rounds=(replace(first, scores=scores),),
        phase="planned",
        stop_reason="",
    )
    return engine


def portrait_of_or_whole(photo: Tensor, world: World) -> Tensor:
    """The aligned portrait of a photo (3, 128, 128), or the photo as it is where no face is found."""
    try:
        return portrait_of(photo, world.model.finder, 0)
    except NoFaceError:
        return photo


@torch.no_grad()
def _embedded(world: World, portraits: Tensor) -> Tensor:
    return world.model.matcher_a.embed(portraits).detach().float().cpu()


def _by_generated(story: Story) -> Answer:
    trail = tuple(zip(story.parts, story.generated, strict=True))
    return Answer(story.generated[-1], story.face, story.judged, len(story.parts), trail)


def _by_both(story: Story) -> Answer:
    trail = tuple(zip(story.parts, story.fused, strict=True))
    return Answer(story.fused[-1], story.face, story.judged, len(story.parts), trail)


def name_of(kinds: tuple[str, ...]) -> str:
    """Name of one face from these kinds of evidence: "lq_text", and "one_shot" for all."""
    short = {"lq": "lq", "sketch": "sketch", "words": "text"}
    return "one_shot" if kinds == KINDS else "_".join(short[kind] for kind in kinds)


def encoder_name(kinds: tuple[str, ...]) -> str:
    """Name of the evidence query from these kinds: "evidence_encoder/lq+words", without the kinds for all."""
    return "evidence_encoder" if kinds == KINDS else f"evidence_encoder/{'+'.join(kinds)}"


def _all_systems() -> Iterable[AnySystem]:
    yield Experiment(
        "true_photo", true_photo, "the ceiling: told the true other photo",
        table="portrait", draws=False, strangers=True,
    )  # fmt: skip
    yield System("raw_lq", raw_lq, kinds=("lq",), draws=False)
    for kinds in SUBSETS:
        yield System(encoder_name(kinds), encoded(kinds), table="evidence", kinds=kinds, draws=False)
    for kinds in reversed(SUBSETS):
        yield System(name_of(kinds), generated(kinds, 1), table="generated", kinds=kinds)
    yield System("one_shot_unguided", generated(KINDS, 1, "nothing"), table="generated")
    yield System("consensus_4", generated(KINDS, 4), table="generated")
    yield System("consensus_8", generated(KINDS, 8), table="generated")
    yield System("consensus_8_unguided", generated(KINDS, 8, "nothing"), table="generated")
    yield System("reference", generated(KINDS, 8, "reference"), table="generated")
    yield System("rounds", rounds, table="generated")
    yield Experiment(
        "rounds_right_words", rounds_right_words,
        "an experiment: told the right words, all of them, after the whole face", table="generated",
    )  # fmt: skip
    yield System("everything", everything, table="both")
    yield Experiment(
        "everything_right_words", everything_right_words,
        "an experiment: told the right words, all of them, after the whole face", table="both",
    )  # fmt: skip
    yield Experiment(
        "oracle",
        oracle,
        "the published loop: told the true photo, by which it chooses, accepts, stops and reports",
    )


SYSTEMS: dict[str, AnySystem] = {system.name: system for system in _all_systems()}
"""All systems by name, in the order of reports."""


def _clue_pairs(named: Callable[[tuple[str, ...]], str]) -> list[tuple[str, str]]:
    """All three kinds against each pair and each single, each pair against its two singles."""
    pairs = []
    for larger, smaller in itertools.product(SUBSETS, SUBSETS):
        if set(smaller) < set(larger):
            pairs.append((named(larger), named(smaller)))
    return pairs


PAIRS: tuple[tuple[str, str], ...] = (
    *_clue_pairs(name_of),
    *_clue_pairs(encoder_name),
    ("consensus_4", "one_shot"),
    ("consensus_8", "one_shot"),
    ("consensus_8", "consensus_4"),
    ("one_shot", "one_shot_unguided"),
    ("consensus_8", "consensus_8_unguided"),
    ("reference", "consensus_8"),
    ("rounds", "consensus_4"),
    ("rounds", "consensus_8"),
    ("rounds_right_words", "rounds"),
    ("everything_right_words", "everything"),
    ("everything", "evidence_encoder"),
    ("everything", "one_shot"),
    ("everything", "consensus_8"),
    ("everything", "rounds"),
    ("everything", "true_photo"),
    ("evidence_encoder", "raw_lq"),
    ("evidence_encoder", "one_shot"),
    ("evidence_encoder", "consensus_8"),
    ("oracle", "rounds"),
)
"""Differences that claims rest on: the first system minus the second. A whole face of a case is `consensus_4`."""
