"""The control branch for Stable Diffusion 1.5: a ControlNet that reads the fused latent of sketch and LQ photo.

IdentiFace (arXiv 2605.00526) names an SD 1.5 variant without its wiring; this is ours. A ControlNet (Zhang et al., 2023) copies
the U-Net's encoder and middle block; ours takes its hint as a latent of the sample's own size, not as pixels shrunk by eight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from .fusion import OFFICIAL_CUTOFF, OFFICIAL_STEEPNESS, FrequencyFusion, zero

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

CLUES = 2
"""Sketch and LQ photo."""
ADDED_TIME = 256
"""Width of SDXL's embedding of each of its six sizes."""

Residuals = tuple[list[Tensor], Tensor]
"""What is added to the U-Net: to each skip of its encoder, in the encoder's order, and to its middle block's output."""


class LatentHint(nn.Module):
    """Fused latent and flags to the first features of the copied encoder; starts at zero.

    Takes the place of a ControlNet's stack of convolutions over pixels, so its other tensors keep diffusers' names.
    """

    def __init__(self, channels: int, hidden: int, width: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels + CLUES, hidden, 3, padding=1)
        self.conv_out = zero(nn.Conv2d(hidden, width, 3, padding=1))

    def forward(self, hint: Tensor) -> Tensor:
        """(B, channels + 2, H, W): the latent, then a plane for each clue, 1 where it is there -> (B, width, H, W)."""
        features: Tensor = self.conv_out(F.silu(self.conv_in(hint)))
        return features


class StableControl(nn.Module):
    """Residuals for a U-Net of Stable Diffusion's kind, from the frequency-fused latent of sketch and LQ photo.

    `freq_fusion` is the released model's fusion. `controlnet` is diffusers' ControlNet but for its hint, `LatentHint`. A fresh
    branch changes nothing: every output passes a convolution that starts at zero.

    channels: latent channels. widths: features of each level of the U-Net's encoder. attention: which levels read the text.
    layers: residual blocks per level. depth: transformer blocks of each level; the last is also the middle block's. heads: number
    of attention heads of each level (what diffusers calls `attention_head_dim`). context_width: width of the text. linear: the
    transformers' projections are linear layers, not convolutions. groups: of the normalisations; divides every width. added:
    width of SDXL's vector condition, 0 = none. hidden: features of the hint. cutoff, steepness: initial r0 and k of the fusion.
    The defaults are Stable Diffusion 1.5's, 360 million parameters.
    """

    kind = "stable-control"

    def __init__(
        self,
        *,
        channels: int = 4,
        widths: Sequence[int] = (320, 640, 1280, 1280),
        attention: Sequence[bool] = (True, True, True, False),
        layers: int = 2,
        depth: Sequence[int] = (1, 1, 1, 1),
        heads: Sequence[int] = (8, 8, 8, 8),
        context_width: int = 768,
        linear: bool = False,
        groups: int = 32,
        added: int = 0,
        hidden: int = 64,
        cutoff: float = OFFICIAL_CUTOFF,
        steepness: float = OFFICIAL_STEEPNESS,
    ) -> None:
        from diffusers.models.controlnets.controlnet import ControlNetModel

        super().__init__()
        self.config: dict[str, Any] = {
            "channels": channels,
            "widths": list(widths),
            "attention": list(attention),
            "layers": layers,
            "depth": list(depth),
            "heads": list(heads),
            "context_width": context_width,
            "linear": linear,
            "groups": groups,
            "added": added,
            "hidden": hidden,
            "cutoff": cutoff,
            "steepness": steepness,
        }
        vector: dict[str, Any] = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": ADDED_TIME,
            "projection_class_embeddings_input_dim": added,
        }
        self.controlnet = ControlNetModel(
            in_channels=channels,
            block_out_channels=tuple(widths),
            down_block_types=tuple("CrossAttnDownBlock2D" if one else "DownBlock2D" for one in attention),
            layers_per_block=layers,
            transformer_layers_per_block=tuple(depth),
            attention_head_dim=tuple(heads),  # the library reads it as the number of heads
            cross_attention_dim=context_width,
            use_linear_projection=linear,
            norm_num_groups=groups,
            conditioning_embedding_out_channels=(groups,),
            **(vector if added else {}),
        )
        self.controlnet.controlnet_cond_embedding = LatentHint(channels, hidden, widths[0])
        self.freq_fusion = FrequencyFusion(channels=channels, cutoff=cutoff, steepness=steepness)

    @classmethod
    def from_unet(cls, unet: UNet2DConditionModel, **options: Any) -> StableControl:
        """A fresh branch whose encoder and middle block start as copies of the U-Net's.

        Of an inpainting U-Net's input channels the first four are copied, those of the noisy latent. Raises `InputError` for
        a U-Net with blocks or conditions of other kinds.
        """
        branch = cls(**config_of(unet), **options)
        mine: Any = branch.controlnet
        with torch.no_grad():
            mine.conv_in.weight.copy_(unet.conv_in.weight[:, : branch.config["channels"]])
            mine.conv_in.bias.copy_(unet.conv_in.bias)
        parts = ("time_embedding", "down_blocks", "mid_block")
        for part in (*parts, *(("add_embedding",) if branch.config["added"] else ())):
            getattr(mine, part).load_state_dict(getattr(unet, part).state_dict())
        return branch

    def hint(self, latent: Tensor, present: Tensor) -> Tensor:
        """What `LatentHint` reads, (B, C + 2, H, W): fused latent (B, C, H, W) and present (B, 2)."""
        planes = present.to(latent)[:, :, None, None].expand(-1, -1, *latent.shape[-2:])
        return torch.cat([latent, planes], dim=1)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        hint: Tensor,
        added: Mapping[str, Tensor] | None = None,
    ) -> Residuals:
        """Residuals at full strength. x: noisy latents (B, C, H, W) as the U-Net sees them; timestep (B,); context
        (B, L, context_width); hint (B, C + 2, H, W) from `hint`; added: SDXL's text_embeds and time_ids."""
        skips, middle = self.controlnet(
            x,
            timestep,
            context,
            hint,
            added_cond_kwargs=None if added is None else dict(added),
            return_dict=False,
        )
        return list(skips), middle

    def gradient_checkpointing(self, on: bool = True) -> None:
        """Compute activations again in the backward pass: less memory, a third more time."""
        if on:
            self.controlnet.enable_gradient_checkpointing()
        else:
            self.controlnet.disable_gradient_checkpointing()


@dataclass(frozen=True)
class LatentControl:
    """What a branch is to do in one call of the U-Net, or in all calls of one sampling."""

    branch: StableControl
    latent: Tensor
    """Fused control latent (B, C, H, W), or (1, C, H, W) for all."""
    present: Tensor
    """(B, 2) or (1, 2): has a sketch, has an LQ photo. A sample that has neither is not steered."""
    strength: float = 1.0
    """Scales the residuals; 0 is exactly no control."""
    start: float = 0.0
    end: float = 1.0
    """Window of the sampling, as shares of the schedule (0 = pure noise, 1 = clean), in which the control acts."""

    @classmethod
    def of(
        cls, branch: StableControl, sketch: Tensor | None, lq: Tensor | None, **more: Any
    ) -> LatentControl:
        """From the latents (B, C, H, W) of one or both clues; more: strength, start, end. `InputError` for none."""
        latent = branch.freq_fusion(sketch, lq)
        flags = latent.new_tensor([[sketch is not None, lq is not None]]).expand(len(latent), -1)
        return cls(branch, latent, flags, **more)

    def shares(self, timestep: Tensor) -> Tensor:
        """How far each sample is steered, (B,): the strength inside the window where there is a clue, else 0."""
        done = 1 - timestep.float() / 1000
        inside = (self.start <= done) & (done <= self.end)
        there = _repeated(self.present.amax(1) > 0, len(timestep)).to(timestep.device)
        return self.strength * (inside & there).float()

    def residuals(
        self, x: Tensor, timestep: Tensor, context: Tensor, added: Mapping[str, Tensor] | None = None
    ) -> Residuals | None:
        """What is added to the U-Net's call with these (see `StableControl.forward`), or None for nothing.

        Latent and flags of one sample, or of a whole chunk that the batch repeats (guidance doubles it), are repeated.
        """
        timestep = timestep.expand(len(x))
        share = self.shares(timestep)
        if not bool(share.any()):
            return None
        hint = _repeated(self.branch.hint(self.latent.to(x), self.present), len(x))
        skips, middle = self.branch(x, timestep, context, hint, added)
        if bool((share == 1).all()):
            return skips, middle
        scale = share.to(middle)[:, None, None, None]
        return [skip * scale for skip in skips], middle * scale


def forward_controlled_unet(
    unet: UNet2DConditionModel,
    x: Tensor,
    timestep: Tensor,
    context: Tensor,
    control: LatentControl | None = None,
    *,
    added: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """The U-Net's output (B, C, H, W), with a control branch's residuals if there is one.

    x: noisy latents (B, C, H, W), already scaled. timestep: (B,), 0 to 999. context: (B, L, width of the text). added: SDXL's
    text_embeds and time_ids. Without control, at strength 0 and outside of its window this is the plain diffusers forward to
    the last bit.
    """
    given = (
        None
        if control is None
        else control.residuals(x[:, : control.latent.shape[1]], timestep, context, added)
    )
    skips, middle = given if given is not None else (None, None)
    made: Tensor = unet(
        x,
        timestep,
        context,
        added_cond_kwargs=None if added is None else dict(added),
        down_block_additional_residuals=None if skips is None else tuple(skips),
        mid_block_additional_residual=middle,
        return_dict=False,
    )[0]
    return made


def config_of(unet: UNet2DConditionModel) -> dict[str, Any]:
    """The arguments of `StableControl` that fit a U-Net. Raises `InputError` for blocks or conditions of other kinds."""
    config = unet.config
    levels = len(config.block_out_channels)
    known = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
    strange = [kind for kind in config.down_block_types if kind not in known]
    if config.mid_block_type != "UNetMidBlock2DCrossAttn":
        strange.append(str(config.mid_block_type))
    if config.addition_embed_type not in (None, "text_time") or config.class_embed_type is not None:
        strange.append(f"condition {config.addition_embed_type or config.class_embed_type}")
    strange += [
        f"{name} {getattr(config, name)}"
        for name in ("layers_per_block", "cross_attention_dim")
        if not isinstance(getattr(config, name), int)
    ]
    if strange:
        raise InputError(
            f"a control branch copies the U-Nets of Stable Diffusion 1, 2 and SDXL; this one has {', '.join(strange)}"
        )

    def each(value: Any) -> list[int]:
        return [value] * levels if isinstance(value, int) else list(value)

    return {
        "channels": 4 if config.in_channels == 9 else config.in_channels,
        "widths": list(config.block_out_channels),
        "attention": [known[kind] for kind in config.down_block_types],
        "layers": config.layers_per_block,
        "depth": each(config.transformer_layers_per_block),
        "heads": each(config.num_attention_heads or config.attention_head_dim),
        "context_width": config.cross_attention_dim,
        "linear": config.use_linear_projection,
        "groups": config.norm_num_groups,
        "added": config.projection_class_embeddings_input_dim or 0,
    }


def _repeated(rows: Tensor, count: int) -> Tensor:
    """`rows` repeated to `count`; `InputError` if that does not come out even."""
    if count % len(rows):
        raise InputError(
            f"control: {len(rows)} latents do not fit a batch of {count}: give one, or one for each"
        )
    return rows.repeat(count // len(rows), *(1 for _ in rows.shape[1:]))
