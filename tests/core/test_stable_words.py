"""CLIP's tokenizer and text encoder: the published rules on a small vocabulary, and Hugging Face's values if they can be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from identiface_core.diffusion.clip import PREFIX, ClipText, ClipTokenizer
from identiface_core.errors import WeightsError
from tests.core.stable_fakes import write_tokenizer


def small() -> ClipText:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ClipText(vocabulary=300, length=16, width=128, layers=2, hidden=96).eval()


def test_pieces_are_merged_in_their_order_and_rows_are_filled_and_cut(tmp_path: Path) -> None:
    tokenizer = ClipTokenizer.load(write_tokenizer(tmp_path / "t"))
    names = {place: piece for piece, place in tokenizer.vocabulary.items()}
    rows = tokenizer([" A   FACE,\nit's 4fab_!", "", "a b c d e f g h i j k l m n o p"], 14)
    assert rows.shape == (3, 14)
    said = [names[place] for place in rows[0].tolist()]
    # "'s" is a word of its own, every digit is one, "_" counts as a mark; "ce" merges at a word's end only
    words = ["a</w>", "face</w>", ",</w>", "i", "t</w>", "'", "s</w>", "4</w>", "fa", "b</w>", "_", "!</w>"]
    assert said == ["<|startoftext|>", *words, "<|endoftext|>"]
    assert [names[place] for place in rows[1].tolist()] == ["<|startoftext|>", *["<|endoftext|>"] * 13]
    assert names[int(rows[2, -1])] == "<|endoftext|>" and names[int(rows[2, -2])] == "l</w>"
    (tmp_path / "t" / "vocab.json").write_text("[1, 2]")
    with pytest.raises(WeightsError, match="no tokenizer of CLIP"):
        ClipTokenizer.load(tmp_path / "t")


def test_a_token_reads_what_came_before_it_only() -> None:
    encoder, tokens = small(), torch.randint(300, (2, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = encoder(tokens)
        changed = tokens.clone()
        changed[:, 9:] = 5
        other = encoder(changed)
    assert whole.shape == (2, 16, 128)
    assert torch.allclose(whole[:, :9], other[:, :9], atol=1e-6)
    assert (whole[:, 9:] - other[:, 9:]).abs().min(-1).values.max() > 0


def test_sizes_are_read_from_the_tensors() -> None:
    encoder = small()
    state = {PREFIX + name: one.half() for name, one in encoder.state_dict().items()}
    state |= {
        PREFIX + "embeddings.position_ids": torch.arange(16)[None],
        "text_projection.weight": torch.zeros(3, 3),
    }
    loaded = ClipText.of(state, "x")
    assert (loaded.length, loaded.width) == (16, 128)
    assert torch.equal(loaded.final_layer_norm.weight, encoder.final_layer_norm.weight.half().float())
    del state[PREFIX + "encoder.layers.1.mlp.fc2.bias"]
    with pytest.raises(WeightsError, match=r"x: holds no CLIP text encoder.*fc2\.bias"):
        ClipText.of(state, "x")


def test_values_of_hugging_faces_class() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPTextConfig(
        vocab_size=300,
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        hidden_act="quick_gelu",
    )
    theirs = transformers.CLIPTextModel(config).eval()
    tokens = torch.randint(3, 299, (2, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        difference = (ClipText.of(theirs.state_dict(), "x")(tokens) - theirs(tokens).last_hidden_state).abs()
    assert difference.max() < 1e-5
