"""What a reader of a case must be warned of, in sentences; each function gives those of one kind, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from .case import RoundRecord

GUIDANCE = "identity guidance"
"""Entry of a case's models that says by what the generator itself is led, if it is."""
WIDE_GAP = 0.25
"""Difference of the two matchers' cosines from which the case warns."""


def faceless(found: Mapping[int, Tensor | None]) -> tuple[str, ...]:
    """Of rounds in whose pictures no face was found. found: by round, faces per picture (S,), or None where none were sought;
    such pictures were taken as framed like the evidence."""
    missed = {index: (count, int((count == 0).sum())) for index, count in found.items() if count is not None}
    return tuple(
        f"round {index}: no face was found in {none} of {len(count)} pictures that were drawn; they were taken as framed like "
        "the evidence"
        for index, (count, none) in missed.items()
        if none
    )


def led_throughout(models: Mapping[str, str]) -> tuple[str, ...]:
    """That the generator itself is led, by what `models` of the case say."""
    if GUIDANCE not in models:
        return ()
    return (
        f"the faces of all rounds were drawn under Identity Guidance ({models[GUIDANCE]}): cosines of the matcher that led them "
        "are higher by construction, error rates of generated faces need not hold, and no face was drawn without it to compare",
    )


def misled(records: Sequence[RoundRecord]) -> tuple[str, ...]:
    """That guidance pleased the matcher that guides and not the other, or led away altogether."""
    return tuple(
        f"round {one.index}: {one.led.warning}" for one in records if one.led is not None and one.led.warning
    )


def unshared(records: Sequence[RoundRecord], candidates: int) -> tuple[str, ...]:
    """That the judging matcher does not share the first candidate of the last round, among so many listed ones."""
    judges = [one.judge for one in records if one.judge is not None]
    if not judges or (judges[-1].gap <= WIDE_GAP and judges[-1].rank_b <= max(10, candidates)):
        return ()
    last = judges[-1]
    return (
        f"the judging matcher, which took no part in the search, does not share the first candidate {last.person!r}: it gives "
        f"the generated faces a cosine of {last.matcher_b:.2f} with them, where the searching matcher gives "
        f"{last.matcher_a:.2f}, and would list them at rank {last.rank_b}",
    )
