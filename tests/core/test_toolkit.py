"""A case with a generator and a matcher of one's own: larger pictures, no query without a photo, no borrowed tables."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.diffusion.generator import Sample
from identiface_core.evidence.description import Description
from identiface_core.evidence.values import Evidence
from identiface_core.faces.alignment import warp
from identiface_core.gallery import Gallery, enrol
from identiface_core.imaging import resize
from identiface_core.rounds.case import BY_BOTH, BY_EVIDENCE, BY_GENERATED
from identiface_core.rounds.case_input import Settings
from identiface_core.rounds.engine import CaseEngine
from identiface_core.rounds.prepare import prepared_from
from identiface_core.rounds.report import report
from identiface_core.rounds.sheet import candidate_sheet
from identiface_core.rounds.toolkit import PhotoQuery, toolkit_around
from tests.core.case_fakes import Generator, Matcher, faces, fake_gallery, fake_model

PERSON, SIDE = 11, 256
FRAMING = torch.tensor([[[1.6, 0.0, -32.0], [0.0, 1.6, -16.0]]])
"""From a picture of 200 x 180 px to the portrait of 256 px in it."""
WORDS = Description.from_mapping({"overview": "A man", "eyes": "blue eyes", "hair": "short hair"})


class Large:
    """Draws pictures of 200 x 180 px in which the fake generator's face stands somewhere."""

    def __init__(self) -> None:
        self.small, self.known = Generator(faces(30, 7)[PERSON]), []  # type: ignore[var-annotated]

    def sample(
        self, *args: Any, known: Sample | None = None, mask: Tensor | None = None, **more: Any
    ) -> Sample:
        self.known.append(known)
        small = None if known is None else Sample(resize(known.images, 128, 128), known.latents)
        mask = None if mask is None else resize(mask, 128, 128)
        drawn = self.small.sample(*args, known=small, mask=mask, **more)
        portraits = resize(drawn.images, SIDE, SIDE)
        linear = torch.linalg.inv(FRAMING[0, :, :2])
        back = torch.cat([linear, -linear @ FRAMING[0, :, 2:]], 1)[None]
        pictures = warp(portraits, back.expand(len(portraits), -1, -1), (180, 200))
        found = torch.tensor([1.0] + [0.0] * (len(portraits) - 1)) if known is None else None
        return Sample(portraits, drawn.latents, pictures, FRAMING.expand(len(portraits), -1, -1), found)


def enrolled(matcher: Any) -> Gallery:
    pairs = [(f"person {i:03d}", face) for i, face in enumerate(faces(30, 7))]
    return enrol(pairs, (matcher, fake_model().matcher_b))


def engine_of(evidence: Evidence, matcher: Any = None, gallery: Gallery | None = None) -> CaseEngine:
    kit = toolkit_around(Large(), fake_model(), {"model": "tiny"}, matcher=matcher)
    settings = Settings(seeds=2, steps=1, stable_rounds=0)
    return CaseEngine(prepared_from(evidence, gallery or fake_gallery()), settings, kit)


def finished(engine: CaseEngine) -> Any:
    while engine.step():
        pass
    return engine.finish()


def test_pictures_of_any_size_are_cut_out_kept_and_restored() -> None:
    engine = engine_of(Evidence(resize(faces(30, 7)[PERSON], 16, 16), None, WORDS))
    engine.step()
    first = engine.drawn[0]
    assert first.image.shape == (3, SIDE, SIDE) and first.shown.shape == (3, 180, 200)
    again = engine_of(engine.prepared.evidence)
    again.restore(engine.case(), engine.tensors())
    assert torch.equal(again.drawn[0].shown, first.shown) and again.drawn[0].framing is not None
    case = finished(again)
    assert [one for one in case.warnings if "no face was found in 1 of 2" in one and "round 0" in one]
    started_from = again.model.generator.known[0]  # type: ignore[attr-defined]
    assert torch.equal(started_from.pictures[0], first.shown) and torch.equal(started_from.framing, FRAMING)
    assert [one.part for one in case.rounds] == ["overview", "eyes", "hair"]
    assert case.candidates[0].person == f"person {PERSON:03d}"
    assert "eyes" in report(case, again.prepared, again.faces()) and candidate_sheet(
        case, again.prepared, again.faces()
    )


def test_a_state_without_pictures_still_goes_on() -> None:
    """The embedded model's portraits are its pictures: nothing is stored twice."""
    prepared = prepared_from(Evidence(None, None, WORDS), fake_gallery())
    engine = CaseEngine(prepared, Settings(seeds=2, steps=1), fake_model(faces(30, 7)[PERSON]))
    engine.step()
    assert set(engine.tensors()) == {"0.image", "0.latents", "0.a", "0.b"}
    assert torch.equal(engine.drawn[0].shown, engine.drawn[0].image)


def test_without_a_photo_a_matcher_of_ones_own_searches_with_generated_faces_only() -> None:
    mine = Matcher("mine", 4)
    engine = engine_of(Evidence(None, None, WORDS), mine, enrolled(mine))
    assert engine.query is None and all(one is None for one in engine.lists().values())
    case = finished(engine)
    assert case.lists[BY_EVIDENCE] == () and case.lists[BY_GENERATED]
    assert case.candidates == case.lists[BY_GENERATED] == case.lists[BY_BOTH]
    assert "query" not in case.rounds[0].evidence_terms
    assert "no list" in report(case, engine.prepared, engine.faces())


def test_the_photo_is_the_query_of_a_matcher_of_ones_own() -> None:
    matcher, face = Matcher("mine", 4), faces(3, 7)[2]
    query = PhotoQuery(matcher).query(Evidence(lq=resize(face, 32, 32)), None)
    assert query is not None
    assert F.cosine_similarity(query, matcher.embed(face[None])[0], dim=0) > 0.99
    assert PhotoQuery(matcher).query(Evidence(description=WORDS), None) is None


@pytest.mark.parametrize(("own", "left"), [(None, {"portrait", "evidence"}), (Matcher("mine", 4), set())])
def test_no_table_is_borrowed_that_was_measured_on_something_else(own: Any, left: set[str]) -> None:
    kit = toolkit_around(Large(), fake_model(), {"model": "x"}, matcher=own)
    assert set(kit.calibrations) == left and kit.reader is None
    assert kit.hashes["model"] == "x" and set(kit.hashes) == {"model", "matcher", "judge"}
