"""What PixArt's tensors are called: by its authors, by diffusers, and by ComfyUI.

ComfyUI keeps the authors' names, and has no stored table of positions. diffusers splits the joined projections of
attention by rows, and has neither that table nor the learned null text. A block copied by a control branch is named inside
as a block of the base.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from identiface_core.weights.foreign import Tensors
from identiface_core.weights.layout import Shapes

POSITIONS, NULL_TEXT = "pos_embed", "y_embedder.y_embedding"
"""Authors' tensors without a counterpart in diffusers: a table that is computed instead, and the learned null text."""

BASE_NAMES = {
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "adaln_single.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "adaln_single.emb.timestep_embedder.linear_2",
    "csize_embedder.mlp.0": "adaln_single.emb.resolution_embedder.linear_1",
    "csize_embedder.mlp.2": "adaln_single.emb.resolution_embedder.linear_2",
    "ar_embedder.mlp.0": "adaln_single.emb.aspect_ratio_embedder.linear_1",
    "ar_embedder.mlp.2": "adaln_single.emb.aspect_ratio_embedder.linear_2",
    "t_block.1": "adaln_single.linear",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "final_layer.linear": "proj_out",
}
BLOCK_NAMES = {
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn.proj": ("attn1.to_out.0",),
    "cross_attn.q_linear": ("attn2.to_q",),
    "cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v"),
    "cross_attn.proj": ("attn2.to_out.0",),
    "mlp.fc1": ("ff.net.0.proj",),
    "mlp.fc2": ("ff.net.2",),
}
POSITIONS_IN_DIFFUSERS, NULL_TEXT_IN_DIFFUSERS = "pos_embed.pos_embed", "caption_projection.y_embedding"
"""Where some files with diffusers' names keep them all the same; ComfyUI reads the null text there."""

_TABLES = {"final_layer.scale_shift_table": "scale_shift_table"}
_BLOCK = re.compile(r"(blocks|controlnet)\.(\d+)\.(.+)")
_DIFFUSERS_BLOCK = re.compile(r"(transformer_blocks\.\d+|controlnet\.\d+\.copied_block)\.(.+)")
_FLIPPED_TABLES = {NULL_TEXT_IN_DIFFUSERS: NULL_TEXT, POSITIONS_IN_DIFFUSERS: POSITIONS} | {
    new: old for old, new in _TABLES.items()
}
_FLIPPED_BASE = {new: old for old, new in BASE_NAMES.items()}
_FLIPPED_BLOCK = {
    new: (old, part, len(names)) for old, names in BLOCK_NAMES.items() for part, new in enumerate(names)
}


def diffusers_names(name: str) -> tuple[str, ...]:
    """diffusers' names for an authors' tensor of the base (without "base_model.") or of the control.

    Several are the equal row-wise parts of the one, in this order; none: diffusers does not have it.
    """
    if name in (POSITIONS, NULL_TEXT):
        return ()
    if name in _TABLES:
        return (_TABLES[name],)
    found = _BLOCK.fullmatch(name)
    if found is None:
        stem, _, end = name.rpartition(".")
        return (f"{BASE_NAMES[stem]}.{end}",) if stem in BASE_NAMES else (name,)
    room, index, inner = found.groups()
    if room == "blocks":
        return tuple(f"transformer_blocks.{index}.{part}" for part in _block_names(inner))
    if not inner.startswith("copied_block."):
        return (name,)
    parts = _block_names(inner[len("copied_block.") :])
    return tuple(f"controlnet.{index}.copied_block.{part}" for part in parts)


def comfy_name(name: str) -> str | None:
    """ComfyUI's name for an authors' tensor of the base; None for the table that it computes itself."""
    return None if name == POSITIONS else name


def diffusers_pieces(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """An authors' tensor as what diffusers has in its place, by name: rows of the same memory."""
    names = diffusers_names(name)
    return dict(zip(names, tensor.chunk(len(names)), strict=True)) if names else {}


def to_diffusers(tensors: Tensors) -> Tensors:
    """Authors' tensors under diffusers' names; those that diffusers does not have are left out."""
    places = {
        new: (old, index, len(names))
        for old in tensors
        for names in (diffusers_names(old),)
        for index, new in enumerate(names)
    }

    def shape(old: str, count: int) -> tuple[int, ...]:
        whole = tensors.shapes[old]
        return whole if count == 1 else (whole[0] // count, *whole[1:])

    def read(new: str) -> Tensor:
        old, index, count = places[new]
        return tensors[old].chunk(count)[index]

    shapes: Shapes = {new: shape(old, count) for new, (old, _, count) in places.items()}
    return Tensors(shapes, read, tensors.notes, tensors.path)


def authors_name(name: str) -> tuple[str, int, int]:
    """For one of diffusers' names: the authors' name, which part of that tensor it is, and of how many."""
    if name in _FLIPPED_TABLES:
        return _FLIPPED_TABLES[name], 0, 1
    found = _DIFFUSERS_BLOCK.fullmatch(name)
    if found is None:
        stem, _, end = name.rpartition(".")
        return (f"{_FLIPPED_BASE[stem]}.{end}" if stem in _FLIPPED_BASE else name), 0, 1
    room, inner = found.groups()
    stem, _, end = inner.rpartition(".")
    authors, part, count = _FLIPPED_BLOCK.get(stem, ("", 0, 1))
    room = room.replace("transformer_blocks", "blocks")
    return f"{room}.{authors}.{end}" if authors else f"{room}.{inner}", part, count


def to_authors(tensors: Tensors) -> Tensors:
    """diffusers' tensors under the authors' names, which are ComfyUI's; parts are joined again."""
    parts: dict[str, dict[int, str]] = {}
    for name in tensors:
        authors, part, _ = authors_name(name)
        parts.setdefault(authors, {})[part] = name

    def names(authors: str) -> list[str]:
        return [parts[authors][part] for part in sorted(parts[authors])]

    def shape(authors: str) -> tuple[int, ...]:
        each = [tensors.shapes[name] for name in names(authors)]
        return each[0] if len(each) == 1 else (sum(one[0] for one in each), *each[0][1:])

    def read(authors: str) -> Tensor:
        each = [tensors[name] for name in names(authors)]
        return each[0] if len(each) == 1 else torch.cat(each)

    return Tensors({authors: shape(authors) for authors in parts}, read, tensors.notes, tensors.path)


def _block_names(inner: str) -> tuple[str, ...]:
    stem, _, end = inner.rpartition(".")
    return tuple(f"{part}.{end}" for part in BLOCK_NAMES[stem]) if stem in BLOCK_NAMES else (inner,)
