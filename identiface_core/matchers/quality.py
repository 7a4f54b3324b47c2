"""How far an embedding can be trusted to show the identity, and several pictures of a person as one embedding."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from identiface_core.errors import InputError

FRAMING_SCALE = 0.25
"""Alignment residual, in eye distances, at which trust has fallen to 0.61. A choice, not a fit: frontal faces lie below 0.1,
faces turned by 45 degrees at about 0.3."""


def quality_of(norms: Tensor, typical: float | None, residuals: Tensor | None) -> Tensor:
    """`(B,)` in [0, 1]: the trust in the feature's length times the trust in the alignment.

    norms: `(B,)` lengths before normalisation. Trained with margins, networks answer a face that they can hardly make out with
    a short vector (MagFace, Meng et al. 2021; AdaFace, Kim et al. 2022): trust is norm / typical, at most 1. typical: the
    length of an average training face, see `typical_norm`; None where nothing tells it: lengths then say nothing, 1.
    residuals: `(B,)` in eye distances, see `template.residual`; trust is exp(-(r / 0.25)^2 / 2). None for portraits: 1.
    """
    trust = torch.ones_like(norms) if typical is None else (norms / typical).clamp(0, 1)
    if residuals is not None:
        trust = trust * torch.exp(-0.5 * (residuals.to(trust) / FRAMING_SCALE).square())
    return trust.detach()


def typical_norm(last: nn.BatchNorm1d) -> float:
    """Length of the average training face's embedding in a network that ends in a batch normalisation.

    That layer gives each value the mean `bias` and the variance `weight`^2 over the training faces, so the mean squared
    length is their sum; without them it is the number of values.
    """
    if last.weight is None or last.bias is None:
        return math.sqrt(last.num_features)
    return float((last.weight.detach().square() + last.bias.detach().square()).sum().sqrt())


def fuse_references(vectors: Tensor, quality: Tensor | None = None) -> Tensor:
    """(N, D) embeddings of one person -> unit (D,): each normalised, their mean weighted by quality, normalised again.

    quality: (N,) of at least 0, not all 0; None: all the same. Raises InputError for no vector, for weights that do not fit,
    for values that are not finite, and for vectors that cancel out.
    """
    if vectors.dim() != 2 or len(vectors) == 0:
        raise InputError(
            f"fusing wants embeddings (N, D) of at least one picture, got shape {tuple(vectors.shape)}"
        )
    weights = torch.ones(len(vectors)) if quality is None else quality
    if weights.shape != (len(vectors),) or not bool((weights >= 0).all()) or not float(weights.sum()) > 0:
        raise InputError(
            f"fusing {len(vectors)} embeddings wants as many weights of at least 0, not all 0, got {weights.tolist()}"
        )
    rows = F.normalize(vectors.float(), dim=1)
    mean = (rows * (weights / weights.sum()).to(rows)[:, None]).sum(0)
    if not float(mean.detach().norm()) > 1e-6:
        raise InputError("the embeddings cancel out or are not finite: they are hardly of one person")
    return F.normalize(mean, dim=0)
