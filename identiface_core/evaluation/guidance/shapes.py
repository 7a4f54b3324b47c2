"""What guidance costs at the true shapes of other models, with random weights: what is drawn means nothing, the time does."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from identiface_core.diffusion.guidance.base import Guide, Options
from identiface_core.diffusion.guidance.eyes import DecodedEye
from identiface_core.diffusion.guidance.targets import Towards
from identiface_core.diffusion.sampling import Denoiser, dpmpp_2m
from identiface_core.diffusion.schedule import denoised_from_v, scale_input, sigma_to_t, uniform_sigmas
from identiface_core.errors import InputError
from identiface_core.matchers.residual import ResidualFaceNet

from .cost import peak_bytes, ratio, seconds

EMBEDDED = "embedded"
TOKENS = 120
OPTIONS = Options(every_n=4, schedule="sigma")


@dataclass(frozen=True)
class Shape:
    """A model by its true sizes. make: the network as a function (latents, timesteps, text) -> prediction, and its module."""

    label: str
    make: Callable[[], tuple[nn.Module, Callable[[Tensor, Tensor, Tensor], Tensor]]]
    text: int
    """Width of a text token."""
    tokens: int
    cells: int = 32
    """Latent cells a side; 32 are 256 px."""


def _pixart() -> tuple[nn.Module, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

    net = PixArtTransformer2DModel(
        num_attention_heads=16, attention_head_dim=72, num_layers=28, in_channels=4, out_channels=8, cross_attention_dim=1152,
        caption_channels=4096, sample_size=32, use_additional_conditions=False,
    )  # fmt: skip

    def call(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        made: Tensor = net(x, encoder_hidden_states=text, timestep=t, return_dict=False)[0]
        return made[:, :4]

    return net, call


def _stable_diffusion() -> tuple[nn.Module, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    net = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)

    def call(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        made: Tensor = net(x, t, text, return_dict=False)[0]
        return made

    return net, call


SHAPES: dict[str, Shape] = {
    "pixart-xl": Shape("PixArt-XL: 28 blocks of width 1152, 256 px", _pixart, 4096, TOKENS),
    "sd15": Shape("Stable Diffusion 1.5: UNet of 860 M, 256 px", _stable_diffusion, 768, 77),
}


def shape_cost(name: str, *, steps: int = 4, rounds: int = 2) -> dict[str, Any]:
    """Wall and memory of "decoded" guidance on a model's shape, as ratios to no guidance; both with two passes a step, as
    guidance on words needs. Decoder: TAESD's shape; matcher: IR-50's; a look at every fourth step."""
    if name not in SHAPES:
        raise InputError(f"unknown shape '{name}'; known are: {EMBEDDED}, {', '.join(SHAPES)}")
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    shape = SHAPES[name]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        net, call = shape.make()
        tiny, matcher = AutoencoderTiny(), ResidualFaceNet()
        text = torch.randn(2, shape.tokens, shape.text)
        x = torch.randn(1, 4, shape.cells, shape.cells)
        target = F.normalize(torch.randn(matcher.config["dimension"]), dim=0)
    modules: list[nn.Module] = [net.eval().requires_grad_(False)]
    eyes: list[nn.Module] = [tiny.decoder.eval().requires_grad_(False), matcher.eval().requires_grad_(False)]

    def embed(portraits: Tensor) -> Tensor:
        crops = F.interpolate(portraits, (112, 112), mode="bilinear", antialias=True)
        return F.normalize(matcher(crops * 2 - 1), dim=1)

    guide = Guide(DecodedEye(lambda z: tiny.decoder(z).clamp(0, 1), embed), Towards(target), OPTIONS)
    denoise, sigmas = _denoiser(call, text), uniform_sigmas(steps)

    def unguided() -> Tensor:
        with torch.no_grad():
            return dpmpp_2m(denoise, x * sigmas[0], sigmas)

    def guided() -> Tensor:
        with torch.no_grad():
            return guide.sample(dpmpp_2m, denoise, x * sigmas[0], sigmas)

    took = seconds({"unguided": unguided, "default": guided}, rounds)
    held = {"unguided": sum(map(weight, modules)), "default": sum(map(weight, [*modules, *eyes]))}
    peaks = {
        "unguided": held["unguided"] + peak_bytes(unguided),
        "default": held["default"] + peak_bytes(guided),
    }
    found = {
        "label": shape.label,
        "steps": steps,
        "wall_ratio": ratio(took["default"], took["unguided"]),
        "memory_ratio": peaks["default"] / peaks["unguided"],
        "judge_gain": None,
        "judge_gain_share": None,
        "seconds": min(took["default"]),
        "seconds_unguided": min(took["unguided"]),
    }
    gc.collect()
    return found


def weight(module: nn.Module) -> int:
    """Bytes of a network's parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])


def _denoiser(call: Callable[[Tensor, Tensor, Tensor], Tensor], text: Tensor) -> Denoiser:
    """x0 prediction with guidance on words: both texts in one batch."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        timestep = sigma_to_t(sigma).float().expand(2 * len(x))
        without, told = call(scale_input(x, sigma).repeat(2, 1, 1, 1), timestep, text).chunk(2)
        return denoised_from_v(x, without + 4.5 * (told - without), sigma)

    return denoise
