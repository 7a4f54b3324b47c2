from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from identiface_core.errors import InputError, WeightsError
from identiface_core.matchers.base import EmbeddedMatcher, Matcher
from identiface_core.matchers.calibration import Calibration, fit, load_calibrations, save_calibrations
from identiface_core.matchers.network import FaceNet, parameter_count, shrink
from identiface_core.training.matchers import PLANS, identification
from identiface_core.weights.files import load_module, save_module, save_tensors


def tiny() -> FaceNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = FaceNet(dimension=16, widths=(4, 8, 8, 8), blocks=(1, 1, 1, 1))
        net(torch.rand(32, 3, 64, 64))  # running statistics that are not the initial ones
    return net.eval()


def portraits(n: int, side: int = 128) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(4))


def test_embeddings_are_unit_vectors_and_do_not_depend_on_the_batch() -> None:
    matcher = EmbeddedMatcher(tiny(), "tiny")
    assert isinstance(matcher, Matcher)
    batch = matcher.embed(portraits(5))
    assert batch.shape == (5, matcher.dimension) == (5, 16)
    torch.testing.assert_close(batch.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(batch[3:4], matcher.embed(portraits(5)[3:4]), atol=1e-5, rtol=1e-4)
    assert matcher.embed(portraits(0)).shape == (0, 16)


def test_embedding_passes_gradcheck_in_the_portrait() -> None:
    net = tiny().double()
    portrait = portraits(1, 70).double().requires_grad_()
    probe = torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    direction = torch.randn(portrait.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def along(t: torch.Tensor) -> torch.Tensor:
        h = (shrink(portrait.detach() + t * direction) - 0.5) * 4.0
        vector = net.norm(net.head(net.body(h).flatten(1)))
        return (torch.nn.functional.normalize(vector) * probe).sum()

    assert torch.autograd.gradcheck(
        along, (torch.zeros((), dtype=torch.float64, requires_grad=True),), eps=1e-7, atol=1e-4
    )
    matcher = EmbeddedMatcher(tiny(), "tiny")
    x = portraits(1).requires_grad_()
    matcher.embed(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in matcher.net.parameters())


def test_matcher_refuses_what_is_no_batch_of_portraits() -> None:
    with pytest.raises(InputError, match="align the face first"):
        EmbeddedMatcher(tiny(), "tiny").embed(torch.rand(3, 128, 128))


def test_shrink_is_antialiased() -> None:
    stripes = (torch.arange(128) % 2).float().expand(1, 3, 128, 128)
    inner = shrink(stripes)[..., 2:-2]
    assert inner.std() < 0.01
    assert abs(float(inner.mean()) - 0.5) < 0.01


def test_network_survives_its_file(tmp_path: Path) -> None:
    net = tiny()
    save_module(tmp_path / "net.safetensors", net, half=False)
    again = load_module(tmp_path / "net.safetensors", FaceNet)
    x = portraits(2, 64)
    assert torch.equal(net(x), again(x))


def test_the_two_matchers_are_small_and_different() -> None:
    nets = {k: FaceNet(**plan.net) for k, plan in PLANS.items()}
    assert all(1.0e6 < parameter_count(net) < 1.6e6 for net in nets.values())
    assert nets["a"].config != nets["b"].config
    assert PLANS["a"].seed != PLANS["b"].seed


def test_identification_counts_ranks() -> None:
    gallery = torch.eye(4)
    probes = torch.eye(4)[[0, 1, 3, 2]]
    result = identification(probes, gallery)
    assert result["rank1"] == 0.5
    assert result["rank10"] == 1.0
    assert result["mates"] == pytest.approx(0.5)
    assert result["strangers"] == pytest.approx(2 / 12)


def impostor_scores(n: int = 50_000) -> torch.Tensor:
    return 0.2 * torch.randn(n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_fmr_is_the_share_of_impostors_above() -> None:
    scores = impostor_scores()
    table = fit(scores)
    for score in (-0.3, 0.0, 0.2, 0.4, 0.6):
        truth = float((scores >= score).double().mean())
        assert table.fmr(score) == pytest.approx(truth, rel=0.08), score
        assert table.fmr(score) == pytest.approx(0.5 * math.erfc(score / 0.2 / math.sqrt(2)), rel=0.35), score


def test_calibration_falls_and_never_reaches_zero() -> None:
    table = fit(impostor_scores())
    rates = [table.fmr(s) for s in torch.linspace(-1.5, 1.5, 601).tolist()]
    assert all(a >= b for a, b in zip(rates, rates[1:], strict=False))
    assert rates[0] == 1.0
    assert rates[-1] == table.floor == 1 / 50_001
    assert table.beyond(1.0)
    assert not table.beyond(0.0)


def test_fpir_grows_with_the_gallery() -> None:
    table = fit(impostor_scores())
    score = 0.5
    rate = table.fmr(score)
    assert table.fpir(score, 1) == pytest.approx(rate)
    assert table.fpir(score, 1000) == pytest.approx(1 - (1 - rate) ** 1000)
    assert table.fpir(-2.0, 10) == 1.0
    assert table.fpir(2.0, 10) == pytest.approx(10 / 50_001, rel=1e-3)
    with pytest.raises(InputError, match="at least 1"):
        table.fpir(0.5, 0)


@pytest.mark.parametrize(("fpir", "size"), [(0.01, 1), (0.1, 100), (0.5, 1000), (0.99, 1000), (0.02, 1000)])
def test_threshold_keeps_its_promise(fpir: float, size: int) -> None:
    table = fit(impostor_scores())
    threshold = table.threshold(fpir, size)
    assert table.fpir(threshold, size) <= fpir * (1 + 1e-9)
    if not table.beyond(threshold):
        assert table.fpir(threshold - 0.005, size) > fpir


def test_threshold_refuses_what_the_table_cannot_vouch_for() -> None:
    table = fit(impostor_scores())
    with pytest.raises(InputError, match="50000 impostor comparisons"):
        table.threshold(0.001, 1000)
    with pytest.raises(InputError, match="FPIR"):
        table.threshold(0.0, 10)
    with pytest.raises(InputError, match="not a number"):
        table.fmr(math.nan)
    with pytest.raises(InputError, match="at least 100"):
        fit(torch.rand(50))


def test_calibrations_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "calibrations.safetensors"
    table, few = fit(impostor_scores()), fit(torch.linspace(-1, 1, 200))
    save_calibrations(path, {"portrait": table, "evidence/lq+words": few})
    again = load_calibrations(path)
    assert list(again) == ["evidence/lq+words", "portrait"] or list(again) == [
        "portrait",
        "evidence/lq+words",
    ]
    assert again["portrait"].fmr(0.37) == table.fmr(0.37)
    assert again["evidence/lq+words"].impostors == 200


@pytest.mark.parametrize("damage", ["falling", "zero rate", "missing"])
def test_damaged_calibrations_are_refused(tmp_path: Path, damage: str) -> None:
    good = fit(impostor_scores(1000))
    bad = {
        "falling": Calibration(good.scores.flip(0), good.rates, 1000),
        "zero rate": Calibration(good.scores, good.rates * 0, 1000),
        "missing": good,
    }[damage]
    path = tmp_path / "bad.safetensors"
    tensors = {"x/scores": bad.scores, "x/rates": bad.rates}
    if damage == "missing":
        del tensors["x/rates"]
    save_tensors(path, tensors, "calibrations", {"impostors": {"x": 1000}})
    with pytest.raises(WeightsError, match="calibration 'x'"):
        load_calibrations(path)
