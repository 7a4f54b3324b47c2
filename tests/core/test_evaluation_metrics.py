"""The figures of the benchmark: rates with intervals, thresholds of the open set, likeness of pictures."""

from __future__ import annotations

import math

import pytest
import torch

from identiface_core.evaluation.images import frechet, ms_ssim, psnr
from identiface_core.evaluation.metrics import (
    alarms,
    cmc,
    difference,
    identification,
    mate_ranks,
    misses,
    rate,
    threshold_for,
)
from tests.core.case_fakes import faces


def test_a_rate_has_an_interval_that_shrinks_with_people() -> None:
    few, many = (rate(torch.arange(n) % 4 == 0) for n in (40, 400))
    assert few.value == many.value == 0.25
    assert few.low < many.low < 0.25 < many.high < few.high
    # Normal approximation: 0.25 +- 1.96 * sqrt(0.25 * 0.75 / 400) = 0.208 to 0.292.
    assert many.low == pytest.approx(0.208, abs=0.01) and many.high == pytest.approx(0.292, abs=0.01)


def test_nothing_but_hits_is_no_certainty() -> None:
    none, all_ = rate(torch.zeros(200)), rate(torch.ones(200))
    assert (none.value, none.low, all_.value, all_.high) == (0, 0, 1, 1)
    # Exact binomial bound: (1 - p) ** 200 = 0.025.
    assert none.high == pytest.approx(0.0183, abs=1e-4) and all_.low == pytest.approx(1 - 0.0183, abs=1e-4)


def test_a_difference_is_paired() -> None:
    a = torch.arange(100) % 2 == 0
    b = a.clone()
    b[:10] = False  # five of these were hits
    found = difference(a, b)
    assert found.value == pytest.approx(0.05) and 0.0 <= found.low < 0.05 < found.high < 0.11
    same = difference(a, a)
    assert same.value == 0 and -same.low == same.high == pytest.approx(1 - 0.025**0.01)


def test_ties_count_against_the_mate() -> None:
    gallery = torch.eye(4)
    assert mate_ranks(torch.full((1, 4), 0.5), gallery, torch.tensor([2])).tolist() == [4]
    assert mate_ranks(gallery, gallery, torch.arange(4)).tolist() == [1] * 4


def test_cmc_rises_to_the_share_on_the_list() -> None:
    ranks = torch.tensor([1, 2, 2, 60])
    curve = cmc(ranks)
    assert len(curve) == 50 and curve[:2] == [0.25, 0.75] and curve[-1] == 0.75
    assert identification(ranks, 50).value == 0.75


def test_a_threshold_lets_no_more_strangers_through_than_asked() -> None:
    best = torch.linspace(0.0, 1.0, 200)[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    threshold = threshold_for(0.01, best)
    assert threshold is not None
    assert alarms(best, threshold).value == 0.01
    assert alarms(best, math.nextafter(threshold, 0)).value == 0.015, "the lowest that does"
    assert threshold_for(0.003, best) is None, "0.6 of a person cannot be allowed"
    tied = torch.full((200,), 0.5)
    at = threshold_for(0.01, tied)
    assert at is not None and alarms(tied, at).value == 0, "of equals all or none get through"


def test_a_mate_is_missed_below_the_threshold_or_off_the_list() -> None:
    scores, ranks = torch.tensor([0.9, 0.4, 0.9, 0.5]), torch.tensor([1, 1, 51, 50])
    assert misses(scores, ranks, 0.5).value == 0.5


def test_like_pictures() -> None:
    a = faces(3, 1)
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(0))
    near, far = ((a + s * noise).clamp(0, 1) for s in (0.02, 0.1))
    assert torch.allclose(ms_ssim(a, a), torch.ones(3, dtype=torch.float64))
    assert (ms_ssim(a, near) > ms_ssim(a, far)).all() and (ms_ssim(a, far) > 0).all()
    assert torch.allclose(ms_ssim(a, near), ms_ssim(near, a))
    assert torch.allclose(psnr(a, a + 0.1), torch.full((3,), 20.0), atol=1e-3)
    one = ms_ssim(a[1:2], near[1:2])
    assert torch.allclose(one, ms_ssim(a, near)[1:2]), "a picture's value is its own"


def test_frechet_distance_of_crowds() -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(4000, 3, generator=g, dtype=torch.float64)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    # Of two Gaussians: shift 2 in one axis, deviation 3 against 1 in another: 2 ** 2 + (3 - 1) ** 2 = 8.
    b = torch.randn(4000, 3, generator=g, dtype=torch.float64) * torch.tensor([1, 3, 1]) + torch.tensor(
        [2, 0, 0]
    )
    assert frechet(a, b) == pytest.approx(8, rel=0.06)
    assert frechet(a[:1], b) is None
