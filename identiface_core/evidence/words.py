"""The text encoder: a witness's words -> one slot per attribute that words can state.

Every text gives the same number of slots, so conditional and unconditional halves of classifier-free guidance
always fit together and no attention mask travels with them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .lexicon import ATTRIBUTES, SLOTS, UNSAID

WIDTH = 128
"""Channels of a slot."""

MAX_TOKENS = 256
"""Longest text that is read, in tokens (words, numbers, punctuation marks)."""

_PAD, _START, _UNKNOWN = 0, 1, 2
_SPECIAL = 3
_TOKEN = re.compile(r"[a-z]+|[0-9]+|[.,;:]")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CORRECTED_LENGTH = 5
_VALUES = tuple(len(attribute.values) for attribute in ATTRIBUTES)


@dataclass(frozen=True)
class Understanding:
    """What the encoder read in one text."""

    said: dict[str, str]
    """Attribute -> value, for every attribute of which the text says something."""
    unknown_words: tuple[str, ...]
    """Words that are not in the vocabulary, in order, each once."""
    cut_words: int
    """How many words at the end were not read, because the text is longer than MAX_TOKENS."""

    @property
    def warning(self) -> str | None:
        """What to tell the user, or None."""
        if not self.cut_words:
            return None
        return (
            f"the last {self.cut_words} words of the description were not read: shorten it, "
            f"{MAX_TOKENS} words and punctuation marks are read"
        )


def place_codes(places: int, width: int) -> Tensor:
    """(places, width): orthogonal rows of 1 and -1 (Hadamard), so that attention can tell slots apart whatever they say.

    width: a power of two, larger than places.
    """
    rows = torch.ones(1, 1)
    while len(rows) < width:
        rows = torch.cat((torch.cat((rows, rows), 1), torch.cat((rows, -rows), 1)))
    return rows[1 : places + 1, :width].contiguous()


def tokens_of(text: str) -> list[str]:
    """Lower-case words, numbers and marks of a text; hyphens and brackets only separate words."""
    return _TOKEN.findall(text.lower().replace("'s ", " "))


class TextEncoder(nn.Module):
    """Words to slots: two transformer layers over the words, then one learned query per attribute reads them.

    vocabulary: known words and marks, in the order of their embeddings. values: how many values each
    attribute has, in slot order (that of the lexicon; a file made with another lexicon does not load).
    """

    kind = "text-encoder"
    impossible: Tensor
    codes: Tensor

    def __init__(
        self,
        *,
        vocabulary: Sequence[str],
        values: Sequence[int] = _VALUES,
        width: int = WIDTH,
        heads: int = 4,
        depth: int = 2,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        super().__init__()
        if tuple(values) != _VALUES:
            raise ValueError(
                f"this text encoder was made for attributes with {list(values)} values, ours have {_VALUES}"
            )
        self.config = {
            "vocabulary": list(vocabulary),
            "values": list(values),
            "width": width,
            "heads": heads,
            "depth": depth,
            "max_tokens": max_tokens,
        }
        self.max_tokens = max_tokens
        self._ids = {word: i + _SPECIAL for i, word in enumerate(vocabulary)}
        self.words = nn.Embedding(len(vocabulary) + _SPECIAL, width, padding_idx=_PAD)
        self.neighbours = nn.Conv1d(width, width, 7, padding=3)
        self.places = nn.Parameter(0.02 * torch.randn(max_tokens, width))
        self.layers = nn.ModuleList(_Block(width, heads, cross=False) for _ in range(depth))
        self.queries = nn.Parameter(0.5 * torch.randn(SLOTS, width))
        self.readers = nn.ModuleList(_Block(width, heads, cross=True) for _ in range(2))
        self.heads = nn.Parameter(torch.randn(SLOTS, max(values) + 1, width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(SLOTS, max(values) + 1))
        impossible = torch.arange(max(values) + 1)[None] > torch.tensor(list(values))[:, None]
        self.register_buffer("impossible", impossible, persistent=False)
        self.register_buffer("codes", place_codes(SLOTS, width), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 ids, 0 is padding -> (B, SLOTS, WIDTH) slots, each with mean 0 and deviation 1."""
        there = (tokens != _PAD)[:, None, None, :]
        x = self.words(tokens)
        # Which adjective belongs to which noun is mostly a matter of a few words around it.
        x = x + F.gelu(self.neighbours(x.transpose(1, 2))).transpose(1, 2) + self.places[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, x, there)
        slots = self.queries.expand(tokens.shape[0], -1, -1)
        for reader in self.readers:
            slots = reader(slots, x, there)
        return F.layer_norm(slots, slots.shape[-1:])

    def logits(self, slots: Tensor) -> Tensor:
        """(B, SLOTS, WIDTH) -> (B, SLOTS, 1 + most values): place 0 is "nothing said", v + 1 is value v."""
        scores = torch.einsum("bsw,svw->bsv", slots, self.heads) + self.bias
        return scores.masked_fill(self.impossible, -1e4)

    def tokenise(self, texts: Sequence[str]) -> Tensor:
        """(B, T) int64 ids on the encoder's device, T as long as the longest text needs."""
        rows = [[_START, *(self._id(word) for word in tokens_of(text))][: self.max_tokens] for text in texts]
        longest = max((len(row) for row in rows), default=1)
        padded = [row + [_PAD] * (longest - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64, device=self.places.device).reshape(len(rows), longest)

    @torch.no_grad()
    def context(self, texts: Sequence[str]) -> Tensor:
        """(B, SLOTS, WIDTH) of B texts for cross-attention, which knows no order: each slot plus the code of its place."""
        return self.encode(texts) + self.codes

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """(B, SLOTS, WIDTH) slots of B texts, without gradients. The null text is ""."""
        return (
            torch.cat([self(self.tokenise([text])) for text in texts])
            if texts
            else self.queries.new_zeros(0, *self.queries.shape)
        )

    @torch.no_grad()
    def read(self, text: str) -> Understanding:
        """What the text says as far as the encoder knows, and what it did not read."""
        words = tokens_of(text)
        best = self.logits(self.encode([text]))[0].argmax(-1).tolist()
        said = {
            attribute.name: attribute.values[value - 1].name
            for attribute, value in zip(ATTRIBUTES, best)  # noqa: B905
            if value - 1 != UNSAID
        }
        cut = [word for word in words[self.max_tokens - 1 :] if word[0].isalnum()]
        return Understanding(said, self.unknown_words(text), len(cut))

    def understood(self, text: str) -> dict[str, str]:
        """Attribute -> value, for every attribute of which the text says something."""
        return self.read(text).said

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Words of the text that are not in the vocabulary (and no near misspelling of one), each once."""
        unknown = (word for word in tokens_of(text) if word.isalpha() and self._id(word) == _UNKNOWN)
        return tuple(dict.fromkeys(unknown))

    def _id(self, word: str) -> int:
        if word.isdigit():
            word = str(min(int(word[:3]), 95) // 5 * 5)  # years of age: five of them are one word
        if word in self._ids:
            return self._ids[word]
        for ending in ("s", "ly", "ish", "ed"):
            if word.endswith(ending) and word[: -len(ending)] in self._ids:
                return self._ids[word[: -len(ending)]]
        if len(word) >= _CORRECTED_LENGTH and word.isalpha():
            return min(
                (self._ids[near] for near in _one_edit_away(word) if near in self._ids), default=_UNKNOWN
            )
        return _UNKNOWN


def _one_edit_away(word: str) -> set[str]:
    """Spellings that differ by one letter left out, added, replaced, or swapped with its neighbour."""
    cuts = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    near = {a + b[1:] for a, b in cuts if b} | {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    for letter in _LETTERS:
        near |= {a + letter + b for a, b in cuts} | {a + letter + b[1:] for a, b in cuts if b}
    return near


class _Block(nn.Module):
    """Attention and MLP, normalised before; with `cross`, the attention reads another sequence."""

    def __init__(self, width: int, heads: int, cross: bool) -> None:
        super().__init__()
        self.heads = heads
        self.cross = cross
        self.norm_asking = nn.LayerNorm(width)
        self.norm_asked = nn.LayerNorm(width) if cross else nn.Identity()
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width)
        )

    def forward(self, x: Tensor, asked: Tensor, there: Tensor) -> Tensor:
        asking = self.norm_asking(x)
        asked = self.norm_asked(asked) if self.cross else asking
        key, value = self.key_value(asked).chunk(2, dim=-1)
        read = F.scaled_dot_product_attention(
            self._split(self.query(asking)), self._split(key), self._split(value), attn_mask=there
        )
        x = x + self.out(read.transpose(1, 2).flatten(2))
        return x + self.mlp(x)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
