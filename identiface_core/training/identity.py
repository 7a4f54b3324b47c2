"""The identity loss inside the generator's training: predicted clean latents through the decoder and the matcher.

IdentiFace (arXiv 2605.00526), training section. Ours aligns the prediction by the points of the true face before the
matcher sees it; the published form feeds the prediction as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.schedule import sigma_to_t
from ..faces.alignment import canonical_points, similarity_from_points, warp
from ..matchers.network import shrink

if TYPE_CHECKING:
    from ..diffusion.autoencoder import Autoencoder
    from ..matchers.network import FaceNet
    from .generator import Batch
    from .losses import IdentityLoss

SIDE = 128


class IdentityTerm:
    """Identity term of a training step.

    rule: weights and gates. autoencoder, matcher: frozen. targets: (N, D) embeddings of the people trained on. points:
    (N, 5, 2) points of their portraits, in pixels of 128. most: samples that are decoded per step, at most.
    """

    def __init__(
        self,
        rule: IdentityLoss,
        autoencoder: Autoencoder,
        matcher: FaceNet,
        targets: Tensor,
        points: Tensor,
        *,
        most: int = 16,
    ) -> None:
        self.rule, self.targets, self.points, self.most = rule, targets, points, most
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.matcher = matcher.eval().requires_grad_(False)

    def __call__(self, step: int, batch: Batch, made: Tensor) -> Tensor | None:
        """The term for predicted clean latents (B, 4, 16, 16), or None when no sample takes part."""
        timesteps = sigma_to_t(batch.sigma.flatten()).float()
        counts = self.rule.open(step, timesteps) & (batch.rounds == 0)
        rows = torch.nonzero(counts)[: self.most, 0]
        if not len(rows):
            return None
        people = batch.people[rows].cpu()
        pictures = self.autoencoder.decode(made[rows])
        if not self.rule.published:
            points = self.points[people].to(pictures)
            mirrored = batch.mirrored[rows].bool()[:, None, None]
            points = torch.where(mirrored, mirror_points(points), points)
            matrix = similarity_from_points(points, canonical_points(SIDE, like=points))
            pictures = warp(pictures, matrix, SIDE)
        vectors = self.matcher(shrink(pictures))
        return self.rule.term(step, timesteps[rows], vectors, F.normalize(self.targets[people].to(vectors)))


def mirror_points(points: Tensor) -> Tensor:
    """(B, 5, 2) points of 128 px portraits after mirroring: left and right change places."""
    flipped = points[:, [1, 0, 2, 4, 3]]
    return torch.stack((SIDE - flipped[..., 0], flipped[..., 1]), dim=-1)
