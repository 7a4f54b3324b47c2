"""Stage "reader": the attributes of a face, read off portraits as sharp as drawn and as soft as generated."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..evidence.lexicon import ATTRIBUTES
from ..faces.reader import AttributeReader
from .data import World, floats
from .faces import soften
from .loop import Stage


class ReaderStage(Stage):
    """Canonical portraits only, for it is generated portraits that are read; mirrored, moved by a few pixels, softened."""

    name = "reader"

    def __init__(
        self, world: World, unseen: World | None = None, *, steps: int = 6000, batch: int = 32, seed: int = 0
    ) -> None:
        self.world, self.unseen = world, unseen or world
        self.steps, self.batch, self.seed = steps, batch, seed
        self.lr, self.ema, self.autocast, self.validate_every = 2e-3, 0.995, True, 500
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = AttributeReader().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules = nn.ModuleDict({"reader": self.net})

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        people = torch.randint(self.world.people, (self.batch,), generator=generator).numpy()
        with torch.autocast("cpu", enabled=False):
            images = floats(self.world.canonical[people])
            mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
            images = torch.where(mirrored, images.flip(3), images)
            shift = torch.randint(-3, 4, (2,), generator=generator).tolist()
            images = soften(torch.roll(images, shift, (2, 3)), generator)
        values = torch.from_numpy(self.world.attributes[people].astype(np.int64))
        device = next(self.net.parameters()).device
        logits = self.net.logits(images.to(device, memory_format=torch.channels_last))
        losses = [F.cross_entropy(x.float(), v) for x, v in zip(logits, values.to(device).T, strict=True)]
        return {"loss": torch.stack(losses).mean()}

    def validate(self) -> dict[str, float]:
        """Share of values read rightly on unseen people: of all attributes, and of each part's."""
        rows = slice(0, min(self.unseen.people, 300))
        device = next(self.net.parameters()).device
        images = floats(self.unseen.canonical[rows]).to(device)
        read = [torch.cat(piece) for piece in zip(*(self.net(c) for c in images.split(50)), strict=True)]
        truth = torch.from_numpy(self.unseen.attributes[rows].astype(np.int64))
        right = torch.stack(
            [p.argmax(1).cpu() == t for p, t in zip(read, truth.T, strict=True)], dim=1
        ).float()
        parts: dict[str, list[int]] = {}
        for place, attribute in enumerate(ATTRIBUTES):
            parts.setdefault(attribute.part, []).append(place)
        return {"right": float(right.mean())} | {
            f"right_{part}": float(right[:, places].mean()) for part, places in parts.items()
        }
