"""What words would say of a face: a small network that reads every attribute of the lexicon off a portrait.

It asks of a generated face whether the witness's words hold, without knowing whose face was wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..evidence.lexicon import ATTRIBUTES


def _conv(inner: int, outer: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.SiLU())


class AttributeReader(nn.Module):
    """Canonical portraits (B, 3, 128, 128) in [0, 1] -> probabilities of the values of every attribute.

    widths: channels at 64, 32, 16 and 8 px.
    """

    kind = "attribute-reader"

    def __init__(self, *, widths: Sequence[int] = (24, 40, 64, 96)) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"widths": list(widths)}
        self.sizes = [len(attribute.values) for attribute in ATTRIBUTES]
        first, second, third, fourth = widths
        self.trunk = nn.Sequential(
            nn.PixelUnshuffle(2), _conv(12, first), _conv(first, second, 2), _conv(second, second),
            _conv(second, third, 2), _conv(third, third), _conv(third, fourth, 2), _conv(fourth, fourth),
        )  # fmt: skip
        # Where on the portrait a stroke is decides what it means, so the head sees every cell.
        self.head = nn.Sequential(
            nn.Conv2d(fourth, 32, 1),
            nn.Flatten(),
            nn.SiLU(),
            nn.Dropout(0.2),
            nn.Linear(32 * 64, sum(self.sizes)),
        )

    def logits(self, portraits: Tensor) -> tuple[Tensor, ...]:
        """One (B, values) tensor per attribute of the lexicon, in its order."""
        flat: Tensor = self.head(self.trunk(portraits * 2 - 1))
        return flat.split(self.sizes, dim=1)

    def forward(self, portraits: Tensor) -> tuple[Tensor, ...]:
        """Probabilities, one (B, values) tensor per attribute."""
        return tuple(logits.softmax(1) for logits in self.logits(portraits))

    @torch.no_grad()
    def places(self, portraits: Tensor) -> Tensor:
        """(B, SLOTS): the expected place of each attribute's value, from 0 to values - 1."""
        ladders = [torch.arange(size, device=portraits.device, dtype=torch.float32) for size in self.sizes]
        return torch.stack([p.float() @ k for p, k in zip(self(portraits), ladders, strict=True)], dim=1)

    @torch.no_grad()
    def agreement(self, portraits: Tensor, stated: Sequence[int]) -> Tensor:
        """(B,) in [0, 1]: mean over what is stated (value index per attribute, -1 unsaid) of the probability given to it.

        A neighbouring value counts half, for witnesses and bins are coarse. Ones if nothing is stated.
        """
        terms = []
        for probability, value in zip(self(portraits), stated, strict=True):
            if value >= 0:
                near = F.pad(probability, (1, 1))
                terms.append(probability[:, value] + 0.5 * (near[:, value] + near[:, value + 2]))
        return torch.stack(terms).mean(0) if terms else torch.ones(len(portraits), device=portraits.device)
