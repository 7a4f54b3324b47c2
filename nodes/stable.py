"""A control of ours on any Stable Diffusion 1.5 MODEL: its residuals join those of stock ControlNets, call by call."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.patcher_extension
import torch
from torch import Tensor

from identiface_core.diffusion.stable import LatentControl, Residuals, StableControl
from identiface_core.errors import InputError
from identiface_core.evidence.values import Evidence
from identiface_core.imaging import resize
from identiface_core.weights.recognise import STABLE_CONTROL, expected
from identiface_core.weights.stream import load_stream

from .images import to_host
from .native import patcher

KEY = "identiface_stable_control"
FACTOR = 8
"""Pixels per latent cell of Stable Diffusion's VAE."""
FAMILIES = {768: "a Stable Diffusion 1.5", 1024: "a Stable Diffusion 2", 2048: "an SDXL"}
"""U-Nets by the width of the text that they read."""


class HostStableControl:
    """The CONTROL socket for Stable Diffusion: control branch in the memory manager's care, and the VAE for the evidence."""

    def __init__(self, branch: StableControl, vae: Any) -> None:
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

        start, end: shares of the sampling. size: height and width in latent cells of what is sampled; evidence is then encoded
        at once, and for any other size when it is first sampled. Raises `InputError` for a MODEL of another kind, for evidence
        without a picture, and for an estimate, which these branches are not trained with.
        """
        check_fits(model.model.diffusion_model, self.branch)
        if estimate is not None:
            raise InputError(
                "Apply Control: this control branch was not trained with an identity estimate: take the link away"
            )
        if evidence.finest_sketch is None and evidence.lq is None:
            raise InputError(
                "Apply Control: the evidence has neither sketch nor LQ photo: there is nothing to steer by"
            )
        patched = model.clone()
        apply_model = comfy.patcher_extension.WrappersMP.APPLY_MODEL
        patched.remove_wrappers_with_key(apply_model, KEY)
        patched.remove_additional_models(KEY)
        if strength == 0:
            return patched
        ready: dict[tuple[int, int], LatentControl] = {}

        def control_for(rows: int, columns: int, host: Any) -> LatentControl:
            if (rows, columns) not in ready:
                in_use = mm.loaded_models(only_currently_used=True)
                ready[rows, columns] = self._control(evidence, rows, columns, host, strength)
                mm.load_models_gpu(in_use)  # encoding may have put them away
            return ready[rows, columns]

        if size is not None:
            ready[size] = self._control(evidence, *size, model.model, strength)

        def steered(
            executor: Any,
            x: Tensor,
            sigma: Tensor,
            concat: Any = None,
            words: Any = None,
            control: Any = None,
            *args: Any,
            **options: Any,
        ) -> Any:
            host = executor.class_obj
            levels = host.model_sampling
            first, last = (levels.percent_to_sigma(share) for share in (start, end))
            if last <= float(sigma.max()) <= first:
                given = control_for(*x.shape[-2:], host)
                read = options.get("crossattn_controlnet", words)
                control = merged(control, self._residuals(given, levels, x, sigma, read))
            return executor(x, sigma, concat, words, control, *args, **options)

        patched.add_wrapper_with_key(apply_model, KEY, steered)
        patched.set_additional_models(KEY, [self.patcher])
        return patched

    def _control(
        self, evidence: Evidence, rows: int, columns: int, host: Any, strength: float
    ) -> LatentControl:
        """Photo and sketch fused, in latents as the network sees them."""
        sketch, lq = (
            None
            if clue is None
            else host.process_latent_in(
                self.vae.encode(to_host(resize(clue, rows * FACTOR, columns * FACTOR)))
            )
            for clue in (evidence.finest_sketch, evidence.lq)
        )
        mm.load_models_gpu([self.patcher])
        kind = next(self.branch.parameters())
        sketch, lq = (None if one is None else one.to(kind) for one in (sketch, lq))
        with torch.no_grad():
            return LatentControl.of(self.branch, sketch, lq, strength=strength)

    def _residuals(
        self, control: LatentControl, levels: Any, x: Tensor, sigma: Tensor, words: Tensor
    ) -> Residuals | None:
        kind = next(self.branch.parameters())
        seen = levels.calculate_input(sigma, x).to(kind)
        with torch.no_grad():
            return control.residuals(seen, levels.timestep(sigma).float().to(kind.device), words.to(kind))


def merged(others: dict[str, list[Tensor | None]] | None, ours: Residuals | None) -> Any:
    """What the host's U-Net takes as `control`: our residuals and those of ControlNets before us, added. Neither is changed."""
    if ours is None:
        return others
    before = others or {}
    made: dict[str, list[Tensor | None]] = {name: list(rows) for name, rows in before.items()}
    for name, rows in (("output", ours[0]), ("middle", [ours[1]])):
        made[name] = [
            one if other is None else other if one is None else one + other.to(one.device)
            for one, other in zip_longest(rows, before.get(name, []))
        ]
    return made


def load_control(path: Path, vae: Any) -> HostStableControl:
    """The control in the file at `path`, in the type that the host computes in. WeightsError for another kind of file, saying
    what it is, and for one that is damaged."""
    expected(path, STABLE_CONTROL, "Load IdentiFace Control")
    branch = load_stream(path, StableControl, dtype=mm.unet_dtype(model_params=path.stat().st_size // 2))
    return HostStableControl(branch.requires_grad_(False), vae)


def check_fits(network: Any, branch: StableControl) -> None:
    """Raises `InputError` unless the branch can steer that network of the host."""
    config = branch.config
    text = config["context_width"]
    ours = FAMILIES.get(text, "a Stable Diffusion")
    parts = ("input_blocks", "middle_block", "output_blocks", "channel_mult", "num_res_blocks")
    if not all(hasattr(network, part) for part in parts):
        raise InputError(
            f"Apply Control: this control branch steers {ours} MODEL, but the MODEL is a {type(network).__name__}: load {ours} "
            "checkpoint, or use the control that belongs to that model"
        )
    reads = next(
        (one.shape[1] for name, one in network.named_parameters() if name.endswith("attn2.to_k.weight")), 0
    )
    if reads != text:
        raise InputError(
            f"Apply Control: this control branch steers {ours} MODEL, but the MODEL is {FAMILIES.get(reads, 'a U-Net')} "
            f"(it reads text of width {reads}, the branch {text}): they do not belong together"
        )
    widths = [network.model_channels * factor for factor in network.channel_mult]
    if widths != config["widths"] or {*network.num_res_blocks} != {config["layers"]}:
        raise InputError(
            f"Apply Control: the control branch has levels of width {config['widths']} with {config['layers']} blocks, the MODEL "
            f"{widths} with {', '.join(map(str, network.num_res_blocks))}: they do not belong together"
        )
