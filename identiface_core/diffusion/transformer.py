"""The backbone: diffusers' PixArt transformer, small, and a walk over its blocks that lets a control branch
in.

diffusers is imported when a transformer is made or loaded, not before: it costs a second that the command
line's help and the node pack's import must not pay.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import WeightsError

if TYPE_CHECKING:
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

    from .control import Control

EMBEDDED_CONFIG: dict[str, Any] = {
    "num_attention_heads": 6,
    "attention_head_dim": 32,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 6,
    "cross_attention_dim": 192,
    "sample_size": 16,
    "patch_size": 2,
    "caption_channels": 128,
    "use_additional_conditions": False,
    "interpolation_scale": 1,
}
"""The embedded transformer: 64 tokens of 192, six blocks, context tokens of 128; predicts v. 4 million
parameters."""


def make_transformer(**overrides: Any) -> PixArtTransformer2DModel:
    """A fresh embedded transformer; keyword arguments replace entries of `EMBEDDED_CONFIG`."""
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

    return PixArtTransformer2DModel(**{**EMBEDDED_CONFIG, **overrides})


def load_transformer(folder: Path | str) -> PixArtTransformer2DModel:
    """A transformer in eval mode and float32 from a diffusers folder on disk. Raises `WeightsError` if it
    cannot be read."""
    import torch
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

    try:
        model = PixArtTransformer2DModel.from_pretrained(
            str(folder), local_files_only=True, torch_dtype=torch.float32, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"cannot load a PixArt transformer from the folder {folder}: {error}") from error
    return model.eval()


def save_transformer(model: PixArtTransformer2DModel, folder: Path | str) -> None:
    """Write config.json and diffusion_pytorch_model.safetensors, in float16, as `from_pretrained` reads
    them."""
    import copy

    copy.deepcopy(model).half().save_pretrained(str(folder), safe_serialization=True)


def forward_controlled(
    base: PixArtTransformer2DModel,
    x: Tensor,
    timestep: Tensor,
    context: Tensor,
    control: Control | None = None,
    *,
    context_mask: Tensor | None = None,
    added: dict[str, Tensor] | None = None,
) -> Tensor:
    """The network's output (B, out_channels, H, W), with a control branch's residuals if there is one
    (IdentiFace, fig. 2).

    x: noisy latents (B, 4, H, W), already scaled. timestep: (B,). context: (B, L, caption_channels);
    context_mask: (B, L), 1 = read. added: size and ratio for a model with micro-conditioning. Without
    control, or at strength 0, this is the plain diffusers forward to the last bit.
    """
    mask_bias = None if context_mask is None else ((1 - context_mask.to(x.dtype)) * -10000.0).unsqueeze(1)
    batch, patch = len(x), base.config.patch_size
    rows, columns = x.shape[-2] // patch, x.shape[-1] // patch

    tokens = base.pos_embed(x)
    modulation, embedded = base.adaln_single(timestep, added, batch_size=batch, hidden_dtype=tokens.dtype)
    if base.caption_projection is not None:
        context = base.caption_projection(context).view(batch, -1, tokens.shape[-1])
    shared = {"encoder_hidden_states": context, "encoder_attention_mask": mask_bias, "timestep": modulation}
    skip = control.skips(base, shared) if control is not None else None
    for index, block in enumerate(base.transformer_blocks):
        residual = skip(index - 1, tokens) if skip is not None and index > 0 else None
        tokens = tokens if residual is None else tokens + residual
        tokens = block(tokens, **shared)

    shift, scale = (base.scale_shift_table[None] + embedded[:, None]).chunk(2, dim=1)
    tokens = base.proj_out(base.norm_out(tokens) * (1 + scale) + shift)
    patches = tokens.reshape(-1, rows, columns, patch, patch, base.out_channels)
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(-1, base.out_channels, rows * patch, columns * patch)
