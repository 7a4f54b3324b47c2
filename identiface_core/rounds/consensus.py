"""One estimate from several embeddings: one generated face is a guess, the mean of seeds is the estimate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.errors import InputError

EVIDENCE_WEIGHT = 0.95
"""Share of the evidence query in the fused query: it finds far better than generated faces do. Of the shares tried on
people of the validation world (0.5 to 0.98), those below 0.95 lost what the evidence query found."""


def consensus(embeddings: Tensor) -> Tensor:
    """(S, D) -> unit (D,): each embedding normalised, the mean of them, normalised again.

    Raises `InputError` for no embedding, and for embeddings that cancel out.
    """
    if embeddings.dim() != 2 or len(embeddings) == 0:
        raise InputError(
            f"a consensus needs embeddings (S, D) of at least one face, got shape {tuple(embeddings.shape)}"
        )
    mean = F.normalize(embeddings.float(), dim=1).mean(dim=0)
    if not float(mean.norm()) > 1e-6:
        raise InputError("the embeddings cancel out or are not finite: there is no consensus of them")
    return F.normalize(mean, dim=0)


def consensus_of_rounds(rounds: Sequence[Tensor]) -> Tensor:
    """Unit (D,) from the embeddings (S, D) of each accepted round, whole face first.

    Part rounds redraw a part of one chosen face, so their seeds are near copies of it, however many there
    are: the whole face's seeds, which are independent, count for one half, all part rounds together for the
    other.
    """
    whole, *parts = (consensus(rows) for rows in rounds)
    return consensus(torch.stack([whole, consensus(torch.stack(parts))])) if parts else whole


def agreement(embeddings: Tensor) -> float | None:
    """Mean cosine over all pairs of the (S, D) embeddings, [-1, 1]; None for fewer than two. A weak signal of
    confidence."""
    count = len(embeddings)
    if count < 2:
        return None
    rows = F.normalize(embeddings.float(), dim=1)
    cosines = rows @ rows.T
    return float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))


def fuse(evidence: Tensor | None, generated: Tensor | None, weight: float = EVIDENCE_WEIGHT) -> Tensor:
    """Unit (D,) between both unit queries: `weight` of `evidence`, the rest of `generated`; one may be
    None."""
    if evidence is None or generated is None:
        one = evidence if generated is None else generated
        if one is None:
            raise InputError("neither an evidence query nor generated faces: there is nothing to search with")
        return F.normalize(one.float(), dim=0)
    rows = torch.stack(
        [F.normalize(evidence.float(), dim=0) * weight, F.normalize(generated.float(), dim=0) * (1 - weight)]
    )
    return F.normalize(rows.sum(dim=0), dim=0)
