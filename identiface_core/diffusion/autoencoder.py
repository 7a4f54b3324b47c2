"""A small autoencoder between portraits and the latents that the diffusion model works on (factor 8, four
channels)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from .fusion import zero

FACTOR = 8
"""Pixels per latent cell, along each axis."""


class Residual(nn.Module):
    """x + conv(silu(conv(x))), 3 x 3; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = zero(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.second(F.silu(self.first(x)))
        return x + hidden


class Autoencoder(nn.Module):
    """Portraits (B, 3, H, W) in [0, 1] to standardised latents (B, channels, H/8, W/8) and back.

    Both directions are a linear map of 8 x 8 patches (their principal components) plus a convolutional
    correction that starts at zero. The encoder's convolutions run at 1/4 and 1/8 of the resolution, the
    decoder's also at 1/2: a full-resolution layer would cost more than all the rest.

    channels: latent channels. widths: channels at 1/2, 1/4 and 1/8 of the resolution. encoder_blocks:
    residual blocks at 1/4 and 1/8. decoder_blocks: residual blocks at 1/2, 1/4 and 1/8.
    """

    kind = "autoencoder"

    def __init__(
        self,
        *,
        channels: int = 4,
        widths: tuple[int, int, int] = (48, 96, 128),
        encoder_blocks: tuple[int, int] = (1, 2),
        decoder_blocks: tuple[int, int, int] = (1, 1, 3),
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "channels": channels,
            "widths": list(widths),
            "encoder_blocks": list(encoder_blocks),
            "decoder_blocks": list(decoder_blocks),
        }
        fine, middle, coarse = widths
        self.patch_in = nn.Conv2d(3, channels, FACTOR, stride=FACTOR)
        self.patch_out = nn.ConvTranspose2d(channels, 3, FACTOR, stride=FACTOR)
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, middle, 3, padding=1),
            *(Residual(middle) for _ in range(encoder_blocks[0])),
            nn.Conv2d(middle, coarse, 2, stride=2),
            *(Residual(coarse) for _ in range(encoder_blocks[1])),
            nn.SiLU(),
            nn.Conv2d(coarse, channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, coarse, 3, padding=1),
            *(Residual(coarse) for _ in range(decoder_blocks[2])),
            nn.Conv2d(coarse, middle * 4, 1),
            nn.PixelShuffle(2),
            *(Residual(middle) for _ in range(decoder_blocks[1])),
            nn.Conv2d(middle, fine * 4, 1),
            nn.PixelShuffle(2),
            *(Residual(fine) for _ in range(decoder_blocks[0])),
            nn.SiLU(),
            nn.Conv2d(fine, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        for last in (self.encoder[-1], self.decoder[-2]):
            zero(last)
        self.register_buffer("latent_mean", torch.zeros(channels))
        self.register_buffer("latent_std", torch.ones(channels))
        self.latent_mean: Tensor
        self.latent_std: Tensor

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3 or 1, H, W) in [0, 1], H and W multiples of 8 -> standardised latents (B, channels, H/8,
        W/8).

        A one-channel image (a sketch) is encoded as grey. Raises InputError for other shapes.
        """
        return self.standardise(self.encode_raw(images))

    def encode_raw(self, images: Tensor) -> Tensor:
        """Latents before standardisation; `encode` is what everything but training wants."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise InputError(
                f"the autoencoder takes images (B, 3, H, W) or (B, 1, H, W), not {tuple(images.shape)}"
            )
        if images.shape[-2] % FACTOR or images.shape[-1] % FACTOR:
            height, width = images.shape[-2:]
            raise InputError(
                f"the autoencoder takes sides that are multiples of {FACTOR}, not {width} x {height}: "
                "resize or pad first"
            )
        centred = images.expand(-1, 3, -1, -1) - 0.5
        raw: Tensor = self.patch_in(centred) + self.encoder(centred)
        return raw

    def standardise(self, raw: Tensor) -> Tensor:
        """Raw latents to mean 0 and deviation 1 per channel, by the constants stored with the weights."""
        return (raw - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        """Standardised latents (B, channels, h, w) -> images (B, 3, 8h, 8w) in [0, 1]."""
        return self.decode_raw(
            latents * self.latent_std[:, None, None] + self.latent_mean[:, None, None]
        ).clamp(0, 1)

    def decode_raw(self, raw: Tensor) -> Tensor:
        """Raw latents to images that may leave [0, 1], as training wants them."""
        image: Tensor = self.patch_out(raw) + self.decoder(raw) + 0.5
        return image

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruction of images, in [0, 1]."""
        return self.decode(self.encode(images))

    @torch.no_grad()
    def start_from_patches(self, images: Tensor) -> None:
        """Set the linear path to the principal components of the 8 x 8 patches of images (B, 3, H, W),
        whitened.

        The convolutional paths stay zero, so a fresh autoencoder is then the best linear one (about 24 dB on
        portraits).
        """
        channels = self.patch_in.out_channels
        patches = F.unfold(images - 0.5, FACTOR, stride=FACTOR).transpose(1, 2).reshape(-1, 3 * FACTOR**2)
        mean = patches.mean(0)
        centred = patches - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        components = vectors[:, -channels:].flip(1)
        deviation = values[-channels:].flip(0).clamp_min(1e-8).sqrt()
        self.patch_in.weight.copy_((components / deviation).T.reshape(self.patch_in.weight.shape))
        self.patch_in.bias.copy_(-(mean @ components) / deviation)  # type: ignore[union-attr]
        self.patch_out.weight.copy_((components * deviation).T.reshape(self.patch_out.weight.shape))
        # ConvTranspose has one bias per colour, not per pixel: the mean patch is nearly flat
        self.patch_out.bias.copy_(mean.reshape(3, -1).mean(1))  # type: ignore[union-attr]
