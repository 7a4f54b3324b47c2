"""The embedded face matcher: a small residual convolutional network from a 64 px portrait to a unit
vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from identiface_core.imaging import resample

SIDE = 64
"""Pixels per side of the portraits the network reads."""

Stem = Literal["stride", "unshuffle"]


class Block(nn.Module):
    """x + BN(conv(act(BN(conv(x))))), then the activation; channels and size stay."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(h)))


class FaceNet(nn.Module):
    """Portraits (B, 3, 64, 64), RGB in [0, 1], to unit embeddings (B, dimension).

    widths: channels at 32, 16, 8 and 4 px. blocks: residual blocks at each of them. stem: how 64 px become
    32: a strided convolution, or pixel-unshuffle and a convolution. The last map is flattened, not pooled:
    where a feature lies matters in an aligned face.
    """

    kind = "face-net"

    def __init__(
        self,
        *,
        dimension: int = 128,
        widths: Sequence[int] = (24, 48, 96, 160),
        blocks: Sequence[int] = (1, 2, 2, 1),
        stem: Stem = "stride",
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "dimension": dimension,
            "widths": list(widths),
            "blocks": list(blocks),
            "stem": stem,
        }
        first = widths[0]
        layers: list[nn.Module] = (
            [nn.Conv2d(3, first, 3, stride=2, padding=1, bias=False)]
            if stem == "stride"
            else [nn.PixelUnshuffle(2), nn.Conv2d(12, first, 3, padding=1, bias=False)]
        )
        layers += [nn.BatchNorm2d(first), nn.ReLU()]
        before = first
        for i, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            if i:
                layers += [
                    nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
            layers += [Block(width) for _ in range(count)]
            before = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(before * (SIDE >> len(widths)) ** 2, dimension, bias=False)
        self.norm = nn.BatchNorm1d(dimension, affine=False)

    def forward(self, portraits: Tensor) -> Tensor:
        """(B, 3, 64, 64) -> (B, dimension), rows of length 1."""
        return F.normalize(self.lengthy(portraits), dim=1)

    def lengthy(self, portraits: Tensor) -> Tensor:
        """(B, 3, 64, 64) -> (B, dimension) float32, before normalisation: the length tells how clear the face is."""
        vector: Tensor = self.norm(self.head(self.spatial(portraits).flatten(1)))
        return vector.float()

    def spatial(self, portraits: Tensor) -> Tensor:
        """(B, 3, 64, 64) -> (B, C, 4, 4): the last map."""
        maps: Tensor = self.body((portraits - 0.5) * 4.0)
        return maps


def shrink(portraits: Tensor) -> Tensor:
    """Portraits (B, 3, H, W) to the network's (B, 3, 64, 64), antialiased, differentiable; values stay in [0,
    1].
    """
    return resample(portraits, (SIDE, SIDE), "bilinear")


def parameter_count(module: nn.Module) -> int:
    """Number of trained values in a module."""
    return sum(torch.numel(p) for p in module.parameters())
