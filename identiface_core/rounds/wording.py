"""Numbers in words, the same on the sheet, in the report and on the command line."""

from __future__ import annotations


def searches(fpir: float | None) -> str:
    """How often a stranger's search gives such a score: "about 3 of 100 searches"."""
    if fpir is None:
        return "an unknown share of searches"
    if fpir >= 0.995:
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


def percent(fpir: float | None) -> str:
    """FPIR for a narrow place: "3 %", "< 0.1 %", "-" where it is not calibrated."""
    if fpir is None:
        return "-"
    if fpir < 0.001:
        return "< 0.1 %"
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
