"""Stage "autoencoder": portraits, other views and sketches through four latent channels and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..diffusion.autoencoder import Autoencoder
from ..parts import MASK_CHANNELS
from .data import World, floats
from .loop import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

LATENT_NOISE = 0.04
"""Deviation of the noise on standardised latents: nothing may hide in digits that sampling cannot
reproduce."""
STATISTICS_MOMENTUM = 0.02
PART_WEIGHTS = {"eyes": 6.0, "brows": 4.0, "mouth": 6.0, "nose": 2.0, "glasses": 3.0}
"""Extra weight of the pixels of a part in the loss: small, and what people look at."""
SKETCH_WEIGHT = 0.3
"""Weight of a sketch's pixels: lines would dominate the loss, and nobody looks at a decoded sketch."""
COLOUR_CELL = 4
"""Side in pixels of the cells whose mean colour must be right: lips are six pixels high."""


class AutoencoderStage(Stage):
    """Half canonical portraits, a quarter other views, a quarter sketches. About 29 dB on portraits after
    60,000 samples.

    world: drawn people, may still be growing. unseen: people to validate on (default: the last of `world`).
    features: optional portraits -> embedding, whose distance is added to the loss with feature_weight.
    """

    name = "autoencoder"

    def __init__(
        self,
        world: World,
        unseen: World | None = None,
        *,
        steps: int = 12000,
        batch: int = 16,
        seed: int = 0,
        net: Autoencoder | None = None,
        features: Callable[[Tensor], Tensor] | None = None,
        feature_weight: float = 0.05,
    ) -> None:
        self.world, self.unseen, self.steps, self.seed = world, unseen or world, steps, seed
        self.quarter = max(batch // 4, 1)
        self.features, self.feature_weight = features, feature_weight
        self.lr, self.weight_decay, self.ema = 1.5e-3, 1e-3, 0.998
        self.autocast, self.validate_every = True, 500
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = net or Autoencoder()
        self.modules = nn.ModuleDict({"autoencoder": self.net})
        photos, sketches, _ = self._draw(64, 16, 16, torch.Generator().manual_seed(seed))
        self.net.start_from_patches(torch.cat([photos, sketches]))

    def _draw(
        self, portraits: int, views: int, sketches: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Photos (portraits + views, 3, H, W), sketches (sketches, 3, H, W), both with half of them
        mirrored, labels of the photos."""
        world = self.world
        people = torch.randint(world.people, (portraits + views + sketches,), generator=generator).tolist()
        view = torch.randint(world.info.views, (views,), generator=generator).tolist()
        sketch = torch.randint(world.info.sketches, (sketches,), generator=generator).tolist()
        front, side, drawn = (
            people[:portraits],
            people[portraits : portraits + views],
            people[portraits + views :],
        )
        photos = floats(np.concatenate([world.canonical[front], world.views[side, view]]))
        labels = torch.from_numpy(
            np.concatenate([world.canonical_labels[front], world.view_labels[side, view]])
        )
        lines = floats(world.sketches[drawn, sketch])[:, None].expand(-1, 3, -1, -1)
        mirror = torch.rand(len(people), generator=generator) < 0.5
        split = len(photos)
        return (
            _mirrored(photos, mirror[:split]),
            _mirrored(lines, mirror[split:]),
            _mirrored(labels, mirror[:split]),
        )

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        photos, sketches, labels = self._draw(2 * self.quarter, self.quarter, self.quarter, generator)
        device = self.net.latent_mean.device
        images = torch.cat([photos, sketches]).to(device, memory_format=torch.channels_last)
        lines = torch.full((len(sketches), 1, *labels.shape[1:]), SKETCH_WEIGHT)
        weights = torch.cat([part_weights(labels), lines]).to(device)

        raw = self.net.encode_raw(images).float()
        seen = raw[: len(photos)]
        deviation, mean = torch.std_mean(seen, dim=(0, 2, 3))
        with torch.no_grad():
            self.net.latent_mean.lerp_(mean, STATISTICS_MOMENTUM if step else 1.0)
            self.net.latent_std.lerp_(deviation, STATISTICS_MOMENTUM if step else 1.0)
        noise = torch.randn(raw.shape, generator=generator).to(device)
        made = self.net.decode_raw(raw + LATENT_NOISE * deviation[:, None, None] * noise).float()

        difference = (made - images) * weights
        absolute, square = difference.abs().mean(), ((made - images).square() * weights).mean()
        edges, colours = _gradient(difference), F.avg_pool2d(difference, COLOUR_CELL).abs().mean()
        total = absolute + 2 * square + edges + 2 * colours
        values = {"l1": absolute, "mse": square, "edges": edges, "colours": colours}
        if self.features is not None:
            wanted = self.features(photos)
            distance = (
                1
                - F.cosine_similarity(self.features(made[: len(photos)].clamp(0, 1)), wanted.detach()).mean()
            )
            total, values["features"] = total + self.feature_weight * distance, distance
        return {"loss": total, **values}

    def validate(self) -> dict[str, float]:
        """Peak signal-to-noise ratios in dB on people never trained on."""
        rows = slice(max(self.unseen.people - 64, 0), self.unseen.people)
        portraits, views = floats(self.unseen.canonical[rows]), floats(self.unseen.views[rows, 0])
        sketches = floats(self.unseen.sketches[rows, 0])[:, None].expand(-1, 3, -1, -1)
        pairs = {"portrait_psnr": portraits, "view_psnr": views, "sketch_psnr": sketches}
        return {name: psnr(self._through(images), images) for name, images in pairs.items()}

    @torch.no_grad()
    def _through(self, images: Tensor) -> Tensor:
        device = self.net.latent_mean.device
        return torch.cat([self.net(chunk.to(device)).cpu() for chunk in images.split(16)])


def part_weights(labels: Tensor) -> Tensor:
    """Weight of every pixel (B, 1, H, W) from part labels (B, H, W), mean about 1; the edges of a part
    count as the part."""
    table = torch.tensor([PART_WEIGHTS.get(part, 0.0) for part in MASK_CHANNELS])
    extra = F.max_pool2d(table[labels.long()][:, None], 5, stride=1, padding=2)
    return 1 + extra


def psnr(made: Tensor, wanted: Tensor) -> float:
    """Peak signal-to-noise ratio in dB over all pixels of images in [0, 1]."""
    return float(-10 * (made - wanted).square().mean().log10())


def _mirrored(images: Tensor, mirror: Tensor) -> Tensor:
    shape = (-1, *([1] * (images.ndim - 1)))
    return torch.where(mirror.view(shape), images.flip(-1), images)


def _gradient(difference: Tensor) -> Tensor:
    across = (difference[..., :, 1:] - difference[..., :, :-1]).abs().mean()
    down = (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
    return across + down
