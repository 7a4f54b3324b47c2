"""Where guidance leads: a person, several pictures of one, a candidate, away from somebody, a band of similarities.

All work on unit vectors of one matcher. `objective` is what is raised, `similarity` what is reported and what stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import InputError


class Target(Protocol):
    """A place on the hypersphere of embeddings."""

    @property
    def rises(self) -> bool:
        """Whether more similarity is always better."""

    def objective(self, vectors: Tensor) -> Tensor:
        """Unit rows (B, D) -> (B,), differentiable; higher is nearer."""

    def similarity(self, vectors: Tensor) -> Tensor:
        """Unit rows (B, D) -> (B,) cosines in [-1, 1]."""


@dataclass(frozen=True)
class Towards:
    """Towards a vector: the evidence encoder's estimate, a person's template, several pictures' of one
    (`matchers.quality.fuse_references`), a retrieved candidate's, or the consensus of several candidates.

    vector: (D,), or (B, D) with one for each sample. The objective is the cosine: up to a constant, the log-density of a von
    Mises-Fisher distribution around the face (ID3).
    """

    vector: Tensor
    rises: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_vector(self.vector)

    def similarity(self, vectors: Tensor) -> Tensor:
        """Cosine to the vector."""
        return cosine(vectors, self.vector)

    def objective(self, vectors: Tensor) -> Tensor:
        """The same."""
        return self.similarity(vectors)


@dataclass(frozen=True)
class AwayFrom:
    """Away from a person, as long as the cosine is above `beyond`, which is best a matcher's calibrated threshold."""

    vector: Tensor
    beyond: float = 0.0
    rises: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_vector(self.vector)

    def similarity(self, vectors: Tensor) -> Tensor:
        """Cosine to the person."""
        return cosine(vectors, self.vector)

    def objective(self, vectors: Tensor) -> Tensor:
        """0 below `beyond`, then falling."""
        return -F.relu(self.similarity(vectors) - self.beyond)


@dataclass(frozen=True)
class Band:
    """At a similarity from `low` to `high` to a vector (ID3, algorithm 3: lower and upper bound around an anchor)."""

    vector: Tensor
    low: float
    high: float
    rises: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_vector(self.vector)
        if not -1 <= self.low < self.high <= 1:
            raise InputError(f"guidance: a band wants -1 <= low < high <= 1, got {self.low} and {self.high}")

    def similarity(self, vectors: Tensor) -> Tensor:
        """Cosine to the vector."""
        return cosine(vectors, self.vector)

    def objective(self, vectors: Tensor) -> Tensor:
        """0 inside the band, falling outside on either side."""
        found = self.similarity(vectors)
        return -F.relu(self.low - found) - F.relu(found - self.high)


@dataclass(frozen=True)
class Both:
    """Several targets at once, each with its weight; the first one is what is reported and what stops."""

    targets: tuple[Target, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.targets or len(self.targets) != len(self.weights):
            raise InputError(
                f"guidance: as many weights as targets are wanted, got {len(self.weights)} for {len(self.targets)}"
            )

    @property
    def rises(self) -> bool:
        """Of the first target."""
        return self.targets[0].rises

    def similarity(self, vectors: Tensor) -> Tensor:
        """Of the first target."""
        return self.targets[0].similarity(vectors)

    def objective(self, vectors: Tensor) -> Tensor:
        """Weighted sum."""
        terms = [w * one.objective(vectors) for w, one in zip(self.weights, self.targets, strict=True)]
        return torch.stack(terms).sum(0)


def check_vector(vector: Tensor) -> None:
    """Raises `InputError` unless rows are finite and of length 1."""
    if not (isinstance(vector, Tensor) and vector.ndim in (1, 2)):
        raise InputError(
            f"guidance: a target is a vector (D,) of a matcher, or (B, D), got {type(vector).__name__}"
        )
    if not bool(((vector.norm(dim=-1) - 1).abs() < 1e-3).all()):
        raise InputError(
            "guidance: a target is a unit vector, as matchers give it, got one of length "
            f"{float(vector.norm(dim=-1).flatten()[0]):g}"
        )


def cosine(vectors: Tensor, vector: Tensor) -> Tensor:
    """Unit rows (B, D) and unit (D,) or (B, D) -> (B,). InputError for spaces of different dimension."""
    if vectors.shape[-1] != vector.shape[-1]:
        raise InputError(
            f"guidance: the target has {vector.shape[-1]} dimensions, the matcher that guides {vectors.shape[-1]}: "
            "make the target with the same matcher"
        )
    return (vectors * vector.to(vectors)).sum(-1)


def consensus_of_top(templates: Tensor, query: Tensor, k: int = 5, seen: Tensor | None = None) -> Tensor:
    """The k people whose templates (N, D) are most like the query (D,), fused, each weighted by how far they stand above the
    k + 1st: (D,), or (D',) from the same people's templates `seen` (N, D') by another matcher.

    A gallery answer as a target: nobody says that the person is among them. By another matcher it says whom the query means
    in that one's space.
    """
    if k < 1 or len(templates) < k:
        raise InputError(f"guidance: wanted the best {k} of a gallery of {len(templates)} people")
    scores = templates @ query.to(templates)
    best = scores.topk(min(k + 1, len(templates)))
    floor = best.values[-1] if len(best.values) > k else best.values.new_zeros(())
    weights = (best.values[:k] - floor).clamp(min=1e-6)
    rows = (templates if seen is None else seen)[best.indices[:k]]
    return F.normalize((rows * weights[:, None].to(rows)).sum(0), dim=0)
