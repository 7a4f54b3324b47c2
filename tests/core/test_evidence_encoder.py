from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from identiface_core.evidence.description import Description
from identiface_core.evidence.encoder import EvidenceEncoder, resize_lq
from identiface_core.evidence.lexicon import SLOTS
from identiface_core.evidence.values import Evidence
from identiface_core.evidence.words import WIDTH, TextEncoder
from identiface_core.weights.files import load_module, save_module

GENERATOR = torch.Generator().manual_seed(2)


@pytest.fixture(scope="module")
def encoder() -> EvidenceEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = EvidenceEncoder(dimension=16, sketch_widths=(4, 8, 8), lq_widths=(4, 8, 8), trunk=12, words=16)
        torch.nn.init.normal_(net.modulate.weight, std=0.1)
        net(*clues(16))
    return net.eval()


@pytest.fixture(scope="module")
def text_encoder() -> TextEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TextEncoder(vocabulary=["a", "man", "woman", "with", "broad", "nose", "."]).eval()


def clues(n: int, seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    present = torch.ones(n, 3, dtype=torch.bool)
    return (
        torch.rand(n, 3, 32, 32, generator=g),
        torch.rand(n, 1, 64, 64, generator=g),
        torch.randn(n, SLOTS, WIDTH, generator=g),
        present,
    )


def test_queries_are_unit_vectors_and_do_not_depend_on_the_batch(encoder: EvidenceEncoder) -> None:
    batch = encoder(*clues(4))
    torch.testing.assert_close(batch.norm(dim=1), torch.ones(4))
    alone = encoder(*(x[2:3] for x in clues(4)))
    torch.testing.assert_close(batch[2:3], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("flags", list(product((False, True), repeat=3)))
def test_absent_clues_are_not_read_and_present_ones_are(
    encoder: EvidenceEncoder, flags: tuple[bool, bool, bool]
) -> None:
    present = torch.tensor([flags])
    one, other = clues(1)[:3], clues(1, seed=5)[:3]
    base = encoder(*one, present)
    for i, is_there in enumerate(flags):
        changed = [*one]
        changed[i] = other[i]
        same = torch.equal(encoder(*changed, present), base)
        assert same != is_there


@pytest.mark.parametrize("side", [1, 4, 8, 13, 31, 32, 33, 48, 128])
def test_lq_of_any_size_is_read(encoder: EvidenceEncoder, text_encoder: TextEncoder, side: int) -> None:
    lq = torch.rand(3, side, side, generator=torch.Generator().manual_seed(side))
    resized = resize_lq(lq[None])
    assert resized.shape == (1, 3, 32, 32)
    assert 0 <= float(resized.min()) <= float(resized.max()) <= 1
    query = encoder.query(Evidence(lq=lq), text_encoder)
    assert query.shape == (16,)
    assert float(query.norm()) == pytest.approx(1.0, abs=1e-5)


def test_query_is_the_mean_forward_pass_of_both_sides(
    encoder: EvidenceEncoder, text_encoder: TextEncoder
) -> None:
    lq, sketch = torch.rand(3, 32, 32), torch.rand(1, 128, 128)
    said = Description.parse("A woman with a broad nose.")
    query = encoder.query(Evidence(lq, sketch, said), text_encoder)
    small = torch.nn.functional.interpolate(sketch[None], (64, 64), mode="bilinear", antialias=True)
    words = text_encoder.encode([said.full_prompt()])
    there = torch.ones(1, 3, dtype=torch.bool)
    sides = encoder(lq[None], small, words, there) + encoder(lq[None].flip(3), small.flip(3), words, there)
    wanted = torch.nn.functional.normalize(sides[0], dim=0)
    torch.testing.assert_close(query, wanted)
    wordless = encoder.query(Evidence(lq, sketch), text_encoder)
    assert not torch.allclose(query, wordless)


def test_network_survives_its_file(encoder: EvidenceEncoder, tmp_path: Path) -> None:
    save_module(tmp_path / "e.safetensors", encoder, half=False)
    again = load_module(tmp_path / "e.safetensors", EvidenceEncoder)
    assert torch.equal(encoder(*clues(2)), again(*clues(2)))
    save_module(tmp_path / "h.safetensors", encoder, half=True)
    half = load_module(tmp_path / "h.safetensors", EvidenceEncoder)
    assert float((encoder(*clues(2)) * half(*clues(2))).sum(1).min().detach()) > 0.999
