"""Stable Diffusion 1.5's words: CLIP's tokenizer and text encoder (Radford et al., 2021), by their published files.

The host brings its own; this one serves training. Tensors keep Hugging Face's names, without "text_model.". Every size is read
from the tensors' shapes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import WeightsError

PREFIX = "text_model."
HEAD_WIDTH = 64
START, END = "<|startoftext|>", "<|endoftext|>"
_PIECES = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)


class ClipTokenizer:
    """Texts to places in CLIP's vocabulary: lower case, byte pairs merged in the published order, padded with the end's mark.

    vocabulary: place of every piece. merges: pairs of pieces, the ones to be merged first first.
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> None:
        self.vocabulary = dict(vocabulary)
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.start, self.end = self.vocabulary[START], self.vocabulary[END]

    @classmethod
    def load(cls, folder: Path) -> ClipTokenizer:
        """From the folder with `vocab.json` and `merges.txt`; WeightsError says which of them is missing or damaged."""
        try:
            vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            pairs = [
                tuple(line.split()) for line in lines if line.strip() and not line.startswith("#version")
            ]
            return cls(vocabulary, [(first, second) for first, second in pairs])
        except OSError as error:
            raise WeightsError(
                f"{error.filename}: cannot be read. CLIP's tokenizer is a folder with vocab.json and merges.txt: the `tokenizer` "
                "folder of a diffusers model, or `comfy/sd1_tokenizer` in ComfyUI"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"{folder}: no tokenizer of CLIP ({error}). Get or copy it again.") from error

    def __call__(self, texts: Sequence[str], length: int) -> Tensor:
        """(B, length) int64: start, pieces, end, then ends; what is too long is cut."""
        rows = []
        for text in texts:
            row = [self.start, *self._pieces(text)[: length - 2], self.end]
            rows.append(row + [self.end] * (length - len(row)))
        return torch.tensor(rows)

    def _pieces(self, text: str) -> list[int]:
        clean, table = " ".join(text.split()).lower(), _byte_letters()
        found: list[int] = []
        for word in _PIECES.findall(clean):
            letters = [table[byte] for byte in word.encode()]
            letters[-1] += "</w>"
            found += [self.vocabulary.get(piece, self.end) for piece in self._merged(letters)]
        return found

    def _merged(self, letters: list[str]) -> list[str]:
        while len(letters) > 1:
            pairs = list(zip(letters, letters[1:], strict=False))
            best = min(pairs, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            joined: list[str] = []
            place = 0
            while place < len(letters):
                step = 2 if tuple(letters[place : place + 2]) == best else 1
                joined.append("".join(letters[place : place + step]))
                place += step
            letters = joined
        return letters


class ClipText(nn.Module):
    """The text half of CLIP: a causal transformer with layer norms first; what its last layer gives, normalised.

    vocabulary: number of pieces. length: tokens. width: features, a multiple of 64. layers, hidden: of the transformer and its
    feed-forward networks. The defaults are CLIP ViT-L/14's.
    """

    def __init__(
        self,
        *,
        vocabulary: int = 49408,
        length: int = 77,
        width: int = 768,
        layers: int = 12,
        hidden: int = 3072,
    ) -> None:
        super().__init__()
        self.length, self.width = length, width
        self.embeddings = nn.ModuleDict(
            {
                "token_embedding": nn.Embedding(vocabulary, width),
                "position_embedding": nn.Embedding(length, width),
            }
        )
        self.layers = [_Layer(width, hidden) for _ in range(layers)]
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(self.layers)})
        self.final_layer_norm = nn.LayerNorm(width)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], name: str) -> ClipText:
        """From tensors in Hugging Face's names, other ones beside them ignored; WeightsError says that `name` holds none."""
        state = {
            key.removeprefix(PREFIX): value.float()
            for key, value in tensors.items()
            if "position_ids" not in key
        }
        try:
            vocabulary, width = state["embeddings.token_embedding.weight"].shape
            layers = {key.split(".")[2] for key in state if key.startswith("encoder.layers.")}
            model = cls(
                vocabulary=vocabulary,
                length=len(state["embeddings.position_embedding.weight"]),
                width=width,
                layers=len(layers),
                hidden=len(state["encoder.layers.0.mlp.fc1.weight"]),
            )
            model.load_state_dict({key: state[key] for key in model.state_dict()})
        except (KeyError, ValueError, RuntimeError) as error:
            raise WeightsError(f"{name}: holds no CLIP text encoder that we can read ({error})") from error
        return model.eval()

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, length) from `ClipTokenizer` -> (B, length, width)."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.embeddings["token_embedding"](tokens) + self.embeddings["position_embedding"](places)
        for layer in self.layers:
            x = layer(x)
        normalised: Tensor = self.final_layer_norm(x)
        return normalised


class _Layer(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attn = nn.ModuleDict(
            {f"{one}_proj": nn.Linear(width, width) for one in ("k", "v", "q", "out")}
        )
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x: Tensor) -> Tensor:
        normed = self.layer_norm1(x)
        query, key, value = (
            self.self_attn[f"{one}_proj"](normed).unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2)
            for one in "qkv"
        )
        read = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.self_attn["out_proj"](read.transpose(1, 2).flatten(2))
        hidden = self.mlp["fc1"](self.layer_norm2(x))
        return x + self.mlp["fc2"](hidden * torch.sigmoid(1.702 * hidden))


@cache
def _byte_letters() -> dict[int, str]:
    """A printable letter for every byte: itself where it is one, else one from 256 on, in the order of bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(others)}
