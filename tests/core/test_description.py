"""Description: the published splitting rules value by value, the two written forms, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from identiface_core.errors import InputError
from identiface_core.evidence.description import (
    MAX_CHARACTERS,
    Description,
    Segment,
    normalise_tag,
    split_long_prompt,
)
from identiface_core.parts import PARTS

REFERENCE = json.loads(
    (Path(__file__).parent / "data/reference/text-split-reference.json").read_text(encoding="utf-8")
)
TEXT = (
    "A man of about fifty with a long face. ['hair'] Short grey hair ['l_eye', 'r_eye'] Narrow blue eyes. "
    "['eye_g'] He wears glasses. ['nose'] A hooked nose."
)


@pytest.mark.parametrize("example", REFERENCE["examples"])
def test_split_agrees_with_the_released_code(example: dict) -> None:
    split = split_long_prompt(example["long_prompt"])
    assert split.opening == example["opening"]
    assert [{"tags": list(s.tags), "text": s.text} for s in split.segments] == example["segments"]
    assert [
        {
            "round": i,
            "prompt": one.prompt,
            "tags": list(one.tags),
            "normalised_tags": [normalise_tag(tag) for tag in one.tags],
        }
        for i, one in enumerate(split.rounds)
    ] == example["rounds"]


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("A man. Blue eyes. A nose", ["A man. Blue eyes."]),  # the piece after the last stop is lost
        ("A man with blue eyes", ["A man with blue eyes"]),  # a lone sentence is used as is
        ("['hair'] Black hair.", [". Black hair."]),  # the opening of a text that starts with a tag is "."
        ("A man. ['nose'] ['hair'] Black.", ["A man. Black."]),  # empty segments are dropped
        ("A man. ['hair'] Black. --ar 1:1 ['nose'] Long.", ["A man. Black."]),
        ("A man. ['hair'] Black. --aspect_ratio 1:1", ["A man. Black."]),
        ("A man. ['hair'] Black. Curly. Long.", ["A man. Black. Curly. Long."]),
    ],
)
def test_split_edge_rules(text: str, prompts: list[str]) -> None:
    assert [one.prompt for one in split_long_prompt(text).rounds] == prompts


def test_bracket_form_is_read() -> None:
    said = Description.parse(TEXT)
    assert said.overview == "A man of about fifty with a long face."
    assert said.parts() == ("overview", "eyes", "nose", "hair", "glasses")
    assert said.prompt("hair") == "A man of about fifty with a long face. Short grey hair."
    assert said.prompt("mouth") == said.prompt("overview") == "A man of about fifty with a long face."
    assert said.full_prompt().endswith("Narrow blue eyes. A hooked nose. Short grey hair. He wears glasses.")
    assert Description.parse(said.to_text()) == said


def test_plain_text_is_all_overview() -> None:
    said = Description.parse("  A young woman with curly red hair.  ")
    assert said == Description("A young woman with curly red hair.")
    assert said.parts() == ("overview",)


def test_structured_form_round_trips() -> None:
    words = {"overview": "A man.", "eyes": "Blue eyes.", "hair": "Short hair."}
    said = Description.from_mapping(
        {"hair": "Short hair", "overview": "A man", "eyes": "Blue eyes", "nose": " "}
    )
    assert said.to_mapping() == words
    assert list(said.to_mapping()) == list(words)
    assert said.segments[1] == Segment("eyes", ("l_eye", "r_eye"), "Blue eyes")
    assert Description.from_mapping(said.to_mapping()).to_mapping() == words
    assert Description.from_mapping({"l_eye": "Grey."}).segments == (Segment("eyes", ("l_eye",), "Grey."),)


def test_a_part_can_be_corrected_added_and_removed() -> None:
    said = Description.parse(TEXT).with_part("hair", "Long black hair.")
    assert said.segment_text("hair") == "Long black hair."
    assert said.segment_text("nose") == "A hooked nose."
    assert said.with_part("mouth", "Thin lips.").parts() == (
        "overview", "eyes", "mouth", "nose", "hair", "glasses",
    )  # fmt: skip
    assert "hair" not in said.with_part("hair", "").parts()


def test_every_part_has_a_written_form() -> None:
    said = Description.from_mapping({part: f"words on {part}" for part in PARTS})
    assert said.parts() == PARTS
    assert Description.parse(said.to_text()).to_mapping() == said.to_mapping()


@pytest.mark.parametrize("text", ["", " \n ", "['hair']", "--ar 1:1"])
def test_empty_description_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="empty"):
        Description.parse(text)


def test_unknown_part_is_named_with_the_known_ones() -> None:
    message = r"'noes'.*did you mean 'nose'\?.*eyes.*hair"
    with pytest.raises(InputError, match=message):
        Description.parse("A man. ['noes'] Long.")
    with pytest.raises(InputError, match=message):
        Description.from_mapping({"overview": "A man.", "noes": "Long."})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('A man. ["l_eye", "r_eye"] Blue eyes.', "single quotes"),
        ("A man. [hair] Short.", "single quotes"),
        ("A man. ['hair' Short.", "not closed"),
        ("A man. ['hair'] Short [] and grey.", "names no part"),
        ("x" * (MAX_CHARACTERS + 1), str(MAX_CHARACTERS)),
    ],
)
def test_what_would_be_misread_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Description.parse(text)


def test_structured_values_must_be_text_without_brackets() -> None:
    with pytest.raises(InputError, match="must be text, got int"):
        Description.from_mapping({"hair": 3})  # type: ignore[dict-item]
    with pytest.raises(InputError, match="brackets"):
        Description.from_mapping({"hair": "Short ['nose'] long"})
    with pytest.raises(InputError, match="empty"):
        Description.from_mapping({})
