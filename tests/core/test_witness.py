"""Attributes of synthetic people, and the witness who saw them."""

from __future__ import annotations

import pytest
import torch

from identiface_core.evidence.description import Description
from identiface_core.evidence.lexicon import ATTRIBUTES, SLOTS, UNSAID, slot
from identiface_core.synthesis import witness
from identiface_core.synthesis.attributes import attribute_values
from identiface_core.synthesis.identity import PARAMETERS, index, sample_identities
from identiface_core.synthesis.portrait import draw_sketch
from identiface_core.synthesis.witness import LEVELS, low_quality, misremember, sketch, words

MIDDLE = LEVELS["middle"]


def test_every_value_is_common_enough_to_be_learnt() -> None:
    values = attribute_values(sample_identities(4000, 2))
    assert values.shape == (4000, SLOTS) and values.dtype == torch.int64
    for place, attribute in enumerate(ATTRIBUTES):
        counts = torch.bincount(values[:, place], minlength=len(attribute.values))
        assert len(counts) == len(attribute.values)
        assert counts.min() > 0.03 * len(values), attribute.name


def test_values_follow_the_parameters() -> None:
    people = sample_identities(2000, 3)
    values = attribute_values(people)
    for name, parameter in (("nose width", "nose_width"), ("age", "age"), ("hair length", "hair_length")):
        column = people[:, index(parameter)]
        place = values[:, slot(name)]
        for value in range(1, len(ATTRIBUTES[slot(name)].values)):
            assert column[place == value].min() >= column[place == value - 1].max()
    women = values[:, slot("sex")] == ATTRIBUTES[slot("sex")].index("woman")
    assert bool((people[women, index("sex")] >= 0.5).all())
    assert bool((values[women, slot("beard")] == 0).all())
    with pytest.raises(ValueError, match="identity must be"):
        attribute_values(people[:, 1:])


def test_memory_errors_have_the_size_of_the_level() -> None:
    people = sample_identities(1500, 4)
    for level in LEVELS.values():
        wrong = misremember(people, level, 1)[:, index("eye_height")] - people[:, index("eye_height")]
        deviation = float(wrong.std()) / PARAMETERS[index("eye_height")].b
        assert 0.8 * level.sketch_error <= deviation <= 1.05 * level.sketch_error


def test_memory_holds_no_colour_and_no_pattern() -> None:
    remembered = misremember(sample_identities(50, 5), MIDDLE, 1)
    for column, parameter in enumerate(PARAMETERS):
        same = bool((remembered[:, column] == remembered[0, column]).all())
        assert same == (parameter.group in ("colour", "mark")), parameter.name


def test_evidence_depends_on_person_and_seed_alone() -> None:
    people = sample_identities(4, 6)
    third = torch.tensor([2])
    assert torch.equal(misremember(people[2:3], MIDDLE, 9, third)[0], misremember(people, MIDDLE, 9)[2])
    assert not torch.equal(misremember(people, MIDDLE, 9), misremember(people, MIDDLE, 10))
    assert words(people[2:3], MIDDLE, 9, third)[0] == words(people, MIDDLE, 9)[2]
    assert words(people, MIDDLE, 9) != words(people, MIDDLE, 10)
    whole = sketch(people[1:3], MIDDLE, 9, torch.tensor([1, 2]), size=64)
    assert torch.allclose(sketch(people[2:3], MIDDLE, 9, third, size=64)[0], whole[1], atol=1e-4)
    with pytest.raises(ValueError, match="one number per row"):
        misremember(people, MIDDLE, 9, third)


def test_a_poor_witness_draws_worse_than_a_careful_one() -> None:
    people = sample_identities(2, 7)
    true = draw_sketch(people, size=64)
    faults = [float((sketch(people, level, 1, size=64) - true).abs().mean()) for level in LEVELS.values()]
    assert faults[0] < faults[1] < faults[2]
    drawn = sketch(people, MIDDLE, 1, size=64)
    assert drawn.shape == (2, 1, 64, 64) and drawn.dtype == torch.float32
    assert float(drawn.min()) >= 0.0 and float(drawn.max()) <= 1.0
    assert float(drawn.mean()) > 0.6 > float(drawn.min())  # lines on paper


def test_words_omit_and_err_as_the_level_says() -> None:
    people = sample_identities(300, 8)
    truth = attribute_values(people)
    said = witness.testimony(people, MIDDLE, 2)
    stated = torch.tensor([one.stated for one in said])
    spoken = stated != UNSAID
    assert abs(1 - float(spoken.float().mean()) - MIDDLE.omit) < 0.02
    assert abs(float((stated != truth)[spoken].float().mean()) - MIDDLE.wrong) < 0.02
    assert Description.parse(said[0].text) == said[0].description


def test_low_quality_is_tiny_and_in_range() -> None:
    view = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    tiny = low_quality(view)
    assert tiny.shape == (2, 3, 8, 8)
    assert float(tiny.min()) >= 0.0 and float(tiny.max()) <= 1.0
    assert torch.allclose(
        low_quality(torch.full((1, 3, 128, 128), 0.3), 12), torch.full((1, 3, 12, 12), 0.3), atol=1e-5
    )
