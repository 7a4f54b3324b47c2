"""A case in memory: from values to candidates without a file, on its own copy, and going on from what was kept."""

from __future__ import annotations

import builtins
import importlib.util
import io
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from identiface_core.diffusion.guidance.latent import OPTIONS
from identiface_core.errors import CaseError, GalleryError, InputError
from identiface_core.evidence.description import Description
from identiface_core.evidence.sketch import extract_sketch
from identiface_core.evidence.values import Evidence
from identiface_core.imaging import resize, write_png
from identiface_core.rounds.case import LISTS, Case
from identiface_core.rounds.case_input import CaseInput, Settings
from identiface_core.rounds.cautions import misled
from identiface_core.rounds.engine import CaseEngine
from identiface_core.rounds.led import checked, judge_target
from identiface_core.rounds.prepare import Prepared, gallery_digest, prepared_from
from identiface_core.rounds.report import report
from identiface_core.rounds.runner import CaseRunner
from tests.core.case_fakes import faces, fake_gallery, fake_model

PERSON = 11
ROOT = Path(__file__).resolve().parents[2]
WORDS = {"overview": "A man", "eyes": "blue eyes", "ears": "large ears", "hair": "short hair"}
SETTINGS = Settings(seeds=3, steps=2, stable_rounds=0)


@pytest.fixture
def prepared() -> Prepared:
    """Evidence of person 011 of the gallery, as values."""
    person = faces(30, 7)[PERSON]
    lq, sketch = resize(person, 16, 16).clamp(0, 1), extract_sketch(person).clamp(0, 1)
    return prepared_from(Evidence(lq, sketch, Description.from_mapping(WORDS)), fake_gallery(), source="test")


def engine_of(prepared: Prepared, settings: Settings = SETTINGS, **options: Any) -> CaseEngine:
    return CaseEngine(prepared, settings, fake_model(faces(30, 7)[PERSON]), **options)


def finished(engine: CaseEngine) -> Case:
    while engine.step():
        pass
    return engine.finish()


def test_a_case_runs_without_a_single_file(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    finished(engine_of(prepared))  # so that everything that is imported late is there

    def refuse(file: Any, *_: Any, **__: Any) -> None:
        raise AssertionError(f"asked for the file {file}")

    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(io, "open", refuse)
    with pytest.raises(AssertionError, match="asked for"):
        finished(engine_of(prepared)).save(tmp_path)
    case = finished(engine_of(prepared))
    monkeypatch.undo()
    assert case.candidates[0].person == f"person {PERSON:03d}" and all(case.lists[name] for name in LISTS)
    assert [one.part for one in case.rounds] == ["overview", "eyes", "ears", "hair"]
    assert case.stopped and case.stop_reason == "all parts are done"


def test_values_are_recorded_by_their_content(prepared: Prepared) -> None:
    record, gallery = prepared.evidence_record, prepared.gallery
    assert record["lq"]["native_side"] == 16 and 0 <= record["lq"]["recognisability"] <= 1
    assert len(record["lq"]["sha256"]) == len(record["sketch"]["sha256"]) == 64
    said = Description.from_mapping(WORDS)
    assert record["description"] == said.to_mapping()
    wanted = {"source": "test", "people": 30, "sha256": gallery_digest(gallery), "skipped": []}
    assert prepared.gallery_record == wanted
    assert gallery_digest(fake_gallery()) == gallery_digest(gallery) != gallery_digest(fake_gallery(29))
    words = prepared_from(Evidence(description=said), gallery, warnings=["careful"])
    assert words.evidence_record == {"lq": None, "sketch": None, "description": said.to_mapping()}
    assert words.gallery_record["source"] == "memory" and words.warnings == ("careful",)


def test_the_engine_gives_what_the_folder_says(tmp_path: Path) -> None:
    write_png(tmp_path / "lq.png", resize(faces(1)[0], 16, 16), origin="captured")
    fake_gallery().save(tmp_path / "people.safetensors")
    words = Description.from_mapping(WORDS)
    given = CaseInput(tmp_path / "lq.png", None, None, words, tmp_path / "people.safetensors", SETTINGS)
    runner = CaseRunner(given, fake_model(faces(30, 7)[PERSON]), tmp_path / "out")
    while runner.step():
        pass
    saved = runner.finish()
    assert Case.load(tmp_path / "out") == saved
    alone = finished(engine_of(runner.engine.prepared))
    assert replace(alone, times={}) == replace(saved, times={})


def test_embeddings_of_accepted_rounds(prepared: Prepared) -> None:
    engine = engine_of(prepared)
    assert engine.pool() is None and engine.lists()["generated consensus"] is None
    case = finished(engine)
    pool = engine.pool()
    assert pool is not None
    accepted = sum(one.accepted for one in case.rounds)
    assert [tuple(rows.shape) for rows in pool[0]] == [(3, 48)] * accepted
    assert [tuple(rows.shape) for rows in pool[1]] == [(3, 75)] * accepted
    images = torch.stack(list(engine.faces().values()))
    scores = engine.score(images, engine.model.matcher_a.embed(images))
    assert [one.total for one in scores] == pytest.approx(
        [one.evidence_score for one in case.rounds if not one.skipped], abs=1e-5
    )


def test_a_copy_goes_its_own_way(prepared: Prepared) -> None:
    first = engine_of(prepared)
    first.step()
    branch = first.copy()
    branch.pick = lambda planned, images, scores: 2
    branch.step()
    assert [one.chosen_by for one in branch.records] == ["evidence score", "witness"]
    assert len(first.records) == len(first.drawn) == len(first.state.rounds) == 1 and first.pick is None
    first.step()
    assert first.records[1].chosen_by == "evidence score"


def test_a_kept_case_goes_on_to_the_same_end(prepared: Prepared) -> None:
    whole = finished(engine_of(prepared))
    half = engine_of(prepared)
    half.step(), half.step()
    again = engine_of(prepared)
    again.restore(half.case(), half.tensors())
    assert again.case().times["started"] == half.case().times["started"]
    assert again.records == half.case().rounds and set(again.drawn) == set(half.drawn)
    assert replace(finished(again), times={}) == replace(whole, times={})
    again.restore(half.case(), half.tensors())
    assert again.state.phase == "planned" and again.step(), "a finished engine can go back"


def test_what_does_not_fit_is_refused_and_changes_nothing(prepared: Prepared) -> None:
    half = engine_of(prepared)
    half.step(), half.step()
    case, tensors = half.case(), half.tensors()
    other = prepared_from(replace(prepared.evidence, sketch=None), prepared.gallery, source="test")
    moved = prepared_from(prepared.evidence, prepared.gallery, source="elsewhere")
    for engine, says in (
        (engine_of(prepared, replace(SETTINGS, seed=1)), "other settings"),
        (engine_of(other), "other evidence"),
        (engine_of(moved), "other gallery"),
    ):
        with pytest.raises(CaseError, match=says):
            engine.restore(case, tensors)
        assert engine.records == () and engine.drawn == {} and engine.state.rounds == ()
    del tensors["1.latents"]
    engine = engine_of(prepared)
    with pytest.raises(CaseError, match=r"missing or damaged \('1.latents'\)"):
        engine.restore(case, tensors)
    assert engine.records == () and engine.drawn == {} and engine.state.rounds == ()


def test_only_whole_faces_are_guided_and_only_where_latents_are_read(prepared: Prepared) -> None:
    """To where the evidence points, as far as the case says; a model without a reader of latents is refused."""
    guided = replace(SETTINGS, identity_guidance=0.03, steps=8)
    with pytest.raises(InputError, match=r"run.identity_guidance must be 0 here"):
        engine_of(prepared, guided)
    model = fake_model(faces(30, 7)[PERSON])
    model.critic = torch.nn.Identity()
    mute = SimpleNamespace(**{**vars(model), "evidence_encoder": SimpleNamespace(query=lambda *_: None)})
    with pytest.raises(InputError, match=r"makes no query"):
        CaseEngine(prepared, guided, mute)
    engine = CaseEngine(prepared, guided, model)
    case = finished(engine)
    told = report(case, prepared, engine.faces())
    assert "led the drawing of the whole face" in told, "whoever reads A's cosines must know"
    led = case.rounds[0].led
    assert led is not None and f"from {led.b_unguided:.2f} to {led.b:.2f}" in told
    assert Case.parse(case.to_json()) == case and all(one.led is None for one in case.rounds[1:])
    first, *parts = model.generator.guides
    assert first.options.scale == 0.03 and first.options.every_n == OPTIONS.over(8).every_n
    assert torch.equal(first.target.vector, engine.query) and parts and set(parts) == {None}

    plain = fake_model(faces(30, 7)[PERSON])
    plain.critic = model.critic
    finished(CaseEngine(prepared, SETTINGS, plain))
    assert set(plain.generator.guides) == {None}


def test_the_judge_is_asked_about_the_people_whom_the_query_means() -> None:
    """Not about those left out, and not in a gallery that is too small."""
    gallery, query = fake_gallery(25), fake_gallery(25).templates["embedded-a"][3]
    a, b = "embedded-a", "embedded-b"
    judged = judge_target(gallery, a, b, query)
    assert judged is not None and judged.shape == gallery.templates[b][0].shape
    scores = gallery.templates[b] @ judged
    assert scores[3] > scores.median()
    without = judge_target(gallery, a, b, query, exclude=[gallery.people[3]])
    assert without is not None and without @ gallery.templates[b][3] < scores[3]
    assert judge_target(fake_gallery(20), a, b, query) is None

    led = checked((query[None], scores[None]), (-query[None], scores[None]), query, scores)
    assert (led.a, led.a_unguided) == (pytest.approx(1), pytest.approx(-1)) and led.b == led.b_unguided
    record = SimpleNamespace(index=0, led=led)
    assert "round 0: guidance raises matcher A by 2.000, but judge B" in misled([record])[0]  # type: ignore[list-item]


def test_a_gallery_of_another_matcher_is_refused_by_name(prepared: Prepared) -> None:
    model = fake_model()
    model.matcher_b.name = "other"
    with pytest.raises(GalleryError, match=r"gallery test: .*made with other: .*enrol again"):
        CaseEngine(prepared, SETTINGS, model)


# on a socket of the host


@pytest.fixture
def cases() -> ModuleType:
    """`nodes/cases.py`: it needs nothing of the host, unlike the package around it."""
    spec = importlib.util.spec_from_file_location("identiface_nodes_cases", ROOT / "nodes" / "cases.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # where dataclasses look
        spec.loader.exec_module(module)
    return module


def test_every_move_gives_a_new_value(prepared: Prepared, cases: ModuleType) -> None:
    model = fake_model(faces(30, 7)[PERSON])
    start = cases.HostCase.start(model, prepared.evidence, prepared.gallery, SETTINGS)
    with pytest.raises(InputError, match="no face yet"):
        start.faces()
    with pytest.raises(InputError, match="whole face comes first"):
        start.drawn_round("hair", None)
    whole, drawn = start.drawn_round(None, None)
    hair, redrawn = whole.drawn_round("hair", 2)
    assert drawn is not None and redrawn is not None and len(drawn) == len(redrawn) == 3
    assert [len(one.state.rounds) for one in (start, whole, hair)] == [0, 1, 2]
    assert torch.equal(hair.faces()[-1], redrawn[2]) and torch.equal(hair.faces()[0], whole.faces()[0])
    assert torch.equal(hair.path()[-1].image, redrawn[2])
    ended = hair.with_state(hair.state.stop("enough"))
    assert ended.stopped and not hair.stopped
    assert hair.candidates.people()[0] == f"person {PERSON:03d}"
    sheet = hair.sheet()
    assert sheet.dim() == 3 and sheet.shape[0] == 3 and 0 <= sheet.min() < sheet.max() <= 1


def test_a_saved_case_is_loaded_and_replaced_whole(
    prepared: Prepared, cases: ModuleType, tmp_path: Path
) -> None:
    model = fake_model(faces(30, 7)[PERSON])
    start = cases.HostCase.start(model, prepared.evidence, prepared.gallery, SETTINGS)
    whole, _ = start.drawn_round(None, None)
    hair, _ = whole.drawn_round("hair", None)
    with pytest.raises(CaseError, match="save one with Save Case"):
        start.loaded_from(tmp_path / "case")
    saved = hair.save_to(tmp_path / "case")
    assert Case.load(tmp_path / "case") == saved and saved.gallery["source"] == "ComfyUI"
    back = start.loaded_from(tmp_path / "case")
    assert torch.equal(back.faces(), hair.faces()) and start.state.rounds == ()
    other = cases.HostCase.start(model, prepared.evidence, prepared.gallery, Settings(seeds=2))
    with pytest.raises(CaseError, match="other settings"):
        other.loaded_from(tmp_path / "case")
    whole.save_to(tmp_path / "case")
    pictures = sorted(path.name for path in (tmp_path / "case").glob("round-*.png"))
    assert pictures == ["round-00-overview.png"], "pictures of the case before would pass for this one's"
