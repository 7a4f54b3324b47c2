"""How far our network is from reference values of the released one: inputs and outputs in one file, `in.*` and `out.*`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import InputError
from ..weights.foreign import open_tensors
from ..weights.pixart import load_pixart
from ..weights.released import BASE, control_of, open_released
from ..weights.stream import load_stream
from .control import Control, ControlBranch
from .transformer import forward_controlled

if TYPE_CHECKING:
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

TOLERANCE = 1e-4
"""Largest absolute difference that counts as equal; float64 and float32 differ by 2e-6."""
_GUIDED = "out.cfg.eps_guided_"


@dataclass(frozen=True)
class Reference:
    """Values to be met."""

    path: Path
    values: Mapping[str, Tensor]
    base: int | None
    """Tokens a side that the table of positions belongs to, and its scale: `positions.position_table`."""
    scale: float | None
    weights: Path | None
    """The weights that the values were computed with, beside the file."""


def read_reference(path: str | Path) -> Reference:
    """The reference file at `path`: any size, any batch. WeightsError if it is not safetensors."""
    path = Path(path)
    tensors = open_tensors(path)
    values = {name: tensor.float() for name, tensor in tensors.items() if name.startswith(("in.", "out."))}
    base, scale = (_number(path, tensors.notes, name) for name in ("pos_embed_base_size", "lewei_scale"))
    return Reference(path, values, None if base is None else int(base), scale, _beside(path, tensors.notes))


def load_pair(
    weights: str | Path, reference: Reference
) -> tuple[PixArtTransformer2DModel | None, ControlBranch]:
    """Base and control, float32, as the reference wants its positions.

    weights: an authors' checkpoint, or a control that was converted from one; its base is then taken from the weights
    that the reference names, and is None if they are not there. Raises WeightsError for other files.
    """
    tensors = open_tensors(weights, pickles=True)
    if tensors.notes.get("format") == "identiface":
        branch = load_stream(weights, ControlBranch, dtype=torch.float32)
        if reference.weights is None:
            return None, branch
        tensors = open_tensors(reference.weights, pickles=True)
        heads = branch.config["heads"]
    else:
        tensors, found, config = open_released(weights)
        heads = config["heads"]
        with torch.device("meta"):
            branch = ControlBranch(**config)
        control = control_of(tensors)
        branch.load_state_dict({name: control[name].float() for name in control}, assign=True)
        if found.base is None:
            return None, branch.eval()
    options: dict[str, Any] = {"base": reference.base, "scale": reference.scale, "dtype": torch.float32}
    return load_pixart(tensors.below(BASE), heads=heads, **options), branch.eval()


@torch.no_grad()
def differences(
    reference: Reference, base: PixArtTransformer2DModel | None, branch: ControlBranch
) -> dict[str, float]:
    """The largest absolute difference of each output that the reference holds, by its name in words.

    Without a base only the fusion is compared. InputError if nothing can be, or an input is missing.
    """
    values = reference.values

    def given(name: str) -> Tensor:
        if name not in values:
            raise InputError(f"{reference.path}: '{name}' is missing: with it go {', '.join(sorted(values))}")
        return values[name]

    def fused(*, lq: bool = True) -> Tensor:
        return branch.freq_fusion(given("in.c_sketch"), given("in.c_lq") if lq else None, missing="zeros")

    def run(latent: Tensor | None, *, mask: bool = True, guided: bool = False) -> Tensor:
        assert base is not None
        words = given("out.cfg.y_uncond_then_cond" if guided else "in.y")[:, 0]

        def one(tensor: Tensor) -> Tensor:
            """As it is, or the first sample for both halves of guidance."""
            return tensor[:1].expand(len(words), *tensor.shape[1:]) if guided else tensor

        added = None
        if base.config.use_additional_conditions:
            added = {"resolution": one(given("in.img_hw")), "aspect_ratio": one(given("in.aspect_ratio"))}
        return forward_controlled(
            base,
            one(given("in.x")),
            one(given("in.timestep")),
            words,
            None if latent is None else Control(branch, latent[:1] if guided else latent),
            context_mask=one(given("in.mask")[:, 0, 0]) if mask and "in.mask" in values else None,
            added=added,
        )

    def noise(whole: Tensor) -> Tensor:
        return whole[:, : given("in.x").shape[1]]

    def guide(scale: float) -> Tensor:
        without, with_words = noise(run(fused(), guided=True)).chunk(2)
        return without + scale * (with_words - without)

    def positions() -> Tensor:
        assert base is not None
        latent = given("in.x")[:1]
        return (base.pos_embed(latent) - base.pos_embed.proj(latent).flatten(2).transpose(1, 2))[0]

    outputs: dict[str, tuple[str, Callable[[], Tensor]]] = {
        "fused": ("out.fused_control_latent", fused),
        "fused, LQ missing": ("out.fused_control_latent_c2_missing", lambda: fused(lq=False)),
    }
    if base is not None:
        outputs |= {
            "controlled": ("out.out_control", lambda: run(fused())),
            "base": ("out.out_base", lambda: run(None)),
            "controlled, LQ missing": ("out.out_control_c2_missing", lambda: run(fused(lq=False))),
            "controlled, no mask": ("out.out_control_mask_none", lambda: run(fused(), mask=False)),
            "noise": ("out.dpm_eps_control", lambda: noise(run(fused()))),
            "both halves": ("out.cfg.eps_uncond_then_cond", lambda: noise(run(fused(), guided=True))),
            "positions": ("out.pos_embed", positions),
        }
        for name in (name for name in values if name.startswith(_GUIDED)):
            scale = float(name[len(_GUIDED) :])
            outputs["guided"] = (name, lambda scale=scale: guide(scale))  # type: ignore[misc]
    compared = {
        name: _largest(reference, key, compute()) for name, (key, compute) in outputs.items() if key in values
    }
    if not compared:
        raise InputError(
            f"{reference.path}: none of the outputs {', '.join(k for k, _ in outputs.values())} in it"
        )
    return compared


def _largest(reference: Reference, key: str, ours: Tensor) -> float:
    wanted = reference.values[key]
    if wanted.shape != ours.shape:
        raise InputError(
            f"{reference.path}: '{key}' has the shape {tuple(wanted.shape)}, the network gives {tuple(ours.shape)} "
            "for these inputs: reference and weights do not belong together"
        )
    return float((ours - wanted).abs().max())


def _beside(path: Path, notes: Mapping[str, Any]) -> Path | None:
    """The weights that the metadata names; a name alone, so that a reference reaches nothing elsewhere."""
    name = Path(str(notes.get("weights", ""))).name
    found = path.parent / name
    return found if name and found.is_file() else None


def _number(path: Path, notes: Mapping[str, Any], name: str) -> float | None:
    text = notes.get(name)
    try:
        found = None if text is None else float(str(text).split()[0])
    except (ValueError, IndexError):
        found = -1.0
    if found is not None and not 0 < found < 1e6:
        raise InputError(f"{path}: its metadata gives {name} = {text!r}, wanted a number above 0")
    return found
