"""PixArt-alpha's transformer from a file of the user's own: its architecture from names and shapes, its tensors one by
one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from identiface_core.errors import WeightsError
from identiface_core.weights.foreign import Tensors, in_memory, open_tensors
from identiface_core.weights.layout import AGAIN, Shapes, in_short, misfits
from identiface_core.weights.names import (
    NULL_TEXT,
    NULL_TEXT_IN_DIFFUSERS,
    POSITIONS,
    POSITIONS_IN_DIFFUSERS,
    diffusers_pieces,
    to_diffusers,
)

if TYPE_CHECKING:
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

PREFIXES = ("", "base_model.", "model.diffusion_model.", "diffusion_model.", "transformer.")
"""What may stand before a transformer's names: nothing, IdentiFace's wrapper, ComfyUI's, a pipeline's."""

XL_WIDTH, XL_HEADS = 1152, 16
TRAINED_TOKENS = {True: 64, False: 32}
"""Tokens a side that a model without any note was trained with, by whether it reads sizes: 1024 px and 512 px."""
MAX_TOKENS = 512
"""Tokens a side: 8192 px. A damaged note must not make us compute a table of any size."""

Names = Literal["authors", "diffusers"]

_PARTS: dict[Names, dict[str, str]] = {
    "authors": {
        "patches": "x_embedder.proj.weight",
        "end": "final_layer.linear.weight",
        "words": "y_embedder.y_proj.fc1.weight",
        "blocks": "blocks",
        "ratio": "ar_embedder.mlp.0.weight",
        "null": NULL_TEXT,
        "table": POSITIONS,
    },
    "diffusers": {
        "patches": "pos_embed.proj.weight",
        "end": "proj_out.weight",
        "words": "caption_projection.linear_1.weight",
        "blocks": "transformer_blocks",
        "ratio": "adaln_single.emb.aspect_ratio_embedder.linear_1.weight",
        "null": NULL_TEXT_IN_DIFFUSERS,
        "table": POSITIONS_IN_DIFFUSERS,
    },
}
"""The tensors by which a transformer is known and measured."""


@dataclass(frozen=True)
class PixArtShape:
    """What names and shapes tell of a PixArt transformer."""

    names: Names
    depth: int
    width: int
    channels: int
    out_channels: int
    """Twice `channels` where the variance is learned."""
    patch: int
    captions: int
    """Channels of the text tokens it reads."""
    sizes: bool
    """Micro-conditioning: it reads the picture's size and ratio."""
    null_tokens: int | None
    """Rows of the learned null text, if the file has it."""
    table: int | None
    """Tokens a side of the stored table of positions, if the file has it."""


def shape_of(shapes: Shapes) -> PixArtShape | None:
    """The architecture behind bare names (no prefix) and shapes; None if they are not a PixArt transformer's."""
    for names, parts in _PARTS.items():
        blocks = parts["blocks"]
        patch, out, words = (shapes.get(parts[one], ()) for one in ("patches", "end", "words"))
        ranks = (len(patch), len(out), len(words))
        if ranks != (4, 2, 2) or 0 in patch or f"{blocks}.0.scale_shift_table" not in shapes:
            continue
        table, null = shapes.get(parts["table"], ()), shapes.get(parts["null"], ())
        return PixArtShape(
            names,
            depth=len({name.split(".")[1] for name in shapes if name.startswith(f"{blocks}.")}),
            width=patch[0],
            channels=patch[1],
            out_channels=out[0] // patch[3] ** 2,
            patch=patch[3],
            captions=words[1],
            sizes=parts["ratio"] in shapes,
            null_tokens=null[0] if len(null) == 2 else None,
            table=math.isqrt(table[1]) if len(table) == 3 else None,
        )
    return None


def find_pixart(tensors: Tensors) -> tuple[Tensors, PixArtShape] | None:
    """The transformer's tensors under bare names, and its architecture; None if there is none."""
    for prefix in PREFIXES:
        bare = tensors.below(prefix)
        shape = shape_of(bare.shapes)
        if shape is not None:
            return bare, shape
    return None


def load_pixart(
    weights: str | Path | Mapping[str, Tensor],
    *,
    heads: int | None = None,
    base: int | None = None,
    scale: float | None = None,
    dtype: torch.dtype | None = None,
) -> PixArtTransformer2DModel:
    """The transformer, frozen, in eval mode, on the CPU, from safetensors with the authors' or diffusers' names, or from tensors.

    heads: of attention; tensors cannot tell. base: tokens a side that the model was trained with, and scale, "lewei", by
    which its positions are divided: diffusers' `sample_size / patch_size` and `interpolation_scale`. What is left out
    comes from the file's metadata, a MANIFEST.json or diffusers' config.json beside it, or else is as in the released
    models. dtype: None leaves each tensor as it is stored. Takes little more memory than the weights themselves.
    Raises WeightsError for other weights, and where the number of heads cannot be known.
    """
    tensors = _tensors(weights)
    found = find_pixart(tensors)
    if found is None:
        raise WeightsError(
            f"{tensors.name}: no PixArt transformer ({len(tensors)} tensors, such as '{next(iter(tensors), '')}'). "
            "Choose PixArt-XL-2-1024-MS or another PixArt-alpha transformer."
        )
    bare, shape = found
    model = _empty(shape, bare, heads, base, scale)
    model.load_state_dict(_state(bare, shape, model, dtype), assign=True)
    return model.eval().requires_grad_(False)


def heads_for(tensors: Tensors, width: int, given: int | None = None) -> int:
    """Heads of attention: as given, as noted, or 16 for PixArt-XL. WeightsError if unknown or not a divisor of width."""
    heads = given or declared(tensors, width).get("num_heads") or (XL_HEADS if width == XL_WIDTH else None)
    if heads is None:
        raise WeightsError(
            f"{tensors.name}: how many heads its attention has cannot be told from tensors of width {width} (PixArt-XL: "
            f"{XL_HEADS} at width {XL_WIDTH}). Give the number of heads, or put a MANIFEST.json with hidden_size and "
            "num_heads beside it."
        )
    if heads < 1 or width % heads:
        raise WeightsError(
            f"{tensors.name}: a width of {width} cannot be split among {heads} heads. Give another number of heads."
        )
    return heads


def declared(tensors: Tensors, width: int) -> dict[str, Any]:
    """What is written beside the tensors that they cannot tell: `num_heads`, `input_size` (latent cells a side that the
    model was trained with), `lewei_scale`. The file's own metadata goes before the files beside it."""
    tables: list[Any] = []
    if tensors.path is not None:
        manifest = _json(tensors.path.with_name("MANIFEST.json"))
        tables += [_json(tensors.path.with_name("config.json")), manifest, *manifest.values()]
    tables.append(_parsed(tensors.notes.get("config")))
    found: dict[str, Any] = {}
    for table in filter(lambda one: isinstance(one, dict), tables):
        heads = table.get("num_heads", table.get("num_attention_heads"))
        if table.get("hidden_size", _product(heads, table.get("attention_head_dim"))) != width:
            continue
        known = {
            "num_heads": heads,
            "input_size": table.get("input_size", table.get("sample_size")),
            "lewei_scale": table.get("lewei_scale", table.get("interpolation_scale")),
        }
        found |= {key: value for key, value in known.items() if _positive(value)}
    return found


def null_text(weights: str | Path | Mapping[str, Tensor], *, pickles: bool = False) -> Tensor:
    """The learned null text (tokens, caption channels), which the authors' files hold and diffusers' do not.

    WeightsError if the file has none.
    """
    tensors = _tensors(weights, pickles=pickles)
    for prefix in PREFIXES:
        for name in (prefix + NULL_TEXT, prefix + NULL_TEXT_IN_DIFFUSERS):
            if name in tensors:
                return tensors[name]
    raise WeightsError(
        f"{tensors.name}: no learned null text ('{NULL_TEXT}') in it: files with diffusers' names lack it. "
        "Choose PixArt with its authors' names, or the released checkpoint."
    )


def _tensors(weights: str | Path | Mapping[str, Tensor], *, pickles: bool = False) -> Tensors:
    if isinstance(weights, str | Path):
        return open_tensors(weights, pickles=pickles)
    return in_memory(weights)


def _empty(
    shape: PixArtShape, tensors: Tensors, heads: int | None, base: int | None, scale: float | None
) -> PixArtTransformer2DModel:
    """A transformer whose parameters have no storage yet, with its table of positions."""
    from diffusers.models.embeddings import get_2d_sincos_pos_embed
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

    notes = declared(tensors, shape.width)
    heads = heads_for(tensors, shape.width, heads)
    base = (
        base or int(notes.get("input_size", 0)) // shape.patch or shape.table or TRAINED_TOKENS[shape.sizes]
    )
    if not 0 < base <= MAX_TOKENS:
        raise WeightsError(
            f"{tensors.name}: a table of {base} positions a side was asked for, at most {MAX_TOKENS}."
        )
    scale = scale or notes.get("lewei_scale") or max(base * shape.patch // 64, 1)
    with torch.device("meta"):
        model = PixArtTransformer2DModel(
            num_attention_heads=heads,
            attention_head_dim=shape.width // heads,
            in_channels=shape.channels,
            out_channels=shape.out_channels,
            num_layers=shape.depth,
            cross_attention_dim=shape.width,
            sample_size=base * shape.patch,
            patch_size=shape.patch,
            interpolation_scale=scale,
            use_additional_conditions=shape.sizes,
            caption_channels=shape.captions,
        )
    table = get_2d_sincos_pos_embed(
        shape.width, base, base_size=base, interpolation_scale=scale, output_type="pt"
    )
    model.pos_embed.pos_embed = table.float()[None]
    return model


def _state(
    bare: Tensors, shape: PixArtShape, model: PixArtTransformer2DModel, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """The model's own state dict; each tensor read once, only if all of them fit."""
    surplus = (POSITIONS, POSITIONS_IN_DIFFUSERS, NULL_TEXT, NULL_TEXT_IN_DIFFUSERS)
    bare = bare.without(surplus)
    renames = shape.names == "authors"
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    faults = misfits(wanted, to_diffusers(bare).shapes if renames else bare.shapes)
    if faults:
        raise WeightsError(f"{bare.name}: does not fit a PixArt transformer: {in_short(faults)}. {AGAIN}")
    state: dict[str, Tensor] = {}
    for key in bare:
        tensor = bare[key] if dtype is None else bare[key].to(dtype)
        state |= diffusers_pieces(key, tensor) if renames else {key: tensor}
    return state


def _json(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _parsed(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _product(heads: Any, width: Any) -> int | None:
    return heads * width if isinstance(heads, int) and isinstance(width, int) else None


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
