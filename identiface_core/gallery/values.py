"""What a search gives: a candidate list, each line with its rank, score and the error rate it means."""

from __future__ import annotations

from dataclasses import dataclass


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
