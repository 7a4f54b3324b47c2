"""Rounds: plan, scoring, consensus, the controller's state machine."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from identiface_core.errors import InputError
from identiface_core.evidence.description import Description
from identiface_core.evidence.lexicon import ATTRIBUTES
from identiface_core.evidence.sketch import extract_sketch
from identiface_core.imaging import resize
from identiface_core.rounds.case import Case, ListedCandidate, RoundRecord
from identiface_core.rounds.consensus import agreement, consensus, consensus_of_rounds, fuse
from identiface_core.rounds.controller import Controller, Rules
from identiface_core.rounds.masks import round_mask
from identiface_core.rounds.plan import PlannedRound, plan_rounds
from identiface_core.rounds.scoring import (
    WEIGHTS,
    combine,
    cosine_agreement,
    lq_agreement,
    sketch_agreement,
    words_agreement,
)
from identiface_core.rounds.wording import ending, headline, left_out, meaning, percent, searches, told
from tests.core.case_fakes import Reader, faces, segmenter

WORDS = {
    "hair": "short hair",
    "eyes": "blue eyes",
    "overview": "A man",
    "beard": "a full beard",
    "nose": "long nose",
}


# plan


def test_rounds_come_in_the_published_order_then_the_rest() -> None:
    plan = plan_rounds(Description.from_mapping(WORDS))
    assert [one.part for one in plan] == ["overview", "eyes", "nose", "hair", "beard"]
    assert plan[1].prompt == "A man. blue eyes."
    for words in ("blue eyes", "short hair", "full beard"):
        assert words in plan[0].prompt


def test_without_words_there_is_one_round() -> None:
    assert plan_rounds(None) == (PlannedRound("overview", ""),)


def test_plan_is_cut_at_the_limit() -> None:
    assert [one.part for one in plan_rounds(Description.from_mapping(WORDS), limit=2)] == ["overview", "eyes"]


# consensus


def test_consensus_is_the_normalised_mean_of_normalised_rows() -> None:
    rows = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
    torch.testing.assert_close(consensus(rows), torch.tensor([0.5**0.5, 0.5**0.5]))


def test_consensus_of_nothing_or_of_opposites_is_an_error() -> None:
    for rows in (
        torch.zeros(0, 4),
        torch.tensor([[1.0, 0.0], [-1.0, 0.0]]),
        torch.full((2, 3), float("nan")),
    ):
        with pytest.raises(InputError):
            consensus(rows)


def test_part_rounds_together_weigh_as_much_as_the_whole_face() -> None:
    whole, copies = torch.eye(3)[:1].repeat(4, 1), torch.eye(3)[1:2].repeat(4, 1)
    expected = F.normalize(torch.tensor([1.0, 1.0, 0.0]), dim=0)
    torch.testing.assert_close(consensus_of_rounds([whole, copies, copies, copies]), expected)
    torch.testing.assert_close(consensus_of_rounds([whole]), torch.eye(3)[0])


def test_agreement_is_the_mean_cosine_over_pairs() -> None:
    rows = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    pairs = [float(rows[i] @ rows[j]) for i in range(4) for j in range(i)]
    assert agreement(rows) == pytest.approx(sum(pairs) / 6, abs=1e-6)
    assert agreement(rows[:1]) is None
    assert agreement(rows[:1].repeat(3, 1)) == pytest.approx(1, abs=1e-6)


def test_fusion_weighs_and_survives_a_missing_side() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 5.0])
    torch.testing.assert_close(fuse(a, b, 0.7), F.normalize(torch.tensor([0.7, 0.3]), dim=0))
    torch.testing.assert_close(fuse(None, b), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(fuse(a, None), a)
    with pytest.raises(InputError):
        fuse(None, None)


# scoring


def test_lq_agreement_prefers_the_same_face_whatever_the_light() -> None:
    people = faces(8, 3)
    for i in range(8):
        lq = (resize(people[i], 8, 8) * 0.6 + 0.05).clamp(0, 1)
        scores = lq_agreement(people, lq)
        assert int(scores.argmax()) == i
        assert bool(((scores >= 0) & (scores <= 1)).all())


def test_lq_agreement_counts_colour_and_forgives_a_shift() -> None:
    person = faces(1, 4)[0]
    lq = resize(person, 16, 16)
    tinted = person.clone()
    tinted[0] *= 0.4
    same, other = lq_agreement(torch.stack([person, tinted]), lq).tolist()
    assert other < same - 0.05
    moved = lq_agreement(torch.roll(person, 6, 2)[None], lq)[0]
    assert float(moved) > 0.9 * same


def test_flat_pictures_score_without_nan() -> None:
    assert bool(lq_agreement(torch.full((1, 3, 128, 128), 0.5), torch.full((3, 8, 8), 0.5)).isfinite())
    assert float(sketch_agreement(torch.ones(1, 1, 128, 128), torch.ones(1, 128, 128))) == 0


def test_sketch_agreement_prefers_near_lines() -> None:
    def drawing(x: int) -> torch.Tensor:
        paper = torch.ones(1, 128, 128)
        paper[:, 30:90, x : x + 2] = 0
        return paper

    near, far = sketch_agreement(torch.stack([drawing(62), drawing(90)]), drawing(60)).tolist()
    assert near > 0.5 > far


def test_sketch_of_the_same_face_scores_best() -> None:
    people = F.interpolate(
        torch.rand(5, 3, 9, 9, generator=torch.Generator().manual_seed(1)), (128, 128), mode="bicubic"
    )
    people = people.clamp(0, 1)
    drawings = torch.stack([extract_sketch(one) for one in people])
    assert sketch_agreement(drawings, drawings[2]).argmax() == 2


def test_terms_that_are_missing_leave_their_share_to_the_others() -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    assert combine(lq=0.5).total == pytest.approx(0.5)
    both = combine(lq=1.0, query=0.0)
    assert both.total == pytest.approx(WEIGHTS["lq"] / (WEIGHTS["lq"] + WEIGHTS["query"]))
    assert both.terms() == {"lq": 1.0, "query": 0.0}
    assert combine().total == 0
    assert cosine_agreement(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([2.0, 0.0])).tolist() == [
        1,
        0,
    ]


def test_words_are_read_off_the_face() -> None:
    black_and_white = torch.stack([torch.zeros(3, 128, 128), torch.ones(3, 128, 128)])
    first, last = (a.values[i].name for a, i in ((ATTRIBUTES[0], 0), (ATTRIBUTES[1], -1)))
    agreed = words_agreement(black_and_white, {ATTRIBUTES[0].name: first}, Reader())
    assert agreed is not None and agreed.tolist() == [1, 0]
    agreed = words_agreement(black_and_white, {ATTRIBUTES[1].name: last}, Reader())
    assert agreed is not None and agreed.tolist() == [0, 1]
    assert words_agreement(black_and_white, {}, Reader()) is None


# controller

PLAN = (PlannedRound("overview", ""), PlannedRound("eyes", ""), PlannedRound("hair", ""))


def play(
    state: Controller, *scores: float, pick: int | None = None, people: tuple[str, ...] = ("x",)
) -> Controller:
    seeds = tuple(range(len(scores)))
    return state.sampled(seeds, tuple(scores)).choose(pick).judge().listed(people)


def test_a_case_runs_through_its_plan() -> None:
    state = Controller(PLAN, Rules(stable_rounds=0))
    seen = []
    while (planned := state.next_round()) is not None:
        seen.append(planned.part)
        state = play(state, 0.5, 0.6, 0.4)
    assert seen == ["overview", "eyes", "hair"]
    assert state.phase == "stopped" and state.stop_reason == "all parts are done"
    assert [one.chosen for one in state.rounds] == [1, 1, 1]
    assert [one.parent for one in state.rounds] == [None, 0, 1]
    alone = play(Controller(PLAN[:1]), 0.5)
    assert alone.stop_reason == "the whole face was all there was to draw", "nobody spoke of parts"


def test_a_round_is_accepted_within_the_margin_of_the_standing_face() -> None:
    state = play(Controller(PLAN, Rules(margin=0.05)), 0.5)
    held = play(state, 0.46)
    assert held.rounds[-1].accepted and held.head == 1
    assert told(held.rounds[-1]) == "kept: evidence score fell, within the margin: 0.500 to 0.460"
    dropped = play(state, 0.44)
    assert not dropped.rounds[-1].accepted and dropped.head == 0
    assert told(dropped.rounds[-1]) == "not kept: evidence score dropped: 0.500 to 0.440"
    # The next round is compared with the standing face, not with the rejected one.
    again = play(dropped, 0.44)
    assert not again.rounds[-1].accepted and again.rounds[-1].parent == 0


def test_the_witness_overrules_the_score() -> None:
    state = play(play(Controller(PLAN), 0.9), 0.2, 0.3, pick=0)
    assert (
        state.rounds[-1].accepted and state.rounds[-1].chosen == 0 and state.rounds[-1].chosen_by == "witness"
    )
    with pytest.raises(InputError, match="faces 0 to 1"):
        Controller(PLAN).sampled((1, 2), (0.1, 0.2)).choose(2)


def test_a_skipped_round_is_done_and_says_why() -> None:
    state = play(Controller(PLAN), 0.5).skip("no eyes visible")
    assert state.rounds[-1].skipped and told(state.rounds[-1]) == "no eyes visible"
    assert state.head == 0
    planned = state.next_round()
    assert planned is not None and planned.part == "hair"


def test_undo_opens_the_part_again_and_keeps_the_round() -> None:
    state = play(play(Controller(PLAN), 0.5), 0.6)
    assert state.head == 1
    back = state.undo()
    assert back.head == 0 and len(back.rounds) == 2
    planned = back.next_round()
    assert planned is not None and planned.part == "eyes"
    assert back.attempt("eyes") == 1
    other = play(back, 0.7)
    assert [one.index for one in other.path()] == [0, 2]
    assert [one.index for one in other.branch(1).path()] == [0, 1]
    with pytest.raises(InputError, match="no round to undo"):
        back.undo()
    with pytest.raises(InputError, match="accepted rounds are"):
        other.branch(7)


def test_undo_keeps_what_was_given_up_before() -> None:
    state = play(Controller(PLAN, Rules(margin=0.0)), 0.5)
    state = play(state, 0.1)  # eyes rejected on round 0
    state = play(state, 0.6).undo()  # hair accepted, then undone
    planned = state.next_round()
    assert planned is not None and planned.part == "hair"


def test_a_list_that_stands_still_ends_the_case() -> None:
    rules = Rules(stable_top=2, stable_rounds=2)
    state = play(Controller(PLAN, rules), 0.5, people=("a", "b", "c"))
    moved = play(state, 0.5, people=("b", "a", "c"))
    assert moved.phase == "planned"
    stopped = play(state, 0.5, people=("a", "b", "d"))
    assert stopped.phase == "stopped" and "stayed the same over 2 rounds" in stopped.stop_reason
    # A rejected round changes nothing and so proves nothing.
    assert play(state, 0.1, people=("a", "b", "c")).phase == "planned"


def test_the_witness_ends_the_case_and_may_go_on() -> None:
    state = play(Controller(PLAN), 0.5).stop("the witness said so")
    assert state.next_round() is None
    assert state.branch(0).next_round() is not None


def test_moves_out_of_turn_are_refused() -> None:
    state = Controller(PLAN)
    for move in (state.judge, state.choose):
        with pytest.raises(InputError, match="phase"):
            move()
    with pytest.raises(InputError, match="one score per seed"):
        state.sampled((1, 2), (0.5,))
    with pytest.raises(InputError, match="finish round 1"):
        play(state, 0.5).sampled((1,), (0.5,)).branch(0)


def test_states_are_values() -> None:
    state = Controller(PLAN)
    play(state, 0.5)
    assert state.rounds == () and state.phase == "planned"


# masks


def test_a_part_is_redrawn_where_it_is_seen() -> None:
    where = round_mask(faces(1)[0], "eyes", {}, segmenter)
    assert where.kind == "part seen" and where.mask is not None and where.mask.shape == (1, 1, 128, 128)
    assert float(where.mask[0, 0, 60, 64]) > 0.9 and float(where.mask[0, 0, 110, 64]) == 0


def test_a_part_that_is_not_there_is_skipped_or_added() -> None:
    portrait = faces(1)[0]
    ears = round_mask(portrait, "ears", {}, segmenter)
    assert ears.mask is None and "no ears visible" in ears.reason
    added = round_mask(portrait, "glasses", {"glasses": "glasses"}, segmenter)
    assert added.kind == "part template" and added.mask is not None and float(added.mask.max()) > 0.9
    denied = round_mask(portrait, "glasses", {"glasses": "none"}, segmenter)
    assert denied.mask is None and "say no glasses" in denied.reason


# wording


def test_rates_in_words() -> None:
    assert searches(0.03) == "about 3 of 100 searches"
    assert searches(0.004) == "about 4 of 1,000 searches"
    assert searches(1.0) == "nearly every search"
    assert searches(1e-7) == "fewer than 1 of 1,000 searches"
    assert meaning(0.03, 1000) == (
        "In a gallery of 1,000 people without the person sought, "
        "a score this high appears in about 3 of 100 searches."
    )
    assert "not calibrated" in meaning(None, 10)
    assert [percent(v) for v in (None, 1e-5, 0.034, 0.5, 1.0)] == [
        "-",
        "< 0.1 %",
        "3.4 %",
        "50 %",
        "> 99 %",
    ]


def test_a_list_whose_first_is_as_good_as_any_stranger_singles_nobody_out() -> None:
    def said(fpir: float | None) -> str:
        return headline([ListedCandidate(1, "Ann", 0.4, fpir)])

    assert said(0.93).endswith("in about 93 of 100 searches.") and said(1.0).endswith(
        "in nearly every search."
    )
    assert "does not single anybody out" in said(0.93)
    assert said(0.5) == said(None) == headline([]) == ""


def test_parts_whose_words_came_to_nothing_are_named() -> None:
    words = {"overview": "a man", "eyes": "blue", "ears": "large", "nose": "long", "hair": "grey"}
    base = RoundRecord(
        index=0, parent=None, part="overview", prompt="", seed=1, image="0.png", evidence_score=0.5, evidence_terms={},
        agreement=None, candidates=(), accepted=True, skipped=False, reason="first face", mask="whole face",
        chosen_by="", seeds=(1,), seed_scores=(0.5,), judge=None,
    )  # fmt: skip
    rounds = (
        base,
        replace(base, part="eyes", accepted=False, reason="evidence score dropped: 0.5 to 0.4"),
        replace(base, part="ears", accepted=False, skipped=True, reason="skipped: no ears visible"),
    )
    case = Case({"description": words}, {}, {}, {}, {}, rounds, stopped=True, stop_reason="all is said")
    assert left_out(case) == (
        "Not redrawn: eyes (not kept: evidence score dropped: 0.5 to 0.4); ears (skipped: no ears visible); "
        "nose, hair (the case had ended). The whole face was drawn from all words."
    )
    assert ending(case) == "2 rounds drawn. Finished: all is said."
    whole = replace(case, evidence={"description": {"overview": "a man"}}, rounds=(base,))
    assert left_out(whole) == "" and ending(whole).startswith("1 round drawn.")
