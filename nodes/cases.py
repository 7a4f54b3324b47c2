"""A case on a socket: the core's runner with evidence and gallery given as values, each round a new value."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from torch import Tensor

from identiface_core.errors import CaseError, InputError
from identiface_core.evidence.lq import recognisability
from identiface_core.evidence.values import Evidence
from identiface_core.gallery import Candidates, Gallery
from identiface_core.gallery.enrolment import fingerprint
from identiface_core.imaging import to_uint8, write_png
from identiface_core.rounds.case import BY_BOTH, Case
from identiface_core.rounds.case_input import Settings
from identiface_core.rounds.controller import Controller, Rules
from identiface_core.rounds.plan import PlannedRound, plan_rounds
from identiface_core.rounds.prepare import Prepared
from identiface_core.rounds.report import write_report
from identiface_core.rounds.runner import CaseRunner
from identiface_core.rounds.sheet import candidate_sheet, write_sheets

FOLDER = "identiface"
"""Where cases are saved, under the host's output folder."""


class HostCase(CaseRunner):
    """The CASE socket. The host hands one value to many nodes, so every move gives a copy."""

    def __init__(self, toolkit: Any, evidence: Evidence, gallery: Gallery, settings: Settings) -> None:
        for matcher in (toolkit.matcher_a, toolkit.matcher_b):
            gallery.templates_of(matcher.name, dimension=matcher.dimension, fingerprint=fingerprint(matcher))
        self.settings, self.model, self.folder = (
            settings,
            toolkit,
            Path(folder_paths.get_temp_directory()) / FOLDER,
        )
        self.on_progress = self.pick = None
        self.started, self.clock = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.monotonic()
        record = {"source": "ComfyUI", "people": len(gallery), "sha256": digest(gallery), "skipped": []}
        self.prepared = Prepared(evidence, evidence_record(evidence), gallery, record)
        rules = Rules(settings.margin, settings.stable_top, settings.stable_rounds)
        self.state = Controller(plan_rounds(evidence.description, limit=settings.rounds), rules)
        self.drawn, self.records = {}, ()
        with torch.no_grad():
            self.query = self._query(evidence)

    @property
    def stopped(self) -> bool:
        return self.state.next_round() is None

    @property
    def candidates(self) -> Candidates:
        """The list by both queries, as it stands."""
        found = self.lists()[BY_BOTH]
        assert found is not None
        return found

    def faces(self) -> Tensor:
        """(R, 3, 128, 128): the chosen faces of the accepted rounds; InputError before the first."""
        path = self.state.path()
        if not path:
            raise InputError("this case has no face yet: run a Part Round or Iterate first")
        return torch.stack([self.drawn[one.index].image for one in path])

    def _copy(self) -> HostCase:
        fresh = copy.copy(self)
        fresh.drawn = dict(self.drawn)
        return fresh

    def with_state(self, state: Controller) -> HostCase:
        """The same case in another state of the controller."""
        fresh = self._copy()
        fresh.state = state
        return fresh

    def drawn_round(self, part: str | None, pick: int | None) -> tuple[HostCase, Tensor | None]:
        """The case after its next round (of `part`, or as planned), and all (S, 3, 128, 128) faces of it.

        pick: the witness's choice among them; None: the evidence score's. A stopped case comes back as it is.
        """
        fresh = self._copy()
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
        return fresh, seen[0] if seen else None

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
        faces = {index: drawn.image for index, drawn in self.drawn.items()}
        pixels = torch.from_numpy(np.array(candidate_sheet(self.save(), self.prepared, faces).convert("RGB")))
        return pixels.permute(2, 0, 1).float() / 255

    def save_to(self, folder: Path) -> Case:
        """Write the whole case: case file, a picture per round, sheets, report."""
        fresh = self._copy()
        fresh.folder = folder
        for one in self.records:
            if one.image is not None:
                data = {"round": one.index, "part": one.part, "seed": one.seed, "prompt": one.prompt}
                write_png(folder / one.image, self.drawn[one.index].image, origin="generated", data=data)
        case = fresh.save()
        faces = {index: drawn.image for index, drawn in self.drawn.items()}
        write_sheets(folder, case, self.prepared, faces)
        write_report(folder, case, self.prepared, faces)
        return case

    def loaded_from(self, folder: Path) -> HostCase:
        """This case with the rounds saved in `folder`; CaseError when it was run on anything else."""
        if not (folder / "case.json").is_file():
            raise CaseError(f"there is no case in {folder}: save one with Save Case")
        fresh = self._copy()
        fresh.folder, fresh.drawn = folder, {}
        fresh._resume()
        fresh.folder = self.folder
        return fresh


def evidence_record(evidence: Evidence) -> dict[str, Any]:
    """What the case file says of the evidence; a socket has no file names, so pictures go by their pixels."""
    lq, sketch, words = evidence.lq, evidence.sketch, evidence.description
    return {
        "lq": None
        if lq is None
        else {
            "file": "LQ Photo",
            "sha256": pixels_hash(lq),
            "face": None,
            "native_side": lq.shape[-1],
            "recognisability": float(recognisability(lq)),
        },
        "sketch": None if sketch is None else {"file": "Sketch", "sha256": pixels_hash(sketch)},
        "description": None if words is None else words.to_mapping(),
    }


def pixels_hash(image: Tensor) -> str:
    return hashlib.sha256(to_uint8(image).cpu().contiguous().numpy().tobytes()).hexdigest()


def digest(gallery: Gallery) -> str:
    """Names and templates as one hash."""
    whole = hashlib.sha256("\n".join(gallery.people).encode())
    for name in sorted(gallery.templates):
        whole.update(name.encode() + gallery.templates[name].contiguous().numpy().tobytes())
    return whole.hexdigest()
