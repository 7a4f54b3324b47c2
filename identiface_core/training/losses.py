"""The facial identity loss: 1 - cosine to the true face's embedding, weighted towards faces not yet
recognised.

IdentiFace (arXiv 2605.00526), training section, and its released code. Two forms stand side by side:

- published: gradient flows through the weights too, so that a face already above the threshold is pushed
  *away* from its target; the gate asks the largest timestep of the whole batch, which at the default batch of
  16 never opens.
- ours (default): weights are constants, and every sample has its own gate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

THRESHOLD = 0.38482
"""Similarity at which the weight is half way: the matcher's verification threshold in the published
configuration.
"""


def identity_weights(
    similarity: Tensor,
    *,
    threshold: float = THRESHOLD,
    alpha: float = 10.0,
    w_min: float = 0.0,
    w_max: float = 1.0,
) -> Tensor:
    """Weights w_min + (w_max - w_min) sigmoid(alpha (threshold - s)), same shape; swapped bounds are put
    right.
    """
    low, high = min(w_min, w_max), max(w_min, w_max)
    return low + (high - low) * torch.sigmoid(alpha * (threshold - similarity))


def weighted_identity_loss(
    similarity: Tensor,
    valid: Tensor | None = None,
    *,
    detach: bool = True,
    weighted: bool = True,
    threshold: float = THRESHOLD,
    alpha: float = 10.0,
    w_min: float = 0.0,
    w_max: float = 1.0,
) -> Tensor | None:
    """sum w (1 - s) / sum w over the valid samples; None when none is valid (there is no identity term then).

    similarity: (B,) cosines in [-1, 1]. valid: (B,) bool, samples that count (default: all). Samples whose
    similarity is not finite never count. detach: weights are constants (ours); False is the published form.
    weighted=False: plain mean.
    """
    usable = torch.isfinite(similarity) if valid is None else valid & torch.isfinite(similarity)
    if not bool(usable.any()):
        return None
    kept = similarity[usable]
    if not weighted:
        return (1 - kept).mean()
    weights = identity_weights(kept, threshold=threshold, alpha=alpha, w_min=w_min, w_max=w_max)
    if detach:
        weights = weights.detach()
    return (weights * (1 - kept)).sum() / weights.sum().clamp(min=1e-8)


def identity_ramp(step: int, *, warmup: int = 4000, ramp: int = 1500) -> float:
    """Share of the identity loss at an optimiser step: 0 until `warmup`, then linear to 1 over `ramp`
    steps.
    """
    return min(max((step - warmup) / ramp, 0.0), 1.0) if ramp > 0 else float(step >= warmup)


@dataclass(frozen=True)
class IdentityLoss:
    """The identity term of a training step, with its gates.

    factor: weight of the whole term. below: a sample's clean estimate is trusted only under this timestep (of
    1000). every: only each n-th step (published: 10). warmup, ramp: see `identity_ramp`. each: every sample has
    its own gate. detach: weights are constants. The published form has neither.
    """

    factor: float = 0.1
    threshold: float = THRESHOLD
    alpha: float = 10.0
    w_min: float = 0.0
    w_max: float = 1.0
    below: int = 200
    every: int = 10
    warmup: int = 4000
    ramp: int = 1500
    each: bool = True
    detach: bool = True

    def open(self, step: int, timesteps: Tensor) -> Tensor:
        """(B,) bool: which samples take part at this step; timesteps (B,) in [0, 1000)."""
        if step < self.warmup or step % self.every:
            return torch.zeros_like(timesteps, dtype=torch.bool)
        early = timesteps < self.below
        return early if self.each else early.all().expand_as(early)

    def term(
        self, step: int, timesteps: Tensor, estimate: Tensor, target: Tensor, valid: Tensor | None = None
    ) -> Tensor | None:
        """factor * ramp * loss, a scalar to add to the diffusion loss, or None when no sample takes part.

        estimate, target: (B, D) embeddings of the clean estimate (carries gradient) and of the true face;
        they need not be unit vectors. valid: (B,) bool, for instance "a face was found in both". Rows with a
        non-finite target never count.
        """
        counts = self.open(step, timesteps) & torch.isfinite(target).all(1)
        if valid is not None:
            counts = counts & valid
        if not bool(counts.any()):
            return None
        similarity = F.cosine_similarity(estimate[counts], target[counts].detach(), dim=1)
        loss = weighted_identity_loss(
            similarity,
            detach=self.detach,
            threshold=self.threshold,
            alpha=self.alpha,
            w_min=self.w_min,
            w_max=self.w_max,
        )
        return (
            None
            if loss is None
            else self.factor * identity_ramp(step, warmup=self.warmup, ramp=self.ramp) * loss
        )
