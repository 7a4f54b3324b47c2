"""A case on a socket: the core's engine with evidence and gallery given as values, each round a new value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from identiface_core.errors import CaseError, InputError
from identiface_core.evidence.values import Evidence
from identiface_core.gallery import Candidates, Gallery
from identiface_core.rounds.case import BY_BOTH, FILE, STATE, Case
from identiface_core.rounds.case_input import Settings
from identiface_core.rounds.controller import Controller
from identiface_core.rounds.engine import CaseEngine, Drawn
from identiface_core.rounds.plan import PlannedRound
from identiface_core.rounds.prepare import Prepared, prepared_from
from identiface_core.rounds.runner import clear, restore_from, save_case, write_pages, write_round
from identiface_core.rounds.sheet import candidate_sheet
from identiface_core.rounds.toolkit import PHOTO_WEIGHT, PhotoQuery


@dataclass(frozen=True)
class HostCase:
    """The CASE socket. The host hands one value to many nodes, so every move gives a copy."""

    engine: CaseEngine
    """Never moved itself, only copies of it."""

    @classmethod
    def start(cls, toolkit: Any, evidence: Evidence, gallery: Gallery, settings: Settings) -> HostCase:
        """A case before its first round; GalleryError for a gallery of other matchers than the toolkit's.

        A generator may have settings of its own: `settings(given) -> Settings`.
        """
        own = getattr(toolkit.generator, "settings", None)
        settings = settings if own is None else own(settings)
        if isinstance(toolkit.evidence_encoder, PhotoQuery):
            settings = dataclasses.replace(settings, evidence_weight=PHOTO_WEIGHT)
        return cls(CaseEngine(prepared_from(evidence, gallery, source="ComfyUI"), settings, toolkit))

    @property
    def state(self) -> Controller:
        return self.engine.state

    @property
    def prepared(self) -> Prepared:
        return self.engine.prepared

    @property
    def stopped(self) -> bool:
        return self.state.next_round() is None

    @property
    def candidates(self) -> Candidates:
        """The list by both queries, as it stands; empty before the first face if the evidence alone makes no query."""
        found = self.engine.lists()[BY_BOTH]
        return found or Candidates((), self.engine.model.matcher_a.name, BY_BOTH, len(self.prepared.gallery))

    def path(self) -> list[Drawn]:
        """The accepted rounds, the face that stands last; InputError before the first."""
        path = self.state.path()
        if not path:
            raise InputError("this case has no face yet: run a Part Round or Iterate first")
        return [self.engine.drawn[one.index] for one in path]

    def faces(self) -> Tensor:
        """(R, 3, H, W): the chosen faces of the accepted rounds as they were drawn; InputError before the first."""
        return torch.stack([one.shown for one in self.path()])

    def with_state(self, state: Controller) -> HostCase:
        """The same case in another state of the controller."""
        fresh = self.engine.copy()
        fresh.state = state
        return HostCase(fresh)

    def drawn_round(self, part: str | None, pick: int | None) -> tuple[HostCase, Tensor | None]:
        """The case after its next round (of `part`, or as planned), and all portraits (S, 3, H, H) of it.

        pick: the witness's choice among them; None: the evidence score's. A stopped case comes back as it is.
        """
        fresh = self.engine.copy()
        if part is not None:
            reopened = {"phase": "planned", "stop_reason": ""} if self.state.phase == "stopped" else {}
            fresh.state = dataclasses.replace(fresh.state, plan=self._plan_with(part), **reopened)
        seen: list[Tensor] = []

        def look(planned: PlannedRound, images: Tensor, scores: Any) -> int | None:
            seen.append(images)
            return pick

        fresh.pick = look
        fresh.step()
        fresh.pick = None
        return HostCase(fresh), seen[0] if seen else None

    def _plan_with(self, part: str) -> tuple[PlannedRound, ...]:
        """The plan with `part` next."""
        plan = self.state.plan
        done = {one.part for one in self.state.path()}
        if part in done:
            raise InputError(
                f"{part} was drawn already; start from the case before that round to draw it again"
            )
        if "overview" not in done and part != "overview":
            raise InputError(f"the whole face comes first: draw 'overview' (or 'next') before {part}")
        description = self.prepared.evidence.description
        here = [one for one in plan if one.part == part]
        here = here or [PlannedRound(part, "" if description is None else description.prompt(part))]
        before = [one for one in plan if one.part in done]
        return (*before, *here, *(one for one in plan if one.part not in done and one.part != part))

    def sheet(self) -> Tensor:
        """(3, H, W): the contact sheet of the case as it stands."""
        sheet = candidate_sheet(self.engine.case(), self.prepared, self.engine.faces())
        return torch.from_numpy(np.array(sheet.convert("RGB"))).permute(2, 0, 1).float() / 255

    def save_to(self, folder: Path) -> Case:
        """Write the whole case: case file, a picture per round, sheets, report. A case saved there before
        goes."""
        case = self.engine.case()
        clear(folder, keep=[STATE, *(one.image for one in case.rounds if one.image is not None)])
        for one in case.rounds:
            write_round(folder, one, self.engine)
        save_case(folder, case, self.engine)
        write_pages(folder, case, self.engine)
        return case

    def loaded_from(self, folder: Path) -> HostCase:
        """This case with the rounds saved in `folder`; CaseError when it was run on anything else."""
        if not (folder / FILE).is_file():
            raise CaseError(f"there is no case in {folder}: save one with Save Case")
        fresh = self.engine.copy()
        restore_from(folder, fresh)
        return HostCase(fresh)
