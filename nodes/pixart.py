"""An IdentiFace control branch on the host's own PixArt MODEL, by hooks that last for one call of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.patcher_extension
import torch
from torch import Tensor

from identiface_core.diffusion.control import Control, ControlBranch
from identiface_core.diffusion.positions import host_unit, position_table
from identiface_core.errors import InputError
from identiface_core.evidence.values import Evidence
from identiface_core.imaging import resize
from identiface_core.weights.recognise import expected
from identiface_core.weights.released import CONTROL
from identiface_core.weights.stream import load_stream

from .images import to_host
from .native import patcher

KEY = "identiface_pixart_control"
FACTOR = 8
"""Pixels per latent cell of Stable Diffusion's VAE, which PixArt uses."""
RELEASED_SIDE = 1024
"""Pixels a side that the released branch was trained with."""


class PixArtControl:
    """The CONTROL socket for the host's PixArt: control branch in the memory manager's care, and the VAE for the evidence."""

    def __init__(self, branch: ControlBranch, vae: Any) -> None:
        self.branch, self.vae = branch, vae
        self.patcher = patcher(branch)

    def apply(
        self,
        model: Any,
        evidence: Evidence,
        *,
        strength: float = 1.0,
        start: float = 0.0,
        end: float = 1.0,
        size: tuple[int, int] | None = None,
        estimate: Tensor | None = None,
        **_: Any,
    ) -> Any:
        """A copy of MODEL that photo and sketch of `evidence` steer; at strength 0 a plain copy.

        start, end: shares of the sampling. size: height and width in latent cells of what is sampled; that of the released
        model if left out. Raises `InputError` for a MODEL that is no PixArt or of another width, and for an estimate, which
        a released branch was not trained with.
        """
        check_fits(model.model.diffusion_model, self.branch)
        if estimate is not None:
            raise InputError(
                "Apply Control: this control branch was not trained with an identity estimate: take the link away"
            )
        patched = model.clone()
        apply_model = comfy.patcher_extension.WrappersMP.APPLY_MODEL
        patched.remove_wrappers_with_key(apply_model, KEY)
        if strength == 0:
            return patched
        rows, columns = size or (RELEASED_SIDE // FACTOR,) * 2
        latent = self._encode(evidence, rows * FACTOR, columns * FACTOR, model.model.process_latent_in)
        control = Control(self.branch, latent, strength=strength)
        sampling = model.get_model_object("model_sampling")
        first, last = (sampling.percent_to_sigma(share) for share in (start, end))

        def steered(executor: Any, x: Tensor, sigma: Tensor, *args: Any, **options: Any) -> Any:
            if not last <= float(sigma.max()) <= first:
                return executor(x, sigma, *args, **options)
            if x.shape[-2:] != control.latent.shape[-2:]:
                raise InputError(
                    f"Apply Control: evidence was encoded for {_pixels(control.latent)}, but {_pixels(x)} are sampled: link the "
                    "LATENT that is sampled to Apply Control"
                )
            with steering(executor.class_obj.diffusion_model, control):
                return executor(x, sigma, *args, **options)

        patched.add_wrapper_with_key(apply_model, KEY, steered)
        patched.set_additional_models(KEY, [self.patcher])
        return patched

    def _encode(
        self, evidence: Evidence, height: int, width: int, scaled: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Photo and sketch fused, (1, 4, H, W), in latents as the network sees them."""
        if evidence.sketch is None and evidence.lq is None:
            raise InputError(
                "Apply Control: the evidence has neither sketch nor LQ photo: there is nothing to steer by"
            )
        sketch, lq = (
            None if clue is None else scaled(self.vae.encode(to_host(resize(clue, height, width))))
            for clue in (evidence.finest_sketch, evidence.lq)
        )
        mm.load_models_gpu([self.patcher])
        kind = next(self.branch.parameters())
        sketch, lq = (None if one is None else one.to(kind) for one in (sketch, lq))
        with torch.no_grad():
            fused: Tensor = self.branch.freq_fusion(sketch, lq)
        return fused


def load_control(path: Path, vae: Any) -> PixArtControl:
    """The control in the file at `path`, in the type that the host computes in. WeightsError for another kind of file, saying
    what it is, and for one that is damaged."""
    expected(path, CONTROL, "Load IdentiFace Control")
    size = path.stat().st_size
    branch = load_stream(path, ControlBranch, dtype=mm.unet_dtype(model_params=size // 2))
    return PixArtControl(branch.requires_grad_(False), vae)


@contextmanager
def steering(network: Any, control: Control) -> Iterator[None]:
    """While it lasts, the blocks of the host's PixArt network pass on what they give plus the branch's residuals.

    The branch's own code does the work, see `ControlBranch`. Nothing of it stays: hooks are taken away at the end, also
    after an error or an interruption.
    """
    kind = next(control.branch.parameters())
    state: dict[str, Any] = {}

    def first(module: Any, args: tuple[Any, ...], out: Tensor) -> Tensor:
        _, words, modulation = args[:3]
        shared = {
            "encoder_hidden_states": words.reshape(len(out), -1, words.shape[-1]).to(kind),
            "encoder_attention_mask": None,
            "timestep": modulation.to(kind),
        }
        here = replace(control, latent=control.latent.to(kind))
        state["skip"] = here.skips(_Tokens(network, kind), shared)  # type: ignore[arg-type]
        return after(0, out)

    def after(index: int, out: Tensor) -> Tensor:
        residual = state["skip"](index, out.to(kind))
        return out + residual.to(out)

    def following(index: int) -> Any:
        return lambda module, args, out: after(index, out)

    hooks = [network.blocks[0].register_forward_hook(first)]
    copies = len(control.branch.controlnet)
    hooks += [network.blocks[index].register_forward_hook(following(index)) for index in range(1, copies)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Tokens:
    """What a control branch asks of its base: latents to tokens, with the host's table of positions."""

    def __init__(self, network: Any, kind: Tensor) -> None:
        self.network, self.kind = network, kind

    def pos_embed(self, latent: Tensor) -> Tensor:
        """(B, 4, H, W) to (B, tokens, width)."""
        network, (height, width) = self.network, latent.shape[-2:]
        base, scale = host_unit(height, width, network.patch_size)
        patch = network.patch_size
        table = position_table(
            network.hidden_size,
            height // patch,
            width // patch,
            base=base,
            scale=network.pe_interpolation or scale,
        )
        return network.x_embedder(latent).to(self.kind) + table.to(self.kind)  # type: ignore[no-any-return]


def check_fits(network: Any, branch: ControlBranch) -> None:
    """Raises `InputError` unless the branch can steer that network of the host."""
    parts = ("blocks", "x_embedder", "t_block", "hidden_size", "patch_size")
    if not all(hasattr(network, part) for part in parts):
        raise InputError(
            f"Apply Control: this control branch steers PixArt, but the MODEL is a {type(network).__name__}: load a PixArt-alpha "
            "checkpoint, or use the control that belongs to that model"
        )
    width = branch.config["heads"] * branch.config["head_width"]
    if network.hidden_size != width or len(network.blocks) <= len(branch.controlnet):
        raise InputError(
            f"Apply Control: the control branch has {len(branch.controlnet)} blocks of width {width}, the MODEL "
            f"{len(network.blocks)} of width {network.hidden_size}: they do not belong together"
        )


def _pixels(latent: Tensor) -> str:
    height, width = latent.shape[-2:]
    return f"{width * FACTOR} x {height * FACTOR} px"
