"""What the evaluation hands around: a probe, of which a system under test gets the evidence, and the truth behind it.

Nothing here knows the synthetic world, so that a system cannot reach it through these values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from identiface_core.evidence.description import Description
    from identiface_core.evidence.values import Evidence

KINDS = ("lq", "sketch", "words")
"""Kinds of evidence, in the order in which names list them."""


@dataclass(frozen=True)
class Truth:
    """What stands behind a probe: for scoring, and for experiments that say that they use it."""

    row: int
    """Row of the mate in the gallery, or -1: the person is not in it."""
    photo: Tensor
    """(3, 128, 128) in [0, 1]: the picture that the LQ photo was made from; it is in no gallery."""
    portrait: Tensor
    """(3, 128, 128): the canonical portrait."""
    words: Description
    """The complete and correct description."""
    values: tuple[int, ...]
    """Value index of every attribute of the lexicon."""


@dataclass(frozen=True)
class Probe:
    """One search: what the witness gives, and the truth behind it."""

    number: int
    """Which probe of its list it is; seeds follow from it."""
    evidence: Evidence
    truth: Truth

    def with_truth(self, other: Truth) -> Probe:
        """The same evidence with another truth behind it: a decoy, see `harness.check_decoy`."""
        return replace(self, truth=other)
