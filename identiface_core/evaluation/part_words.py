"""Do words move what they name? Part rounds on true portraits, without sketch or LQ photo.

The same round is run twice, with one word at one end and at the other. Right way: the attribute reader finds the face nearer
to the second value when the second was asked for. Moved: difference of the reader's answers as a share of its difference
between people who truly have these values. Outside: largest change of a pixel outside the mask.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from identiface_core.diffusion.generator import Sample
from identiface_core.diffusion.masking import latent_mask, picture_mask
from identiface_core.evidence.lexicon import ATTRIBUTES, slot
from identiface_core.faces.segmenter import part_template
from identiface_core.rounds.case_input import Settings
from identiface_core.synthesis.phrases import part_text

if TYPE_CHECKING:
    from identiface_core.embedded import EmbeddedModel

WORDS: tuple[tuple[str, str, str], ...] = (
    ("hair colour", "black", "blond"),
    ("hair length", "very short", "long"),
    ("hair texture", "straight", "curly"),
    ("glasses", "none", "glasses"),
    ("beard", "none", "full"),
    ("brow thickness", "thin", "thick"),
    ("brow height", "low", "high"),
    ("eye colour", "dark brown", "blue"),
    ("eye opening", "narrow", "wide"),
    ("nose width", "narrow", "wide"),
    ("nose length", "short", "long"),
    ("mouth width", "narrow", "wide"),
    ("lower lip", "thin", "full"),
    ("lip colour", "pale", "red"),
)
"""Attribute, and the two opposite values that are asked for in part rounds."""


@dataclass(frozen=True)
class Moved:
    """What the reader saw of some people, for one word."""

    name: str
    asked: tuple[tuple[float, float], ...]
    """Per redrawn face: second value minus first, as the reader sees them, when the first and when the second was asked."""
    truly: tuple[float, ...]
    """The same on the true portrait of every person, also of those whose face was not redrawn."""
    values: tuple[int, ...]
    """True value index of every person."""
    outside: float
    """Largest change outside the mask, [0, 1]."""


@torch.no_grad()
def move_words(
    model: EmbeddedModel,
    portraits: Tensor,
    values: Tensor,
    seeds: Sequence[int],
    *,
    names: Collection[str] = (),
    settings: Settings | None = None,
) -> list[Moved]:
    """Ask for both ends of each word on portraits (N, 3, 128, 128) of people with attribute values (N, SLOTS).

    seeds: one for each of the first portraits, which are redrawn; the others only tell how people truly differ. names: only
    these attributes; all of `WORDS` if empty.
    """
    settings, read = settings or Settings(), model.reader(portraits)
    portraits = portraits[: len(seeds)]
    known = Sample(portraits, model.generator.autoencoder.encode(portraits)) if len(seeds) else None
    result = []
    for name, low, high in (row for row in WORDS if not names or row[0] in names):
        attribute, place = ATTRIBUTES[slot(name)], slot(name)
        ends = (attribute.index(low), attribute.index(high))
        mask = part_template(attribute.part).expand(len(portraits), -1, -1, -1)
        away = picture_mask(latent_mask(mask)) == 0
        seen: list[list[float]] = []
        outside = 0.0
        for end in ends if known is not None else ():
            asked = values[: len(seeds)].clone()
            asked[:, place] = end
            prompts = [
                f"{part_text(row, 'overview', _plain(seed))} {part_text(row, attribute.part, _plain(seed))}"
                for seed, row in zip(seeds, asked, strict=True)
            ]
            made = model.generator.sample(
                prompts,
                None,
                list(seeds),
                steps=settings.steps,
                guidance_scale=settings.guidance_scale,
                known=known,
                mask=mask,
            )
            seen.append(_contrast(model.reader(made.images)[place], ends).tolist())
            outside = max(outside, float(((made.images - portraits).abs() * away).max()))
        truly = _contrast(read[place], ends).tolist()
        result.append(
            Moved(
                name, tuple(zip(*seen, strict=True)), tuple(truly), tuple(values[:, place].tolist()), outside
            )
        )
    return result


def summarise_words(pieces: Sequence[Sequence[Moved]]) -> dict[str, dict[str, Any]]:
    """Figures per word over several groups of people.

    "right_way": share of faces. "moved": as a share of the true difference; None where nobody truly has one of the values.
    "outside": largest change outside the mask, in grey levels of 255. "faces": how many.
    """
    result: dict[str, dict[str, Any]] = {}
    for parts in zip(*pieces, strict=True):
        name = parts[0].name
        low, high = next((a, b) for known, a, b in WORDS if known == name)
        ends = tuple(ATTRIBUTES[slot(name)].index(value) for value in (low, high))
        asked = torch.tensor([row for one in parts for row in one.asked], dtype=torch.float64)
        truly = torch.tensor([seen for one in parts for seen in one.truly], dtype=torch.float64)
        values = torch.tensor([value for one in parts for value in one.values])
        first, second = (truly[values == end] for end in ends)
        moved = None
        if len(first) and len(second):
            moved = float((asked[:, 1] - asked[:, 0]).mean() / (second.mean() - first.mean()))
        result[name] = {
            "from": low,
            "to": high,
            "right_way": round(float((asked[:, 1] > asked[:, 0]).double().mean()), 4),
            "moved": None if moved is None else round(moved, 3),
            "outside": round(255 * max(one.outside for one in parts), 3),
            "faces": len(asked),
        }
    return result


def _plain(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _contrast(probabilities: Tensor, ends: tuple[int, int]) -> Tensor:
    return probabilities[:, ends[1]] - probabilities[:, ends[0]]
