"""Lexicon, phrases and the text encoder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import identiface_core.embedded as embedded
from identiface_core.evidence.description import Description
from identiface_core.evidence.lexicon import ATTRIBUTES, SLOTS, UNSAID, slot
from identiface_core.evidence.words import MAX_TOKENS, WIDTH, TextEncoder, tokens_of
from identiface_core.parts import PARTS
from identiface_core.synthesis.phrases import describe, part_text, retell
from identiface_core.training.text import batches, build_vocabulary, random_values, slot_loss
from identiface_core.weights.files import load_module, save_module

SHIPPED = sorted(Path(embedded.__file__).parent.glob("text*encoder*.safetensors"))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def vocabulary() -> list[str]:
    return build_vocabulary(300)


@pytest.fixture(scope="module")
def encoder(vocabulary: list[str]) -> TextEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TextEncoder(vocabulary=vocabulary).eval()


@pytest.fixture(scope="module")
def trained() -> TextEncoder:
    if not SHIPPED:
        pytest.skip("the shipped text encoder is not there")
    return load_module(SHIPPED[0], TextEncoder)


# -- lexicon and phrases --


def test_lexicon_is_sound() -> None:
    assert len({attribute.name for attribute in ATTRIBUTES}) == SLOTS
    seen: dict[tuple[str, str], str] = {}
    for attribute in ATTRIBUTES:
        assert attribute.part in PARTS
        assert len({value.name for value in attribute.values}) == len(attribute.values) >= 2
        for place, value in enumerate(attribute.values):
            assert 3 <= len(set(attribute.noun_phrases(place))) <= 6, (attribute.name, value.name)
            for key in [("", p) for p in value.phrases] + [(attribute.noun, a) for a in value.adjectives]:
                assert key not in seen, f"{key} means {seen[key]} and {attribute.name}"
                seen[key] = attribute.name


def test_described_text_states_what_it_says_it_states() -> None:
    values = random_values(60, generator(1))
    for row in values:
        said = describe(row, generator(5), omit=0.4, wrong=0.0, filler=0.0)
        assert len(said.stated) == SLOTS
        assert all(v in (UNSAID, int(row[i])) for i, v in enumerate(said.stated))
        assert Description.parse(said.text) == said.description
        spoken = {ATTRIBUTES[i].part for i, v in enumerate(said.stated) if v != UNSAID}
        assert set(said.description.parts()) == spoken | {"overview"}


def test_a_pronoun_never_gives_away_what_is_left_out() -> None:
    for seed in range(200):
        values = [UNSAID if i == slot("sex") else 0 for i in range(SLOTS)]
        assert not re.search(
            r"\b(he|she|his|her|him)\b", describe(values, generator(seed)).text, re.IGNORECASE
        )


def test_omission_and_error_rates_are_what_was_asked() -> None:
    g = generator(3)
    values = random_values(400, g)
    stated = torch.tensor([describe(row, g, omit=0.3, wrong=0.1).stated for row in values])
    said = stated != UNSAID
    assert 0.28 < 1 - float(said.float().mean()) < 0.32
    assert 0.08 < float((stated != values)[said].float().mean()) < 0.12
    complete = describe(values[0], g, omit=0.0, wrong=0.0)
    assert list(complete.stated) == values[0].tolist()
    assert sum(v != UNSAID for v in describe(values[0], g, omit=1.0).stated) == 1


def test_the_same_generator_gives_the_same_words() -> None:
    row = random_values(1, generator())[0]
    assert describe(row, generator(4)) == describe(row, generator(4))
    assert describe(row, generator(4)) != describe(row, generator(5))


def test_part_text_speaks_of_one_part() -> None:
    row = [0] * SLOTS
    row[slot("hair colour")] = 2
    assert part_text(row, "hair").startswith("Red hair. Very short hair.")
    assert part_text(row, "hair", generator(1)) == part_text(row, "hair", generator(1))
    assert part_text([UNSAID] * SLOTS, "hair") == ""


# -- the encoder --


def test_slots_have_a_fixed_shape_and_do_not_depend_on_the_batch(encoder: TextEncoder) -> None:
    texts = ["", "A man.", "A young woman with a broad nose, thin eyebrows and very long curly red hair."]
    slots = encoder.encode(texts)
    assert slots.shape == (3, SLOTS, WIDTH)
    assert torch.allclose(slots.mean(-1), torch.zeros(3, SLOTS), atol=1e-5)
    assert torch.allclose(slots.std(-1, unbiased=False), torch.ones(3, SLOTS), atol=1e-3)
    for i, text in enumerate(texts):
        assert torch.equal(encoder.encode([text])[0], slots[i])
    with torch.no_grad():
        assert torch.allclose(encoder(encoder.tokenise(texts)), slots, atol=1e-5)
    assert encoder.encode([]).shape == (0, SLOTS, WIDTH)


def test_tokens_ignore_case_hyphens_and_brackets(encoder: TextEncoder) -> None:
    assert tokens_of("['hair'] A 30-year-old's Close-set EYES!") == [
        "hair", "a", "30", "year", "old", "close", "set", "eyes",
    ]  # fmt: skip
    assert torch.equal(encoder.tokenise(["WIDE nose"]), encoder.tokenise(["wide Nose"]))


def test_misspelt_and_unknown_words(encoder: TextEncoder) -> None:
    assert torch.equal(encoder.tokenise(["freckels and glases"]), encoder.tokenise(["freckles and glasses"]))
    assert encoder.unknown_words("A man with a zygomatic nose and a zygomatic chin") == ("zygomatic",)
    assert encoder.unknown_words("") == ()


def test_long_texts_are_cut_with_a_warning(encoder: TextEncoder) -> None:
    read = encoder.read("nose " * (MAX_TOKENS + 9))
    assert read.cut_words == 10
    assert read.warning is not None and "10 words" in read.warning
    assert encoder.read("nose").warning is None


def test_a_full_description_fits() -> None:
    g = generator(8)
    for row in random_values(60, g):
        whole = describe(row, g, omit=0.0, filler=0.0).description.full_prompt()
        assert len(tokens_of(whole)) < MAX_TOKENS


def test_every_word_of_the_phrases_is_known() -> None:
    encoder = TextEncoder(vocabulary=build_vocabulary(), width=8)
    g = generator(9)
    for row in random_values(150, g):
        assert encoder.unknown_words(retell(describe(row, g, 0.2), g)) == ()


def test_encoder_is_saved_and_loaded(tmp_path: Path) -> None:
    encoder = TextEncoder(vocabulary=["a", "man", "."], width=16, depth=1).eval()
    save_module(tmp_path / "t.safetensors", encoder, half=False)
    again = load_module(tmp_path / "t.safetensors", TextEncoder)
    assert torch.equal(again.encode(["A man."]), encoder.encode(["A man."]))


def test_an_encoder_for_other_attributes_is_refused(vocabulary: list[str]) -> None:
    with pytest.raises(ValueError, match="made for attributes"):
        TextEncoder(vocabulary=vocabulary, values=[2, 3])


def test_training_lowers_the_loss(vocabulary: list[str]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = TextEncoder(vocabulary=vocabulary, width=32)
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=3e-3)
    batch = batches(8, generator(1))
    losses = []
    for _ in range(8):
        loss = slot_loss(encoder, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.85 * losses[0]


SENTENCES = [
    ("A man in his fifties with short grey hair.",
     {"sex": "man", "age": "middle-aged", "hair length": "short", "hair colour": "grey"}),
    ("He is about 30 years old and clean-shaven.", {"sex": "man", "age": "adult", "beard": "none"}),
    ("A 70-year-old woman, without glasses, blue eyes.",
     {"sex": "woman", "age": "old", "glasses": "none", "eye colour": "blue"}),
    ("She wears glasses and has long curly black hair.",
     {"sex": "woman", "glasses": "glasses", "hair length": "long", "hair texture": "curly"}),
    ("YOUNG MAN, BROAD NOSE, THIN LIPS", {"sex": "man", "age": "young", "nose width": "wide"}),
    ("The nose is long and hooked, the eyebrows are bushy.",
     {"nose length": "long", "nose bridge": "humped", "brow thickness": "thick"}),
    ("A guy with a full beard; no freckles.", {"sex": "man", "beard": "full", "freckles": "none"}),
    ("", {}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "meaning"), SENTENCES)
def test_shipped_encoder_understands(trained: TextEncoder, text: str, meaning: dict[str, str]) -> None:
    said = trained.understood(text)
    assert {name: said.get(name) for name in meaning} == meaning
    assert text or not said
