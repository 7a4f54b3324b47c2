"""What to say of a photo before anybody is searched with it, and of a similarity after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from identiface_core.evidence.lq import WARN_BELOW

if TYPE_CHECKING:
    from identiface_core.matchers.calibration import Calibration

WEAK_BELOW = 0.5
"""Recognisability below which a photo is a weak clue: the detail of a clean portrait of 16 px."""
PHOTOGRAPHS = (0.58, 0.83)
"""The two bounds for photographs: 20 and 40 px. Of 26 people two MobileFaceNets trained with ArcFace named 1 in 10 from portraits
of 16 px, 6 in 10 from 32 px, nearly all from 48 px (docs/matchers.md)."""


@dataclass(frozen=True)
class Verdict:
    """Whether a photo may be searched with."""

    may_search: bool
    """False: what a search with it alone gives is chance."""
    sentence: str
    advice: str


def verdict_on(recognisability: float, quality: float | None = None, *, photographs: bool = False) -> Verdict:
    """What a recognisability in [0, 1] means for a search, see `evidence.lq.recognisability`; quality: the matcher's own trust.

    photographs: a matcher of photographs is to search; it wants more detail than the embedded ones want of drawn people. The
    bounds are rules of thumb (drawn: 9 and 16 px of detail), no error rates: those are the gallery's to tell.
    """
    least, enough = PHOTOGRAPHS if photographs else (WARN_BELOW, WEAK_BELOW)
    detail = round(4 * 16**recognisability)
    trust = "" if quality is None else f" The matcher trusts its reading of it to {quality:.2f} of 1."
    if recognisability < least:
        return Verdict(
            False,
            f"Do not search with this photo alone: it has the detail of a portrait of {detail} px.",
            "Many people look like it. Add words or a sketch, and let those decide.",
        )
    if recognisability < enough:
        return Verdict(
            True,
            f"A weak clue: the detail of a portrait of {detail} px. Search, and take nobody off the list.",
            f"Expect the right person among the first, not at the top.{trust}",
        )
    return Verdict(
        True,
        f"May be searched: the detail of a portrait of {detail} px.",
        f"A candidate is a lead, not an identification.{trust}",
    )


def meaning_of(similarity: float, table: Calibration | None, of: str = "") -> tuple[float, str]:
    """The false match rate of one comparison, and a sentence. Without a table: 1, which promises nothing.

    of: whose strangers the table speaks of.
    """
    if table is None:
        return (
            1.0,
            "No table of strangers for this matcher: what the similarity means is not known. Link a gallery.",
        )
    rate = table.fmr(similarity)
    bound = "fewer than " if table.beyond(similarity) else ""
    share = f"{bound}1 in {1 / rate:,.0f}" if rate < 0.2 else f"{rate:.0%} of"
    return rate, f"{share} pairs of strangers are as alike ({table.impostors:,} compared{of})."
