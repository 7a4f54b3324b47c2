"""Numbers and rounds in words, the same on the sheet, in the report and on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .case import Case, ListedCandidate, RoundRecord
    from .controller import RoundState

NEARLY_ALL = 0.99
"""FPIR above which the exact share says nothing more."""
NOBODY_FROM = 0.9
"""FPIR of the first candidate from which a list singles nobody out."""
DRAWN = "drawn person"
"""What a candidate is called whose gallery picture was generated."""


def searches(fpir: float | None) -> str:
    """How often a stranger's search gives such a score: "about 3 of 100 searches"."""
    if fpir is None:
        return "an unknown share of searches"
    if fpir > NEARLY_ALL:
        return "nearly every search"
    if fpir >= 0.01:
        return f"about {round(100 * fpir)} of 100 searches"
    if fpir >= 0.001:
        return f"about {round(1000 * fpir)} of 1,000 searches"
    return "fewer than 1 of 1,000 searches"


def meaning(fpir: float | None, people: int) -> str:
    """What a score means in a gallery of `people`, as one sentence."""
    if fpir is None:
        return (
            "This score is not calibrated: it orders the candidates and says nothing about how sure they are."
        )
    return (
        f"In a gallery of {people:,} people without the person sought, "
        f"a score this high appears in {searches(fpir)}."
    )


def headline(candidates: Sequence[ListedCandidate]) -> str:
    """What is to be read before the list: that it singles nobody out. "" where it may, and where it is not calibrated."""
    fpir = candidates[0].fpir if candidates else None
    if fpir is None or fpir < NOBODY_FROM:
        return ""
    return (
        "This evidence does not single anybody out: people who are not in the gallery score as high as the first "
        f"candidate in {searches(fpir)}."
    )


def percent(fpir: float | None) -> str:
    """FPIR for a narrow place: "3 %", "< 0.1 %", "> 99 %", "-" where it is not calibrated."""
    if fpir is None:
        return "-"
    if fpir < 0.001:
        return "< 0.1 %"
    if fpir > NEARLY_ALL:
        return "> 99 %"
    return f"{100 * fpir:.1f} %" if fpir < 0.0995 else f"{100 * fpir:.0f} %"


def agreement_words(agreement: float | None) -> str:
    """Agreement between seeds, as a sentence. The bounds are rules of thumb, not calibrated."""
    if agreement is None:
        return "Only one face was drawn, so nothing can be said about agreement."
    level = "agree closely" if agreement >= 0.75 else "agree in part" if agreement >= 0.5 else "disagree"
    return (
        f"The generated faces {level} (mean cosine between their embeddings {agreement:.2f}; 1 is one face). "
        "What differs between them is invented."
    )


def fate(one: RoundState | RoundRecord) -> str:
    """What became of a round."""
    return "skipped" if one.skipped else "kept" if one.accepted else "not kept"


def told(one: RoundState | RoundRecord) -> str:
    """The same with the reason."""
    return one.reason if one.skipped else f"{fate(one)}: {one.reason}"


def redrawn(part: str, mask: str) -> str:
    """Where a round drew, from its part and `RoundRecord.mask`."""
    where = {"part seen": f"{part}, where seen", "part template": f"{part}, added"}
    return where.get(mask, mask)


def ending(case: Case) -> str:
    """How many rounds were drawn and why no more: "4 rounds drawn. Finished: all parts are done."."""
    drawn = sum(not one.skipped for one in case.rounds)
    end = f"Finished: {case.stop_reason}." if case.stopped else "Not finished."
    return f"{drawn} round{'' if drawn == 1 else 's'} drawn. {end}"


def left_out(case: Case) -> str:
    """The parts whose words led to no new face, and why; "" if there are none."""
    last = {one.part: one for one in case.rounds}
    parts = [part for part in case.evidence.get("description") or {} if part != "overview"]
    why = [f"{part} ({told(last[part])})" for part in parts if part in last and not last[part].accepted]
    never = [part for part in parts if part not in last]
    if never:
        why.append(f"{', '.join(never)} ({'the case had ended' if case.stopped else 'not yet'})")
    if not why:
        return ""
    return f"Not redrawn: {'; '.join(why)}. The whole face was drawn from all words."
