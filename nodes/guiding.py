"""Guidance by identity on any MODEL of the host: a post-CFG function on a copy, with networks of its own.

Nodes run in inference mode, where nothing can be differentiated: what a gradient goes through is copied outside of it, once,
when the node runs. The MODEL and its weights are never touched.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import comfy.model_management as mm
import comfy.model_sampling
import comfy.patcher_extension
import comfy.samplers
import torch
from torch import Tensor, nn

from identiface_core.diffusion.guidance.base import Guide, Run, step_at
from identiface_core.diffusion.guidance.eyes import Seen
from identiface_core.diffusion.sampling import sampler_named
from identiface_core.errors import InputError

KEY = "identiface_guidance"
Thing = TypeVar("Thing")


@dataclass
class Sampling:
    """What one call of a sampler needs; lives in the options of that call alone."""

    run: Run | None
    levels: list[float]
    seed: int


def guidance_on(model: Any) -> str:
    """What Identity Guidance does to a MODEL, in words; "" for one that is not guided."""
    return "; ".join(model.get_attachment(KEY) or ())


def guided(model: Any, guide: Guide, matcher: str) -> Any:
    """A copy of MODEL whose predictions are moved by `guide`, which looks with `matcher`; at scale 0 a plain copy.

    A fresh run is made for every sampling and put into the options of that sampling, which the host copies for each: two
    guided models, or two samplings of one, share nothing. Raises `InputError`, while sampling, from samplers that go around
    the host's guider.
    """
    patched = model.clone()
    if guide.options.scale == 0:
        return patched
    place, options = object(), guide.options
    told = f"by {matcher}, scale {options.scale:g}, {options.start:g} to {options.end:g}, every {options.every_n} steps"
    patched.set_attachments(KEY, (*(model.get_attachment(KEY) or ()), told))

    def begin(
        executor: Any, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *rest: Any, **more: Any
    ) -> Any:
        seed = more.get("seed", rest[3] if len(rest) > 3 else None)
        here = Sampling(None, sigmas.tolist(), seed or 0)
        executor.class_obj.model_options[place] = here
        made = executor(noise, latent, sampler, sigmas, *rest, **more)
        if here.run is not None and here.run.similarity is not None:
            seen = ", ".join(f"{one:.3f}" for one in here.run.similarity.tolist())
            logging.info(
                "Identity Guidance: cosine to the target by the guiding matcher, at the last look: %s", seen
            )
        return made

    def move(args: dict[str, Any]) -> Tensor:
        here, denoised = args["model_options"].get(place), args["denoised"]
        if not isinstance(here, Sampling):
            raise InputError(
                "Identity Guidance: this sampler goes around the host's guider; use KSampler or SamplerCustom"
            )
        with torch.inference_mode(False), torch.no_grad():
            if here.run is None:
                here.run = guide.begin(len(denoised), seeds=range(here.seed, here.seed + len(denoised)))
            sigma = args["sigma"].flatten()[0].float().clone()
            step = step_at(float(sigma), here.levels)
            latents = args["model"].process_latent_out(denoised.float().clone())
            moved = here.run(latents, sigma, step, len(here.levels) - 1)
            if moved is latents:
                return denoised
            back: Tensor = args["model"].process_latent_in(moved)
        return back.to(denoised)

    patched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, KEY, begin)
    patched.set_model_sampler_post_cfg_function(move)
    return patched


def guided_sampler(guide: Guide, sampler: str, seeds: Sequence[int]) -> comfy.samplers.KSAMPLER:
    """A SAMPLER that goes the guide's own steps, as the core does, for a MODEL whose latents the host does not scale, as the
    embedded one; `sampler`: a name of the core's, for guides without steps of their own. seeds: one per sample.
    """
    goal = guide.target
    held = {name: ordinary(value) for name, value in vars(goal).items() if isinstance(value, Tensor)}
    own = replace(guide, eye=differentiable(guide.eye), target=replace(goal, **held))  # type: ignore[type-var]
    return walking(own, sampler, seeds)


def sampler_for(model: Any, guide: Guide) -> comfy.samplers.KSAMPLER:
    """A SAMPLER that goes the steps of `guide` (`travel`) with MODEL, which itself must not be guided."""
    inner, look = model.model, guide.eye
    flow = isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.CONST)

    def eye(latents: Tensor) -> Seen:
        return look(inner.process_latent_out(latents))

    return walking(replace(guide, eye=eye), "dpmpp_2m", None, flow)


def walking(
    guide: Guide, sampler: str, seeds: Sequence[int] | None, flow: bool = False
) -> comfy.samplers.KSAMPLER:
    """A SAMPLER that lets `guide` sample; seeds: one per sample, None: the host's and those after it. Only what the host's
    noise mask leaves free is moved."""

    def walk(
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Any = None,
        callback: Any = None,
        disable: Any = None,
    ) -> Tensor:
        given = extra_args or {}
        options = given.get("model_options", {})
        if any(isinstance(one, Sampling) for one in options.values()):
            raise InputError(
                "Identity Guidance: its sampler guides by itself: link the MODEL from before Identity Guidance"
            )
        if flow:
            raise InputError(
                "Identity Guidance: its sampler goes steps of noise that is added, but this MODEL's is mixed in (flow matching): "
                "use its model output with a stock sampler"
            )
        mask = given.get("denoise_mask")
        own = seeds or range(given.get("seed") or 0, (given.get("seed") or 0) + len(x))

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            made: Tensor = model(x, sigma * x.new_ones(len(x)), **given)
            return made.clone()

        def tell(step: int, total: int, denoised: Tensor) -> None:
            if callback is not None:
                callback({"i": step - 1, "denoised": denoised, "x": denoised})

        with torch.inference_mode(False), torch.no_grad():
            cells = None if mask is None else mask[:, :1].clone().float()
            return guide.sample(
                sampler_named(sampler), denoise, x.clone(), sigmas.clone(), tell, seeds=list(own), cells=cells
            )

    return comfy.samplers.KSAMPLER(walk)


def differentiable(thing: Thing) -> Thing:
    """A frozen copy of a network, or of something that holds networks, through which gradients can go; on the device of
    sampling, float32. The host makes room for it first, and does not move it afterwards."""
    twin, device = copy.deepcopy(thing), mm.get_torch_device()
    nets = (
        [twin]
        if isinstance(twin, nn.Module)
        else [v for v in vars(twin).values() if isinstance(v, nn.Module)]
    )
    mm.free_memory(sum(4 * value.numel() for net in nets for value in net.parameters()), device)
    with torch.inference_mode(False):
        for net in nets:
            for module in net.modules():
                for name, value in list(module._parameters.items()):
                    if value is not None:
                        module._parameters[name] = nn.Parameter(_own(value, device), requires_grad=False)
                for name, buffer in list(module._buffers.items()):
                    if buffer is not None:
                        module._buffers[name] = _own(buffer, device)
            net.eval()
    return twin


def ordinary(tensor: Tensor) -> Tensor:
    """A copy on the device of sampling that takes part in gradients."""
    with torch.inference_mode(False):
        return _own(tensor, mm.get_torch_device())


def decoder_of(vae: Any) -> Callable[[Tensor], Tensor]:
    """Latents to pictures (B, 3, H, W) in [0, 1] through a copy of what decodes in the VAE."""
    light = copy.copy(vae.first_stage_model)
    light._modules = {name: part for name, part in light._modules.items() if "encoder" not in name}
    net, finish = differentiable(light), vae.process_output

    def decode(latents: Tensor) -> Tensor:
        pictures: Tensor = finish(net.decode(latents))
        return pictures

    return decode


def _own(tensor: Tensor, device: Any) -> Tensor:
    moved = tensor.detach().clone().to(device)
    return moved.float() if moved.is_floating_point() else moved
