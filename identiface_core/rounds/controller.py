"""The round controller: a pure state machine on frozen values.

    start -> planned -- sampled --> sampled -- choose --> chosen -- judge --> planned ... -> stopped
                 \\-- skip --> planned

Rounds form a tree: each hangs on the accepted round it was drawn from, so undo and branch are moves of the
head and lose nothing. Every decision is made from the evidence scores or by the witness; nothing here takes a
truth. (The published controller accepts, stops and reports by the true photo.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from identiface_core.errors import InputError

from .plan import PlannedRound

Phase = Literal["planned", "sampled", "chosen", "stopped"]


@dataclass(frozen=True)
class Rules:
    """How rounds are accepted and when they end."""

    margin: float = 0.01
    """A round is accepted if its evidence score is at most this much below the accepted one's: scores carry
    noise."""
    stable_top: int = 10
    """Length of the candidate list that must stand still."""
    stable_rounds: int = 3
    """Accepted rounds in a row with the same list that end the case; 0: never for this reason."""


@dataclass(frozen=True)
class RoundState:
    """One round of the tree."""

    index: int
    parent: int | None
    """The accepted round it was drawn from; None for a whole face."""
    part: str
    seeds: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    """Evidence score per seed, [0, 1]."""
    chosen: int | None = None
    """Position in `seeds`."""
    chosen_by: str = ""
    """"evidence score" or "witness"."""
    accepted: bool = False
    skipped: bool = False
    reason: str = ""
    candidates: tuple[str, ...] = ()
    """People, best first."""

    @property
    def score(self) -> float | None:
        """Evidence score of the chosen seed."""
        return None if self.chosen is None else self.scores[self.chosen]


@dataclass(frozen=True)
class Controller:
    """The state. Every method gives a new one; a move that the phase does not allow raises `InputError`."""

    plan: tuple[PlannedRound, ...]
    rules: Rules = Rules()
    rounds: tuple[RoundState, ...] = ()
    head: int | None = None
    """Index of the accepted round whose face stands now."""
    phase: Phase = "planned"
    stop_reason: str = ""

    def path(self) -> tuple[RoundState, ...]:
        """Accepted rounds from the first to the head."""
        path: list[RoundState] = []
        at = self.head
        while at is not None:
            path.append(self.rounds[at])
            at = self.rounds[at].parent
        return tuple(reversed(path))

    def next_round(self) -> PlannedRound | None:
        """The next planned part that was neither drawn on this path nor tried and given up from it; None: all
        done."""
        if self.phase == "stopped":
            return None
        path = {one.index for one in self.path()}
        done = {one.part for one in self.path()}
        done |= {
            one.part
            for one in self.rounds
            if one.index not in path
            and not one.accepted
            and (one.parent in path or (one.parent is None and one.skipped))
        }
        for planned in self.plan:
            if planned.part not in done:
                return planned
        return None

    def attempt(self, part: str) -> int:
        """How many rounds of `part` were drawn already: seeds of another attempt must differ."""
        return sum(one.part == part and not one.skipped for one in self.rounds)

    def sampled(self, seeds: tuple[int, ...], scores: tuple[float, ...]) -> Controller:
        """The next planned round was drawn: one evidence score per seed."""
        planned = self._planned()
        if not seeds or len(seeds) != len(scores):
            raise InputError(f"a round needs one score per seed: {len(seeds)} seeds, {len(scores)} scores")
        one = RoundState(len(self.rounds), self.head, planned.part, tuple(seeds), tuple(scores))
        return replace(self, rounds=(*self.rounds, one), phase="sampled")

    def skip(self, reason: str) -> Controller:
        """The next planned round cannot be drawn; the reason is kept."""
        planned = self._planned()
        one = RoundState(len(self.rounds), self.head, planned.part, skipped=True, reason=reason)
        return replace(self, rounds=(*self.rounds, one))

    def choose(self, pick: int | None = None) -> Controller:
        """Choose a seed: the witness's `pick` (position), or the best evidence score (the first of
        equals)."""
        self._expect("sampled")
        last = self.rounds[-1]
        if pick is not None and not 0 <= pick < len(last.seeds):
            raise InputError(
                f"the witness chose face {pick}; round {last.index} has faces 0 to {len(last.seeds) - 1}"
            )
        chosen = max(range(len(last.scores)), key=lambda i: (last.scores[i], -i)) if pick is None else pick
        by = "evidence score" if pick is None else "witness"
        return self._with_last(replace(last, chosen=chosen, chosen_by=by), "chosen")

    def judge(self) -> Controller:
        """Accept the chosen face or keep the standing one.

        The first whole face and the witness's choice are accepted; else the evidence score must not have
        dropped by more than the margin against the face that stands now (never against a rejected one).
        """
        self._expect("chosen")
        last = self.rounds[-1]
        score = last.scores[last.chosen or 0]
        before = None if self.head is None else self.rounds[self.head].score
        if before is None:
            accepted, reason = True, "first face"
        elif last.chosen_by == "witness":
            accepted, reason = True, "chosen by the witness"
        else:
            accepted = score >= before - self.rules.margin
            word = "rose" if score > before else "fell, within the margin" if accepted else "dropped"
            reason = f"evidence score {word}: {before:.3f} to {score:.3f}"
        state = self._with_last(replace(last, accepted=accepted, reason=reason), "planned")
        return replace(state, head=last.index) if accepted else state

    def listed(self, candidates: tuple[str, ...]) -> Controller:
        """Note the candidate list after the last round, and stop when the rules say so."""
        self._expect("planned")
        if not self.rounds:
            raise InputError("no round was drawn yet: there is no list to note")
        state = self._with_last(replace(self.rounds[-1], candidates=candidates), "planned")
        if state.next_round() is None:
            return state.stop(state.exhausted())
        n, k = self.rules.stable_rounds, self.rules.stable_top
        lists = [one.candidates[:k] for one in state.path()][-n:] if n else []
        if n and len(lists) == n and lists[0] and all(one == lists[0] for one in lists):
            return state.stop(f"the first {len(lists[0])} candidates stayed the same over {n} rounds")
        return state

    def undo(self) -> Controller:
        """Back to the face before the head; its part is open again. Raises `InputError` at the first face."""
        if self.head is None or self.rounds[self.head].parent is None:
            raise InputError("there is no round to undo: the first face stands")
        return self.branch(self.rounds[self.head].parent or 0)

    def branch(self, index: int) -> Controller:
        """Continue from the accepted round `index`."""
        if not 0 <= index < len(self.rounds) or not self.rounds[index].accepted:
            accepted = [one.index for one in self.rounds if one.accepted]
            raise InputError(f"cannot continue from round {index}: accepted rounds are {accepted}")
        if self.phase not in ("planned", "stopped"):
            raise InputError(f"finish round {self.rounds[-1].index} first (it is {self.phase})")
        return replace(self, head=index, phase="planned", stop_reason="")

    def exhausted(self) -> str:
        """Why the plan holds no more."""
        return "all parts are done" if len(self.plan) > 1 else "the whole face was all there was to draw"

    def stop(self, reason: str) -> Controller:
        """End the case: the rules or the witness say so."""
        return replace(self, phase="stopped", stop_reason=reason)

    def _planned(self) -> PlannedRound:
        self._expect("planned")
        planned = self.next_round()
        if planned is None:
            raise InputError("all planned rounds are done")
        return planned

    def _expect(self, phase: Phase) -> None:
        if self.phase != phase:
            raise InputError(f"this move needs phase {phase!r}, the case is {self.phase!r}")

    def _with_last(self, last: RoundState, phase: Phase) -> Controller:
        return replace(self, rounds=(*self.rounds[:-1], last), phase=phase)
