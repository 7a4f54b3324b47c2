"""The values a search takes and gives: an embedding that knows where it came from, and a candidate list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from identiface_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Embedding:
    """One unit vector in the space of one matcher."""

    vector: Tensor
    """(D,) float, any length: `unit()` normalises."""
    matcher: str
    """Name of the matcher whose space this is."""
    source: str = "portrait"
    """What it was made from: "portrait", "evidence query", "generated consensus", "both"."""
    generated: bool = False
    """True when any part of it comes from a generated picture."""

    def unit(self) -> Tensor:
        """(D,) float32 of length 1. Raises `InputError` for a wrong shape, a zero vector or a value that is
        not finite."""
        vector = self.vector.detach().float().cpu()
        length = float(vector.norm())
        if vector.dim() != 1 or not 0.0 < length < float("inf"):
            raise InputError(
                f"a query embedding must be one finite, non-zero vector (D,); "
                f"got shape {tuple(vector.shape)}, length {length:g}: embed a face first"
            )
        return vector / length


@dataclass(frozen=True)
class Candidate:
    """One line of a candidate list."""

    rank: int
    """1 is the most similar."""
    person: str
    score: float
    """Cosine similarity, [-1, 1]."""
    fpir: float | None
    """Share of searches, for people who are not in a gallery of this size, whose best score reaches this one;
    None: not calibrated."""
    generated: bool = False
    """True when this person was enrolled from a generated picture."""


@dataclass(frozen=True)
class Candidates:
    """A candidate list: an investigative lead, never an identification."""

    entries: tuple[Candidate, ...]
    matcher: str
    source: str
    gallery_size: int
    """People that took part in the search (without the excluded ones)."""

    def people(self, k: int | None = None) -> tuple[str, ...]:
        """Names of the first `k` (default: all), best first."""
        return tuple(entry.person for entry in self.entries[:k])
