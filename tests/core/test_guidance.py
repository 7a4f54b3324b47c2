"""Guidance by identity: what it does to a sampling, when it acts, and that at scale 0 it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from identiface_core.diffusion.autoencoder import Autoencoder
from identiface_core.diffusion.guidance.base import (
    EASE,
    SURE,
    Guide,
    Look,
    Options,
    size,
    step_at,
    without_harm,
)
from identiface_core.diffusion.guidance.check import Check
from identiface_core.diffusion.guidance.eyes import DecodedEye, LatentEye, Seen, stated
from identiface_core.diffusion.guidance.freedom import Distance, freedom_guide
from identiface_core.diffusion.guidance.full import FullGuide
from identiface_core.diffusion.guidance.mpgd import mpgd_guide
from identiface_core.diffusion.guidance.search import search_guide
from identiface_core.diffusion.guidance.targets import (
    AwayFrom,
    Band,
    Both,
    Towards,
    consensus_of_top,
)
from identiface_core.diffusion.sampling import dpmpp_2m, euler
from identiface_core.diffusion.schedule import uniform_sigmas
from identiface_core.errors import InputError
from identiface_core.matchers.latent import LatentCritic

CELLS, D = 4, 6
SIGMAS = uniform_sigmas(8)


class TinyEye(nn.Module):
    """Latents to unit vectors by one matrix; every value is an attribute of three values."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.matrix = torch.randn(4 * CELLS**2, D, generator=g).to(dtype)
        self.words = torch.randn(4 * CELLS**2, 2, 3, generator=g).to(dtype)

    def forward(self, latents: Tensor) -> Seen:
        flat = latents.flatten(1)
        logits = list(torch.einsum("bn,nav->abv", flat, self.words))
        return Seen(F.normalize(flat @ self.matrix, dim=1), lambda said: stated(logits, said))


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of data of mean 0.2 and deviation 1, mixed a little among cells."""
    x0 = (x + sigma.square() * 0.2) / (1 + sigma.square())
    return x0 + 0.1 * torch.tanh(x0.flip(-1))


def start(count: int = 3) -> Tensor:
    return torch.randn(count, 4, CELLS, CELLS, generator=torch.Generator().manual_seed(1)) * SIGMAS[0]


def target(seed: int = 2) -> Tensor:
    return F.normalize(torch.randn(D, generator=torch.Generator().manual_seed(seed)), dim=0)


def every_guide(options: Options | None = None) -> dict[str, Guide]:
    eye, to = TinyEye(), Towards(target())

    def of(scale: float, **more: object) -> Options:
        return options or Options(scale=scale, **more)  # type: ignore[arg-type]

    return {
        "plain": Guide(eye, to, of(0.2)),
        "full": FullGuide(eye, to, of(0.2)),
        "freedom": freedom_guide(eye, to, of(0.5, normalise=False)),
        "mpgd": mpgd_guide(eye, to, of(0.1)),
        "mpgd projected": mpgd_guide(eye, to, of(0.1), project=lambda z: 0.99 * z),
        "search": search_guide(eye, to, of(0.2), pairs=6),
    }


NAMES = list(every_guide())


def similarity(latents: Tensor) -> Tensor:
    return TinyEye()(latents).vectors @ target()


@pytest.mark.parametrize("name", NAMES)
def test_every_guide_brings_every_sample_nearer(name: str) -> None:
    guide = every_guide()[name]
    hardly = replace(guide, options=replace(guide.options, scale=1e-9))  # with the same fresh noise
    plain, guided = (one.sample(dpmpp_2m, denoise, start(), SIGMAS) for one in (hardly, guide))
    assert guided.isfinite().all() and not guided.requires_grad
    assert (similarity(guided) > similarity(plain) + 0.05).all()


@pytest.mark.parametrize("name", NAMES)
def test_scale_zero_is_bit_identical(name: str) -> None:
    plain = dpmpp_2m(denoise, start(), SIGMAS)
    guide = every_guide(Options(scale=0.0))[name]
    assert torch.equal(guide.sample(dpmpp_2m, denoise, start(), SIGMAS), plain)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_does_not_depend_on_its_batch_nor_on_runs_before(name: str) -> None:
    guide = every_guide()[name]
    batch = guide.sample(dpmpp_2m, denoise, start(), SIGMAS, seeds=[5, 6, 7])
    again = guide.sample(dpmpp_2m, denoise, start(), SIGMAS, seeds=[5, 6, 7])
    alone = guide.sample(dpmpp_2m, denoise, start()[1:2], SIGMAS, seeds=[6])
    assert torch.equal(batch, again)
    torch.testing.assert_close(batch[1:2], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_outside_the_cells_nothing_moves(name: str) -> None:
    cells = torch.zeros(1, 1, CELLS, CELLS)
    cells[..., :2] = 1
    known = torch.full((3, 4, CELLS, CELLS), 0.3)

    def masked(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.where(cells > 0, denoise(x, sigma), known)

    guide = every_guide()[name]
    hardly = replace(guide, options=replace(guide.options, scale=1e-9))
    plain, made = (one.sample(dpmpp_2m, masked, start(), SIGMAS, cells=cells) for one in (hardly, guide))
    assert torch.equal(made[..., 2:], known[..., 2:])
    assert (similarity(made) > similarity(plain)).all()


def test_window_every_n_and_hold() -> None:
    def looks(**options: object) -> tuple[int, Tensor]:
        guide = Guide(TinyEye(), Towards(target()), Options(scale=0.1, **options))  # type: ignore[arg-type]
        run = guide.begin(3)
        moved = []
        for step in range(8):
            here = torch.ones(3, 4, CELLS, CELLS)
            moved.append(bool((run(here, torch.tensor(1.0), step, 8) != here).any()))
        return run.looks, torch.tensor(moved)

    assert looks()[0] == 8
    count, moved = looks(start=0.25, end=0.75)
    assert count == 4 and moved.tolist() == [False] * 2 + [True] * 4 + [False] * 2
    count, moved = looks(every_n=3)
    assert count == 3 and moved.all()
    count, moved = looks(every_n=3, hold=False)
    assert count == 3 and moved.tolist() == [step % 3 == 0 for step in range(8)]
    assert looks(every_n=3, start=0.25)[0] == 2
    assert looks(start=0.5, end=0.5)[0] == 0


def test_a_move_has_the_size_it_was_given() -> None:
    here = torch.randn(3, 4, CELLS, CELLS, generator=torch.Generator().manual_seed(3)) * torch.tensor(
        [0.1, 1.0, 10.0]
    ).view(3, 1, 1, 1)
    run = Guide(TinyEye(), Towards(target()), Options(scale=0.07)).begin(3)
    moved = run(here, torch.tensor(2.0), 0, 4)
    torch.testing.assert_close(size(moved - here) / size(here), torch.full((3, 1, 1, 1), 0.07))
    follows = Guide(TinyEye(), Towards(target()), Options(scale=0.07, schedule="sigma")).begin(3)
    share = size(follows(here, torch.tensor(2.0), 0, 4) - here) / size(here)
    torch.testing.assert_close(share, torch.full((3, 1, 1, 1), 0.07 * 2 / 5**0.5))


def test_moves_shrink_before_the_stop_and_lead_back_behind_it() -> None:
    """Once predictions show somebody; before, in noise, a similarity stops nothing."""
    eye = TinyEye()
    between = target() + F.normalize(target(9) - (target(9) @ target()) * target(), dim=0)
    here = torch.stack([eye.matrix @ between, -(eye.matrix @ target())]).view(2, 4, CELLS, CELLS)
    there = float(similarity(here)[0])
    assert 0.5 < there < 0.8

    def rise(stop: float | None, sigma: float = 1.0) -> list[float]:
        run = Guide(eye, Towards(target()), Options(scale=0.05, stop_at=stop)).begin(2)
        return (similarity(run(here, torch.tensor(sigma), 0, 4)) - similarity(here)).tolist()

    free = rise(None)
    half, full = rise(there + EASE / 2)
    assert 0 < half < 0.7 * free[0] and full == pytest.approx(free[1])
    assert rise(there)[0] == pytest.approx(0, abs=1e-6) and rise(there - EASE / 2)[0] < 0
    assert rise(there - 0.5, SURE + 0.1) == pytest.approx(free)


@pytest.mark.parametrize("name", NAMES)
def test_a_stop_ends_between_no_guidance_and_guidance(name: str) -> None:
    guide = every_guide()[name]
    hardly = replace(guide, options=replace(guide.options, scale=1e-9))
    plain, free = (similarity(one.sample(dpmpp_2m, denoise, start(), SIGMAS)) for one in (hardly, guide))
    stop = float((plain.mean() + free.mean()) / 2)
    stopped = replace(guide, options=replace(guide.options, stop_at=stop))
    ends = similarity(stopped.sample(dpmpp_2m, denoise, start(), SIGMAS)).mean()
    assert plain.mean() < ends < free.mean()
    for goal in (AwayFrom(target()), Band(target(), 0.1, 0.2), Both((AwayFrom(target()),), (1.0,))):
        with pytest.raises(InputError, match="stop_at is for guidance towards somebody"):
            replace(stopped, target=goal)


def test_words_are_preserved() -> None:
    eye = TinyEye()
    here = torch.randn(5, 4, CELLS, CELLS, generator=torch.Generator().manual_seed(5))
    said = torch.tensor([1, -1])

    def truth(latents: Tensor) -> Tensor:
        words = eye(latents).words
        assert words is not None
        return words(said)

    plain = Guide(eye, Towards(target()), Options(scale=1e-3), said)
    kept = replace(plain, options=Options(scale=1e-3, preserve=True))
    before = truth(here)
    lost = truth(plain.begin(5)(here, torch.tensor(1.0), 0, 4)) - before
    held = truth(kept.begin(5)(here, torch.tensor(1.0), 0, 4)) - before
    assert float(lost.min()) < -1e-4, "without it words suffer"
    assert float(held.min()) > 0.02 * float(lost.min())
    with pytest.raises(InputError, match="to preserve words"):
        replace(kept, said=None).begin(5)(here, torch.tensor(1.0), 0, 4)


@pytest.mark.parametrize("name", ["plain", "full", "freedom", "mpgd"])
def test_without_gradients_it_says_what_to_do(name: str) -> None:
    with torch.inference_mode(), pytest.raises(InputError, match="torch.no_grad"):
        every_guide()[name].sample(dpmpp_2m, denoise, start(), SIGMAS)


def test_gradient_surgery() -> None:
    g = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).view(2, 2, 1, 1)
    k = torch.tensor([[1.0, 1.0], [-1.0, 1.0]]).view(2, 2, 1, 1)
    assert without_harm(g, k).flatten(1).tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_steps_by_noise_level() -> None:
    levels = SIGMAS.tolist()
    assert [step_at(level, levels) for level in levels[:-1]] == list(range(8))
    assert step_at(levels[2] * 0.99, levels) == 3 and step_at(0.0, levels) == 7


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"scale": -1}, "scale must be a number from 0 on"),
        ({"scale": float("nan")}, "scale must be a number from 0 on"),
        ({"scale": float("inf")}, "scale must be a number from 0 on"),
        ({"start": 0.6, "end": 0.4}, "0.6 to 0.4"),
        ({"every_n": 0}, "every_n must be 1 or more"),
        ({"schedule": "cosine"}, "constant, sigma or early, not 'cosine'"),
        ({"stop_at": 2.0}, "stop_at is a cosine"),
    ],
)
def test_options_that_make_no_sense(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(InputError, match=match):
        Options(**wrong)  # type: ignore[arg-type]


def test_targets() -> None:
    v = F.normalize(torch.randn(4, D, generator=torch.Generator().manual_seed(6)), dim=1)
    t, s = target(), v @ target()
    torch.testing.assert_close(Towards(t).objective(v), s)
    torch.testing.assert_close(Towards(t.expand(4, -1)).objective(v), s)
    away = AwayFrom(t, beyond=float(s.median())).objective(v)
    assert ((away < 0) == (s > s.median())).all()
    band = Band(t, float(s.min()) + 1e-3, float(s.max()) - 1e-3).objective(v)
    assert int((band < 0).sum()) == 2 and int((band == 0).sum()) == 2
    both = Both((Towards(t), AwayFrom(v[0])), (1.0, 0.5))
    torch.testing.assert_close(both.objective(v), s - 0.5 * F.relu(v @ v[0]))
    torch.testing.assert_close(both.similarity(v), s)
    with pytest.raises(InputError, match="6 dimensions, the matcher that guides 5"):
        Towards(t).objective(torch.ones(1, 5))
    for wrong, match in (
        (t * 2, "length 2"),
        (t * float("nan"), "length nan"),
        (t * 0, "length 0"),
        ([1.0], "got list"),
    ):
        with pytest.raises(InputError, match=match):
            Towards(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="low < high"):
        Band(t, 0.5, 0.2)
    with pytest.raises(InputError, match="as many weights"):
        Both((Towards(t),), ())


def test_targets_from_galleries() -> None:
    templates = F.normalize(torch.randn(9, D, generator=torch.Generator().manual_seed(7)), dim=1)
    query = target()
    best = int((templates @ query).argmax())
    torch.testing.assert_close(consensus_of_top(templates, query, 1), templates[best])
    three = consensus_of_top(templates, query, 3)
    assert float(three.norm()) == pytest.approx(1) and float(three @ query) > 0
    torch.testing.assert_close(consensus_of_top(templates, query, 9).norm(), torch.tensor(1.0))
    other = F.normalize(torch.randn(9, 4, generator=torch.Generator().manual_seed(2)), dim=1)
    torch.testing.assert_close(consensus_of_top(templates, query, 1, other), other[best])
    with pytest.raises(InputError, match="best 10 of a gallery of 9"):
        consensus_of_top(templates, query, 10)


@pytest.mark.parametrize(
    "objective",
    [Towards, lambda t: AwayFrom(t, -1.0), lambda t: Band(t, 0.9, 0.95), lambda t: Distance(Towards(t))],
)
def test_gradients_of_objectives(objective: object) -> None:
    one = objective(target().double())  # type: ignore[operator]
    v = torch.randn(3, D, dtype=torch.float64, generator=torch.Generator().manual_seed(8)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: one.objective(F.normalize(x, dim=1)), v)


def test_gradients_of_the_way_through_decoder_crop_and_matcher() -> None:
    torch.manual_seed(0)
    decoder = Autoencoder(widths=(4, 4, 4), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1)).double()
    for parameter in decoder.decoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    net = nn.Linear(3 * 4 * 4, D).double()

    def embed(portraits: Tensor) -> Tensor:
        return F.normalize(net(F.avg_pool2d(portraits, 32).flatten(1)), dim=1)

    crop = torch.tensor([[[7.0, 0.5, 4.0], [-0.5, 7.0, 9.0]]], dtype=torch.float64)
    latents = 0.1 * torch.randn(2, 4, 2, 2, dtype=torch.float64)
    goal = Towards(target().double())
    for eye in (DecodedEye(decoder.decode_raw, embed), DecodedEye(decoder.decode_raw, embed, crop=crop)):
        assert torch.autograd.gradcheck(
            lambda z, eye=eye: goal.objective(eye(z).vectors), latents.clone().requires_grad_()
        )


def test_gradient_through_the_denoiser_is_the_true_one() -> None:
    eye, to = TinyEye(torch.float64), Towards(target().double())
    x, sigma = start(2).double(), torch.tensor(1.5, dtype=torch.float64)
    guide = FullGuide(eye, to, Options(scale=1.0, normalise=False))
    run = guide.begin(2)
    guided = guide.denoised(denoise, x, sigma, 0, 4, run)
    step = 1e-6 * torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    rise = to.objective(eye(denoise(x + step, sigma)).vectors) - to.objective(
        eye(denoise(x - step, sigma)).vectors
    )
    adjusted = (guided - denoise(x, sigma)) / sigma.square()
    torch.testing.assert_close((adjusted * 2 * step).flatten(1).sum(1), rise, rtol=1e-4, atol=0)


def test_search_uses_no_gradient() -> None:
    class BlackBox(TinyEye):
        def forward(self, latents: Tensor) -> Seen:
            assert not torch.is_grad_enabled() and not latents.requires_grad
            return super().forward(latents)

    guide = search_guide(BlackBox(), Towards(target()), Options(scale=0.2))
    assert guide.sample(euler, denoise, start(), SIGMAS).isfinite().all()
    with pytest.raises(InputError, match="cannot preserve words"):
        search_guide(BlackBox(), Towards(target()), Options(preserve=True))


def test_search_looks_where_the_gradient_points() -> None:
    here = torch.randn(3, 4, CELLS, CELLS, generator=torch.Generator().manual_seed(10))
    guide = search_guide(TinyEye(), Towards(target()), Options(), pairs=200)
    found = guide.look(here, guide.begin(3)).gradient
    true = Guide(TinyEye(), Towards(target())).look(here, guide.begin(3)).gradient
    assert (F.cosine_similarity(found.flatten(1), true.flatten(1)) > 0.6).all()


def test_the_latents_eye_reads_words_and_identity() -> None:
    torch.manual_seed(1)
    critic = LatentCritic(widths=(8, 8), dimension=D).eval()
    seen = LatentEye(critic)(torch.randn(2, 4, 16, 16))
    said = torch.full((32,), -1)
    assert seen.vectors.shape == (2, D) and seen.words is not None
    assert seen.words(said).tolist() == [0.0, 0.0]
    said[3] = 1
    logits = critic(torch.zeros(2, 4, 16, 16))[0]
    torch.testing.assert_close(stated(logits, said), logits[3].log_softmax(1)[:, 1])
    with pytest.raises(InputError, match="32 attributes, got 3"):
        seen.words(said[:3])


def test_the_check_believes_only_the_judge() -> None:
    assert Check(0.8, 0.7, 0.6, 0.5).warning == ""
    assert "hardly rises (+0.010)" in Check(0.9, 0.51, 0.6, 0.5).warning
    assert "falls (-0.100)" in Check(0.9, 0.4, 0.6, 0.5).warning
    assert (
        "even matcher A, which guides, falls by 0.200 (-0.100 by judge B)"
        in Check(0.4, 0.4, 0.6, 0.5).warning
    )
    assert Check(0.6, 0.5, 0.6, 0.5).warning == "", "nothing was raised"
    check = Check(0.9, 0.4, 0.6, 0.5)
    assert check.gap == pytest.approx(0.5)
    assert "judge B 0.400 (-0.100), gap A - B +0.500; guidance raises" in check.text()


def test_a_look_is_a_value() -> None:
    look = Guide(TinyEye(), Towards(target())).look(start(), Guide(TinyEye(), Towards(target())).begin(3))
    assert isinstance(look, Look) and look.similarity.shape == (3,) and not look.gradient.requires_grad
