"""A Stable Diffusion small enough for tests: all its networks random, its tokenizer of single letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file

from identiface_core.diffusion.clip import END, PREFIX, START, ClipText
from identiface_core.diffusion.stable import StableControl
from identiface_core.imaging import write_png

UNET: dict[str, Any] = {
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": 2,
    "norm_num_groups": 8,
    "cross_attention_dim": 64,
    "sample_size": 8,
}
VAE: dict[str, Any] = {
    "block_out_channels": [8, 8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}


def tiny_unet(**more: Any) -> UNet2DConditionModel:
    """A random U-Net of two levels, frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return UNet2DConditionModel(**{**UNET, **more}).eval().requires_grad_(False)


def awake(control: StableControl, scale: float = 0.1) -> StableControl:
    """The control with every parameter that starts at zero set to random values."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in control.parameters():
            if not parameter.any():
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return control


def write_base(folder: Path, *, prediction: str = "epsilon", width: int = 64, **unet: Any) -> Path:
    """A diffusers folder with all networks; width: of the text encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        tiny_unet(**unet).save_pretrained(folder / "unet")
        AutoencoderKL(**VAE).save_pretrained(folder / "vae")
        text = ClipText(vocabulary=300, length=16, width=width, layers=1, hidden=96)
    (folder / "text_encoder").mkdir(parents=True)
    (folder / "text_encoder" / "config.json").write_text("{}")
    state = {PREFIX + name: tensor.contiguous() for name, tensor in text.state_dict().items()}
    save_file(state, folder / "text_encoder" / "model.safetensors")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": prediction}))
    write_tokenizer(folder / "tokenizer")
    return folder


def write_tokenizer(folder: Path) -> Path:
    """Letters, letters that end a word, "fa", "face</w>", and the two marks."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = [*letters, *(f"{one}</w>" for one in letters), "fa", "ce</w>", "face</w>", START, END]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({piece: place for place, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\nf a\nc e</w>\nfa ce</w>\n")
    return folder


def write_photos(folder: Path, count: int = 4, side: int = 96) -> Path:
    """Smooth random pictures; the second has words beside it, the third a bracketed description."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(5)
    for index in range(count):
        small = torch.rand(1, 3, 6, 6, generator=generator)
        picture = torch.nn.functional.interpolate(small, (side, side), mode="bilinear")[0]
        write_png(folder / f"{index}.png", picture, origin="generated")
    (folder / "1.txt").write_text("A face with a beard.")
    (folder / "2.txt").write_text("A young man. ['hair'] Short dark hair. ['nose'] A long nose.")
    return folder
