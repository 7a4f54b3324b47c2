"""Does guidance find the person, or does it fool the matcher that guides? Only another matcher can tell.

Faces are pulled towards matcher A's idea of somebody, so a higher score of A proves nothing. Matcher B, trained apart and never
used to guide, is asked about the same faces.
"""

from __future__ import annotations

from dataclasses import dataclass

ENOUGH = 0.25
"""Share of A's rise that B must follow."""
NOTHING = 0.01
"""Rises of A below this are none."""


@dataclass(frozen=True)
class Check:
    """Mean cosines to the target, by both matchers, of guided faces and of the same seeds unguided."""

    a: float
    b: float
    a_unguided: float
    b_unguided: float

    @property
    def gap(self) -> float:
        """A - B of the guided faces."""
        return self.a - self.b

    @property
    def rises(self) -> tuple[float, float]:
        """How much A and B rose."""
        return self.a - self.a_unguided, self.b - self.b_unguided

    @property
    def warning(self) -> str:
        """What is wrong, in a sentence; "" if B follows A."""
        a, b = self.rises
        if a < -NOTHING:
            return (
                f"guidance leads away: even matcher A, which guides, falls by {-a:.3f} ({b:+.3f} by judge B): its moves are too "
                "large, so lower the scale or take more steps"
            )
        if a < NOTHING or b >= ENOUGH * a:
            return ""
        how = "falls" if b < 0 else "hardly rises"
        return (
            f"guidance raises matcher A by {a:.3f}, but judge B, which does not guide, {how} ({b:+.3f}): the faces please A "
            "rather than show the person; lower the scale, end earlier, or set stop_at"
        )

    def text(self) -> str:
        """A, B, the gap and the warning, for reading."""
        a, b = self.rises
        told = f"A {self.a:.3f} ({a:+.3f}), judge B {self.b:.3f} ({b:+.3f}), gap A - B {self.gap:+.3f}"
        return f"{told}; {self.warning}" if self.warning else told
