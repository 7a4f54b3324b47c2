"""Losses on who and what a predicted clean latent shows, beside the velocity error.

The identity loss is IdentiFace's (arXiv 2605.00526, training section; see `losses`). It needs an eye: the decoder and the
matcher, as published, or the critic, which reads latents and costs next to nothing. The words' loss is its like for part
rounds: does the part show what was said of it?
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.masking import blend
from ..diffusion.schedule import sigma_to_t
from ..errors import InputError
from ..evidence.lexicon import ATTRIBUTES
from ..faces.alignment import canonical_points, similarity_from_points, warp
from ..matchers.network import shrink
from .losses import IdentityLoss

if TYPE_CHECKING:
    from ..diffusion.autoencoder import Autoencoder
    from ..matchers.latent import LatentCritic
    from ..matchers.network import FaceNet
    from .data import World
    from .generator import Batch

SIDE = 128
LATENT_FACTOR, LATENT_BELOW = 0.2, 850
"""Weight of the identity loss read off latents, and the timestep up to which a prediction is looked at: who a face is, is
decided where there is still much noise.
"""

Eye = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(clean latents (B, 4, 16, 16), people (B,), mirrored (B,)) -> unit embeddings (B, D), differentiable."""


class DecodingEye:
    """Decoder, then matcher. points (N, 5, 2) of the people's portraits, in pixels of 128: the picture is aligned by
    them first, as a matcher's pictures are; None: it is fed as it is, the published way.
    """

    def __init__(self, autoencoder: Autoencoder, matcher: FaceNet, points: Tensor | None) -> None:
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.matcher = matcher.eval().requires_grad_(False)
        self.points = points

    def __call__(self, latents: Tensor, people: Tensor, mirrored: Tensor) -> Tensor:
        pictures = self.autoencoder.decode(latents).float()  # bfloat16 would round the points to half pixels
        if self.points is not None:
            points = self.points[people.cpu()].to(pictures)
            points = torch.where(mirrored.bool()[:, None, None], mirror_points(points), points)
            matrix = similarity_from_points(points, canonical_points(SIDE, like=points))
            pictures = warp(pictures, matrix, SIDE)
        vectors: Tensor = self.matcher(shrink(pictures))
        return vectors


class LatentEye:
    """The critic, which needs no picture."""

    def __init__(self, critic: LatentCritic) -> None:
        self.critic = critic.eval().requires_grad_(False)

    def __call__(self, latents: Tensor, people: Tensor, mirrored: Tensor) -> Tensor:
        vectors: Tensor = self.critic(latents)[1]
        return vectors


class IdentityTerm:
    """The identity loss of a training step, on whole faces.

    rule: weights and gates. targets: (N, D) embeddings of the people trained on. most: samples that are looked at per
    step, at most. told: only samples that are drawn towards an estimate; of the others nobody can ask whose face it is
    while there is still much noise.
    """

    def __init__(
        self, rule: IdentityLoss, eye: Eye, targets: Tensor, *, most: int = 64, told: bool = False
    ) -> None:
        self.rule, self.eye, self.most, self.told = rule, eye, most, told
        self.targets = F.normalize(targets)

    def __call__(self, step: int, batch: Batch, made: Tensor) -> Tensor | None:
        """The term for predicted clean latents (B, 4, 16, 16), or None when no sample takes part."""
        timesteps = sigma_to_t(batch.sigma.flatten()).float().to(batch.sigma.device)
        counts = self.rule.open(step, timesteps) & (batch.rounds == 0)
        if self.told:
            counts &= batch.estimate.abs().amax(1) > 0
        rows = torch.nonzero(counts)[: self.most, 0]
        if not len(rows):
            return None
        vectors = self.eye(made[rows], batch.people[rows], batch.mirrored[rows])
        targets = self.targets[batch.people[rows].cpu()].to(vectors)
        return self.rule.term(step, timesteps[rows], vectors, targets)


class WordsTerm:
    """Part rounds: the cross-entropy, by the critic, of the attributes of the part that was drawn.

    values: (N, SLOTS) of the people trained on; the words of a round's part are never wrong. factor: weight of the term.
    highest: noise level up to which a prediction is looked at.
    """

    def __init__(
        self, critic: LatentCritic, values: Tensor, *, factor: float = 0.1, highest: float = 5.0
    ) -> None:
        self.critic = critic.eval().requires_grad_(False)
        self.values, self.factor, self.highest = values, factor, highest

    def __call__(self, batch: Batch, made: Tensor, parts: tuple[str, ...]) -> Tensor | None:
        """The term for predicted clean latents (B, 4, 16, 16); parts: names of `batch.part`. None without such a round."""
        counts = (batch.rounds > 0) & (batch.spoken > 0) & (batch.sigma.flatten() < self.highest)
        rows = torch.nonzero(counts)[:, 0]
        if not len(rows):
            return None
        whole = blend(made[rows], batch.known[rows], batch.mask[rows])
        logits, _ = self.critic(whole)
        values, part = self.values[batch.people[rows].cpu()].to(rows.device), batch.part[rows]
        losses = []
        for place, attribute in enumerate(ATTRIBUTES):
            if attribute.part in parts:
                own = part == parts.index(attribute.part)
                losses.append(F.cross_entropy(logits[place][own], values[own, place], reduction="none"))
        return self.factor * torch.cat(losses).mean()


def mirror_points(points: Tensor) -> Tensor:
    """(B, 5, 2) points of 128 px portraits after mirroring: left and right change places."""
    flipped = points[:, [1, 0, 2, 4, 3]]
    return torch.stack((SIDE - flipped[..., 0], flipped[..., 1]), dim=-1)


def identity_term(
    form: str,
    world: World,
    faces: Tensor,
    critic: LatentCritic,
    autoencoder: Autoencoder,
    matcher: FaceNet,
    *,
    warmup: int = 0,
    ramp: int = 500,
) -> IdentityTerm | None:
    """The identity loss in one of its forms; None for "none". `InputError` for others.

    - "latent": read by the critic off latents, at every step and at most noise levels, of faces drawn towards an estimate;
    - "decoded": as published but for its mistakes: on decoded and aligned faces, per sample, weights constant;
    - "published": with its mistakes: unaligned, one gate for the whole batch, gradient through the weights;
    - "opened": the same, but with a gate per sample, so that it ever acts.

    faces: (N, D) matcher A's embeddings of the world's portraits. A decoded face costs as much as the rest of its step,
    so of those at most 16 are looked at, on every fourth step.
    """
    if form == "none":
        return None
    if form == "latent":
        rule = IdentityLoss(factor=LATENT_FACTOR, every=1, below=LATENT_BELOW, warmup=warmup, ramp=ramp)
        return IdentityTerm(rule, LatentEye(critic), faces, told=True)
    if form not in ("decoded", "published", "opened"):
        raise InputError(
            f"there is no identity loss '{form}': choose latent, decoded, published, opened or none"
        )
    ours = form == "decoded"
    points = torch.from_numpy(np.array(world.canonical_points[: len(faces)])) if ours else None
    rule = IdentityLoss(every=4, warmup=warmup, ramp=ramp, each=form != "published", detach=ours)
    return IdentityTerm(rule, DecodingEye(autoencoder, matcher, points), faces, most=16)
