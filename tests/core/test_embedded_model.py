"""The shipped weights do what the documents say, on a few people; the figures over many are the evaluation's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from identiface_core.cli.case import EXAMPLE
from identiface_core.embedded import EmbeddedModel, load_demo_gallery, load_embedded
from identiface_core.evaluation.examples import EXAMPLE_PERSON
from identiface_core.evaluation.metrics import mate_ranks
from identiface_core.evaluation.part_words import move_words, summarise_words
from identiface_core.evaluation.probes import Probes, draw_probes
from identiface_core.evaluation.sheets import first_faces
from identiface_core.evaluation.studio import estimate
from identiface_core.evaluation.values import KINDS
from identiface_core.gallery import Gallery
from identiface_core.provenance import read_origin
from identiface_core.rounds.case import Case
from identiface_core.rounds.case_input import read_case
from identiface_core.rounds.runner import run_case

PEOPLE = 24


@pytest.fixture(scope="module")
def model() -> EmbeddedModel:
    return load_embedded()


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return load_demo_gallery()


@pytest.fixture(scope="module")
def probes() -> Probes:
    return draw_probes(PEOPLE)


@pytest.fixture(scope="module")
def example(model: EmbeddedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("example")
    run_case(read_case(EXAMPLE), model, out)
    return out


def test_the_person_of_the_example_is_among_the_first_ten(example: Path) -> None:
    listed = json.loads((example / "case.json").read_text())["candidates"]
    assert [one["rank"] for one in listed] == list(range(1, 11))
    # The case never heard this name: only this test knows whom the evidence was made from.
    assert f"S{EXAMPLE_PERSON + 1:04d}" in [one["person"] for one in listed]
    assert all(0 < one["fpir"] <= 1 for one in listed)


def test_the_example_replays_to_the_same_bytes(model: EmbeddedModel, example: Path, tmp_path: Path) -> None:
    run_case(read_case(EXAMPLE), model, tmp_path)
    first, second = (json.loads((folder / "case.json").read_text()) for folder in (example, tmp_path))
    assert first.pop("times") and second.pop("times")
    assert json.dumps(first) == json.dumps(second)
    for picture in example.glob("round-*.png"):
        assert picture.read_bytes() == (tmp_path / picture.name).read_bytes()


def test_every_generated_picture_says_so(example: Path) -> None:
    pictures = sorted(example.glob("round-*.png"))
    assert len(pictures) >= 4
    assert {read_origin(picture) for picture in pictures} == {"generated"}
    assert Case.load(example).rounds


def test_evidence_finds_people_among_a_thousand(
    model: EmbeddedModel, gallery: Gallery, probes: Probes
) -> None:
    templates = gallery.templates[model.matcher_a.name]
    assert len(templates) == 1000
    queries = torch.stack([estimate(model, probes.evidence(i)) for i in range(len(probes))])
    ranks = mate_ranks(queries, templates, probes.rows)
    # `identiface evaluate` measures it over many; chance is 1 %.
    assert (ranks <= 10).float().mean() >= 0.75


def test_kinds_of_evidence_give_different_faces(model: EmbeddedModel, probes: Probes) -> None:
    few = probes.first(4)
    made = {kinds: first_faces(model, few, kinds) for kinds in (("words",), ("sketch",), ("lq",), KINDS)}
    truth = few.truth
    for kinds, faces in made.items():
        assert faces.shape == truth.shape and float(faces.min()) >= 0 and float(faces.max()) <= 1
        for other, others in made.items():
            if other != kinds:
                assert (faces - others).abs().mean() > 0.01, f"{kinds} and {other} gave the same faces"
    wrong = (made[KINDS] - truth.roll(1, 0)).square().mean()
    assert (made[KINDS] - truth).square().mean() < 0.7 * wrong, "faces are no nearer to their own person"


def test_words_move_what_they_name_and_nothing_else(model: EmbeddedModel, probes: Probes) -> None:
    names = ("hair colour", "beard", "glasses")
    found = summarise_words(
        [move_words(model, probes.truth[:12], probes.values[:12], range(12), names=names)]
    )
    assert set(found) == {"hair colour", "beard", "glasses"}
    for name, row in found.items():
        assert row["right_way"] >= 0.75, f"{name}: {row}"
        assert row["outside"] == 0, f"{name}: {row}"


def test_strength_zero_is_no_control(model: EmbeddedModel, probes: Probes) -> None:
    evidence = probes.evidence(0)
    off = model.generator.sample(["a man"], evidence, [1], steps=2, strength=0.0).latents
    without = model.generator.sample(["a man"], None, [1], steps=2).latents
    assert torch.equal(off, without)


def test_the_judge_is_another_network_than_the_guide(model: EmbeddedModel, gallery: Gallery) -> None:
    assert gallery.matchers[model.matcher_a.name] != gallery.matchers[model.matcher_b.name]
    a, b = (gallery.templates[matcher.name] for matcher in (model.matcher_a, model.matcher_b))
    assert (a * b).sum(1).abs().mean() < 0.3, "two networks trained apart share no axes"
