"""Which rounds a description asks for, in which order (IdentiFace, released code: overview, eyes, brows,
mouth, nose, ears, hair, rest)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from identiface_core.evidence.description import Description


@dataclass(frozen=True)
class PlannedRound:
    """One round before it is drawn."""

    part: str
    """One of `parts.PARTS`; "overview" is the whole face."""
    prompt: str
    """What it is drawn from; "" without words."""


def plan_rounds(description: Description | None, *, limit: int | None = None) -> tuple[PlannedRound, ...]:
    """Round 0 draws the whole face from all words, then each part that somebody spoke of has a round.

    Unlike the released code, whose text encoder takes the opening and one segment only, round 0 reads every
    segment: the first face should already follow all words. Without a description there is round 0 alone.
    `limit`: at most so many rounds.
    """
    if description is None:
        return (PlannedRound("overview", ""),)
    rounds = [PlannedRound("overview", description.full_prompt())]
    rounds += [
        PlannedRound(part, description.prompt(part)) for part in description.parts() if part != "overview"
    ]
    return tuple(rounds[:limit])
