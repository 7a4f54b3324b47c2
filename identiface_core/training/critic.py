"""Stage "critic": who a latent shows and what words would say of it, read without decoding.

It lets the identity loss and the words reach every step of the generator for a seventh of what decoding and matching cost on
a CPU, and later guides sampling (`diffusion.guidance.latent`). It never judges anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..evidence.lexicon import ATTRIBUTES, attributes_of
from ..matchers.latent import LatentCritic
from .latents import ROUND_PARTS
from .loop import Stage

if TYPE_CHECKING:
    from .latents import Latents

BELONGS = torch.zeros(len(ROUND_PARTS), len(ATTRIBUTES), dtype=torch.bool)
"""Which attributes belong to which part of `ROUND_PARTS`."""
for _place, _part in enumerate(ROUND_PARTS):
    BELONGS[_place, list(attributes_of(_part))] = True


class CriticStage(Stage):
    """Portraits' latents, noisy and smoothed as a generator's predictions are, to attributes and identity.

    In half of the samples one part is another person's, and so are its words: a part must be read where it is, not guessed
    from whose face it is in. Who such a face shows is not asked.

    latents, attributes (N, SLOTS), faces (N, D): of the people to train on; faces are matcher A's embeddings of their
    portraits. unseen_*: of people to validate on.
    """

    name = "critic"
    scale = 16.0

    def __init__(
        self,
        latents: Latents,
        attributes: Tensor,
        faces: Tensor,
        unseen: Latents,
        unseen_attributes: Tensor,
        unseen_faces: Tensor,
        *,
        steps: int = 3000,
        batch: int = 128,
        seed: int = 0,
    ) -> None:
        self.latents, self.values, self.faces = latents, attributes, F.normalize(faces)
        self.unseen, self.unseen_values = unseen, unseen_attributes
        self.unseen_faces = F.normalize(unseen_faces)
        self.steps, self.batch, self.seed = steps, batch, seed
        self.lr, self.weight_decay, self.ema, self.autocast = 2e-3, 0.05, 0.998, True
        self.validate_every = 500
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critic = LatentCritic(dimension=faces.shape[1])
        self.modules = nn.ModuleDict({"critic": self.critic})

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        people = torch.randint(len(self.latents), (self.batch,), generator=generator)
        side = torch.randint(2, (self.batch,), generator=generator)
        latents, values = self._one_part_swapped(people, side, generator)
        device = next(self.critic.parameters()).device
        logits, vectors = self.critic(as_predicted(latents, generator).to(device))
        values = values.to(device)
        read = torch.stack([F.cross_entropy(x, v) for x, v in zip(logits, values.T, strict=True)]).mean()
        whole, people = vectors[self.swapped :], people[self.swapped :].to(device)
        scores = whole @ self.faces.to(device).T
        known = F.cross_entropy(self.scale * scores, people)
        return {
            "loss": read + 0.1 * known,
            "read": read,
            "known": known,
            "cosine": scores.gather(1, people[:, None]).mean(),
        }

    @property
    def swapped(self) -> int:
        """How many samples of a batch, its first ones, have a part of somebody else."""
        return self.batch // 2

    def _one_part_swapped(
        self, people: Tensor, side: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Latents (B, 4, 16, 16) and attribute values (B, SLOTS) of people, the first ones with another's part."""
        n = self.swapped
        latents, values = self.latents.portraits[people, side].float(), self.values[people]
        others = torch.randint(len(self.latents), (n,), generator=generator)
        parts = torch.randint(len(ROUND_PARTS), (n,), generator=generator)
        theirs, cells = self.latents.portraits[others, side[:n]].float(), self.latents.cells
        where = (cells[people[:n], side[:n], parts] | cells[others, side[:n], parts])[:, None].float()
        swapped = torch.lerp(latents[:n], theirs, where)
        said = torch.where(BELONGS[parts], self.values[others], values[:n])
        return torch.cat([swapped, latents[n:]]), torch.cat([said, values[n:]])

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """On unseen people: share of values read rightly, cosine to their faces, rank-1 among them."""
        device = next(self.critic.parameters()).device
        logits, vectors = self.critic(self.unseen.portraits[:, 0].float().to(device))
        read = torch.stack([x.argmax(1) for x in logits], 1).cpu()
        scores = vectors.cpu() @ self.unseen_faces.T
        mates = scores.diagonal()
        return {
            "right": float((read == self.unseen_values).float().mean()),
            "cosine": float(mates.mean()),
            "rank1": float((scores.argmax(1) == torch.arange(len(scores))).float().mean()),
        }


def as_predicted(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Latents (B, 4, 16, 16) roughly as a generator predicts them: smoothed and with noise, by amounts drawn per sample."""
    amounts = torch.rand(2, len(latents), 1, 1, 1, generator=generator)
    smooth = F.avg_pool2d(latents, 3, stride=1, padding=1, count_include_pad=False)
    latents = torch.lerp(latents, smooth, 0.5 * amounts[0])
    return latents + 0.4 * amounts[1] * torch.randn(latents.shape, generator=generator)
