"""The identity loss agrees with the published code's figures, and its gradient is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from identiface_core.training.losses import (
    IdentityLoss,
    identity_ramp,
    identity_weights,
    weighted_identity_loss,
)

REFERENCE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "reference" / "identity-loss-reference.json").read_text()
)


def test_single_weights_agree_with_the_reference() -> None:
    assert (REFERENCE["threshold"], REFERENCE["alpha"]) == (0.38482, 10.0)
    for row in REFERENCE["single"]:
        similarity = torch.tensor([row["similarity"]])
        weight = identity_weights(similarity)
        assert weight.item() == pytest.approx(row["weight"], rel=1e-5)
        assert (weight * (1 - similarity)).item() == pytest.approx(row["weighted_term"], rel=1e-5, abs=1e-8)
        loss = weighted_identity_loss(similarity, detach=False)
        assert loss is not None
        assert loss.item() == pytest.approx(row["loss_if_alone_in_batch"], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("row", REFERENCE["batches"])
def test_batches_agree_with_the_reference(row: dict[str, Any]) -> None:
    similarity = torch.tensor(row["similarities"])
    options = {k: v for k, v in row["options"].items() if k != "use"}
    loss = weighted_identity_loss(
        similarity, weighted=row["options"].get("use", True), threshold=row["threshold"], **options
    )
    assert loss is not None
    assert loss.item() == pytest.approx(row["loss"], rel=1e-5, abs=1e-7)
    if row["weights"] is not None:
        weights = identity_weights(similarity, threshold=row["threshold"], **options)
        torch.testing.assert_close(weights, torch.tensor(row["weights"]), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("detach", "key"), [(False, "dloss_dsim"), (True, "dloss_dsim_if_weights_detached")])
def test_gradients_agree_with_the_reference(detach: bool, key: str) -> None:
    example = REFERENCE["gradient_example"]
    similarity = torch.tensor(example["similarities"], requires_grad=True)
    loss = weighted_identity_loss(similarity, detach=detach)
    assert loss is not None
    loss.backward()
    torch.testing.assert_close(similarity.grad, torch.tensor(example[key]), rtol=1e-4, atol=1e-6)


def test_ramp_and_gates_agree_with_the_reference() -> None:
    for row in REFERENCE["ramp"]:
        value = identity_ramp(row["step"], warmup=row["warmup"], ramp=row["ramp"])
        assert value == pytest.approx(row["progress"])
        assert 0.1 * value == pytest.approx(row["factor_times_0_1"])
    gates, defaults = REFERENCE["gates"], IdentityLoss()
    assert defaults.every == gates["step_multiple"]
    assert defaults.below == gates["max_timestep_of_batch_below"]
    assert defaults.warmup == gates["start_step"]


def test_published_gate_asks_the_whole_batch_and_ours_each_sample() -> None:
    timesteps = torch.tensor([10, 199, 200, 900])
    assert IdentityLoss(each=False).open(4000, timesteps).tolist() == [False] * 4
    assert IdentityLoss(each=False).open(4000, timesteps[:2]).tolist() == [True] * 2
    assert IdentityLoss().open(4000, timesteps).tolist() == [True, True, False, False]
    for step in (3990, 4001):
        assert not IdentityLoss().open(step, timesteps).any()


def test_invalid_samples_are_removed_before_the_sums() -> None:
    similarity = torch.tensor([0.1, float("nan"), 0.5, 0.7])
    kept = weighted_identity_loss(similarity, torch.tensor([True, True, True, False]))
    alone = weighted_identity_loss(torch.tensor([0.1, 0.5]))
    assert kept is not None
    assert alone is not None
    assert torch.equal(kept, alone)
    assert weighted_identity_loss(similarity, torch.zeros(4, dtype=torch.bool)) is None
    nowhere = torch.full((2, 8), float("nan"))
    assert IdentityLoss().term(9000, torch.tensor([0, 0]), torch.ones(2, 8), nowhere) is None


@pytest.mark.parametrize("published", [False, True])
def test_term_passes_gradcheck_and_reaches_only_open_samples(published: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    estimate = torch.randn(4, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    target = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    loss = IdentityLoss(each=not published, detach=not published)
    timesteps = torch.tensor([0, 100, 150, 199])

    start = estimate.detach().clone()
    if published:  # detached weights are no function that finite differences could see
        assert torch.autograd.gradcheck(lambda x: loss.term(9000, timesteps, x, target), (estimate,))
    else:

        def frozen(x: torch.Tensor) -> torch.Tensor:
            w = identity_weights(F.cosine_similarity(start, target))
            return 0.1 * (w * (1 - F.cosine_similarity(x, target))).sum() / w.sum()

        assert torch.autograd.gradcheck(frozen, (estimate,))
        (wanted,) = torch.autograd.grad(frozen(estimate), estimate)
        term = loss.term(9000, timesteps, estimate, target)
        assert term is not None
        (got,) = torch.autograd.grad(term, estimate)
        torch.testing.assert_close(got, wanted)
        half = loss.term(9000, torch.tensor([0, 100, 500, 999]), estimate, target)
        assert half is not None
        (got,) = torch.autograd.grad(half, estimate)
        assert got[:2].abs().sum() > 0
        assert got[2:].abs().sum() == 0
