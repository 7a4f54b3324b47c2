"""The authors' checkpoint to a control of ours, offline: what is in it, and its control in one safetensors file.

Their file holds the frozen base, the control, its fusion and the optimiser. Only the control is copied, one tensor at a
time, renamed to what `diffusion.control.ControlBranch` calls it; the base is the user's own PixArt-alpha.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from identiface_core.errors import WeightsError
from identiface_core.weights.files import check_writable
from identiface_core.weights.foreign import Tensors, open_tensors
from identiface_core.weights.layout import Shapes, in_short, misfits
from identiface_core.weights.names import NULL_TEXT, POSITIONS, diffusers_pieces, to_diffusers
from identiface_core.weights.pixart import PixArtShape, find_pixart, heads_for, shape_of
from identiface_core.weights.stream import half_types, save_stream

OFFICIAL = "identiface-official"
CONTROL = "control-branch"
"""The kind of our own file, that of `ControlBranch`."""

BASE, CONTROLNET, FUSION = "base_model.", "controlnet.", "freq_fusion."
FUSION_HIDDEN = 16
MLP_RATIO = 4


@dataclass(frozen=True)
class Released:
    """What names and shapes tell of a checkpoint made by the authors' code."""

    copies: int
    width: int
    context_width: int
    channels: int
    """Of the control latents."""
    fused: bool
    """Whether it fuses frequencies; a PixArt ControlNet of one latent does not."""
    base: PixArtShape | None
    """The frozen base beside it, if the file has it."""


@dataclass(frozen=True)
class BaseCheck:
    """How the frozen base in a checkpoint compares with the base that the user has."""

    compared: int
    different: tuple[str, ...]
    missing: tuple[str, ...]
    """Tensors of the checkpoint that the user's file lacks."""

    @property
    def equal(self) -> bool:
        """Whether the two are the same network."""
        return bool(self.compared) and not self.different and not self.missing


@dataclass(frozen=True)
class Imported:
    """What was converted."""

    found: Released
    config: dict[str, Any]
    """Arguments of `ControlBranch`."""
    notes: dict[str, Any]
    """The checkpoint's own numbers: epoch, step."""
    read: int
    """Bytes of the control in the checkpoint."""
    written: int
    """Bytes of the new file."""
    base: BaseCheck | None


def released_of(shapes: Shapes) -> Released | None:
    """The architecture behind names and shapes; None if there is no control of PixArt's in them."""
    indices = {name.split(".")[1] for name in shapes if name.startswith(CONTROLNET)}
    after = shapes.get("controlnet.0.after_proj.weight", ())
    context = shapes.get("controlnet.0.copied_block.cross_attn.kv_linear.weight", ())
    if len(after) != 2 or len(context) != 2:
        return None
    cutoff = shapes.get("freq_fusion.r0_logit", ())
    base = shape_of({name[len(BASE) :]: s for name, s in shapes.items() if name.startswith(BASE)})
    channels = cutoff[0] if len(cutoff) == 1 else base.channels if base is not None else 4
    return Released(len(indices), after[0], context[1], channels, bool(cutoff), base)


def control_config(found: Released, heads: int) -> dict[str, Any]:
    """Arguments with which `ControlBranch` is the released control."""
    return {
        "copies": found.copies,
        "heads": heads,
        "head_width": found.width // heads,
        "context_width": found.context_width,
        "channels": found.channels,
        "patch": found.base.patch if found.base is not None else 2,
        "surroundings": False,
        "estimate": 0,
        "fused": found.fused,
    }


def control_of(tensors: Tensors) -> Tensors:
    """The control's tensors in an authors' checkpoint, under the names of `ControlBranch`."""
    other = [name for name in tensors if not name.startswith((CONTROLNET, FUSION))]
    return to_diffusers(tensors.without(set(other)))


def control_shapes(found: Released) -> Shapes:
    """Names and shapes of the control's tensors, as the authors' code saves them."""
    width, context, channels = found.width, found.context_width, found.channels
    layers = {
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "cross_attn.q_linear": (width, width),
        "cross_attn.kv_linear": (2 * width, context),
        "cross_attn.proj": (width, width),
        "mlp.fc1": (MLP_RATIO * width, width),
        "mlp.fc2": (width, MLP_RATIO * width),
    }
    weights: dict[str, tuple[int, ...]] = {"controlnet.0.before_proj": (width, width)}
    shapes: dict[str, tuple[int, ...]] = {}
    for index in range(found.copies):
        weights |= {f"controlnet.{index}.copied_block.{name}": size for name, size in layers.items()}
        weights[f"controlnet.{index}.after_proj"] = (width, width)
        shapes[f"controlnet.{index}.copied_block.scale_shift_table"] = (6, width)
    if found.fused:
        weights["freq_fusion.small_residual.0"] = (FUSION_HIDDEN, 2 * channels, 3, 3)
        weights["freq_fusion.small_residual.2"] = (channels, FUSION_HIDDEN, 3, 3)
        shapes |= {"freq_fusion.r0_logit": (channels,), "freq_fusion.k": (channels,)}
    for name, size in weights.items():
        shapes |= {f"{name}.weight": size, f"{name}.bias": size[:1]}
    return shapes


def open_released(
    source: str | Path, *, heads: int | None = None
) -> tuple[Tensors, Released, dict[str, Any]]:
    """An authors' checkpoint (.pth, or its tensors as safetensors): tensors, architecture, arguments of `ControlBranch`.

    heads: of attention, where it cannot be known (`pixart.heads_for`). WeightsError for anything else than such a
    checkpoint, and for one that does not fit `ControlBranch`.
    """
    source = Path(source)
    tensors = open_tensors(source, pickles=True)
    found = released_of(tensors.shapes)
    if found is None:
        raise WeightsError(
            f"{source}: wanted a checkpoint with 'controlnet.*' tensors, as IdentiFace's authors save it; this one "
            f"holds {len(tensors)} tensors, such as '{next(iter(tensors))}'. Choose their latest.pth."
        )
    here = {name: s for name, s in tensors.shapes.items() if name.startswith((CONTROLNET, FUSION))}
    faults = misfits(control_shapes(found), here)
    if faults:
        raise WeightsError(
            f"{source}: its control is not built as the released one: {in_short(faults)}. It is damaged, or of "
            "another design, which this program does not have."
        )
    return tensors, found, control_config(found, heads_for(tensors, found.width, heads))


def import_control(
    source: str | Path,
    out: str | Path,
    *,
    base: str | Path | None = None,
    half: bool = True,
    heads: int | None = None,
) -> Imported:
    """Write the control in an authors' checkpoint to `out`, for `stream.load_stream(out, ControlBranch)`.

    half: store float16 (values above 65504 stay float32). base: the user's own PixArt, authors' or diffusers' names,
    compared with the frozen base in the checkpoint. The optimiser is never read; at no time is more in memory than the
    control itself and one tensor more. Raises WeightsError as `open_released`, OutputError for `out`; then nothing has
    changed.
    """
    check_writable(out)
    tensors, found, config = open_released(source, heads=heads)
    check = None if base is None else compare_base(tensors, base)
    control = control_of(tensors)
    notes = {name: tensors.notes[name] for name in ("epoch", "step") if name in tensors.notes}
    extra = {
        "origin": OFFICIAL if found.fused else "pixart-controlnet",
        "base": None if found.base is None else asdict(found.base),
        "base_compared": None if check is None else {"tensors": check.compared, "equal": check.equal},
        **notes,
    }
    types = half_types(control, source, half=half)
    read = sum(torch.Size(s).numel() * control[name].itemsize for name, s in control.shapes.items())
    written = save_stream(out, control, types, CONTROL, config, extra=extra)
    return Imported(found, config, notes, read, written, check)


def compare_base(tensors: Tensors, base: str | Path) -> BaseCheck:
    """Whether the frozen base in an authors' checkpoint is the PixArt in the file `base`, tensor by tensor.

    Compared in the coarser of the two types. The table of positions, which is computed, is left out; the null text,
    which diffusers' files lack, counts where both have it. WeightsError if either holds no PixArt.
    """
    mine = tensors.below(BASE)
    if shape_of(mine.shapes) is None:
        raise WeightsError(
            f"{tensors.name}: no frozen base in it to compare {base} with: leave the base out."
        )
    opened = find_pixart(open_tensors(base, pickles=True))
    if opened is None:
        raise WeightsError(f"{base}: no PixArt transformer to compare with. Choose PixArt-XL-2-1024-MS.")
    theirs, shape = opened
    compared, different, missing = 0, [], []
    for name in mine:
        if name == POSITIONS or (name == NULL_TEXT and name not in theirs):
            continue
        pieces: Mapping[str, torch.Tensor] = (
            {name: mine[name]} if name in theirs else diffusers_pieces(name, mine[name])
        )
        if not pieces or any(piece not in theirs for piece in pieces):
            missing.append(name)
            continue
        compared += 1
        if not all(_same(piece, theirs[key]) for key, piece in pieces.items()):
            different.append(name)
    return BaseCheck(compared, tuple(different), tuple(missing))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    kind = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
    return one.shape == other.shape and torch.equal(one.to(kind), other.to(kind))
