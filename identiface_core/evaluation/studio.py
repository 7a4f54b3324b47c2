"""One person's evidence, and what has been made of it: systems under test share it, so that nothing is drawn twice.

What is made depends on the evidence, the model, the gallery and the seed alone, never on which systems ask.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from identiface_core.evidence.values import Evidence
from identiface_core.rounds.case_input import Settings
from identiface_core.rounds.consensus import consensus_of_rounds, fuse
from identiface_core.rounds.engine import CaseEngine, Pick
from identiface_core.rounds.prepare import prepared_from

from .values import KINDS

if TYPE_CHECKING:
    from identiface_core.diffusion.generator import Sample
    from identiface_core.embedded import EmbeddedModel
    from identiface_core.gallery import Gallery

T = TypeVar("T")
Key = tuple[Any, ...]
BLOCKS = ((0, 1), (1, 4), (4, 8))
"""Faces of one prompt are drawn in these blocks of seeds, so that a system pays only for what it looks at."""


@dataclass(frozen=True)
class World:
    """What every system may know beside the evidence."""

    model: EmbeddedModel
    gallery: Gallery
    settings: Settings = field(default_factory=Settings)

    @property
    def templates(self) -> Tensor:
        """(N, D) of the searching matcher."""
        return self.gallery.templates[self.model.matcher_a.name]


@dataclass
class _Kept:
    value: Any
    seconds: float
    """Processor time of its own, without what it was made from."""
    needs: set[Key]


class Studio:
    """What one system after the other may make of the evidence of one person.

    seed: first seed of everything that is drawn. pick: the witness's choice in part rounds; None, as in every honest system,
    leaves it to the evidence score.
    """

    def __init__(self, world: World, evidence: Evidence, seed: int, pick: Pick | None = None) -> None:
        self.world, self.evidence, self.pick = world, evidence, pick
        self.settings = replace(world.settings, seed=seed)
        self._kept: dict[Key, _Kept] = {}
        self._making: list[tuple[list[float], set[Key]]] = []

    def once(self, key: Key, make: Callable[[], T]) -> T:
        """What `make` gives, made at the first asking and kept under `key`."""
        if key not in self._kept:
            inner: list[float] = []
            needs: set[Key] = set()
            self._making.append((inner, needs))
            began = time.process_time()
            try:
                value = make()
            finally:
                self._making.pop()
            seconds = time.process_time() - began
            self._kept[key] = _Kept(value, seconds - sum(inner), needs)
            if self._making:
                self._making[-1][0].append(seconds)
        if self._making:
            self._making[-1][1].update(self._kept[key].needs | {key})
        return self._kept[key].value

    def seconds(self, key: Key) -> float:
        """Processor seconds of what is kept under `key` and of all it was made from, as if nobody else had asked."""
        return sum(self._kept[one].seconds for one in self._kept[key].needs | {key})

    def estimate(self, kinds: tuple[str, ...] = KINDS) -> Tensor:
        """(D,) evidence query from these kinds of evidence."""
        return self.once(("estimate", kinds), lambda: estimate(self.world.model, only(self.evidence, kinds)))

    def best_template(self) -> Tensor:
        """(D,) template of the gallery's best candidate for the evidence query."""
        templates = self.world.templates
        return templates[int((templates @ self.estimate()).argmax())]

    def faces(self, kinds: tuple[str, ...], count: int, towards: str = "estimate") -> Tensor:
        """(count, 3, 128, 128): whole faces from these kinds of evidence; count: an end of `BLOCKS`.

        towards: what they are conditioned on beside the evidence: "estimate", the evidence query of the same kinds;
        "reference", the template of the best candidate; "nothing".
        """

        def draw(first: int, end: int) -> Tensor:
            wanted = {
                "estimate": lambda: self.estimate(kinds) if self.settings.estimate else None,
                "reference": self.best_template,
                "nothing": lambda: None,
            }[towards]()
            seeds = range(self.settings.seed + first, self.settings.seed + end)
            model = self.world.model
            return draw_faces(
                model, self.evidence, kinds, seeds, estimate=wanted, settings=self.settings
            ).images

        def block(first: int, end: int) -> Tensor:
            return self.once(("faces", kinds, towards, first, end), lambda: draw(first, end))

        return torch.cat([block(first, end) for first, end in BLOCKS if end <= count])

    def case_begun(self) -> CaseEngine:
        """The product's case after its whole face. Copy it before a move."""

        def begin() -> CaseEngine:
            prepared = prepared_from(self.evidence, self.world.gallery)
            engine = CaseEngine(prepared, self.settings, self.world.model, pick=self.pick)
            engine.step()
            return engine

        return self.once(("case begun",), begin)

    def case_finished(self) -> Story:
        """The product's case to its end."""
        return self.once(("case",), lambda: Story.of(self.case_begun().copy()))


@dataclass(frozen=True)
class Story:
    """A case that came to its end, and how its queries grew."""

    engine: CaseEngine
    parts: tuple[str, ...]
    """The part of each round, in order."""
    generated: Tensor
    """(rounds, D): the consensus of the accepted rounds' faces, after each round."""
    fused: Tensor
    """(rounds, D): the same fused with the evidence query, as the list "by both" searches."""

    @classmethod
    def of(cls, engine: CaseEngine) -> Story:
        """Run `engine`, whose whole face is drawn, to its end."""
        generated = [_generated(engine)]
        while engine.step():
            generated.append(_generated(engine))
        weight = engine.settings.evidence_weight
        return cls(
            engine,
            tuple(one.part for one in engine.state.rounds),
            torch.stack(generated),
            torch.stack([fuse(engine.query, one, weight) for one in generated]),
        )

    @property
    def face(self) -> Tensor:
        """(1, 3, 128, 128): the face that stands at the end."""
        return self.engine.drawn[self.engine.state.path()[-1].index].image[None]

    @property
    def judged(self) -> Tensor:
        """(D',) the judging matcher's view of the faces that `generated` ends with."""
        pool = self.engine.pool()
        assert pool is not None, "a case has a whole face after its first round"
        return consensus_of_rounds(pool[1])


def _generated(engine: CaseEngine) -> Tensor:
    pool = engine.pool()
    assert pool is not None, "a case has a whole face after its first round"
    return consensus_of_rounds(pool[0])


def only(evidence: Evidence, kinds: Sequence[str]) -> Evidence:
    """The evidence without the kinds that are not named."""
    return Evidence(
        evidence.lq if "lq" in kinds else None,
        evidence.sketch if "sketch" in kinds else None,
        evidence.description if "words" in kinds else None,
    )


@torch.no_grad()
def estimate(model: EmbeddedModel, evidence: Evidence) -> Tensor:
    """(D,) unit: where in the searching matcher's space the evidence points."""
    return model.evidence_encoder.query(evidence, model.text_encoder).detach().float().cpu()


@torch.no_grad()
def draw_faces(
    model: EmbeddedModel,
    evidence: Evidence,
    kinds: Sequence[str],
    seeds: Sequence[int],
    *,
    prompt: str | None = None,
    estimate: Tensor | None = None,
    settings: Settings | None = None,
    known: Sample | None = None,
    mask: Tensor | None = None,
) -> Sample:
    """One face per seed from these kinds of evidence, as the product draws them; images in [0, 1].

    prompt: words to draw from, by default the whole description. estimate: (D,) unit vector that a whole face is drawn towards.
    settings: steps, guidance and strength; seeds come from `seeds`. known, mask: a part round, as in `FaceGenerator.sample`.
    """
    given, settings = only(evidence, kinds), settings or Settings()
    if prompt is None:
        prompt = "" if given.description is None else given.description.full_prompt()
    made = model.generator.sample(
        [prompt],
        given,
        list(seeds),
        steps=settings.steps,
        guidance_scale=settings.guidance(
            words=bool(prompt), photo=given.lq is not None, part=mask is not None
        ),
        strength=settings.strength,
        known=known,
        mask=mask,
        estimate=estimate,
    )
    return replace(made, images=made.images.detach().float().cpu().clamp(0, 1))
