"""Apple's devices: no float64, but for the tables of noise levels, which stay on the CPU; and no kernel for some of torch's
operators, read off the list that torch is built from."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from identiface_core.diffusion import generator, published, schedule
from identiface_core.diffusion.guidance import denoised, full
from identiface_core.diffusion.guidance.base import Guide
from identiface_core.diffusion.guidance.eyes import DecodedEye
from identiface_core.diffusion.guidance.latent import OPTIONS, latent_guide
from identiface_core.diffusion.guidance.targets import Towards
from identiface_core.embedded import load_embedded
from identiface_core.faces.alignment import align, canonical_points
from identiface_core.imaging import resize
from identiface_core.matchers.aligned import AlignedMatcher

from .matcher_files import exported, graph_of, tiny_edgeface, tiny_residual

ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
"""torch's choice on the CPU among its kernels for attention; elsewhere it takes another."""
ANYWHERE = "MPS|CompositeImplicit|CompositeExplicit"


class NoDoubles(TorchDispatchMode):
    """Refuses what makes a float64 tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            assert not (isinstance(one, torch.Tensor) and one.dtype == torch.float64), f"{func} gave float64"
        return made


class NoStrangers(TorchDispatchMode):
    """Refuses operators that have no kernel for Apple's devices. What torch makes of others is seen as these."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::")
        assert name.startswith(ATTENTION) or re.search(ANYWHERE, kernels()[name]), (
            f"{name}: {kernels()[name]}"
        )
        return func(*args, **(kwargs or {}))


@cache
def kernels() -> dict[str, str]:
    """The devices of each operator's kernels; one without any of its own is made of others."""
    yaml, torchgen = pytest.importorskip("yaml"), pytest.importorskip("torchgen")
    (file,) = Path(torchgen.__file__).parent.rglob("native_functions.yaml")
    listed = yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    entries = {entry["func"].split("(")[0]: entry for entry in listed}
    alike = {name: entries[entry.get("structured_delegate", name)] for name, entry in entries.items()}
    return {name: " ".join(entry.get("dispatch") or ["CompositeImplicit"]) for name, entry in alike.items()}


@pytest.fixture
def tables_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise levels and timesteps are worked out unseen, from copies that lie on the CPU."""

    def apart(function: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            with _disable_current_modes():
                return function(*args, **kwargs)

        return called

    monkeypatch.setattr(generator, "sigma_to_t", apart(schedule.sigma_to_t))
    monkeypatch.setattr(generator, "uniform_sigmas", apart(schedule.uniform_sigmas))


@pytest.mark.parametrize("way", ["latent", "decoded", "full"])
def test_guided_sampling_needs_nothing_that_apple_lacks(way: str, tables_apart: None) -> None:
    model = load_embedded()
    target = Towards(torch.nn.functional.normalize(torch.randn(128), dim=0))
    eye = DecodedEye(model.generator.autoencoder.decode, model.matcher_a.embed)
    guides: dict[str, Guide] = {
        "latent": latent_guide(model.critic, target, OPTIONS.over(2)),
        "decoded": denoised.denoised_guide(eye, target),
        "full": full.FullGuide(eye, target, full.OPTIONS),
    }
    with NoDoubles(), NoStrangers():
        made = model.generator.sample(["a man"], None, [1], steps=2, guidance_scale=2.0, guide=guides[way])
        points = canonical_points(200)[None] + 3
        vectors = model.matcher_a.embed(torch.rand(1, 3, 200, 200), points)
    assert made.images.isfinite().all() and vectors.isfinite().all()


Look = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def gradients(look: Look, device: str = "cpu") -> list[torch.Tensor]:
    """Those of a picture that is shrunk, and of the points in it (0 where these are not looked at)."""
    picture = torch.rand(1, 3, 400, 380, generator=torch.Generator().manual_seed(1))
    points = canonical_points(400)[None] + torch.arange(10).reshape(1, 5, 2) / 3
    given = [one.to(device).requires_grad_() for one in (picture, points)]
    found = look(given[0], given[1]).flatten()
    total = (found * torch.linspace(-1, 1, len(found), device=device)).sum() + 0 * given[1].sum()
    return list(torch.autograd.grad(total, given))


def portraits_of(picture: torch.Tensor, crop: torch.Tensor | None = None) -> torch.Tensor:
    return DecodedEye(lambda x: x, lambda x: x, crop=crop).portraits(picture)


def matcher_around(net: Any) -> AlignedMatcher:
    return AlignedMatcher(net, name="tiny", dimension=64, fingerprint="")


LOOKS: dict[str, Callable[[], Look]] = {
    "align": lambda: align,
    "resize": lambda: lambda picture, points: resize(picture, 64, 48),
    "whole picture": lambda: lambda picture, points: portraits_of(picture),
    "crop of a picture": lambda: (
        lambda picture, points: portraits_of(picture, torch.tensor([[[0.3, 0, 5], [0, 0.3, 5]]]))
    ),
    "embedded": lambda: load_embedded().matcher_a.embed,
    "adaface": lambda: matcher_around(tiny_residual()).embed,
    "edgeface": lambda: matcher_around(tiny_edgeface()).embed,
}


@pytest.mark.parametrize("name", LOOKS)
def test_gradients_of_looking_need_nothing_that_apple_lacks(name: str) -> None:
    look = LOOKS[name]()
    with NoDoubles(), NoStrangers():
        found = gradients(look)
    assert found[0].isfinite().all() and found[0].abs().sum() > 0


def test_the_list_tells_what_apple_lacks() -> None:
    picture = torch.rand(1, 3, 20, 20, requires_grad=True)
    with pytest.raises(AssertionError, match="_upsample_bilinear2d_aa_backward: CPU CUDA"), NoStrangers():
        torch.nn.functional.interpolate(picture, (8, 8), mode="bilinear", antialias=True).sum().backward()


def test_graphs_need_nothing_that_apple_lacks() -> None:
    pytest.importorskip("onnx")
    from identiface_core.matchers.onnx_file import parse_onnx
    from identiface_core.matchers.onnx_graph import OnnxGraph

    from .onnx_cases import CASES

    drawn = [
        (graph_of(nodes, weights=weights, outputs=[("y", None)], opset=opset), (2, 3, 8, 8))
        for nodes, weights, opset in CASES.values()
    ]
    for data, shape in [*drawn, (exported(tiny_edgeface(), 17), (2, 3, 112, 112))]:
        graph, x = OnnxGraph(parse_onnx(data, "graph"), shape, "graph"), torch.rand(shape, requires_grad=True)
        with NoStrangers():
            found = graph(x)[0]
            if found.requires_grad:
                found.sum().backward()


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="there is no accelerator")
@pytest.mark.parametrize("name", ["align", "resize", "whole picture"])
def test_an_accelerator_gives_the_gradients_of_the_cpu(name: str) -> None:
    look, device = LOOKS[name](), str(torch.accelerator.current_accelerator())
    for there, here in zip(gradients(look, device), gradients(look), strict=True):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3 * float(here.abs().max()))


def test_the_tables_answer_on_the_cpu() -> None:
    class Elsewhere(torch.Tensor):
        """Fails as a device without float64 does."""

        def double(self) -> torch.Tensor:  # type: ignore[override]
            raise TypeError("no float64 here")

        def cpu(self) -> torch.Tensor:  # type: ignore[override]
            return self.as_subclass(torch.Tensor)

    sigma = torch.tensor([0.5, 3.0])
    for there, back in (
        (schedule.sigma_to_t, schedule.t_to_sigma),
        (published.timestep_at, published.sigma_at),
    ):
        t = there(sigma.as_subclass(Elsewhere))
        assert t.device.type == "cpu" and torch.equal(t, there(sigma))
        torch.testing.assert_close(back(t.as_subclass(Elsewhere)).float(), sigma)
