"""Frequency fusion: coarse structure from the low-quality photo, fine structure from the sketch
(IdentiFace, section 3.2)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import InputError

STEEPNESS_RANGE = (1.0, 80.0)
RESIDUAL_SCALE = 0.1
OFFICIAL_CUTOFF = 0.25
OFFICIAL_STEEPNESS = 20.0

LayerT = TypeVar("LayerT", bound=nn.Module)


def radius_map(height: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """Distance of every FFT bin from DC, (height, width) float32 in [0, 1]; DC at [0, 0], the farthest bin at
    1.

    Each axis counts cycles per sample, so latents that are not square keep the same frequency at the same
    number.
    """
    vertical = torch.fft.fftfreq(height, device=device)[:, None]
    horizontal = torch.fft.fftfreq(width, device=device)[None, :]
    radius = (vertical.square() + horizontal.square()).sqrt()
    return radius / (radius.max() + 1e-8)


def low_mask(radius: Tensor, cutoff: Tensor | float, steepness: Tensor | float) -> Tensor:
    """Share of each frequency that the low-pass side keeps: sigmoid(k (r0 - r)), in [0, 1].

    radius: (H, W) from `radius_map`. cutoff r0 in [0, 1], steepness k > 0: numbers, or (C, 1, 1) for one mask
    per channel.
    """
    return torch.sigmoid(torch.as_tensor(steepness) * (torch.as_tensor(cutoff) - radius))


def fuse_frequencies(high: Tensor, low: Tensor, mask: Tensor) -> Tensor:
    """Frequencies of `low` where mask is 1, of `high` where it is 0: (B, C, H, W) each, mask (C or 1, H, W);
    same dtype out.

    Computed in float32 whatever the input: half precision FFTs are too coarse, and missing on many devices.
    """
    spectrum = torch.fft.fft2(high.float()) * (1 - mask) + torch.fft.fft2(low.float()) * mask
    return torch.fft.ifft2(spectrum).real.to(high.dtype)


def cutoff_for_side(lq_side: int, image_side: int) -> float:
    """Cutoff r0 at which a picture lq_side pixels wide, enlarged to image_side, ends: its Nyquist frequency.

    A latent cell keeps the pixels' frequencies below its own Nyquist; with 8 px per cell an 8 px photo under
    a 128 px portrait ends at half of the axis Nyquist of the 16-cell latent, r0 = 0.354.
    """
    cells = image_side / 8
    return min(lq_side / cells, 1.0) * math.sqrt(0.5)


def zero(layer: LayerT) -> LayerT:
    """The layer, its parameters set to zero: what starts as no change."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Fusion(nn.Module, ABC):
    """Two latents to one; a missing one is bypassed."""

    @abstractmethod
    def fuse(self, sketch: Tensor, lq: Tensor) -> Tensor:
        """Fused latent of two latents (B, C, H, W)."""

    def forward(self, sketch: Tensor | None, lq: Tensor | None, *, missing: str = "bypass") -> Tensor:
        """Fused latent (B, C, H, W) of two latents of that shape; at most one may be None.

        missing: "bypass" passes the other latent through unfused; "zeros" puts zeros in the missing one's
        place, as the released code does for a missing LQ photo, which erases those frequencies.
        """
        if missing not in ("bypass", "zeros"):
            raise InputError(f"frequency fusion: `missing` is 'bypass' or 'zeros', not {missing!r}")
        present = lq if sketch is None else sketch
        if present is None:
            raise InputError("frequency fusion needs a sketch latent or an LQ latent, and got neither")
        if sketch is None or lq is None:
            if missing == "bypass":
                return present
            sketch = torch.zeros_like(present) if sketch is None else sketch
            lq = torch.zeros_like(present) if lq is None else lq
        return self.fuse(sketch, lq)

    def fuse_present(
        self, sketch: Tensor, lq: Tensor, has_sketch: Sequence[bool] | Tensor, has_lq: Sequence[bool] | Tensor
    ) -> Tensor:
        """`forward` with bypass for a batch of which each sample has its own missing inputs; zeros where
        both are missing."""
        with_sketch = torch.as_tensor(has_sketch, device=sketch.device).bool()[:, None, None, None]
        with_lq = torch.as_tensor(has_lq, device=sketch.device).bool()[:, None, None, None]
        single = torch.where(with_sketch, sketch, torch.where(with_lq, lq, torch.zeros_like(lq)))
        return torch.where(with_sketch & with_lq, self.fuse(sketch, lq), single)


class FrequencyFusion(Fusion):
    """Fuses the sketch latent (high frequencies) and the LQ latent (low frequencies), with a small learned
    residual.

    Parameter names are those of the released checkpoint: `r0_logit` holds the cutoff as a logit, `k` the raw
    steepness, clamped to [1, 80] at use. The residual, 0.1 x conv3x3 SiLU conv3x3 of both latents, starts at
    zero.

    channels: latent channels. hidden: residual width. cutoff, steepness: initial r0 and k (official 0.25 and
    20).
    """

    def __init__(
        self,
        *,
        channels: int = 4,
        hidden: int = 16,
        cutoff: float = OFFICIAL_CUTOFF,
        steepness: float = OFFICIAL_STEEPNESS,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "channels": channels,
            "hidden": hidden,
            "cutoff": cutoff,
            "steepness": steepness,
        }
        self.r0_logit = nn.Parameter(torch.full((channels,), math.log(cutoff / (1 - cutoff))))
        self.k = nn.Parameter(torch.full((channels,), float(steepness)))
        self.small_residual = nn.Sequential(
            nn.Conv2d(2 * channels, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, channels, 3, padding=1),
        )
        zero(self.small_residual[-1])

    def low_mask(self, height: int, width: int) -> Tensor:
        """The learned masks (channels, height, width), in [0, 1]."""
        cutoff = torch.sigmoid(self.r0_logit.float())[:, None, None]
        steepness = self.k.float().clamp(*STEEPNESS_RANGE)[:, None, None]
        return low_mask(radius_map(height, width, self.k.device), cutoff, steepness)

    def fuse(self, sketch: Tensor, lq: Tensor) -> Tensor:
        """Fused latent of two latents (B, C, H, W)."""
        if sketch.shape != lq.shape:
            raise InputError(
                "frequency fusion needs two latents of one shape, got "
                f"{tuple(sketch.shape)} and {tuple(lq.shape)}"
            )
        fused = fuse_frequencies(sketch, lq, self.low_mask(*sketch.shape[-2:]))
        residual: Tensor = self.small_residual(torch.cat([sketch, lq], dim=1))
        return fused + RESIDUAL_SCALE * residual


class LatentSum(Fusion):
    """The two latents added up: what the published code offers instead of frequency fusion, for comparison."""

    def fuse(self, sketch: Tensor, lq: Tensor) -> Tensor:
        """Sum of two latents (B, C, H, W)."""
        return sketch + lq
