"""One case: CASE.toml, the run with a tiny model, the case file, going on after an interruption."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from identiface_core.errors import CaseError, GalleryError, InputError, OutputError
from identiface_core.evidence.sketch import extract_sketch
from identiface_core.imaging import read_image, resize, write_png
from identiface_core.matchers.verdict import verdict_on
from identiface_core.provenance import Origin, read_origin
from identiface_core.rounds.case import LISTS, Case
from identiface_core.rounds.case_input import CaseInput, Settings, read_case
from identiface_core.rounds.report import case_toml
from identiface_core.rounds.runner import CaseRunner, run_case
from tests.core.case_fakes import Calibration, faces, fake_gallery, fake_model

TOML = """
gallery = "people.safetensors"
[evidence]
lq = "lq.png"
sketch = "sketch.png"
[description]
overview = "A man"
eyes = "blue eyes"
hair = "short hair"
ears = "large ears"
glasses = "dark glasses"
[run]
seeds = 3
steps = 2
stable_rounds = 0
"""
PERSON = 11


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A case whose evidence is of person 011 of the gallery."""
    fake_gallery().save(tmp_path / "people.safetensors")
    person = faces(30, 7)[PERSON]
    write_png(tmp_path / "lq.png", resize(person, 16, 16), origin="captured")
    write_png(tmp_path / "sketch.png", extract_sketch(person), origin="captured")
    (tmp_path / "CASE.toml").write_text(TOML)
    return tmp_path


def run(folder: Path, out: str = "out", text: str | None = None, full: bool = False, **options: Any) -> Case:
    """Run the case of `folder` into `out`; only with `full` the sheets and the report are drawn too."""
    if text is not None:
        (folder / "CASE.toml").write_text(text)
    model = options.pop("model", None) or fake_model(faces(30, 7)[PERSON])
    case = read_case(folder / "CASE.toml")
    if full:
        return run_case(case, model, folder / out, **options)
    runner = CaseRunner(case, model, folder / out, **options)
    while runner.step():
        pass
    return runner.finish()


# CASE.toml


def test_toml_is_read_with_paths_from_its_folder(folder: Path) -> None:
    case = read_case(folder / "CASE.toml")
    assert case.lq == folder / "lq.png" and case.gallery == folder / "people.safetensors"
    assert case.description is not None and case.description.parts() == (
        "overview",
        "eyes",
        "ears",
        "hair",
        "glasses",
    )
    assert (case.settings.seeds, case.settings.steps, case.settings.seed) == (3, 2, 42)


def test_toml_takes_bracketed_text_box_and_the_embedded_gallery(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        "gallery = \"embedded\"\n[evidence]\nlq = 'x.png'\nface = [1, 2, 30, 40]\n"
        "[description]\ntext = \"A man. ['hair'] Short hair.\"\n"
    )
    case = read_case(tmp_path / "c.toml")
    assert case.gallery is None and case.face == (1.0, 2.0, 30.0, 40.0)
    assert case.description is not None and case.description.parts() == ("overview", "hair")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[guidance]\nscale = 1", "unknown key 'guidance': known here: gallery, evidence, description, run"),
        ("[evidense]\nlq = 'x'", "did you mean 'evidence'"),
        ("[evidence]\nsketsh = 'x'", "did you mean 'sketch'"),
        ("[description]\noverview = 'A man'\n[run]\nseedz = 3", "did you mean 'seed"),
        ("[description]\nhairs = 'long'", "did you mean 'hair'"),
        ("[description]\noverview = ''", "description is empty"),
        ("[description]\ntext = 'A man'\neyes = 'blue'", "text or parts"),
        ("[description]\noverview = 3", "must be text"),
        ("[evidence]\nlq = 3", "path of a picture"),
        ("[evidence]\nlq = 'x'\nface = 'left'", "evidence.face must be"),
        ("[evidence]\nlq = 'x'\n[run]\nseeds = 0", "whole number from 1 to 64"),
        ("[evidence]\nlq = 'x'\n[run]\nseeds = true", "whole number"),
        ("[evidence]\nlq = 'x'\n[run]\nsteps = 2.5", "whole number"),
        ("[evidence]\nlq = 'x'\n[run]\nmargin = nan", "a number from"),
        ("[evidence]\nlq = 'x'\n[run]\nexclude = 'Ann'", "list of names"),
        ("evidence = 3", "must be a table"),
        ("gallery = 3\n[evidence]\nlq = 'x'", "gallery must be"),
        ("", "no evidence"),
        ("lq = ", "not valid TOML"),
    ],
)
def test_bad_toml_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(CaseError, match=says) as caught:
        read_case(tmp_path / "bad.toml")
    assert "bad.toml" in str(caught.value)


def test_missing_or_binary_toml(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="cannot be read"):
        read_case(tmp_path / "none.toml")
    write_png(tmp_path / "face.png", faces(1)[0], origin="captured")
    with pytest.raises(
        CaseError, match=r"face\.png: not valid TOML, this is no text file: give .* CASE\.toml"
    ):
        read_case(tmp_path / "face.png")


# the run


def test_a_case_from_evidence_to_candidates(folder: Path) -> None:
    case = run(folder)
    assert case.candidates[0].person == f"person {PERSON:03d}"
    assert [one.rank for one in case.candidates] == list(range(1, 11))
    assert all(case.lists[name] for name in LISTS)
    assert [one.part for one in case.rounds] == ["overview", "eyes", "ears", "hair", "glasses"]
    by_part = {one.part: one for one in case.rounds}
    assert by_part["ears"].skipped and "no ears visible" in by_part["ears"].reason
    assert by_part["ears"].image is None
    assert (by_part["eyes"].mask, by_part["glasses"].mask) == ("part seen", "part template")
    first = by_part["overview"]
    assert (
        len(first.seeds) == 3 and first.seed == first.seeds[first.seed_scores.index(max(first.seed_scores))]
    )
    assert set(first.evidence_terms) == {"lq", "sketch", "words", "query"}
    assert first.judge is not None and first.judge.rank_b == 1
    assert first.judge.gap == pytest.approx(first.judge.matcher_a - first.judge.matcher_b, abs=2e-6)
    seeds = [seed for one in case.rounds for seed in one.seeds]
    assert len(seeds) == len(set(seeds))
    assert case.stopped and case.stop_reason == "all parts are done"


def test_the_folder_holds_what_was_promised(folder: Path) -> None:
    case = run(folder, full=True)
    out = folder / "out"
    content = json.loads((out / "case.json").read_text())
    assert content["schema_version"] == 1 and "not an identification" in content["notice"]
    assert set(content["candidates"][0]) >= {"rank", "person", "score", "fpir"}
    assert content["candidates"] == content["candidate_lists"]["both"]
    assert set(content["rounds"][0]) >= {
        "index",
        "part",
        "prompt",
        "seed",
        "image",
        "evidence_score",
        "agreement",
        "candidates",
        "accepted",
        "reason",
    }
    assert content["evidence"]["lq"]["file"] == "lq.png" and len(content["evidence"]["lq"]["sha256"]) == 64
    assert content["models"] == {"matcher_a.safetensors": "0" * 64}
    assert str(folder) not in (out / "case.json").read_text()
    for one in case.rounds:
        if one.image is not None:
            assert read_origin(out / one.image) == Origin.GENERATED
            assert read_image(out / one.image).shape == (3, 128, 128)
    assert read_origin(out / "candidates.png") == Origin.EDITED
    assert (out / "report.html").stat().st_size > 10_000
    assert not list(out.glob(".*"))
    assert Case.load(out) == case


def test_outside_the_mask_a_part_round_changes_nothing(folder: Path) -> None:
    run(folder)
    before, after = (read_image(folder / "out" / f"round-{name}.png") for name in ("00-overview", "01-eyes"))
    assert (before - after).abs()[:, 100:].max() == 0
    assert (before - after).abs()[:, 55:66].max() > 0


def test_a_second_run_is_byte_identical_apart_from_times(folder: Path) -> None:
    def text(out: str) -> str:
        run(folder, out, full=True)
        return without_times(folder / out)

    assert text("one") == text("two")
    for name in ("candidates.png", "rounds.png", "report.html", "round-00-overview.png"):
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()


def without_times(folder: Path) -> str:
    content = json.loads((folder / "case.json").read_text())
    assert content.pop("times")["started"]
    return json.dumps(content)


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_ctrl_c_loses_nothing_and_the_case_goes_on_to_the_same_end(folder: Path, stop_at: int) -> None:
    run(folder, "whole", full=stop_at == 2)
    model = fake_model(faces(30, 7)[PERSON])
    model.generator.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        run(folder, "broken", model=model)
    halfway = Case.load(folder / "broken")
    assert not halfway.stopped and sum(not one.skipped for one in halfway.rounds) == stop_at - 1
    assert halfway.lists["evidence query"]
    run(folder, "broken", resume=True, full=stop_at == 2)
    assert without_times(folder / "broken") == without_times(folder / "whole")
    if stop_at == 2:
        assert (folder / "broken" / "report.html").read_bytes() == (
            folder / "whole" / "report.html"
        ).read_bytes()


def test_resuming_a_finished_case_changes_nothing(folder: Path) -> None:
    run(folder)
    before = without_times(folder / "out")
    run(folder, resume=True)
    assert without_times(folder / "out") == before


def test_resume_refuses_another_case_and_damaged_state(folder: Path) -> None:
    with pytest.raises(CaseError, match="no case was begun"):
        run(folder, resume=True)
    run(folder)
    with pytest.raises(CaseError, match="other settings"):
        run(folder, text=TOML.replace("seeds = 3", "seeds = 2"), resume=True)
    (folder / "CASE.toml").write_text(TOML)
    (folder / "out" / "case.safetensors").write_bytes(b"broken")
    with pytest.raises(CaseError, match=r"case\.safetensors is missing or damaged"):
        run(folder, resume=True)


def test_a_new_case_in_an_old_folder_leaves_no_old_pictures(folder: Path) -> None:
    run(folder)
    run(folder, text="gallery = 'people.safetensors'\n[evidence]\nlq = 'lq.png'\n[run]\nseeds = 1\nsteps = 1")
    assert [path.name for path in (folder / "out").glob("round-*.png")] == ["round-00-overview.png"]


def test_a_case_that_is_stopped_leaves_no_pages_of_another(folder: Path) -> None:
    run(folder, full=True)
    assert (folder / "out" / "report.html").exists()
    model = fake_model()
    model.generator.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        run(folder, model=model)
    left = sorted(path.name for path in (folder / "out").iterdir())
    assert left == ["case.json", "case.safetensors", "round-00-overview.png"]


@pytest.mark.parametrize("kinds", ["lq", "sketch", "words", "lq sketch", "sketch words", "lq words"])
def test_any_evidence_may_be_missing(folder: Path, kinds: str) -> None:
    lines = ["gallery = 'people.safetensors'", "[evidence]"]
    lines += [f"{kind} = '{kind}.png'" for kind in ("lq", "sketch") if kind in kinds]
    lines += ["[description]", "overview = 'A man'", "nose = 'long nose'"] if "words" in kinds else []
    case = run(folder, text="\n".join([*lines, "[run]", "seeds = 2", "steps = 1"]))
    assert len(case.candidates) == 10
    assert set(case.rounds[0].evidence_terms) == {"query", *kinds.split()}
    assert len(case.rounds) == (2 if "words" in kinds else 1)


def test_progress_and_the_witness(folder: Path) -> None:
    seen: list[tuple[str, int, int, str]] = []
    case = run(folder, on_progress=lambda *event: seen.append(event), pick=lambda planned, images, scores: 0)
    assert {one.chosen_by for one in case.rounds if not one.skipped} == {"witness"}
    assert all(one.seed == one.seeds[0] and one.accepted for one in case.rounds if not one.skipped)
    assert all(stage == "rounds" and 0 <= done <= total for stage, done, total, _ in seen)
    assert seen[-1] == ("rounds", 5, 5, "done: all parts are done")
    told = [text for *_, text in seen]
    assert "round 1 (eyes): kept: chosen by the witness" in told


def test_step_by_step(folder: Path) -> None:
    runner = CaseRunner(read_case(folder / "CASE.toml"), fake_model(), folder / "steps")
    count = 0
    while runner.step():
        count += 1
        assert len(Case.load(folder / "steps").rounds) == count
    assert count == 5
    assert runner.finish().stopped


def test_people_can_be_excluded_and_fpir_follows_the_calibration(folder: Path) -> None:
    case = run(folder, text=TOML + f'exclude = ["person {PERSON:03d}"]\n')
    assert f"person {PERSON:03d}" not in [one.person for found in case.lists.values() for one in found]
    for one in case.candidates:
        assert one.fpir == pytest.approx(Calibration().fpir(one.score, 29), abs=1e-5)


def test_warnings_reach_the_case(folder: Path) -> None:
    write_png(folder / "lq.png", resize(faces(1)[0], 4, 4), origin="captured")
    case = run(folder, text=TOML.replace('"A man"', '"A flurbish man"'))
    assert "words that the text encoder does not know were ignored: flurbish" in case.warnings
    assert any("hardly recognisable" in one for one in case.warnings)
    assert any("lq.png: taken whole" in one and "face = " in one for one in case.warnings)


def test_a_photo_that_is_the_only_evidence_gets_the_verdict_of_one(folder: Path) -> None:
    write_png(folder / "lq.png", resize(faces(1)[0], 4, 4), origin="captured")
    case = run(folder, text='gallery = "people.safetensors"\n[evidence]\nlq = "lq.png"\nface = "whole"\n')
    verdict = verdict_on(case.evidence["lq"]["recognisability"])
    assert not verdict.may_search
    assert f"lq.png: {verdict.sentence} {verdict.advice}" in case.warnings
    assert not any("other evidence" in one for one in case.warnings), "there is none"


# what goes wrong


def test_words_that_say_nothing_are_no_evidence(folder: Path) -> None:
    with pytest.raises(InputError, match="knows none of its words: flurbish"):
        run(folder, text='gallery = "people.safetensors"\n[description]\noverview = "Flurbish flurbish"\n')
    with pytest.raises(CaseError, match=r"\[description\] is empty"):
        run(folder, text=TOML.split("[description]")[0] + "[description]\n")


def test_gallery_of_another_matcher(folder: Path) -> None:
    model = fake_model()
    model.matcher_a.name = "other"
    with pytest.raises(GalleryError, match=r"people\.safetensors.*enrol again"):
        run(folder, model=model)
    assert not (folder / "out").exists()


def test_missing_files_are_named_and_nothing_is_written(folder: Path) -> None:
    for name in ("lq.png", "people.safetensors"):
        (folder / name).rename(folder / "away")
        with pytest.raises((InputError, GalleryError), match=name):
            run(folder)
        (folder / "away").rename(folder / name)
    assert not (folder / "out").exists()


def test_output_that_cannot_be_written(folder: Path) -> None:
    (folder / "out").write_text("a file where the folder should be")
    with pytest.raises(OutputError):
        run(folder)


def test_a_gallery_folder_is_enrolled_on_the_fly(folder: Path) -> None:
    people = folder / "people"
    for i, face in enumerate(faces(30, 7)[8:14], start=8):
        write_png(people / f"person {i:03d}.png", face, origin="captured")
    (people / "broken.png").write_bytes(b"x")
    seen: list[str] = []
    case = run(
        folder,
        text=TOML.replace("people.safetensors", "people"),
        on_progress=lambda s, d, t, n: seen.append(s),
    )
    assert case.candidates[0].person == f"person {PERSON:03d}" and len(case.candidates) == 6
    assert case.gallery["skipped"][0]["file"] == "broken.png"
    assert "gallery" in seen


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema_version": 2}', '{"schema_version": 1}', "[" * 100_000]
)
def test_a_damaged_case_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "case.json").write_text(text)
    with pytest.raises(CaseError, match=r"case\.json"):
        Case.load(tmp_path)


def test_the_written_toml_runs_the_same_case(folder: Path) -> None:
    case = run(folder)
    (folder / "again.toml").write_text(case_toml(case))
    again, first = read_case(folder / "again.toml"), read_case(folder / "CASE.toml")
    assert again.description is not None and first.description is not None
    assert again.description.to_mapping() == first.description.to_mapping()
    assert replace(again, description=None) == replace(first, description=None)


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"run\.strength"):
        Settings(strength=3)
    with pytest.raises(InputError, match="no evidence"):
        CaseInput()


def test_words_weigh_more_where_they_alone_decide() -> None:
    settings = Settings(guidance_scale=3.0, photo_guidance=1.25)
    assert settings.guidance(words=True, photo=True, part=False) == 1.25
    assert settings.guidance(words=True, photo=True, part=True) == 3.0
    assert settings.guidance(words=True, photo=False, part=False) == 3.0
    assert settings.guidance(words=False, photo=False, part=True) == 1.0, "there is nothing to weigh"
