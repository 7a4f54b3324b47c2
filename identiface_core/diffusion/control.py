"""The control branch: copies of the transformer's first blocks that turn sketch and LQ latents into
residuals (IdentiFace, 3.2)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .fusion import OFFICIAL_CUTOFF, OFFICIAL_STEEPNESS, FrequencyFusion, LatentSum, zero

if TYPE_CHECKING:
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel


class ControlBlock(nn.Module):
    """A copied transformer block, the projection of what it gives to the base, and at copy 0 that of the
    control tokens."""

    def __init__(self, block: nn.Module, width: int, *, first: bool) -> None:
        super().__init__()
        self.copied_block = block
        self.before_proj = zero(nn.Linear(width, width)) if first else None
        self.after_proj = zero(nn.Linear(width, width))


class ControlBranch(nn.Module):
    """Residuals for the inputs of base blocks 1 to `copies`, wired as the released model.

    Copy 0 reads the output of base block 0 plus the projected control tokens; every later copy reads the copy
    before it, so the base stream enters once. All projections start at zero: a fresh branch changes nothing.
    `controlnet` and `freq_fusion` are the released names.

    heads, head_width, context_width: as in the base's blocks. surroundings: also read the known latent and
    the mask of a part round, and whether sketch and LQ are there at all. estimate: also read an identity
    embedding of so many dimensions, what the evidence as a whole points to (after ID3, whose denoiser is
    conditioned on one); 0 = not. Both are our extensions, zero at start, absent in released weights. fused: False
    adds the two latents up instead of fusing their frequencies, for comparison.
    """

    kind = "control-branch"

    def __init__(
        self,
        *,
        copies: int = 3,
        heads: int = 6,
        head_width: int = 32,
        context_width: int = 192,
        channels: int = 4,
        patch: int = 2,
        cutoff: float = OFFICIAL_CUTOFF,
        steepness: float = OFFICIAL_STEEPNESS,
        surroundings: bool = True,
        estimate: int = 0,
        fused: bool = True,
    ) -> None:
        from diffusers.models.attention import BasicTransformerBlock

        super().__init__()
        self.config: dict[str, Any] = {
            "copies": copies,
            "heads": heads,
            "head_width": head_width,
            "context_width": context_width,
            "channels": channels,
            "patch": patch,
            "cutoff": cutoff,
            "steepness": steepness,
            "surroundings": surroundings,
            "estimate": estimate,
            "fused": fused,
        }
        width = heads * head_width
        self.controlnet = nn.ModuleList(
            ControlBlock(
                BasicTransformerBlock(
                    width,
                    heads,
                    head_width,
                    cross_attention_dim=context_width,
                    activation_fn="gelu-approximate",
                    num_embeds_ada_norm=1000,
                    attention_bias=True,
                    norm_type="ada_norm_single",
                    norm_elementwise_affine=False,
                    norm_eps=1e-6,
                ),
                width,
                first=index == 0,
            )
            for index in range(copies)
        )
        self.freq_fusion = (
            FrequencyFusion(channels=channels, cutoff=cutoff, steepness=steepness) if fused else LatentSum()
        )
        self.surroundings = (
            zero(nn.Conv2d(channels + 1, width, patch, stride=patch, bias=False)) if surroundings else None
        )
        self.present = nn.Parameter(torch.zeros(2, width)) if surroundings else None
        self.estimate = zero(nn.Linear(estimate, width, bias=False)) if estimate else None

    @classmethod
    def copy_of(cls, base: PixArtTransformer2DModel, *, copies: int = 3, **options: Any) -> ControlBranch:
        """A fresh branch whose blocks start as copies of the base's first blocks."""
        config = base.config
        if copies >= config.num_layers:
            raise InputError(
                f"a control branch needs fewer copies than the base has blocks: {copies} of "
                f"{config.num_layers}"
            )
        branch = cls(
            copies=copies,
            heads=config.num_attention_heads,
            head_width=config.attention_head_dim,
            context_width=config.cross_attention_dim,
            channels=config.in_channels,
            patch=config.patch_size,
            **options,
        )
        for mine, theirs in zip(branch.controlnet, base.transformer_blocks, strict=False):
            mine.copied_block = copy.deepcopy(theirs)
        return branch

    def control_tokens(
        self,
        base: PixArtTransformer2DModel,
        latent: Tensor,
        surroundings: Tensor | None = None,
        present: Tensor | None = None,
        estimate: Tensor | None = None,
    ) -> Tensor:
        """Control tokens (B, N, width) of a fused latent (B, C, H, W): the base's own patch embedding and
        positions.

        surroundings: (B, C + 1, H, W), the known latent times (1 - mask), then the mask (1 = to be made).
        present: (B, 2), 1 where there is a sketch, an LQ photo. estimate: (B, D) unit vectors, zero where
        there is none.
        """
        tokens: Tensor = base.pos_embed(latent)
        if surroundings is not None:
            if self.surroundings is None:
                raise InputError(
                    "this control branch was not trained with surroundings: part rounds can only blend"
                )
            tokens = tokens + self.surroundings(surroundings).flatten(2).transpose(1, 2)
        if present is not None and self.present is not None:
            tokens = tokens + (present.to(tokens.dtype) @ self.present)[:, None]
        if estimate is not None:
            if self.estimate is None:
                raise InputError(
                    "this control branch was not trained with an identity estimate: leave it out"
                )
            tokens = tokens + self.estimate(estimate.to(tokens.dtype) * estimate.shape[1] ** 0.5)[:, None]
        return tokens


@dataclass(frozen=True)
class Control:
    """What a control branch is to do in one call of the network, or in all calls of one sampling."""

    branch: ControlBranch
    latent: Tensor
    """Fused control latent (B, C, H, W), or (1, C, H, W) for all; zeros when there is neither sketch nor LQ
    photo."""
    surroundings: Tensor | None = None
    """(B, C + 1, H, W): known latent outside the mask, mask; part rounds of a branch that was trained with
    them."""
    present: Tensor | None = None
    """(B, 2) flags: has a sketch, has an LQ photo. Where no sample has either, nothing surrounds, and there
    is no estimate, there is no control."""
    estimate: Tensor | None = None
    """(B, D) or (1, D) identity embeddings to draw towards, unit length, zero for none; of a branch that was
    trained with them."""
    strength: float | Tensor = 1.0
    """Scales the residuals; 0 is exactly no control. A tensor (B, 1, 1) gives each sample its own. Not in
    the released code."""
    start: float = 0.0
    end: float = 1.0
    """Window of the sampling, as shares of the schedule (0 = pure noise, 1 = clean), in which the control
    acts."""

    def acts_at(self, timestep: float) -> bool:
        """Whether the window holds the timestep (0..999)."""
        return self.start <= 1 - timestep / 1000 <= self.end

    def skips(
        self, base: PixArtTransformer2DModel, shared: dict[str, Any]
    ) -> Callable[[int, Tensor], Tensor | None] | None:
        """The function that `transformer.forward_controlled` calls between base blocks, or None if nothing is
        to be added.

        shared: keyword arguments of every block of this call (text tokens, their mask, modulation).
        """
        if isinstance(self.strength, float | int) and self.strength == 0:
            return None
        silent = self.present is not None and not bool(self.present.any())
        if silent and self.surroundings is None and (self.estimate is None or not bool(self.estimate.any())):
            return None
        tokens = self.branch.control_tokens(base, self.latent, self.surroundings, self.present, self.estimate)
        state = tokens

        def skip(index: int, stream: Tensor) -> Tensor | None:
            nonlocal state
            if index >= len(self.branch.controlnet):
                return None
            copied: Any = self.branch.controlnet[index]
            if index == 0:
                repeats = len(stream) // len(tokens)
                state = stream + copied.before_proj(tokens).repeat(repeats, 1, 1)
            state = copied.copied_block(state, **shared)
            residual: Tensor = copied.after_proj(state)
            if isinstance(self.strength, Tensor):
                return residual * self.strength.repeat(len(stream) // len(self.strength), 1, 1)
            return residual if self.strength == 1 else residual * self.strength

        return skip
