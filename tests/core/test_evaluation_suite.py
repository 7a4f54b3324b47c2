"""The benchmark as a whole, small: plans, probes, galleries, the same numbers however it is spread, JSON and table."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from identiface_core import cli
from identiface_core.cli import evaluate as cli_evaluate
from identiface_core.embedded import load_embedded
from identiface_core.errors import InputError
from identiface_core.evaluation import galleries
from identiface_core.evaluation.part_words import Moved
from identiface_core.evaluation.pool import spread
from identiface_core.evaluation.probes import (
    GALLERY_PEOPLE,
    LOOK_ALIKES,
    STRANGERS,
    draw_probe,
    draw_probes,
    people_of,
)
from identiface_core.evaluation.scores import Scores
from identiface_core.evaluation.suite import (
    CHEAP,
    LOOK_ALIKE_SYSTEMS,
    QUICK_HONEST,
    QUICK_OTHERS,
    WORDS,
    Measured,
    Search,
    Searched,
    plan_of,
    run,
)
from identiface_core.evaluation.summary import summarise, to_text
from identiface_core.evaluation.systems import SYSTEMS
from identiface_core.evidence.lexicon import ATTRIBUTES, SLOTS, slot
from identiface_core.matchers.calibration import fit
from identiface_core.synthesis.identity import FAMILY, PARAMETERS
from identiface_core.synthesis.witness import LEVELS
from tests.core.case_fakes import fake_gallery

# plans


def test_the_full_suite_asks_everything_but_what_says_nothing() -> None:
    plan = plan_of()
    assert plan.levels == ("careful", "middle", "poor") and plan.probes == 200 and plan.words == 100
    assert set(plan.mated["middle"]) == set(SYSTEMS)
    assert set(SYSTEMS) - set(plan.mated["careful"]) == {"rounds_right_words", "everything_right_words"}
    for level in ("careful", "poor"):
        assert {"true_photo", "one_shot", "consensus_8", "rounds", "everything"} <= set(plan.mated[level])
    assert set(SYSTEMS) - set(plan.strangers["middle"]) == {
        "rounds_right_words",
        "everything_right_words",
        "oracle",
    }
    assert plan.strangers["poor"] == CHEAP
    assert plan.look_alikes == {"middle": LOOK_ALIKE_SYSTEMS}


def test_the_quick_suite_has_thirty_probes_and_every_level() -> None:
    plan = plan_of(quick=True)
    assert plan.quick and plan.probes >= 30 and plan.levels == ("careful", "middle", "poor")
    assert {"evidence_encoder", "one_shot", "consensus_8", "rounds", "everything"} <= set(
        plan.mated["middle"]
    )
    assert {*QUICK_HONEST, *QUICK_OTHERS} <= set(SYSTEMS)


def test_a_plan_takes_what_is_asked_for() -> None:
    plan = plan_of(levels=["poor"], only=["text", "oracle"], probes=6)
    assert plan.mated == {"poor": ("text", "oracle")} and plan.strangers == {"poor": ("text",)}
    assert not any(plan.look_alikes.values()) and plan.words == 0 and plan.probes == 6
    assert plan_of(only=[WORDS], probes=6).words == 6
    assert list(plan_of(levels=["poor"]).look_alikes) == ["poor"], (
        "without the middle witness, the first asked for"
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"levels": ["hard"]}, "unknown level 'hard'; known are: careful, middle, poor"),
        ({"only": ["everthing"]}, "unknown system 'everthing'; known are: true_photo, raw_lq"),
        ({"probes": 0}, "1 to 1000, got 0"),
        ({"probes": 1001}, "got 1001"),
        ({"processes": 0}, "got 0"),
        ({"people": 5000}, "1000 or 10000 people is wanted, got 5000"),
    ],
)
def test_a_plan_that_cannot_be_says_what_can(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan_of(**asked)


# probes and galleries


def test_look_alikes_share_everything_but_their_shapes() -> None:
    people = people_of(LOOK_ALIKES, 0, 2 * FAMILY)
    shape = torch.tensor([parameter.group == "shape" for parameter in PARAMETERS])
    first, second = people.split(FAMILY)
    assert (first[:, ~shape] == first[0, ~shape]).all() and (second[:, ~shape] == second[0, ~shape]).all()
    assert (first[0, ~shape] != second[0, ~shape]).any()
    assert (first[:, shape].std(0) > 0).sum() > 10
    assert torch.equal(people_of(LOOK_ALIKES, FAMILY + 3, 1)[0], people[FAMILY + 3]), "who is asked for alone"


def test_look_alike_probes_go_through_the_families_in_turn() -> None:
    order = [galleries.look_alike_order(number) for number in range(200)]
    assert sorted(order) == list(range(200))
    assert {person // FAMILY for person in order[:10]} == set(range(10))


def test_a_probe_does_not_depend_on_its_company() -> None:
    alone, among = draw_probe(3, "poor"), draw_probes(5, "poor")
    for one, many in (
        (alone.evidence.lq, among.lq[3]),
        (alone.evidence.sketch, among.sketches[3]),
        (alone.truth.portrait, among.truth[3]),
        (alone.truth.photo, among.photos[3]),
    ):
        assert one is not None and torch.allclose(one, many, atol=1e-5)
    assert alone.evidence.description == among.words[3] and alone.truth.row == 3
    assert draw_probe(3, "poor", STRANGERS).truth.row == -1


def test_only_a_careful_witness_says_the_right_words() -> None:
    careful, poor = draw_probe(2, "careful"), draw_probe(2, "poor")
    assert careful.evidence.description == careful.truth.words == poor.truth.words
    assert poor.evidence.description != poor.truth.words
    said = load_embedded().text_encoder.understood(poor.truth.words.full_prompt())
    assert len(said) >= 0.9 * SLOTS, "the right words are complete"


def test_a_gallery_is_drawn_once_and_then_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(galleries, "FAMILIES", 1)
    monkeypatch.setattr(galleries, "FAMILY", 4)
    model = load_embedded()
    told: list[tuple[int, int]] = []
    first = galleries.look_alike_gallery(model, progress=lambda *at: told.append(at))
    assert first.people == ("L0001", "L0002", "L0003", "L0004") and told == [(4, 4)]
    monkeypatch.setattr(galleries, "spread", lambda *_: pytest.fail("drawn again"))
    again = galleries.look_alike_gallery(model)
    for name, rows in first.templates.items():
        assert torch.equal(rows, again.templates[name])
    (file,) = tmp_path.rglob("*.safetensors")
    assert file.stat().st_size < 20_000, "embeddings only"
    file.write_bytes(b"damaged")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(galleries, "FAMILIES", 1)
    monkeypatch.setattr(galleries, "FAMILY", 2)
    assert len(galleries.look_alike_gallery(model)) == 2


# a whole run


PROBES = 3
BEARDS = tuple(ATTRIBUTES[slot("beard")].index(value) for value in ("none", "full"))
NAMES = ("raw_lq", "evidence_encoder/lq", "text", "rounds", "rounds_right_words")


def made_up(name: str, number: int, *, mated: bool) -> Scores:
    """Scores of nobody: the mate of probe n stands at rank 2 n + 1."""
    system, rank = SYSTEMS[name], 2 * number + 1
    trail = (("overview", 9), ("nose", 5), ("beard", rank))
    return Scores(
        seconds=0.5,
        rounds=3 if name in ("rounds", "rounds_right_words") else int(system.draws),
        best=0.5 + 0.1 * number,
        rank=rank if mated else None,
        score=0.6 if mated else None,
        judge_rank=rank if mated and name != "evidence_encoder/lq" else None,
        judge_cosine=0.7 if mated and name != "evidence_encoder/lq" else None,
        psnr=20.0 + number if system.draws else None,
        ms_ssim=0.8 if system.draws else None,
        features=(0.1 * number, 0.2) if system.draws else None,
        trail=tuple(one for one in trail if number or one[0] != "beard") if "rounds" in name else (),
    )


@pytest.fixture
def found() -> dict[str, Any]:
    def searched(group: int) -> list[Searched]:
        mated = group == GALLERY_PEOPLE
        names = [name for name in NAMES if mated or name != "rounds_right_words"]
        person = {"sex": "man", "age": "old", "skin tone": "tan"}
        return [
            Searched(
                Search(group, "middle", n, tuple(names)), f"person {n}" if mated else "", person, (0.1 * n, 0.3),
                {name: made_up(name, n, mated=mated) for name in names},
            )
            for n in range(PROBES)
        ]  # fmt: skip

    word = Moved("beard", ((-0.5, 0.5), (0.1, 0.0)), (-0.9, 0.7), BEARDS, 1 / 510)
    plan = plan_of(levels=["middle"], only=[*NAMES, WORDS], probes=PROBES)
    groups = ({"middle": searched(group)} for group in (GALLERY_PEOPLE, STRANGERS))
    tables = {"generated": fit(torch.linspace(0, 1, 200)), "evidence": fit(torch.linspace(0.0, 0.6, 100_000))}
    trainings = {name: (searched(GALLERY_PEOPLE), [[word], [word]]) for name in ("fused", "summed")}
    measured = Measured(
        plan, *groups, {}, [[word], [word]], fake_gallery(12), None, {"matcher_a.safetensors": "ab"}, tables,
        trainings,
    )  # fmt: skip
    return summarise(measured)


def test_a_training_is_held_against_the_reference(found: dict[str, Any]) -> None:
    told = found["trainings"]
    assert (told["level"], told["probes"], told["against"]) == ("middle", PROBES, "fused")
    assert list(told["rows"]) == ["fused", "summed"] and told["rows"]["fused"]["gains"] == {}
    gain = told["rows"]["summed"]["gains"]["text"]
    assert (gain["rank1"], gain["psnr"], gain["judge_cosine"]) == (0, 0, 0), "the same searches"
    assert told["rows"]["fused"]["systems"]["text"]["rank1"] == found["levels"]["middle"]["text"]["rank1"]
    assert told["rows"]["fused"]["words"]["beard"]["moved"] == found["words"]["beard"]["moved"]


def test_the_json_holds_what_it_promises(found: dict[str, Any]) -> None:
    assert (found["suite"], found["gallery"], found["probes"], found["unmated"], found["quick"]) == (
        "embedded", 12, 3, 3, False,
    )  # fmt: skip
    rows = found["levels"]["middle"]
    assert tuple(rows) == NAMES
    for row in rows.values():
        assert row["rank1"] == pytest.approx(1 / 3, abs=1e-4) and row["rank10"] == row["rank50"] == 1
        assert row["rank1_ci"] == [0, 1] and row["rank10_ci"][1] == 1 and 0.2 < row["rank10_ci"][0] < 0.4
        assert row["fnir_at_fpir_0.01"] is None and row["fnir_at_fpir_0.003"] is None, (
            "3 searches cannot tell"
        )
        assert row["seconds"] == 0.5
    assert rows["evidence_encoder/lq"]["judge_cosine"] is None and rows["evidence_encoder/lq"]["rounds"] == 0
    assert rows["text"]["judge_cosine"] == 0.7 and rows["text"]["judge_rank1"] == rows["text"]["rank1"]
    assert rows["text"]["psnr"] == 21 and rows["text"]["ms_ssim"] == 0.8 and rows["raw_lq"]["psnr"] is None
    assert rows["text"]["fid_matcher_b"] == pytest.approx(0.01) and rows["raw_lq"]["fid_matcher_b"] is None
    assert rows["rounds"]["rounds"] == 3 and "told" in rows["rounds_right_words"]["label"]
    curve = found["cmc"]["middle"]["text"]
    assert curve[:5] == [0.3333, 0.3333, 0.6667, 0.6667, 1] and len(curve) == 50
    (pair,) = found["pairs"]["middle"]
    assert (pair["a"], pair["b"], pair["rank1"]) == ("rounds_right_words", "rounds", 0)
    assert found["people"][0].keys() == {"sex", "age", "skin tone"} and len(found["unmated_people"]) == 3
    assert found["records"]["middle"]["raw_lq"][1] == {
        "person": 1,
        "rank": 3,
        "score": 0.6,
        "best_impostor": 0.6,
    }
    assert found["unmated_records"]["middle"]["raw_lq"] == [0.5, 0.6, 0.7]
    assert "rounds_right_words" not in found["unmated_records"]["middle"]
    assert found["versions"]["matcher_a.safetensors"] == "ab" and found["versions"]["renderer"]
    word = found["words"]["beard"]
    assert (word["from"], word["to"], word["faces"], word["right_way"]) == ("none", "full", 4, 0.5)
    assert word["moved"] == pytest.approx(0.45 / 1.6, abs=1e-3) and word["outside"] == 0.5


def test_an_alarm_is_a_score_above_what_the_calibration_promises(found: dict[str, Any]) -> None:
    row = found["levels"]["middle"]["evidence_encoder/lq"]
    # 12 strangers at FPIR 0.01: FMR 0.00084, so 84 of 100,000 scores that end at 0.6 lie above.
    assert row["threshold_calibrated"] == pytest.approx(0.5995, abs=1e-3)
    assert row["fpir_calibrated"] == pytest.approx(2 / 3, abs=1e-4) and row["fnir_calibrated"] == 0
    few = found["levels"]["middle"]["text"]
    assert few["fpir_calibrated"] is None and few["threshold_calibrated"] is None
    assert any("cannot be promised" in note and "text, rounds" in note for note in found["notes"])
    assert any("0.003" in note for note in found["notes"])
    assert found["unmated_alarm"] == {"middle": {}}, (
        "of the product's lists none was asked that has a threshold"
    )


def test_a_curve_stays_where_nobody_has_a_round(found: dict[str, Any]) -> None:
    curve = found["rounds_curve"]["right"]
    assert [(one["round"], one["part"]) for one in curve] == [(0, "overview"), (1, "nose"), (2, "beard")]
    assert [one["drawn"] for one in curve] == [1, 1, 0.6667]
    assert [one["rank10"] for one in curve] == [1, 1, 1] and [one["rank1"] for one in curve] == [0, 0, 0]
    assert found["rounds_curve"]["noisy"] == curve == found["rounds_curves"]["middle"]["right"]


def test_the_json_can_be_read_and_by_a_person_too(found: dict[str, Any]) -> None:
    text = to_text(found)
    assert json.loads(text) == json.loads(json.dumps(found))
    assert max(map(len, text.splitlines())) < 3000 and '\n   "raw_lq": {"rank1": ' in text


@pytest.mark.slow
def test_numbers_do_not_depend_on_the_number_of_processes() -> None:
    plans = [
        plan_of(
            levels=["middle", "careful"],
            only=["raw_lq", "evidence_encoder/words", "text"],
            probes=3,
            processes=n,
        )
        for n in (1, 2)
    ]
    one, two = (summarise(run(plan, lambda *_: None)) for plan in plans)
    for result in (one, two):
        for rows in result["levels"].values():
            for row in rows.values():
                assert row.pop("seconds") > 0
    assert one == two


def _double(number: int) -> int:
    if number < 0:
        raise InputError("a number of 0 or more is wanted")
    return 2 * number


def _nothing() -> None:
    torch.get_num_threads()


def test_work_that_fails_says_so() -> None:
    threads = torch.get_num_threads()
    assert dict(spread(_double, [1, 2, 3], 1, _nothing)) == {0: 2, 1: 4, 2: 6}
    with pytest.raises(InputError, match="0 or more"):
        list(spread(_double, [1, -1], 1, _nothing))
    assert torch.get_num_threads() == threads and list(spread(_double, [], 2, _nothing)) == []


# the command


def test_the_table_names_every_system_and_what_is_told_the_truth(found: dict[str, Any]) -> None:
    found = copy.deepcopy(found)
    found["look_alikes"] = {
        "gallery": 200, "families": 10, "family": 20, "probes": 3, "level": "middle",
        "text": found["levels"]["middle"]["text"],
    }  # fmt: skip
    screen = Console(file=io.StringIO(), width=cli_evaluate.WIDTH)
    cli_evaluate.show(screen, found)
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    for piece in ("12 people", "evidence_encoder/lq", "rounds_right_words *", "told the right words",
                  "200 people in families of 20", "words in part rounds", "Note: FNIR at FPIR 0.003"):  # fmt: skip
        assert piece in text, piece


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--suite", "public"], "unknown suite 'public'; known are: embedded"),
        (["--levels", "middle,hard"], "unknown level 'hard'"),
        (["--only", "oracel"], "unknown system 'oracel'"),
        (["--people", "12"], "got 12"),
        (["--json", "."], "this is a folder"),
        (["--page", "."], "this is a folder"),
    ],
)
def test_bad_input_is_one_line_and_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_evaluate, "run", lambda *_: pytest.fail("nothing may run"))
    assert cli.main(["evaluate", *arguments]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and shown.err.count("\n") == 1 and shown.out == ""


def test_the_command_writes_json_beside_the_table_or_alone(
    found: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(cli_evaluate, "run", lambda plan, *_: asked.append(plan))
    monkeypatch.setattr(cli_evaluate, "summarise", lambda _: found)
    file = tmp_path / "e.json"
    command = ["evaluate", "--quick", "--levels", "middle,poor", "--only", "text", "--probes", "7"]
    assert cli.main([*command, "--json", str(file)]) == 0
    shown = capsys.readouterr()
    assert "middle witness" in shown.out and json.loads(file.read_text()) == json.loads(json.dumps(found))
    assert (
        asked[0].levels == ("middle", "poor") and asked[0].probes == 7 and asked[0].mated["poor"] == ("text",)
    )
    assert cli.main([*command, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found))


def test_levels_are_those_of_the_witness() -> None:
    assert plan_of().levels == tuple(LEVELS)
    assert draw_probe(0, next(iter(LEVELS)), GALLERY_PEOPLE).number == 0
