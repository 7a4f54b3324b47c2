"""The text-encoder stage: synthetic descriptions in, the value they state for each attribute out."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..evidence.description import Description, sentence
from ..evidence.lexicon import ATTRIBUTES, SLOTS, UNSAID, attributes_of, slot
from ..evidence.words import TextEncoder, tokens_of
from ..synthesis.phrases import FILLERS, NUMBER_WORDS, Said, describe, retell
from .loop import Stage, step_generator

_MARKS = (".", ",", ";", ":")
_MAN, _WOMAN = re.compile(r"\b(he|his|him)\b", re.I), re.compile(r"\b(she|her)\b", re.I)


@dataclass(frozen=True)
class TextBatch:
    """Texts, and the value each states for each attribute: (B, SLOTS) int64, UNSAID (-1) if silent."""

    texts: list[str]
    stated: Tensor


def random_values(n: int, generator: torch.Generator) -> Tensor:
    """(n, SLOTS) int64: every value of every attribute equally likely, independent of the others."""
    columns = [torch.randint(len(attribute.values), (n,), generator=generator) for attribute in ATTRIBUTES]
    return torch.stack(columns, dim=1)


def build_vocabulary(texts: int = 3000) -> list[str]:
    """Every word, mark and number that lexicon and phrases can produce, sorted; always the same list."""
    generator = step_generator(0, 0)
    words = {*_MARKS, *(str(years) for years in range(0, 100, 5)), *NUMBER_WORDS}
    words.update(tokens_of(" ".join(FILLERS)))
    for attribute in ATTRIBUTES:
        words.update(tokens_of(f"{attribute.name} {attribute.noun}"))
        for place in range(len(attribute.values)):
            words.update(tokens_of(" ".join(attribute.noun_phrases(place))))
    for row in random_values(texts, generator).tolist():
        words.update(tokens_of(describe(row, generator, omit=0.2, filler=0.6).text))
    return sorted(word for word in words if not word.isdigit() or int(word) % 5 == 0)


def batches(n: int, generator: torch.Generator) -> TextBatch:
    """n texts as they occur in use: bracketed, in order, prose, one round's prompt, one part, nothing."""
    texts: list[str] = []
    stated: list[list[int]] = []
    for row in random_values(n, generator).tolist():
        kind, rate, clean = torch.rand(3, generator=generator).tolist()
        said = describe(row, generator, omit=0.9 * rate if clean > 0.15 else 0.0, wrong=0.0, filler=0.3)
        text, values = _in_use(said, kind, generator)
        texts.append(_roughen(text, generator))
        stated.append(values)
    return TextBatch(texts, torch.tensor(stated, dtype=torch.int64).reshape(n, SLOTS))


def _in_use(said: Said, kind: float, generator: torch.Generator) -> tuple[str, list[int]]:
    description, values = said.description, list(said.stated)
    if kind < 0.02:
        return "", [UNSAID] * SLOTS
    if kind < 0.22:
        return description.to_text(), values
    if kind < 0.42:
        return description.full_prompt(), values
    if kind < 0.67:
        return retell(said, generator), values
    chosen = int(torch.randint(len(description.parts()), (1,), generator=generator))
    part = description.parts()[chosen]
    if kind < 0.87:
        return description.prompt(part), _only(values, ("overview", part))
    return _alone(description, part, values)


def _alone(description: Description, part: str, values: list[int]) -> tuple[str, list[int]]:
    """One part's words without the opening: a pronoun may still tell the sex."""
    if part == "overview":
        return sentence(description.overview), _only(values, ("overview",))
    text = description.segment_text(part)
    kept = _only(values, (part,))
    if _MAN.search(text) or _WOMAN.search(text):
        kept[slot("sex")] = values[slot("sex")]
    return text, kept


def _only(values: list[int], parts: tuple[str, ...]) -> list[int]:
    keep = {place for part in parts for place in attributes_of(part)}
    return [value if place in keep else UNSAID for place, value in enumerate(values)]


def _roughen(text: str, generator: torch.Generator) -> str:
    """Unknown words here and there, and now and then a text without its commas and full stops."""
    rate, marks = torch.rand(2, generator=generator).tolist()
    if marks < 0.1:
        text = re.sub(r"[,;:]", "", text)
    if rate > 0.3:
        return text
    words = text.split(" ")
    for place in torch.randint(len(words), (1 + len(words) // 30,), generator=generator).tolist():
        words.insert(place, "qqqq")  # in no vocabulary
    return " ".join(words)


def slot_loss(encoder: TextEncoder, batch: TextBatch) -> Tensor:
    """Mean cross-entropy over all slots; an unsaid slot counts a third, for most slots are unsaid."""
    logits = _read_all(encoder, batch.texts)
    target = (batch.stated + 1).to(logits.device)
    losses = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
    weights = torch.where(target.flatten() == 0, 1 / 3, 1.0)
    return (losses * weights).sum() / weights.sum()


def _read_all(encoder: TextEncoder, texts: list[str]) -> Tensor:
    """Logits of all texts in their order; texts of like length go together, so little is spent on padding."""
    tokens = encoder.tokenise(texts)
    lengths = (tokens != 0).sum(1)
    order = lengths.argsort(stable=True)
    groups = order.chunk(4) if len(texts) >= 16 else (order,)
    logits = [encoder.logits(encoder(tokens[group, : int(lengths[group].max())])) for group in groups]
    return torch.cat(logits)[order.argsort()]


@torch.no_grad()
def slot_accuracy(encoder: TextEncoder, batch: TextBatch) -> dict[str, float]:
    """Shares in [0, 1]: `stated` slots read as the value said, `unsaid` slots read as silent."""
    read = _read_all(encoder, batch.texts).argmax(-1).cpu() - 1
    right, silent = read == batch.stated, batch.stated == UNSAID
    return {"stated": float(right[~silent].float().mean()), "unsaid": float(right[silent].float().mean())}


class TextStage(Stage):
    """Train a `TextEncoder` on endless synthetic descriptions; nothing but this repository is needed."""

    name = "text"
    validate_every = 500

    def __init__(self, *, steps: int = 1200, batch: int = 32, seed: int = 0, lr: float = 2e-3) -> None:
        self.steps, self.batch, self.seed, self.lr = steps, batch, seed, lr
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = TextEncoder(vocabulary=build_vocabulary())
        self.modules = nn.ModuleDict({"text": self.encoder})

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": slot_loss(self.encoder, batches(self.batch, generator))}

    def validate(self) -> dict[str, float]:
        generator = step_generator(self.seed + 1_000_003, 0)
        return slot_accuracy(self.encoder, batches(400, generator))
