"""A user's own Stable Diffusion 1.5: U-Net, autoencoder and text encoder, from a diffusers folder or one checkpoint file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import InputError, WeightsError
from ..weights.recognise import expected
from .clip import ClipText, ClipTokenizer
from .schedule import denoised_from_v, velocity

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

CONFIGS = Path(__file__).parent / "sd15"
"""Stable Diffusion 1.5's sizes, which its checkpoint files do not state."""
FACTOR = 8
"""Pixels per latent cell."""
PREDICTIONS = ("epsilon", "v_prediction")
_TEXT = "cond_stage_model.transformer."
"""Where a checkpoint file keeps its text encoder."""


@dataclass(frozen=True)
class StableBase:
    """The frozen networks of one checkpoint."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text: ClipText
    tokenizer: ClipTokenizer
    prediction: str = "epsilon"
    """What the U-Net predicts: one of `PREDICTIONS`."""

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, 4, H/8, W/8), about unit variance, of images (B, 3 or 1, H, W) in [0, 1]: the posterior's mean."""
        pixels = images.expand(-1, 3, -1, -1).to(next(self.vae.parameters())) * 2 - 1
        mean: Tensor = self.vae.encode(pixels).latent_dist.mode()
        return mean.float() * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, 8 H, 8 W) of latents, about [0, 1], not clamped; differentiable."""
        pixels: Tensor = self.vae.decode(
            (latents / self.vae.config.scaling_factor).to(next(self.vae.parameters()))
        ).sample
        return pixels.float() / 2 + 0.5

    @torch.no_grad()
    def context(self, texts: Sequence[str]) -> Tensor:
        """What the U-Net reads, (B, tokens, width)."""
        tokens = self.tokenizer(texts, self.text.length)
        read: Tensor = self.text(tokens.to(next(self.text.parameters()).device))
        return read.float()

    def to(self, device: torch.device | str) -> StableBase:
        """The networks moved to a device, in place."""
        for network in (self.unet, self.vae, self.text):
            network.to(device)
        return self


def wanted_of(prediction: str, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """What the U-Net is to predict at clean + sigma noise (see `schedule`)."""
    return velocity(clean, noise, sigma) if prediction == "v_prediction" else noise


def clean_of(prediction: str, noisy: Tensor, made: Tensor, sigma: Tensor) -> Tensor:
    """The clean latent that a prediction means, noisy = clean + sigma noise."""
    return denoised_from_v(noisy, made, sigma) if prediction == "v_prediction" else noisy - sigma * made


def load_base(path: Path, *, tokenizer: Path | None = None, configs: Path = CONFIGS) -> StableBase:
    """The networks at `path`, frozen, float32, on the CPU.

    path: a diffusers folder, or a .safetensors checkpoint in the names of CompVis, which holds all three networks. tokenizer:
    folder with CLIP's vocab.json and merges.txt; None: that of the diffusers folder. configs: folder with `unet/config.json` and
    `vae/config.json`, for a checkpoint file. Raises WeightsError for what is missing or something else, saying what it is, and
    InputError for a file without a tokenizer.
    """
    base = _folder(path, tokenizer) if path.is_dir() else _file(path, tokenizer, configs)
    for network in (base.unet, base.vae, base.text):
        network.eval().requires_grad_(False)
    reads = base.unet.config.cross_attention_dim
    if base.text.width != reads or base.unet.config.addition_embed_type is not None:
        raise WeightsError(
            f"{path}: its U-Net reads text of width {reads}, its CLIP gives {base.text.width}: this is no Stable Diffusion 1.5. "
            "Choose a checkpoint of that family"
        )
    return base


def _folder(path: Path, tokenizer: Path | None) -> StableBase:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    missing = [
        name for name in ("unet", "vae", "text_encoder") if not (path / name / "config.json").is_file()
    ]
    if missing:
        raise WeightsError(
            f"{path}: no diffusers folder of Stable Diffusion 1.5: {', '.join(f'{one}/config.json' for one in missing)} "
            "is missing. Give the folder with model_index.json, or a .safetensors checkpoint"
        )
    network: dict[str, Any] = {}
    for name, cls in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        weights = _weights_in(path / name)
        try:
            network[name] = cls.from_pretrained(
                str(path),
                subfolder=name,
                variant="fp16" if ".fp16." in weights.name else None,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                torch_dtype=torch.float32,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise WeightsError(f"{path / name}: cannot be loaded: {error}") from error
    weights = _weights_in(path / "text_encoder")
    return StableBase(
        network["unet"],
        network["vae"],
        ClipText.of(_tensors(weights), str(weights)),
        ClipTokenizer.load(tokenizer or path / "tokenizer"),
        _prediction(path / "scheduler" / "scheduler_config.json"),
    )


def _file(path: Path, tokenizer: Path | None, configs: Path) -> StableBase:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    expected(path, "sd15-checkpoint", "Training a control")
    if tokenizer is None:
        raise InputError(
            f"{path.name}: a checkpoint file holds no tokenizer: name a folder with CLIP's vocab.json and merges.txt "
            "(--tokenizer), such as `comfy/sd1_tokenizer` in ComfyUI"
        )
    state = _tensors(path)
    options: dict[str, Any] = {"config": str(configs), "local_files_only": True, "low_cpu_mem_usage": False}
    try:
        unet = UNet2DConditionModel.from_single_file(
            dict(state), subfolder="unet", torch_dtype=torch.float32, **options
        )
        vae = AutoencoderKL.from_single_file(
            dict(state), subfolder="vae", torch_dtype=torch.float32, **options
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise WeightsError(f"{path}: its networks cannot be loaded: {error}") from error
    text = {name[len(_TEXT) :]: tensor for name, tensor in state.items() if name.startswith(_TEXT)}
    return StableBase(unet, vae, ClipText.of(text, str(path)), ClipTokenizer.load(tokenizer))


def _weights_in(folder: Path) -> Path:
    """The one safetensors file of a diffusers component, full precision first."""
    found = sorted(folder.glob("*.safetensors"), key=lambda file: (".fp16." in file.name, len(file.name)))
    if not found:
        raise WeightsError(
            f"{folder}: holds no .safetensors file; pickled weights (.bin) are not read. Convert it once"
        )
    return found[0]


def _tensors(path: Path) -> Mapping[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path}: only safetensors checkpoints are read here ({error}). Convert it once"
        ) from error


def _prediction(path: Path) -> str:
    if not path.is_file():
        return PREDICTIONS[0]
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("prediction_type", PREDICTIONS[0])
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}. Get it again") from error
    if kind not in PREDICTIONS:
        raise WeightsError(
            f"{path}: the U-Net predicts '{kind}'; a control can be trained on {' or '.join(PREDICTIONS)}"
        )
    return str(kind)
