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
from identiface_core.evaluation.metrics import LIST_LENGTH, difference, identification, rate
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

BENCHMARKS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
PROBES, GALLERY = 120, 1000
SKILL = {
    "true_photo": 3.2, "raw_lq": -2.0, "evidence_encoder": 1.2, "evidence_encoder/lq+sketch": 1.0,
    "evidence_encoder/lq+words": 0.7, "evidence_encoder/sketch+words": -0.2, "evidence_encoder/lq": 0.1,
    "evidence_encoder/sketch": -1.3, "evidence_encoder/words": -1.6, "text": -2.2, "sketch": -2.0, "lq": -0.9,
    "lq_sketch": 0.0, "lq_text": -0.4, "sketch_text": -1.1, "one_shot_unguided": 0.0, "one_shot": 0.4,
    "consensus_4": 0.7, "consensus_8_unguided": 0.5, "consensus_8": 0.9, "reference": 1.0, "rounds": 0.8,
    "rounds_right_words": 1.3, "everything": 1.5, "everything_right_words": 1.7, "oracle": 2.4,
}  # fmt: skip
WITNESS = {"careful": 0.6, "middle": 0.0, "poor": -0.8}
AGES, TONES = ("young", "adult", "middle-aged", "old"), ("fair", "tan", "brown", "dark")


def made_up() -> dict[str, Any]:
    """A run of nobody: people of differing difficulty, searched for by systems of differing skill."""
    g = torch.Generator().manual_seed(3)
    hard = torch.randn(PROBES, generator=g) * 0.8
    found: dict[str, Any] = {
        "suite": "embedded", "gallery": GALLERY, "probes": PROBES, "unmated": 200, "quick": True,
        "levels": {}, "pairs": {}, "cmc": {}, "records": {},
        "versions": {"identiface": "0.1.0", "renderer": "1", "matcher_a.safetensors": "ab" * 32},
        "people": [
            {"sex": ("man", "woman")[i % 2], "age": AGES[i // 2 % 4], "skin tone": TONES[min(i // 36, 3)]}
            for i in range(PROBES)
        ],
    }  # fmt: skip
    for level, shift in WITNESS.items():
        rows, lists, kept = {}, {}, {}
        for name, skill in SKILL.items():
            unsure = 0.4 * torch.randn(PROBES, generator=g)
            good = skill + (shift if name != "true_photo" else 0) + hard + unsure
            ranks = (1 + torch.exp(2.2 - 1.9 * good)).long().clamp(max=GALLERY)
            first, ten, fifty = (identification(ranks, k) for k in (1, 10, 50))
            draws = "encoder" not in name and name not in ("true_photo", "raw_lq")
            rows[name] = {
                "rank1": first.value, "rank1_ci": [first.low, first.high],
                "rank10": ten.value, "rank10_ci": [ten.low, ten.high], "rank50": fifty.value,
                "fnir_at_fpir_0.01": 1 - first.value * 0.8, "fnir_at_fpir_0.003": None,
                "judge_cosine": 0.5 + 0.05 * skill, "judge_rank1": first.value * 0.9 if draws else None,
                "psnr": 20 + skill if draws else None, "ms_ssim": 0.7 + 0.02 * skill if draws else None,
                "fid_matcher_b": 9 - skill if draws else None, "rounds": 7.0 if "rounds" in name else None,
                "seconds": 0.4, "fpir_calibrated": 0.015,
            }  # fmt: skip
            lists[name] = [float((ranks <= k).double().mean()) for k in range(1, LIST_LENGTH + 1)]
            others = 0.45 + 0.06 * torch.randn(PROBES, generator=g)
            kept[name] = [
                {"person": i, "rank": int(ranks[i]), "score": float(others[i] + 0.05 * good[i]),
                 "best_impostor": float(others[i])} for i in range(PROBES)
            ]  # fmt: skip
        found["levels"][level], found["cmc"][level], found["records"][level] = rows, lists, kept
        found["pairs"][level] = [paired(kept, a, b) for q in QUESTIONS for a, b in q.pairs]
    strangers = [float(x) for x in 0.44 + 0.06 * torch.randn(200, generator=g)]
    found["unmated_records"] = {
        level: {"everything": strangers, "true_photo": strangers} for level in WITNESS
    }
    found["unmated_people"] = [found["people"][i % PROBES] for i in range(200)]
    alarm = {"rate": 0.015, "rate_ci": [0.0, 0.04], "threshold": 0.6}
    found["unmated_alarm"] = {level: {"evidence_encoder": alarm, "everything": alarm} for level in WITNESS}
    found["notes"] = ["no calibrated threshold for raw_lq: its scores have no calibration"]
    found["look_alikes"] = {
        "gallery": 200,
        "level": "middle",
        "probes": 200,
        "families": 10,
        "family": 20,
    } | {
        name: {key: found["levels"]["middle"][name][key] * 0.5 for key in ("rank1", "rank10")}
        for name in ("true_photo", "evidence_encoder", "everything")
    }
    found["words"] = {
        name: {"from": a, "to": b, "right_way": right, "moved": moved, "outside": 0.0}
        for name, a, b, right, moved in (
            ("hair colour", "black", "blond", 0.99, 0.81), ("hair length", "very short", "long", 0.95, 0.66),
            ("glasses", "none", "glasses", 0.97, 0.55), ("beard", "none", "full", 1.0, 0.7),
            ("brow thickness", "thin", "thick", 0.91, 0.31), ("nose width", "narrow", "wide", 1.0, 0.52),
            ("nose length", "short", "long", 1.0, 0.8), ("mouth width", "narrow", "wide", 0.93, 0.2),
            ("lip colour", "pale", "red", 0.7, 0.1),
        )
    }  # fmt: skip
    parts = ("overview", "eyes", "brows", "mouth", "nose", "ears", "hair")
    found["rounds_curve"] = {
        name: [{"part": p, "rank1": 0.4 + i * up, "rank10": 0.8 + i * up / 2} for i, p in enumerate(parts)]
        for name, up in (("noisy", 0.004), ("right", 0.02), ("everything", 0.006))
    }
    ways = {word: {"right_way": 0.9, "moved": 0.5, "faces": 20} for word in ("glasses", "beard")}
    gain = {"rank1": 0.05, "rank1_ci": [0.01, 0.09], "judge_cosine": 0.021, "judge_cosine_ci": [-0.01, 0.05]}
    found["trainings"] = {
        "level": "middle", "probes": 100, "against": "fused",
        "rows": {
            name: {
                "label": "one thing different",
                "systems": {"consensus_4": {key: found["levels"]["middle"]["consensus_4"][key]
                                            for key in ("rank1", "rank1_ci", "rank10", "judge_cosine", "psnr")}},
                "gains": {} if name == "fused" else {"consensus_4": gain},
                "words": ways,
            }
            for name in ("fused", "summed")
        },
    }  # fmt: skip
    return found


def paired(kept: dict[str, list[dict[str, Any]]], a: str, b: str) -> dict[str, Any]:
    one: dict[str, Any] = {"a": a, "b": b}
    for key, k in (("rank1", 1), ("rank10", 10)):
        hits = [torch.tensor([row["rank"] <= k for row in kept[name]]).double() for name in (a, b)]
        made = difference(*hits)
        one |= {key: made.value, f"{key}_ci": [made.low, made.high]}
    return one


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
