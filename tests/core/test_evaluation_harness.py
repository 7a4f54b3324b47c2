"""The harness catches leaks itself: two that published evaluations have are planted here, and seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.evaluation import harness, studio
from identiface_core.evaluation.harness import (
    Asked,
    LeakError,
    answer_of,
    ask,
    check_decoy,
    check_pictures,
    check_views,
    differs,
)
from identiface_core.evaluation.scores import score
from identiface_core.evaluation.studio import Studio, World
from identiface_core.evaluation.systems import (
    PAIRS,
    SYSTEMS,
    Answer,
    AnySystem,
    Experiment,
    System,
    everything,
    oracle,
)
from identiface_core.evaluation.values import Probe, Truth
from identiface_core.evidence.description import Description
from identiface_core.evidence.lexicon import SLOTS
from identiface_core.evidence.values import Evidence
from identiface_core.gallery import Gallery, enrol
from identiface_core.imaging import resize
from identiface_core.rounds.case import BY_BOTH, BY_GENERATED
from identiface_core.rounds.case_input import Settings
from tests.core.case_fakes import faces, fake_gallery, fake_model
from tests.core.test_house import closure, room_of

WORDS = {"overview": "A man", "eyes": "blue eyes", "nose": "a long nose", "hair": "short hair"}
HONEST = [system for system in SYSTEMS.values() if isinstance(system, System)]


@pytest.fixture
def world() -> World:
    return World(fake_model(), fake_gallery(12), Settings(seeds=3, steps=1))


def another_picture(picture: Tensor, seed: int = 99) -> Tensor:
    return (0.8 * picture + 0.2 * faces(1, seed)[0]).clamp(0, 1)


def probe_of(person: int, **words: str) -> Probe:
    """The probe of a person of `fake_gallery`: the photo is another picture of them."""
    picture = faces(12, 7)[person]
    photo = another_picture(picture)
    said = Description.from_mapping(WORDS)
    sketch = photo.mean(0, keepdim=True)
    evidence = Evidence(resize(photo[None], 8, 8)[0].clamp(0, 1), sketch, said)
    right = Description.from_mapping(WORDS | words)
    return Probe(person, evidence, Truth(person, photo, picture, right, (0,) * SLOTS))


def picking_by_truth(systems: Iterable[AnySystem], probe: Probe, world: World) -> dict[str, Asked]:
    """The published leak: as `ask`, but whoever chooses a face is given the true photo."""

    def pick(_: Any, images: Tensor, __: Any) -> int:
        return int((images - probe.truth.photo).square().flatten(1).mean(1).argmin())

    one = Studio(world, probe.evidence, 1 + probe.number, pick)
    return {system.name: answer_of(system, one, probe) for system in systems}


# planted leak 1: the gallery holds the very picture that the evidence was made from


def test_another_picture_in_the_gallery_passes(world: World) -> None:
    for person in range(3):
        check_pictures(probe_of(person), world, faces(12, 7)[person])
    check_views(1, 2)


def test_a_gallery_of_evidence_pictures_is_caught(world: World) -> None:
    model = world.model
    pairs = [(f"person {i}", probe_of(i).truth.photo) for i in range(12)]
    gallery = enrol(pairs, (model.matcher_a, model.matcher_b))
    with pytest.raises(LeakError, match="probe 3, person person 3: the gallery keeps the photo"):
        check_pictures(probe_of(3), World(model, gallery))
    bare = dataclasses.replace(gallery, thumbnails=(b"",) * 12)
    with pytest.raises(LeakError, match="probe 3, person person 3: its template is that"):
        check_pictures(probe_of(3), World(model, bare))


def test_an_lq_photo_of_the_gallery_picture_is_caught(world: World) -> None:
    probe, picture = probe_of(4), faces(12, 7)[4]
    same = Evidence(F.interpolate(picture[None], (8, 8), mode="bicubic", antialias=True)[0].clamp(0, 1))
    with pytest.raises(LeakError, match="probe 4, person person 004: the LQ photo is the gallery's picture"):
        check_pictures(dataclasses.replace(probe, evidence=same), world, picture)


def test_views_of_one_seed_are_caught() -> None:
    with pytest.raises(LeakError, match="seed 404"):
        check_views(404, 404)


def test_a_stranger_has_no_picture_to_check(world: World) -> None:
    probe = probe_of(0)
    truth = dataclasses.replace(probe.truth, row=-1)
    check_pictures(probe.with_truth(truth), world, probe.truth.photo)


# planted leak 2: the truth reaches the chooser


def test_honest_systems_pass(world: World) -> None:
    probe, decoy = probe_of(2), probe_of(5)
    check_decoy(SYSTEMS.values(), probe, decoy, world)
    check_decoy(SYSTEMS.values(), probe, decoy, world, first=ask(SYSTEMS.values(), probe, world))


def test_truth_handed_to_the_chooser_is_caught(world: World) -> None:
    for name in ("rounds", "everything"):
        with pytest.raises(LeakError, match=f"system '{name}' has seen the truth.*behind probe 2"):
            check_decoy([SYSTEMS[name]], probe_of(2), probe_of(5), world, by=picking_by_truth)
    untouched = [SYSTEMS["one_shot"], SYSTEMS["evidence_encoder"]]
    check_decoy(untouched, probe_of(2), probe_of(5), world, by=picking_by_truth)


def test_a_system_that_found_a_way_to_the_truth_is_caught(world: World) -> None:
    left_about: list[Truth] = []

    def careless(systems: Iterable[AnySystem], probe: Probe, world: World) -> dict[str, Asked]:
        left_about[:] = [probe.truth]
        return ask(systems, probe, world)

    def peeking(one: Studio) -> Answer:
        made = one.faces(("lq", "sketch", "words"), 4)
        near = (made - left_about[0].photo).square().flatten(1).mean(1).argmin()
        return Answer(world.model.matcher_a.embed(made[near][None])[0])

    # It chooses one of four, so that one decoy may by chance ask for the same: a run asks about several probes.
    with pytest.raises(LeakError, match="'peeking'.*its query is another"):
        for person in range(4):
            check_decoy(
                [System("peeking", peeking)], probe_of(person), probe_of(person + 6), world, by=careless
            )


def test_the_oracle_in_honest_clothes_is_caught(world: World) -> None:
    known: list[Truth] = []

    def careless(systems: Iterable[AnySystem], probe: Probe, world: World) -> dict[str, Asked]:
        known[:] = [probe.truth]
        return ask(systems, probe, world)

    disguised = System("rounds", lambda one: oracle(one, known[0]))
    with pytest.raises(LeakError, match="'rounds'"):
        check_decoy([disguised], probe_of(1), probe_of(6), world, by=careless)
    check_decoy([SYSTEMS["oracle"]], probe_of(1), probe_of(6), world)  # it says so in its label: no claim


def test_one_bit_is_a_difference() -> None:
    row = torch.rand(4)
    other = row.clone()
    other[2] = torch.nextafter(other[2], torch.tensor(2.0))
    assert differs(Answer(row), Answer(row.clone())) == ""
    assert differs(Answer(row), Answer(other)) == "query"
    assert differs(Answer(row, rounds=1), Answer(row, rounds=2)) == "rounds"
    assert differs(Answer(row, trail=(("eyes", row),)), Answer(row, trail=(("eyes", other),))) == "trail"
    assert differs(Answer(row, faces=row), Answer(row)) == "faces"


# by type and by import


def test_who_is_told_the_truth_says_so() -> None:
    told = {name for name, system in SYSTEMS.items() if isinstance(system, Experiment)}
    assert told == {"true_photo", "rounds_right_words", "everything_right_words", "oracle"}
    assert all("told" in SYSTEMS[name].label for name in told)
    assert all(not system.label for system in HONEST)


def test_a_studio_holds_no_truth(world: World) -> None:
    probe = probe_of(3)
    one = Studio(world, probe.evidence, 1)
    for system in HONEST:
        answer_of(system, one, probe)
    held = [*vars(one).values(), *(kept.value for kept in one._kept.values())]
    assert not [value for value in held if isinstance(value, (Probe, Truth))]


@pytest.mark.parametrize("module", ["systems", "studio", "oracle", "values", "harness", "scores"])
def test_no_way_leads_from_a_system_to_the_synthetic_world(module: str) -> None:
    reached = closure(f"identiface_core.evaluation.{module}", at_import=False)
    assert {room_of(name) for name in reached} & {"synthesis", "training", "cli"} == set()
    knowing = {
        f"identiface_core.evaluation.{name}" for name in ("probes", "suite", "galleries", "part_words")
    }
    assert reached & knowing == set()


# the systems themselves


def test_a_system_answers_the_same_alone_and_in_company(world: World) -> None:
    together = ask(SYSTEMS.values(), probe_of(2), world)
    for name in ("consensus_4", "everything", "evidence_encoder/lq+words"):
        alone = ask([SYSTEMS[name]], probe_of(2), world)[name]
        assert differs(together[name].answer, alone.answer) == "", name


def test_everything_is_the_products_list_by_both(world: World) -> None:
    one = Studio(world, probe_of(2).evidence, 5)
    query, lists = everything(one).query, one.case_finished().engine.lists()
    for name, vector in ((BY_BOTH, query), (BY_GENERATED, one.case_finished().generated[-1])):
        best = (world.templates @ vector).argsort(descending=True)[:10].tolist()
        found = lists[name]
        assert found is not None and found.people() == tuple(world.gallery.people[i] for i in best)


def test_a_whole_face_of_a_case_is_the_consensus_of_as_many(world: World) -> None:
    world = World(world.model, world.gallery, Settings(steps=1))  # four seeds, as a case has by default
    asked = ask([SYSTEMS["consensus_4"], SYSTEMS["rounds"]], probe_of(2), world)
    first = asked["rounds"].answer.trail[0]
    assert first[0] == "overview"
    assert torch.allclose(first[1], asked["consensus_4"].answer.query, atol=1e-6)


def test_right_words_that_were_right_before_change_nothing(world: World) -> None:
    systems = [SYSTEMS["rounds"], SYSTEMS["rounds_right_words"]]
    same, other = (ask(systems, probe, world) for probe in (probe_of(2), probe_of(2, beard="a full beard")))
    assert differs(*(same[system.name].answer for system in systems)) == ""
    assert differs(*(other[system.name].answer for system in systems)) == "query"
    parts = [[part for part, _ in asked["rounds_right_words"].answer.trail] for asked in (same, other)]
    assert parts[1] == [*parts[0], "beard"]


def test_the_oracle_stops_when_both_matchers_have_the_true_person() -> None:
    probe = probe_of(3)
    settings = Settings(seeds=2, steps=1)
    there = World(fake_model(towards=probe.truth.photo), fake_gallery(12), settings)
    assert ask([SYSTEMS["oracle"]], probe, there)["oracle"].answer.rounds == 1
    elsewhere = World(fake_model(towards=faces(12, 7)[8]), fake_gallery(12), settings)
    assert ask([SYSTEMS["oracle"]], probe, elsewhere)["oracle"].answer.rounds == len(WORDS)


def test_an_answer_is_scored_against_the_mate(world: World) -> None:
    probe = probe_of(3)
    asked = ask(SYSTEMS.values(), probe, world)
    photo = score(asked["true_photo"], world, probe.truth, generated=False)
    assert photo.rank == 1 and photo.judge_rank == 1 and photo.psnr is None
    assert photo.score is not None and photo.score > photo.best and photo.judge_cosine is not None
    query = score(asked["evidence_encoder"], world, probe.truth, generated=False)
    assert query.judge_cosine is None and query.judge_rank is None and query.features is None
    case = score(asked["rounds"], world, probe.truth, generated=True)
    assert case.psnr is not None and case.ms_ssim is not None and case.trail[-1][1] == case.rank
    stranger = score(asked["rounds"], world, dataclasses.replace(probe.truth, row=-1), generated=True)
    assert stranger.rank is None and stranger.score is None
    assert stranger.best == pytest.approx(max(case.best, case.score or -1))


def test_seconds_are_what_a_system_would_take_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(studio.time, "process_time", lambda: clock[0])
    one = Studio(world, probe_of(0).evidence, 1)

    def takes(seconds: float, needs: tuple[str, ...] = ()) -> Any:
        def make() -> None:
            for name in needs:
                one.once((name,), lambda: pytest.fail("made already"))
            clock[0] += seconds

        return make

    one.once(("faces",), takes(5))
    one.once(("first",), takes(1, ("faces",)))
    one.once(("outer",), lambda: (one.once(("inner",), takes(2, ("first",))), takes(10)()))
    assert [one.seconds((key,)) for key in ("faces", "first", "inner", "outer")] == [5, 6, 8, 18]


def test_pairs_name_systems() -> None:
    assert {name for pair in PAIRS for name in pair} <= SYSTEMS.keys()
    assert len(set(PAIRS)) == len(PAIRS) and all(a != b for a, b in PAIRS)
    assert {("one_shot", "lq_text"), ("lq_text", "lq"), ("sketch_text", "text")} <= set(PAIRS)
    assert ("evidence_encoder/lq+words", "evidence_encoder/words") in PAIRS


def test_probes_draw_from_seeds_of_their_own(world: World) -> None:
    last = world.settings.rounds * 1000 + 64
    assert last < harness.SEED_OF_PROBE, "no seed of one case may be that of the next"


def test_a_gallery_without_pictures_is_a_gallery(world: World) -> None:
    bare: Gallery = dataclasses.replace(world.gallery, thumbnails=(b"",) * 12)
    check_pictures(probe_of(1), World(world.model, bare))
