"""A matcher that reads latents: whom they show, and what words would say of it, without decoding.

Trained on latents as noisy and as smooth as a generator's predictions are (`training.critic`), so that its gradient can steer
a sampling from the first steps on, at a fifth of what decoding and matching cost. It never judges anything: figures are read
off decoded pictures by other networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from identiface_core.evidence.lexicon import ATTRIBUTES

SIZES = [len(attribute.values) for attribute in ATTRIBUTES]


class LatentCritic(nn.Module):
    """Latents (B, 4, 16, 16) to the logits of every attribute and a unit embedding in matcher A's space.

    widths: channels at 16 and at 8 cells. dimension: of the embedding.
    """

    kind = "latent-critic"

    def __init__(self, *, widths: Sequence[int] = (96, 144), dimension: int = 128) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"widths": list(widths), "dimension": dimension}
        fine, coarse = widths
        self.trunk = nn.Sequential(
            nn.Conv2d(4, fine, 3, padding=1, bias=False), nn.BatchNorm2d(fine), nn.SiLU(),
            _Residual(fine), _Residual(fine),
            nn.Conv2d(fine, coarse, 2, stride=2, bias=False), nn.BatchNorm2d(coarse), nn.SiLU(),
            _Residual(coarse), _Residual(coarse),
            nn.Conv2d(coarse, 48, 1), nn.Flatten(), nn.SiLU(), nn.Dropout(0.2),
        )  # fmt: skip
        self.attributes = nn.Linear(48 * 64, sum(SIZES))
        self.identity = nn.Linear(48 * 64, dimension)

    def forward(self, latents: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """One (B, values) tensor of logits per attribute, and embeddings (B, D) of length 1."""
        seen = self.trunk(latents)
        read: Tensor = self.attributes(seen)
        return read.float().split(SIZES, dim=1), F.normalize(self.identity(seen).float(), dim=1)


class _Residual(nn.Module):
    """x + BN(conv(SiLU(BN(conv(x)))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        moved: Tensor = self.body(x)
        return x + moved
