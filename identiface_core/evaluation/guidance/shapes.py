"""What guidance costs at the true shapes of other models, with random weights: what is drawn means nothing, the time does."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from identiface_core.diffusion.guidance import full
from identiface_core.diffusion.guidance.base import Guide, Options
from identiface_core.diffusion.guidance.eyes import DecodedEye, Eye
from identiface_core.diffusion.guidance.freedom import freedom_guide
from identiface_core.diffusion.guidance.full import FullGuide
from identiface_core.diffusion.guidance.mpgd import mpgd_guide
from identiface_core.diffusion.guidance.targets import Target, Towards
from identiface_core.diffusion.sampling import Denoiser, dpmpp_2m
from identiface_core.diffusion.schedule import denoised_from_v, scale_input, sigma_to_t, uniform_sigmas
from identiface_core.errors import InputError
from identiface_core.imaging import resample
from identiface_core.matchers.residual import ResidualFaceNet

from .cost import peak_bytes, ratio, seconds
from .methods import UNGUIDED

EMBEDDED = "embedded"
TOKENS = 120
OPTIONS = Options(every_n=4, schedule="sigma")
Call = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Latents, timesteps and text to a prediction."""


@dataclass(frozen=True)
class Shape:
    """A model by its true sizes. make: the network as a function (latents, timesteps, text) -> prediction, and its module."""

    label: str
    make: Callable[[], tuple[nn.Module, Call]]
    text: int
    """Width of a text token."""
    tokens: int
    cells: int = 32
    """Latent cells a side; 32 are 256 px."""


def _pixart() -> tuple[nn.Module, Call]:
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

    net = PixArtTransformer2DModel(
        num_attention_heads=16, attention_head_dim=72, num_layers=28, in_channels=4, out_channels=8, cross_attention_dim=1152,
        caption_channels=4096, sample_size=32, use_additional_conditions=False,
    )  # fmt: skip

    def call(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        made: Tensor = net(x, encoder_hidden_states=text, timestep=t, return_dict=False)[0]
        return made[:, :4]

    return net, call


def _stable_diffusion() -> tuple[nn.Module, Call]:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    net = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)

    def call(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        made: Tensor = net(x, t, text, return_dict=False)[0]
        return made

    return net, call


def _stable_diffusion_xl() -> tuple[nn.Module, Call]:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    net = UNet2DConditionModel(
        sample_size=128, block_out_channels=(320, 640, 1280), cross_attention_dim=2048, use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20), addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )  # fmt: skip

    def call(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        more = {"text_embeds": text.new_zeros(len(x), 1280), "time_ids": text.new_full((len(x), 6), 256.0)}
        made: Tensor = net(x, t, text, added_cond_kwargs=more, return_dict=False)[0]
        return made

    return net, call


SHAPES: dict[str, Shape] = {
    "pixart-xl": Shape("PixArt-XL: 28 blocks of width 1152", _pixart, 4096, TOKENS),
    "sd15": Shape("Stable Diffusion 1.5: UNet of 860 M", _stable_diffusion, 768, 77),
    "sdxl": Shape("SDXL: UNet of 2.6 G", _stable_diffusion_xl, 2048, 77),
}
GUIDES: dict[str, Callable[[Eye, Target], Guide]] = {
    "default": lambda eye, target: Guide(eye, target, OPTIONS),
    "mpgd": mpgd_guide,
    "full": lambda eye, target: FullGuide(eye, target, full.OPTIONS),
    "freedom": freedom_guide,
}
"""By mode, in the order of reports. The default is what Identity Guidance makes of "decoded"."""
ONCE = ("full", "freedom")
"""Modes so slow that they are timed in the first round only."""


def shape_cost(
    name: str,
    *,
    steps: int = 4,
    rounds: int = 3,
    progress: Callable[[str, int, int, str], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """By mode: wall time and memory of guidance on a model's shape, as ratios to no guidance, both with two passes a step, as
    guidance on words needs. Decoder: TAESD's shape; matcher: IR-50's; the default looks at every fourth step, the others as
    they were published. On the accelerator when there is one.

    progress: called with (stage, rounds done, rounds, the label).
    """
    if name not in SHAPES:
        raise InputError(f"unknown shape '{name}'; known are: {EMBEDDED}, {', '.join(SHAPES)}")
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    shape, device = SHAPES[name], "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        net, call = shape.make()
        tiny, matcher = AutoencoderTiny(), ResidualFaceNet()
        text = torch.randn(2, shape.tokens, shape.text).to(device)
        x = torch.randn(1, 4, shape.cells, shape.cells).to(device)
        target = F.normalize(torch.randn(matcher.config["dimension"]), dim=0).to(device)
    for module in (net, tiny, matcher):
        module.to(device).eval().requires_grad_(False)

    def embed(portraits: Tensor) -> Tensor:
        crops = resample(portraits, (112, 112), "bilinear")
        return F.normalize(matcher(crops * 2 - 1), dim=1)

    eye = DecodedEye(lambda z: tiny.decoder(z).clamp(0, 1), embed)
    denoise = _denoiser(call, text)

    def way(make: Callable[[Eye, Target], Guide] | None, steps: int) -> Callable[[], Tensor]:
        guide, sigmas = None if make is None else make(eye, Towards(target)), uniform_sigmas(steps).to(device)

        @torch.no_grad()
        def draw() -> Tensor:
            start = x * sigmas[0]
            made = (
                dpmpp_2m(denoise, start, sigmas)
                if guide is None
                else guide.sample(dpmpp_2m, denoise, start, sigmas)
            )
            return made.cpu()

        return draw

    makes = {UNGUIDED: None, **GUIDES}
    # One step holds as much as any, and warms up.
    peaks = {mode: peak_bytes(way(make, 1)) for mode, make in makes.items()}
    took: dict[str, list[float]] = {mode: [] for mode in makes}
    for done in range(rounds):
        if progress is not None:
            progress(name, done, rounds, shape.label)
        timed = {mode: way(make, steps) for mode, make in makes.items() if mode not in ONCE or done == 0}
        for mode, values in seconds(timed, 1, warm=False).items():
            took[mode] += values
    held, eyes = weight(net), weight(tiny.decoder) + weight(matcher)
    gc.collect()
    return {
        mode: {
            "label": shape.label,
            "steps": steps,
            "device": device,
            "threads": torch.get_num_threads(),
            "rounds": len(took[mode]),
            "wall_ratio": ratio(took[mode], took[UNGUIDED]),
            "memory_ratio": (peaks[mode] + held + eyes) / (peaks[UNGUIDED] + held),
            "judge_gain": None,
            "judge_gain_share": None,
            "seconds_unguided": median(took[UNGUIDED]),
        }
        for mode in GUIDES
    }


def weight(module: nn.Module) -> int:
    """Bytes of a network's parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])


def _denoiser(call: Callable[[Tensor, Tensor, Tensor], Tensor], text: Tensor) -> Denoiser:
    """x0 prediction with guidance on words: both texts in one batch."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        timestep = sigma_to_t(sigma).float().to(x.device).expand(2 * len(x))
        without, told = call(scale_input(x, sigma).repeat(2, 1, 1, 1), timestep, text).chunk(2)
        return denoised_from_v(x, without + 4.5 * (told - without), sigma)

    return denoise
