"""diffusers' names of a Stable Diffusion's tensors to those of a checkpoint file (CompVis)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_name(name: str, layers: int) -> str:
    """Of a U-Net with `layers` residual blocks on each level of its encoder."""
    for theirs, file in _ENDS.items():
        if name.startswith(f"{theirs}."):
            return file + name[len(theirs) :]
    side, level, kind, place, rest = re.match(  # type: ignore[union-attr]
        r"(down|mid|up)_block(?:s\.(\d+))?\.(\w+)\.(\d+)\.(.*)", name
    ).groups()
    if kind == "resnets":
        stem, _, leaf = rest.rpartition(".")
        rest = f"{_RESNET[stem]}.{leaf}"
    if side == "mid":
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(place)}.{rest}"
    first = int(level) * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.op{rest.removeprefix('conv')}"
    block = (
        f"input_blocks.{first + int(place) + 1}" if side == "down" else f"output_blocks.{first + int(place)}"
    )
    if kind == "upsamplers":
        return f"output_blocks.{first + layers}.{2 if level != '0' else 1}.{rest}"  # after the attention, if there is any
    return f"{block}.{0 if kind == 'resnets' else 1}.{rest}"


def vae_name(name: str, levels: int) -> str:
    """Of an autoencoder of so many levels."""
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    found = re.match(r"(.*)mid_block\.attentions\.0\.(.*)\.(\w+)$", name)
    if found:
        return f"{found[1]}mid.attn_1.{_ATTENTION[found[2]]}.{found[3]}"
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(
        r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", name
    )
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)


def checkpoint(
    unet: Mapping[str, Tensor],
    vae: Mapping[str, Tensor],
    text: Mapping[str, Tensor],
    *,
    layers: int,
    levels: int,
) -> dict[str, Tensor]:
    """All tensors of one checkpoint file."""
    found = {f"model.diffusion_model.{unet_name(name, layers)}": one for name, one in unet.items()}
    for name, one in vae.items():
        file = vae_name(name, levels)
        linear = ".attn_1." in file and one.ndim == 2
        found[f"first_stage_model.{file}"] = one[:, :, None, None] if linear else one
    found |= {f"cond_stage_model.transformer.{name}": one for name, one in text.items()}
    return {name: one.contiguous() for name, one in found.items()}
