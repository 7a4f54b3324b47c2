"""The benchmark page: every number from the JSON, targets computed, a partial run told as such."""

from __future__ import annotations

import copy
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from identiface_core.errors import InputError
from identiface_core.evaluation.metrics import LIST_LENGTH, rate
from identiface_core.evaluation.report import curves
from identiface_core.evaluation.report.page import NOT_MEASURED, benchmark_text, main, write_benchmark
from identiface_core.evaluation.report.questions import FOREST, QUESTIONS, answer, clue_pairs
from identiface_core.evaluation.report.subgroups import (
    FEWEST,
    subgroup_sentence,
    subgroup_table,
    subgroups,
    wilson,
)
from identiface_core.evaluation.report.tables import BEGIN, END, of_this_format, prose, update_document
from identiface_core.evaluation.report.targets import distances, targets
from tests.core.benchmark_fakes import AGES, PROBES, WITNESS, made_up

BENCHMARKS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return made_up()


def verdicts(found: dict[str, Any]) -> dict[str, Any]:
    return {f"{one.level}: {one.asked}": one for one in targets(found)}


def line(text: str, start: str) -> str:
    (one,) = [row for row in text.splitlines() if row.startswith(start)]
    return one


def flat(text: str) -> str:
    return " ".join(text.split())


def test_every_system_has_its_row(found: dict[str, Any]) -> None:
    text = benchmark_text(found)
    for level in WITNESS:
        section = text.split(f"### {level.capitalize()} witness")[1].split("\n### ")[0].split("\n## ")[0]
        row, figures = (
            line(section.split("What the pictures")[0], "| consensus of 8 |"),
            found["levels"][level]["consensus_8"],
        )
        low, high = figures["rank1_ci"]
        assert f"| {100 * figures['rank1']:.1f} ({100 * low:.0f} to {100 * high:.0f}) |" in row
        assert row.count("|") == 9 and f"| {figures['judge_cosine']:.3f} |" in row
        assert "ORACLE" in section and "TOLD the right words" in section
        assert "FID (features of matcher B)" in section
        assert "evidence encoder, LQ + sketch" in section and "evidence encoder, words alone" in section


def test_the_page_is_whole_and_stable(found: dict[str, Any]) -> None:
    text = benchmark_text(found)
    assert NOT_MEASURED not in text and "nan" not in text and "None" not in text
    assert text == benchmark_text(json.loads(json.dumps(found)))
    for table in text.split("\n\n"):
        if table.startswith("|"):
            assert len({row.count("|") for row in table.splitlines()}) == 1, table
    for name in curves.drawable(found, FOREST):
        assert f"]({name})" in text
    assert "](" not in benchmark_text(found, pictures=False).replace("](embedded.json)", "").replace(
        "](../eval", ""
    )


@pytest.mark.parametrize("key", sorted(made_up().keys() - {"suite"}))
def test_a_missing_key_is_told_not_fatal(found: dict[str, Any], key: str) -> None:
    part = {name: value for name, value in found.items() if name != key}
    text = benchmark_text(part)
    if key in ("levels", "words", "rounds_curve", "look_alikes", "records", "people", "trainings"):
        assert NOT_MEASURED in text
    curves.drawable(part, FOREST)


def test_an_empty_run_says_so_everywhere() -> None:
    text = benchmark_text({"suite": "embedded"})
    assert text.count(NOT_MEASURED) == 8
    assert "0 are met, 0 are missed" in flat(text)


def test_trainings_are_held_against_one(found: dict[str, Any]) -> None:
    text = benchmark_text(found)
    assert (
        "| `summed` | consensus of 4 | **+5.0 (+1.0 to +9.0)** | - | +0.021 (-0.010 to +0.050) | - |" in text
    )
    assert "| glasses | 50 (90) | 50 (90) |" in text


def test_missing_systems_and_figures_are_named(found: dict[str, Any]) -> None:
    part = copy.deepcopy(found)
    del part["levels"]["poor"]["oracle"], part["levels"]["poor"]["everything"]
    part["levels"]["middle"]["one_shot"] = {"rank1": 0.5}
    text = flat(benchmark_text(part))
    assert "Not measured in this run: everything (rounds and evidence query); published protocol" in text
    assert "| all clues | 50.0 | - | - | - | - | - | - |" in benchmark_text(part)


def test_an_older_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run the benchmark again"):
        write_benchmark({"gallery": 1000, "levels": {}}, tmp_path / "page.md")
    assert list(tmp_path.iterdir()) == []


# targets


def test_targets_are_computed(found: dict[str, Any]) -> None:
    run = copy.deepcopy(found)
    careful, middle = run["levels"]["careful"], run["levels"]["middle"]
    careful["true_photo"]["rank1"], careful["everything"]["rank1"] = 0.96, 0.88
    careful["everything"]["rank10"], careful["consensus_8"]["rank1"] = 0.98, 0.5
    middle["everything"]["rank10"] = 0.93
    run["pairs"]["middle"] = [
        {"a": "one_shot", "b": "everything", "rank1": -0.12, "rank1_ci": [-0.2, -0.04]},  # turned round
        {"a": "everything", "b": "evidence_encoder", "rank1": 0.01, "rank1_ci": [-0.01, 0.03],
         "rank10": -0.025, "rank10_ci": [-0.05, 0.0]},
    ]  # fmt: skip
    made = verdicts(run)
    assert made["careful: rank-1 of the true other photo (the ceiling)"].met
    ratio = made["careful: rank-1 of everything, as a share of the true photo's"]
    assert ratio.missed_by == "1.3 points of rank-1"  # 0.93 * 0.96 - 0.88 = 0.0128
    assert "91.7 %" in ratio.found and "89.3 %" in ratio.wanted
    assert made["careful: rank-10 of everything"].met, "exactly the wanted value is enough"
    assert made["careful: rank-1 of generated faces alone, consensus of 8"].missed_by == "10.0 points"
    ahead = made["middle: rank-1, everything against one face from all clues"]
    assert ahead.met and "+12.0 (+4.0 to +20.0)" in ahead.found
    below = made["middle: rank-1 and rank-10, everything against the evidence encoder"]
    assert below.missed_by == "2.5 points" and below.verdict == "**missed** by 2.5 points"
    assert made["middle: rank-10 of everything"].met
    assert [text.split(":")[0] for text in distances(run)] == ["*careful*", "*middle*"]


def test_targets_of_words_rounds_and_alarms(found: dict[str, Any]) -> None:
    run = copy.deepcopy(found)
    run["unmated_alarm"] = {"careful": {"everything": 0.01}, "middle": {"everything": {"rate": 0.035}}}
    run["words"]["beard"]["outside"] = 1.5
    run["rounds_curve"]["right"][-1]["rank1"] = 0.3
    made = verdicts(run)
    assert (
        made[": part rounds: words that go the right way in at least 90 % of faces"].found == "8 of 9 words"
    )
    moved = made[": part rounds: share of the true difference, hair, brows, nose, glasses, beard"]
    assert moved.missed_by == "19.0 points" and "least brow thickness, 31 %" in moved.found
    assert made[": part rounds: largest change outside the mask"].missed_by == "0.50"
    assert made[": a round with right words raises the find rate (rank-1, first to last round)"].met is False
    alarm = made[": people without a mate who raise an alarm at FPIR 0.01"]
    assert alarm.missed_by == "1.5 points" and alarm.found.endswith("worst of 2: middle, everything")


def test_every_clue_is_six_steps(found: dict[str, Any]) -> None:
    run = copy.deepcopy(found)
    steps = clue_pairs(run, "careful", "one_shot")
    assert len(steps) == 6 and ("one_shot", "lq_sketch") in steps
    assert ("lq_sketch", max(("lq", "sketch"), key=lambda n: run["levels"]["careful"][n]["rank1"])) in steps
    assert len(clue_pairs(run, "careful", "evidence_encoder")) == 6
    run["records"]["careful"]["one_shot"] = run["records"]["careful"]["text"]
    del run["pairs"]["careful"]
    clues = verdicts(run)["careful: one generated face: every clue adds"]
    assert clues.met is False and clues.missed_by == "3 of 6 steps"
    del run["levels"]["careful"]["text"]
    assert verdicts(run)["careful: one generated face: every clue adds"].met is None


# answers


def test_answers_say_what_the_interval_allows(found: dict[str, Any]) -> None:
    run = copy.deepcopy(found)
    question = next(q for q in QUESTIONS if q.pairs[0] == ("everything", "evidence_encoder"))

    def told(rank1: tuple[float, float, float], rank10: tuple[float, float, float]) -> str:
        pair = {"a": "everything", "b": "evidence_encoder"}
        for key, (value, low, high) in (("rank1", rank1), ("rank10", rank10)):
            pair |= {key: value, f"{key}_ci": [low, high]}  # type: ignore[dict-item]
        run["pairs"]["middle"] = [pair]
        return answer(run, "middle", question)

    assert "+3.0 (+1.0 to +5.0) points of rank-1" in told((0.03, 0.01, 0.05), (0.02, 0.01, 0.03))
    assert "a gain in both" in told((0.03, 0.01, 0.05), (0.02, 0.01, 0.03))
    assert "no difference that 120 probes can show" in told((0.03, -0.01, 0.05), (0.0, -0.01, 0.03))
    assert "a loss in rank-10 only" in told((0.03, -0.01, 0.05), (-0.03, -0.05, -0.01))


def test_differences_follow_from_the_records_too(found: dict[str, Any]) -> None:
    without = {name: value for name, value in found.items() if name != "pairs"}
    assert benchmark_text(without) == benchmark_text(found)


# subgroups


def test_subgroups_at_one_threshold(found: dict[str, Any]) -> None:
    one = subgroups(found, "middle", "everything")
    assert one is not None and json.dumps(one)
    kept = found["records"]["middle"]["everything"]
    strangers = found["unmated_records"]["middle"]["everything"]
    scores = [*strangers, *(row["best_impostor"] for row in kept)]
    assert one["searches_without_mate"] == len(scores) == 320
    at = one["threshold_fpir"]
    assert sum(score >= at for score in scores) == 3 == math.floor(0.01 * 320)
    women = [r for r in kept if found["people"][r["person"]]["sex"] == "woman"]
    group = one["attributes"]["sex"]["groups"]["woman"]
    assert group["n"] == 60 and group["rank1"] == pytest.approx(
        sum(r["rank"] == 1 for r in women) / 60, abs=1e-4
    )
    missed = sum(r["score"] < at or r["rank"] > LIST_LENGTH for r in women)
    assert group["fnir"] == pytest.approx(missed / 60, abs=1e-4)
    own = [r["best_impostor"] for r in women]
    both = [
        *own,
        *(s for s, who in zip(strangers, found["unmated_people"], strict=True) if who["sex"] == "woman"),
    ]
    assert group["fpir_n"] == len(both) == 160
    assert group["fpir"] == pytest.approx(sum(score >= at for score in both) / 160, abs=1e-4)
    unknown = subgroups({**found, "unmated_people": None}, "middle", "everything")
    assert unknown is not None and unknown["threshold_fpir"] == at, "they still help to set the threshold"
    group = unknown["attributes"]["sex"]["groups"]["woman"]
    assert group["fpir"] == pytest.approx(sum(score >= at for score in own) / 60, abs=1e-4)
    assert subgroups({**found, "unmated_records": strangers}, "middle", "everything") == one, (
        "a plain list will do"
    )


def test_small_groups_say_nothing(found: dict[str, Any]) -> None:
    one = subgroups(found, "middle", "everything")
    assert one is not None
    tone = one["attributes"]["skin tone"]
    assert tone["groups"]["dark"]["n"] == 12 < FEWEST and tone["too_few"] == ["dark"]
    assert "dark" not in (tone["gap"]["rank1"]["lowest"], tone["gap"]["rank1"]["highest"])
    assert (
        line(subgroup_table(one), "| skin tone | dark |")
        == "| skin tone | dark | 12 (too few to say) | - | - | - | - |"
    )
    assert list(one["attributes"]["age"]["groups"]) == list(AGES), "in the order of age"


def test_a_gap_that_is_there_is_told_and_one_by_chance_is_not(found: dict[str, Any]) -> None:
    run = copy.deepcopy(found)
    for row in run["records"]["middle"]["everything"]:
        row["rank"] = 1 if row["person"] % 2 else 40
    one = subgroups(run, "middle", "everything")
    assert one is not None
    gap = one["attributes"]["sex"]["gap"]["rank1"]
    assert gap == {
        "gap": 1.0,
        "lowest": "man",
        "highest": "woman",
        "by_chance": pytest.approx(0.18, abs=0.05),
    }
    assert "rank-1 by sex: 100.0 points between man and woman" in subgroup_sentence(one)
    assert "rank-1 by skin tone" not in subgroup_sentence(one)


def test_no_records_no_subgroups(found: dict[str, Any]) -> None:
    assert subgroups(found, "middle", "nobody") is None
    assert subgroups({**found, "people": []}, "middle", "everything") is None
    bare = {**found, "unmated_records": None}
    bare["records"] = {"middle": {"everything": [{"person": i, "rank": 1 + i % 3} for i in range(PROBES)]}}
    one = subgroups(bare, "middle", "everything")
    assert one is not None and "fpir" not in one["attributes"]["sex"]["groups"]["man"]


def test_intervals_know_that_little_is_known() -> None:
    assert wilson(0, 10) == (0.0, pytest.approx(0.278, abs=1e-3))
    assert wilson(10, 10) == (pytest.approx(0.722, abs=1e-3), 1.0)
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(50, 100)
    assert (low, high) == (pytest.approx(0.404, abs=1e-3), pytest.approx(0.596, abs=1e-3))
    assert rate(torch.ones(5)).value == 1.0


# documents and pictures


def test_the_short_table_goes_between_the_markers(found: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    update_document(page, found)
    text = page.read_text()
    assert (
        text.startswith(f"before\n\n{BEGIN}\n")
        and text.endswith(f"{END}\n\nafter\n")
        and "\nold\n" not in text
    )
    assert "](benchmarks/embedded.md)" in text and len(text.splitlines()) < 30
    assert line(text, "| everything (").count("|") == 6
    update_document(page, found)
    assert page.read_text() == text, "once more changes nothing"
    page.write_text("no markers")
    with pytest.raises(InputError, match="once each"):
        update_document(page, found)


def test_prose_never_makes_a_list_of_itself() -> None:
    for words in range(10, 30):
        text = prose("word " * words + "- minus + plus * star 1. one # hash")
        assert not any(row.startswith(("- ", "+ ", "* ", "1. ", "# ")) for row in text.splitlines())
        assert "\0" not in text


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="pictures need matplotlib")
def test_pictures_are_drawn(found: dict[str, Any], tmp_path: Path) -> None:
    files = write_benchmark(found, tmp_path / "embedded.md")
    assert [file.name for file in files] == ["embedded.md", curves.CMC, curves.DIFFERENCES, curves.ROUNDS]
    for file in files[1:]:
        assert file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size < 250_000
    bare = {
        "suite": "embedded",
        "levels": {"odd": {"one_shot": {"rank1": 0.5}}},
        "cmc": {"odd": {"one_shot": [0.5] * 50}},
    }
    assert [file.name for file in write_benchmark(bare, tmp_path / "bare.md")] == ["bare.md", curves.CMC]


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="pictures need matplotlib")
def test_the_command_makes_everything_anew(
    found: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text(json.dumps(found))
    (tmp_path / "page.md").write_text(f"{BEGIN}\n{END}\n")
    assert main([str(tmp_path / "run.json"), "--document", str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "run.md").read_text() == benchmark_text(found)
    assert "| everything" in (tmp_path / "page.md").read_text()
    assert main([str(tmp_path / "page.md")]) == 2 and main([str(tmp_path / "nothing.json")]) == 2
    assert capsys.readouterr().err.count("identiface_core.evaluation.report") == 2


def test_without_matplotlib_it_says_what_to_do(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        write_benchmark(found, tmp_path / "page.md")
    assert list(tmp_path.iterdir()) == []
    assert write_benchmark(found, tmp_path / "page.md", pictures=False) == [tmp_path / "page.md"]


def test_the_published_page_is_what_its_json_says() -> None:
    measured = json.loads((BENCHMARKS / "embedded.json").read_text(encoding="utf-8"))
    if not of_this_format(measured):
        pytest.skip(
            "docs/benchmarks/embedded.json is of an older format: run `identiface evaluate --suite embedded`"
        )
    page = (BENCHMARKS / "embedded.md").read_text(encoding="utf-8")
    assert page == benchmark_text(measured)
    for name in curves.drawable(measured, FOREST):
        assert (BENCHMARKS / name).is_file()
