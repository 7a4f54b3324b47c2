"""One case in memory, from evidence to candidates; nothing is read from or written to disk.

Search with the evidence, show with the generator. The path: evidence query -> first candidates -> whole face
(several seeds) -> part rounds -> consensus of the accepted rounds' seeds -> candidates by evidence, by
generated faces, by both.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from identiface_core.diffusion.generator import Sample
from identiface_core.errors import CaseError
from identiface_core.evidence.sketch import extract_sketch
from identiface_core.evidence.values import SKETCH_SIDE
from identiface_core.gallery import Candidates, search
from identiface_core.imaging import resize
from identiface_core.matchers.base import Embedding

from .case import BY_BOTH, BY_EVIDENCE, BY_GENERATED, STATE, Case, Judge, RoundRecord, kept, rounded
from .case_input import Settings
from .cautions import faceless, led_throughout, misled, unshared
from .consensus import agreement, consensus_of_rounds, fuse
from .controller import Controller, RoundState, Rules
from .led import checked, judge_target, lead
from .masks import RoundMask, round_mask
from .plan import PlannedRound, plan_rounds
from .prepare import Prepared, Progress, check_gallery
from .scoring import EvidenceScore, combine, cosine_agreement, lq_agreement, sketch_agreement, words_agreement
from .wording import told

if TYPE_CHECKING:
    from identiface_core.diffusion.guidance.check import Check
    from identiface_core.matchers.calibration import Calibration

    from .toolkit import Toolkit

Pick = Callable[[PlannedRound, Tensor, tuple[EvidenceScore, ...]], "int | None"]
"""The witness's choice: gets the round, its portraits (S, 3, H, H) and their scores; gives a position or
None."""

SEED_STRIDE = 1000
"""Distance of the seeds of two rounds."""
CALIBRATIONS = {BY_EVIDENCE: "evidence", BY_GENERATED: "generated", BY_BOTH: "both"}
"""Which impostor table reads which list."""


def calibration_for(
    tables: Mapping[str, Calibration], source: str, kinds: Sequence[str] = ()
) -> Calibration | None:
    """The table that reads scores of `source`, a list of a case or the name of a table; None if there is none.

    One photo alone ranks strangers higher than all evidence together, so a set of `kinds` of evidence that has a
    table of its own is read by that.
    """
    name = CALIBRATIONS.get(source, source)
    return tables.get(f"{name}/{'+'.join(kinds)}", tables.get(name))


@dataclass(frozen=True)
class Drawn:
    """What is kept of a drawn round to draw the next one, to search, and to go on later."""

    image: Tensor
    """(3, S, S): the chosen face, a portrait; S is 128 for the embedded model."""
    latents: Tensor
    """(1, C, h, w): its latents."""
    a: Tensor
    """(S, D) embeddings of all seeds by the searching matcher."""
    b: Tensor
    """(S, D') by the judging matcher."""
    picture: Tensor | None = None
    """(3, H, W): the picture that the portrait was cut out of, if it is another."""
    framing: Tensor | None = None
    """(2, 3): from its pixels to the portrait's."""
    found: Tensor | None = None
    """(S,) 1 where a face was found in what was drawn."""

    def as_sample(self) -> Sample:
        """The face as a part round starts from it."""
        picture = None if self.picture is None else self.picture[None]
        framing = None if self.framing is None else self.framing[None]
        return Sample(self.image[None], self.latents, picture, framing)

    @property
    def shown(self) -> Tensor:
        """The picture, or the portrait where that is all there is."""
        return self.image if self.picture is None else self.picture


class CaseEngine:
    """A case that is run round by round: `step()` until it gives False, then `finish()`.

    Raises `GalleryError`, naming the gallery's source, for one that was not enrolled with the matchers of
    `model`, and `InputError` for guidance that `model` cannot give.
    """

    prepared: Prepared
    settings: Settings
    model: Toolkit
    on_progress: Progress | None
    pick: Pick | None
    query: Tensor | None
    """(D,) evidence query in the searching matcher's space; None where the evidence makes none."""
    state: Controller
    drawn: dict[int, Drawn]
    """By index of the round; skipped rounds are not there."""
    records: tuple[RoundRecord, ...]
    """One per round, in order."""

    def __init__(
        self,
        prepared: Prepared,
        settings: Settings,
        model: Toolkit,
        *,
        on_progress: Progress | None = None,
        pick: Pick | None = None,
    ) -> None:
        self.prepared, self.settings, self.model = prepared, settings, model
        self.on_progress, self.pick = on_progress, pick
        self._started, self._clock = _now(), time.monotonic()
        check_gallery(prepared, model)
        rules = Rules(settings.margin, settings.stable_top, settings.stable_rounds)
        self.state = Controller(plan_rounds(prepared.evidence.description, limit=settings.rounds), rules)
        self.drawn, self.records = {}, ()
        with torch.no_grad():
            query = model.evidence_encoder.query(prepared.evidence, model.text_encoder)
        self.query = None if query is None else query.detach().float().cpu()
        self._guide = lead(settings, self.query, model.critic)

    def copy(self) -> CaseEngine:
        """The same case on its own: a move of either one leaves the other as it is."""
        fresh = copy.copy(self)
        fresh.drawn = dict(self.drawn)
        return fresh

    @torch.no_grad()
    def step(self) -> bool:
        """Draw, choose and judge the next round; False when the case has stopped."""
        planned = self.state.next_round()
        if planned is None:
            return False
        standing = None if self.state.head is None else self.drawn[self.state.head]
        where = RoundMask(None, "whole face")
        if planned.part != "overview" and standing is not None:
            words = self.prepared.evidence.description
            said = (
                {} if words is None else self.model.text_encoder.understood(words.segment_text(planned.part))
            )
            where = round_mask(standing.image, planned.part, said, self.model.segmenter)
            if where.mask is None:
                self.state = self.state.skip(where.reason)
                self._record(planned, "", None, ())
                return True
        seeds = self._seeds(planned.part)
        redraw = standing is not None and where.mask is not None
        draw = functools.partial(
            self.model.generator.sample,
            [planned.prompt],
            self.prepared.evidence,
            seeds,
            steps=self.settings.steps,
            guidance_scale=self.settings.guidance(
                words=bool(planned.prompt), photo=self.prepared.evidence.lq is not None, part=redraw
            ),
            strength=self.settings.strength,
            known=standing.as_sample() if standing is not None and redraw else None,
            mask=where.mask if redraw else None,
            estimate=self.query if self.settings.estimate else None,
            on_step=self._on_step(planned),
        )
        guide = None if redraw else self._guide
        sample = draw(guide=guide)
        images, (a, b) = self._seen(sample)
        led = None
        if guide is not None and self.query is not None:
            names = self.model.matcher_a.name, self.model.matcher_b.name
            judged = judge_target(self.prepared.gallery, *names, self.query, self.settings.exclude)
            if judged is not None:
                led = checked((a, b), self._seen(draw(guide=None))[1], self.query, judged)
        scores = self.score(images, a)
        witness = None if self.pick is None else self.pick(planned, images, scores)
        state = self.state.sampled(seeds, tuple(rounded(one.total) for one in scores)).choose(witness)
        chosen = state.rounds[-1].chosen or 0
        latents = sample.latents[chosen : chosen + 1].detach().float().cpu().contiguous()
        picture, framing = (
            None if rows is None else rows[chosen].detach().float().cpu().contiguous()
            for rows in (sample.pictures, sample.framing)
        )
        kept_face = Drawn(images[chosen].contiguous(), latents, a, b, picture, framing, sample.found)
        self.drawn[state.rounds[-1].index] = kept_face
        self.state = state.judge()
        self._record(planned, where.kind, agreement(a), scores, led)
        return True

    def _seen(self, sample: Sample) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Portraits (S, 3, H, H) in [0, 1], and their embeddings by both matchers."""
        images = sample.images.detach().float().cpu().clamp(0, 1)
        a, b = (m.embed(images).detach().float().cpu() for m in (self.model.matcher_a, self.model.matcher_b))
        return images, (a, b)

    def finish(self) -> Case:
        """Note the end and give the finished case."""
        if self.state.phase != "stopped":
            self.state = self.state.stop(self.state.exhausted())
        self._tell(len(self.records), len(self.records), f"done: {self.state.stop_reason}")
        return self.case()

    @torch.no_grad()
    def score(self, images: Tensor, embeddings: Tensor) -> tuple[EvidenceScore, ...]:
        """Evidence score of portraits (S, 3, H, H) with their matcher A embeddings (S, D). No oracle."""
        evidence, count = self.prepared.evidence, len(images)
        none: list[Any] = [None] * count
        lq = none if evidence.lq is None else lq_agreement(images, evidence.lq).tolist()
        sketch = none
        if evidence.sketch is not None:
            drawings = torch.stack(
                [extract_sketch(resize(image, SKETCH_SIDE, SKETCH_SIDE)) for image in images]
            )
            sketch = sketch_agreement(drawings, evidence.sketch).tolist()
        words = none
        if evidence.description is not None and self.model.reader is not None:
            said = self.model.text_encoder.understood(evidence.description.full_prompt())
            agreed = words_agreement(images, said, self.model.reader)
            words = none if agreed is None else agreed.tolist()
        query = none if self.query is None else cosine_agreement(embeddings, self.query).tolist()
        return tuple(combine(*terms) for terms in zip(lq, sketch, words, query, strict=True))

    def pool(self) -> tuple[list[Tensor], list[Tensor]] | None:
        """Embeddings of all seeds by accepted round, whole face first: (S, D) each by the searching matcher,
        (S, D') by the judging one. None before the first face."""
        path = [self.drawn[one.index] for one in self.state.path()]
        return ([one.a for one in path], [one.b for one in path]) if path else None

    def lists(self) -> dict[str, Candidates | None]:
        """The three candidate lists of the case as it stands, by name (`case.LISTS`)."""
        pool = self.pool()
        generated = None if pool is None else consensus_of_rounds(pool[0])
        nothing = self.query is None and generated is None
        queries = {
            BY_EVIDENCE: self.query,
            BY_GENERATED: generated,
            BY_BOTH: None if nothing else fuse(self.query, generated, self.settings.evidence_weight),
        }
        return {
            name: None if vector is None else self._search(vector, name) for name, vector in queries.items()
        }

    def faces(self) -> dict[int, Tensor]:
        """The chosen portraits (3, S, S) by index of the round, rejected rounds too."""
        return {index: drawn.image for index, drawn in self.drawn.items()}

    def case(self) -> Case:
        """The case as it stands, with numbers as a case file keeps them."""
        pool, head = self.pool(), self.state.head
        seconds = round(time.monotonic() - self._clock, 3)
        case = Case(
            **self._run_on(),
            lists={name: kept(found) for name, found in self.lists().items()},
            rounds=self.records,
            face=None if head is None else self.records[head].image,
            agreement=None if pool is None else agreement(pool[0][0]),
            stopped=self.state.phase == "stopped",
            stop_reason=self.state.stop_reason,
            warnings=(
                *self.prepared.warnings,
                *faceless({index: one.found for index, one in self.drawn.items()}),
                *led_throughout(self.model.hashes),
                *misled(self.records),
                *unshared(self.records, self.settings.candidates),
            ),
            times={"started": self._started, "seconds": seconds},
        )
        return Case.parse(case.to_json())

    def tensors(self) -> dict[str, Tensor]:
        """What `restore` needs beside the case, by name: "INDEX.FIELD" for every field of `Drawn`."""
        return {
            f"{index}.{field.name}": getattr(drawn, field.name)
            for index, drawn in self.drawn.items()
            for field in dataclasses.fields(drawn)
            if getattr(drawn, field.name) is not None
        }

    def restore(self, before: Case, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `before`, which `case()` gave, with the `tensors()` of that moment.

        Raises `CaseError` when it was run on something else than this case, or when tensors are missing;
        then nothing has changed.
        """
        for name, value in self._run_on().items():
            if json.loads(json.dumps(rounded(value))) != getattr(before, name):
                raise CaseError(
                    f"cannot go on: the case there was run with other {name}. "
                    "Run it anew, or into another folder"
                )
        fields = dataclasses.fields(Drawn)
        needed = [field.name for field in fields if field.default is dataclasses.MISSING]
        further = [field.name for field in fields if field.default is None]
        try:
            drawn = {
                one.index: Drawn(
                    *(tensors[f"{one.index}.{name}"] for name in needed),
                    *(tensors.get(f"{one.index}.{name}") for name in further),
                )
                for one in before.rounds
                if not one.skipped
            }
        except KeyError as error:
            raise CaseError(
                f"cannot go on, its {STATE} is missing or damaged ({error}): run it anew"
            ) from error
        states = tuple(_state_of(one) for one in before.rounds)
        head = next(
            (one.index for one in before.rounds if one.image is not None and one.image == before.face), None
        )
        state = replace(self.state, rounds=states, head=head, phase="planned", stop_reason="")
        self.state = state.stop(before.stop_reason) if before.stopped else state
        self.drawn, self.records = drawn, before.rounds
        self._started = before.times.get("started", self._started)

    def _run_on(self) -> dict[str, Any]:
        """What decides the case: it can only go on with the same."""
        return {
            "evidence": self.prepared.evidence_record,
            "settings": dataclasses.asdict(self.settings),
            "gallery": self.prepared.gallery_record,
            "models": dict(self.model.hashes),
        }

    def _record(
        self,
        planned: PlannedRound,
        kind: str,
        agree: float | None,
        scores: tuple[EvidenceScore, ...],
        led: Check | None = None,
    ) -> None:
        listed = kept(self.lists()[BY_BOTH])
        self.state = self.state.listed(tuple(one.person for one in listed))
        one = self.state.rounds[-1]
        record = RoundRecord(
            index=one.index,
            parent=one.parent,
            part=one.part,
            prompt=planned.prompt,
            seed=None if one.chosen is None else one.seeds[one.chosen],
            image=None if one.chosen is None else f"round-{one.index:02d}-{one.part}.png",
            evidence_score=one.score,
            evidence_terms={} if one.chosen is None else scores[one.chosen].terms(),
            agreement=agree,
            candidates=listed,
            accepted=one.accepted,
            skipped=one.skipped,
            reason=one.reason,
            mask=kind,
            chosen_by=one.chosen_by,
            seeds=one.seeds,
            seed_scores=one.scores,
            judge=None if one.skipped or not listed else self._judge(listed[0].person),
            led=led,
        )
        self.records = (*self.records, record)
        self._tell(len(self.records), len(self.state.plan), f"round {one.index} ({one.part}): {told(one)}")

    def _search(self, vector: Tensor, source: str) -> Candidates:
        query = Embedding(vector, self.model.matcher_a.name, synthetic=True)
        calibration = calibration_for(self.model.calibrations, source, self.prepared.evidence.kinds)
        return search(
            self.prepared.gallery,
            query,
            self.settings.candidates,
            calibration=calibration,
            exclude=self.settings.exclude,
            source=source,
        )

    def _judge(self, person: str) -> Judge | None:
        pool = self.pool()
        gallery = self.prepared.gallery
        if pool is None:
            return None
        row = gallery.people.index(person)
        cosines = [
            gallery.templates[matcher.name] @ consensus_of_rounds(rows)
            for matcher, rows in zip((self.model.matcher_a, self.model.matcher_b), pool, strict=True)
        ]
        a, b = (float(one[row]) for one in cosines)
        rank = 1 + int((cosines[1] > cosines[1][row]).sum())
        return Judge(person, rounded(a), rounded(b), rounded(a - b), rank)

    def _seeds(self, part: str) -> tuple[int, ...]:
        order = [planned.part for planned in self.state.plan].index(part)
        first = self.settings.seed + SEED_STRIDE * order + self.settings.seeds * self.state.attempt(part)
        return tuple(range(first, first + self.settings.seeds))

    def _on_step(self, planned: PlannedRound) -> Callable[..., None]:
        text = f"round {len(self.records)} ({planned.part})"

        def on_step(*_: Any) -> None:
            self._tell(len(self.records), len(self.state.plan), text)

        return on_step

    def _tell(self, done: int, total: int, text: str) -> None:
        if self.on_progress is not None:
            self.on_progress("rounds", done, total, text)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _state_of(record: RoundRecord) -> RoundState:
    chosen = None if record.seed is None else record.seeds.index(record.seed)
    return RoundState(
        record.index,
        record.parent,
        record.part,
        record.seeds,
        record.seed_scores,
        chosen,
        record.chosen_by,
        record.accepted,
        record.skipped,
        record.reason,
        tuple(one.person for one in record.candidates),
    )
