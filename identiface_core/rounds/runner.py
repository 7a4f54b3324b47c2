"""One case from evidence to candidates. Search with the evidence, show with the generator.

The path: evidence query -> first candidates -> whole face (several seeds) -> part rounds -> consensus of the
accepted rounds' seeds -> candidates by evidence, by generated faces, by both. The case is saved after every
round.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from identiface_core.diffusion.generator import Sample
from identiface_core.errors import CaseError, OutputError, WeightsError
from identiface_core.evidence.sketch import extract_sketch
from identiface_core.evidence.values import Evidence
from identiface_core.gallery import Candidates, search
from identiface_core.imaging import write_png
from identiface_core.matchers.base import Embedding
from identiface_core.weights.files import load_tensors, save_tensors

from .case import BY_BOTH, BY_EVIDENCE, BY_GENERATED, Case, Judge, RoundRecord, kept, rounded
from .case_input import CaseInput
from .consensus import agreement, consensus_of_rounds, fuse
from .controller import Controller, RoundState, Rules
from .masks import RoundMask, round_mask
from .plan import PlannedRound, plan_rounds
from .prepare import Progress, prepare
from .scoring import EvidenceScore, combine, cosine_agreement, lq_agreement, sketch_agreement, words_agreement

if TYPE_CHECKING:
    from identiface_core.embedded import EmbeddedModel

Pick = Callable[[PlannedRound, Tensor, tuple[EvidenceScore, ...]], "int | None"]
"""The witness's choice: gets the round, its faces (S, 3, 128, 128) and their scores; gives a position or
None."""

STATE = "case.safetensors"
SEED_STRIDE = 1000
"""Distance of the seeds of two rounds."""
WIDE_GAP = 0.25
"""Difference of the two matchers' cosines from which the report warns."""
CALIBRATIONS = {BY_EVIDENCE: "evidence", BY_GENERATED: "generated", BY_BOTH: "both"}
"""Which impostor table reads which list."""


@dataclass(frozen=True)
class Drawn:
    """What is kept of a drawn round to draw the next one, to search, and to resume."""

    image: Tensor
    """(3, 128, 128): the chosen face."""
    latents: Tensor
    """(1, 4, 16, 16): its latents."""
    a: Tensor
    """(S, D) embeddings of all seeds by the searching matcher."""
    b: Tensor
    """(S, D') by the judging matcher."""


def run_case(
    case: CaseInput,
    model: EmbeddedModel,
    out: str | Path,
    on_progress: Progress | None = None,
    *,
    resume: bool = False,
    pick: Pick | None = None,
) -> Case:
    """Run a case into the folder `out`: `case.json`, a picture per round, `candidates.png`, `rounds.png`,
    `report.html`.

    With `resume`, a case that was interrupted in `out` goes on where it stopped, to the same end. Raises
    `InputError`, `GalleryError`, `OutputError`; `CaseError` when there is nothing to resume or it was run on
    something else.
    """
    from .report import write_report
    from .sheet import write_sheets

    runner = CaseRunner(case, model, out, on_progress, pick=pick, resume=resume)
    while runner.step():
        pass
    result = runner.finish()
    faces = {index: drawn.image for index, drawn in runner.drawn.items()}
    write_sheets(Path(out), result, runner.prepared, faces)
    write_report(Path(out), result, runner.prepared, faces)
    return result


class CaseRunner:
    """A case that is run round by round: `step()` until it gives False, then `finish()`."""

    def __init__(
        self,
        case: CaseInput,
        model: EmbeddedModel,
        out: str | Path,
        on_progress: Progress | None = None,
        *,
        pick: Pick | None = None,
        resume: bool = False,
    ) -> None:
        self.settings, self.model, self.folder = case.settings, model, Path(out)
        self.on_progress, self.pick = on_progress, pick
        self.started, self.clock = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.monotonic()
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError(
                f"{self.folder}: a folder is wanted for the results, this is a file: name another"
            )
        self.prepared = prepare(case, model, on_progress)
        settings = case.settings
        rules = Rules(settings.margin, settings.stable_top, settings.stable_rounds)
        self.state = Controller(plan_rounds(case.description, limit=settings.rounds), rules)
        self.drawn: dict[int, Drawn] = {}
        self.records: tuple[RoundRecord, ...] = ()
        with torch.no_grad():
            self.query = self._query(self.prepared.evidence)
        if resume:
            self._resume()
        else:
            self._clear()
            self.save()

    @torch.no_grad()
    def step(self) -> bool:
        """Draw, choose, judge and save the next round; False when the case has stopped."""
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
        sample = self.model.generator.sample(
            [planned.prompt],
            self.prepared.evidence,
            seeds,
            steps=self.settings.steps,
            guidance_scale=self.settings.guidance_scale,
            strength=self.settings.strength,
            known=Sample(standing.image[None], standing.latents) if standing is not None and redraw else None,
            mask=where.mask if redraw else None,
            on_step=self._on_step(planned),
        )
        images = sample.images.detach().float().cpu().clamp(0, 1)
        a, b = (m.embed(images).detach().float().cpu() for m in (self.model.matcher_a, self.model.matcher_b))
        scores = self.score(images, a)
        witness = None if self.pick is None else self.pick(planned, images, scores)
        state = self.state.sampled(seeds, tuple(rounded(one.total) for one in scores)).choose(witness)
        chosen = state.rounds[-1].chosen or 0
        latents = sample.latents[chosen : chosen + 1].detach().float().cpu().contiguous()
        self.drawn[state.rounds[-1].index] = Drawn(images[chosen].contiguous(), latents, a, b)
        self.state = state.judge()
        self._record(planned, where.kind, agreement(a), scores)
        return True

    def finish(self) -> Case:
        """Note the end and give the finished case."""
        if self.state.phase != "stopped":
            self.state = self.state.stop("all parts are done")
        self._tell(len(self.state.plan), len(self.state.plan), "done")
        return self.save()

    def score(self, images: Tensor, embeddings: Tensor) -> tuple[EvidenceScore, ...]:
        """Evidence score of faces (S, 3, 128, 128) with their matcher A embeddings (S, D). No oracle."""
        evidence, count = self.prepared.evidence, len(images)
        none: list[Any] = [None] * count
        lq = none if evidence.lq is None else lq_agreement(images, evidence.lq).tolist()
        sketch = none
        if evidence.sketch is not None:
            drawings = torch.stack([extract_sketch(image) for image in images])
            sketch = sketch_agreement(drawings, evidence.sketch).tolist()
        words = self._words(images, embeddings)
        query = cosine_agreement(embeddings, self.query).tolist()
        return tuple(combine(*terms) for terms in zip(lq, sketch, words, query, strict=True))

    def _words(self, images: Tensor, embeddings: Tensor) -> list[Any]:
        """Do the words hold? Read off the face where the model has a reader, else by the words' own query."""
        description, reader = self.prepared.evidence.description, getattr(self.model, "reader", None)
        if description is None:
            return [None] * len(images)
        if reader is None:
            query = self._query(Evidence(description=description))
            return list(cosine_agreement(embeddings, query).tolist())
        said = self.model.text_encoder.understood(description.full_prompt())
        agreed = words_agreement(images, said, reader)
        return [None] * len(images) if agreed is None else list(agreed.tolist())

    def lists(self) -> dict[str, Candidates | None]:
        """The three candidate lists of the case as it stands, by name."""
        pool = self._pool()
        generated = None if pool is None else consensus_of_rounds(pool[0])
        both = fuse(self.query, generated, self.settings.evidence_weight)
        return {
            BY_EVIDENCE: self._search(self.query, BY_EVIDENCE),
            BY_GENERATED: None if generated is None else self._search(generated, BY_GENERATED),
            BY_BOTH: self._search(both, BY_BOTH),
        }

    def save(self) -> Case:
        """Write the case as it stands. The state goes first: a case file never names rounds that cannot be
        resumed."""
        pool = self._pool()
        head = self.state.head
        seconds = round(time.monotonic() - self.clock, 3)
        case = Case(
            evidence=self.prepared.evidence_record,
            settings=dataclasses.asdict(self.settings),
            gallery=self.prepared.gallery_record,
            models=dict(self.model.hashes),
            lists={name: kept(found) for name, found in self.lists().items()},
            rounds=self.records,
            face=None if head is None else self.records[head].image,
            agreement=None if pool is None else agreement(pool[0][0]),
            stopped=self.state.phase == "stopped",
            stop_reason=self.state.stop_reason,
            warnings=(*self.prepared.warnings, *self._gap_warning()),
            times={"started": self.started, "seconds": seconds},
        )
        tensors = {
            f"{index}.{field.name}": getattr(drawn, field.name)
            for index, drawn in self.drawn.items()
            for field in dataclasses.fields(drawn)
        }
        save_tensors(self.folder / STATE, tensors, "case-state", {})
        case.save(self.folder)
        return Case.parse(case.to_json())

    def _record(
        self, planned: PlannedRound, kind: str, agree: float | None, scores: tuple[EvidenceScore, ...]
    ) -> None:
        found = self.lists()
        both = found[BY_BOTH]
        listed = kept(both)
        self.state = self.state.listed(tuple(one.person for one in listed))
        one = self.state.rounds[-1]
        image = None
        if one.chosen is not None:
            image = f"round-{one.index:02d}-{one.part}.png"
            data = {
                "round": one.index,
                "part": one.part,
                "seed": one.seeds[one.chosen],
                "prompt": planned.prompt,
            }
            write_png(self.folder / image, self.drawn[one.index].image, origin="generated", data=data)
        record = RoundRecord(
            index=one.index,
            parent=one.parent,
            part=one.part,
            prompt=planned.prompt,
            seed=None if one.chosen is None else one.seeds[one.chosen],
            image=image,
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
        )
        self.records = (*self.records, record)
        self._tell(len(self.records), len(self.state.plan), f"round {one.index} ({one.part}): {one.reason}")
        self.save()

    def _query(self, evidence: Evidence) -> Tensor:
        query: Tensor = (
            self.model.evidence_encoder.query(evidence, self.model.text_encoder).detach().float().cpu()
        )
        return query

    def _search(self, vector: Tensor, source: str) -> Candidates:
        query = Embedding(vector, self.model.matcher_a.name, synthetic=True)
        tables, name = self.model.calibrations, CALIBRATIONS[source]
        # One photo alone ranks strangers higher than all evidence together: each set has a table of its own.
        calibration = tables.get(f"{name}/{'+'.join(self.prepared.evidence.kinds)}", tables.get(name))
        return search(
            self.prepared.gallery,
            query,
            self.settings.candidates,
            calibration=calibration,
            exclude=self.settings.exclude,
            source=source,
        )

    def _pool(self) -> tuple[list[Tensor], list[Tensor]] | None:
        """Embeddings (S, D) of all seeds, by accepted round, by each matcher."""
        path = [self.drawn[one.index] for one in self.state.path()]
        if not path:
            return None
        return [drawn.a for drawn in path], [drawn.b for drawn in path]

    def _judge(self, person: str) -> Judge | None:
        pool = self._pool()
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

    def _gap_warning(self) -> tuple[str, ...]:
        judges = [one.judge for one in self.records if one.judge is not None]
        if not judges or (
            judges[-1].gap <= WIDE_GAP and judges[-1].rank_b <= max(10, self.settings.candidates)
        ):
            return ()
        last = judges[-1]
        return (
            f"the judging matcher does not share the first candidate {last.person!r}: cosine "
            f"{last.matcher_b:.2f} against {last.matcher_a:.2f}, and rank {last.rank_b} if it searched with "
            "the generated faces",
        )

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

    def _clear(self) -> None:
        """A case that was run here before goes: its pictures would pass for this one's."""
        if (self.folder / "case.json").exists():
            try:
                for old in [*self.folder.glob("round-[0-9][0-9]-*.png"), self.folder / STATE]:
                    old.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(
                    f"{self.folder}: cannot be written ({error.strerror}): choose another folder"
                ) from error

    def _resume(self) -> None:
        if not (self.folder / "case.json").exists():
            raise CaseError(f"{self.folder}: no case was begun there: leave out --resume, or name its folder")
        before = Case.load(self.folder)
        now = {
            "evidence": self.prepared.evidence_record,
            "settings": dataclasses.asdict(self.settings),
            "gallery": self.prepared.gallery_record,
            "models": dict(self.model.hashes),
        }
        for name, value in now.items():
            if json.loads(json.dumps(rounded(value))) != getattr(before, name):
                raise CaseError(
                    f"{self.folder}: cannot go on: the case there was run with other {name}. "
                    "Run it anew, or into another folder"
                )
        try:
            tensors, _ = load_tensors(self.folder / STATE, "case-state")
            for one in before.rounds:
                if not one.skipped:
                    self.drawn[one.index] = Drawn(
                        *(tensors[f"{one.index}.{f.name}"] for f in dataclasses.fields(Drawn))
                    )
        except (WeightsError, KeyError) as error:
            raise CaseError(
                f"{self.folder}: cannot go on, its {STATE} is missing or damaged ({error}): run it anew"
            ) from error
        self.started = before.times.get("started", self.started)
        self.records = before.rounds
        states = tuple(_state_of(one) for one in before.rounds)
        head = next(
            (one.index for one in before.rounds if one.image is not None and one.image == before.face), None
        )
        self.state = replace(self.state, rounds=states, head=head)
        if before.stopped:
            self.state = self.state.stop(before.stop_reason)


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
