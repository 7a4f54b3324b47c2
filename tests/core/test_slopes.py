"""The critic learns from decoder and matcher which way to point."""

import torch
from torch import Tensor
from torch.nn import functional as F

from identiface_core.evidence.lexicon import ATTRIBUTES
from identiface_core.matchers.latent import LatentCritic
from identiface_core.training.latents import Latents
from identiface_core.training.loop import run_stage
from identiface_core.training.slopes import Lessons, SlopesStage, lessons, slope

D = 8


def world(people: int = 6) -> Latents:
    g = torch.Generator().manual_seed(3)
    empty = torch.zeros(people, 2, 1, 4, 16, 16).half()
    return Latents(
        torch.randn(people, 2, 4, 16, 16, generator=g).half(),
        empty,
        empty,
        torch.zeros(people, 2, 1, 16, 16).byte(),
    )


def teacher(latents: Tensor) -> Tensor:
    """Sees a smooth picture of the latents, and nothing of their fourth channel."""
    weights = torch.randn(D, 3 * 16, generator=torch.Generator().manual_seed(1))
    return F.normalize(F.avg_pool2d(latents[:, :3], 4).flatten(1).tanh() @ weights.T, dim=1)


def student() -> LatentCritic:
    torch.manual_seed(0)
    return LatentCritic(widths=(8, 8), dimension=D).eval()


def made(count: int = 12, **more: object) -> Lessons:
    critic = student()
    faces = F.normalize(torch.randn(6, D, generator=torch.Generator().manual_seed(2)), dim=1)
    return lessons(world(), faces, lambda x: critic(x)[1], teacher, count, **more)  # type: ignore[arg-type]


def test_a_slope_is_the_gradient_of_the_cosine():
    x = torch.randn(2, 4, 16, 16, dtype=torch.float64)
    targets = F.normalize(torch.randn(2, D, dtype=torch.float64), dim=1)

    def seen(z: Tensor) -> Tensor:
        return F.normalize(z[:, :2, :2, :2].flatten(1), dim=1)

    vectors, rises = slope(seen, x, targets)
    assert torch.equal(vectors, seen(x)) and not rises.requires_grad
    step = torch.zeros_like(x)
    step[:, 1, 0, 1] = 1e-6
    change = ((seen(x + step) - seen(x - step)) * targets).sum(1) / 2e-6
    torch.testing.assert_close(change, rises[:, 1, 0, 1], atol=1e-7, rtol=1e-5)


def test_lessons_say_what_the_teacher_sees(tmp_path):
    said = made()
    latents = said.latents.float()
    torch.testing.assert_close(said.faces.float(), teacher(latents), atol=5e-3, rtol=0)
    torch.testing.assert_close(
        said.slopes.float().square().mean((1, 2, 3)), torch.ones(12), atol=1e-2, rtol=0
    )
    assert (said.slopes[:, 3] == 0).all(), "the teacher does not see this channel"
    again = made()
    assert torch.equal(again.latents, said.latents) and torch.equal(again.slopes, said.slopes)
    kept = made(path=tmp_path / "kept.safetensors")
    assert torch.equal(made(path=tmp_path / "kept.safetensors").faces, kept.faces)
    other = made(path=tmp_path / "kept.safetensors", made_of={"critic": "another"}, seed=1)
    assert not torch.equal(other.faces, kept.faces), "lessons of another critic are made anew"
    assert len(made(5, path=tmp_path / "kept.safetensors")) == 5, "another number is made anew"


def test_the_critic_learns_to_point_where_the_teacher_points(tmp_path):
    values = torch.stack([torch.arange(6) % len(a.values) for a in ATTRIBUTES], 1)
    seen, other = made(24), made(8, seed=1)
    stage = SlopesStage(student(), seen, values, other, values, steps=60, batch=8)
    stage.lr, stage.warmup, stage.ema = 5e-3, 5, None
    before = stage.validate()
    after = run_stage(stage, tmp_path).validation
    assert after["slopes"] > before["slopes"] + 0.1 and after["cosine"] > before["cosine"] + 0.1
