"""Control and generation with the host's own MODEL, VAE, CLIP and samplers, behind the core's interfaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import comfy.model_management as mm
import comfy.samplers
import latent_preview
import torch
from torch import Tensor

from identiface_core.diffusion.control import Control
from identiface_core.diffusion.generator import SIDE, FaceGenerator, Sample, around
from identiface_core.diffusion.guidance.base import Guide
from identiface_core.diffusion.masking import latent_mask, paste
from identiface_core.diffusion.sampling import OnStep, seeded_noise
from identiface_core.diffusion.schedule import uniform_sigmas
from identiface_core.errors import InputError
from identiface_core.evidence.values import Evidence
from identiface_core.imaging import resize

from .guiding import guided_sampler
from .images import to_core, to_host
from .native import CONTROL_KEY, HostTransformer, patcher


class HostControl:
    """The CONTROL socket: control branch in the memory manager's care, and the VAE that encodes evidence."""

    def __init__(self, generator: FaceGenerator, vae: Any) -> None:
        self.generator = generator
        self.vae = vae
        self.patcher = patcher(generator.control)

    def encode(self, evidence: Evidence, estimate: Tensor | None = None) -> Control:
        """What photo and sketch of `evidence`, and an identity estimate (D,), ask for, at strength 1, everywhere."""
        sketch, lq = (
            None if clue is None else self.vae.encode(to_host(resize(clue, SIDE, SIDE)))
            for clue in (evidence.sketch, evidence.lq)
        )
        mm.load_models_gpu([self.patcher])
        device = self.patcher.load_device
        sketch, lq = (None if latent is None else latent.to(device) for latent in (sketch, lq))
        return self.generator.control_of(sketch, lq, None if estimate is None else estimate.to(device))

    def apply(
        self,
        model: Any,
        evidence: Evidence,
        *,
        strength: float = 1.0,
        start: float = 0.0,
        end: float = 1.0,
        known: Tensor | None = None,
        cells: Tensor | None = None,
        estimate: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Any:
        """A copy of MODEL that `evidence` and `estimate` (D,) steer; at strength 0 a plain copy. known, cells: see
        `around`. size: of what is sampled; there is only one here.

        Raises `InputError` for a MODEL that is not the embedded one.
        """
        if not isinstance(model.model.diffusion_model, HostTransformer):
            raise InputError(
                f"Apply Control: this control belongs to the embedded MODEL, but the MODEL is a "
                f"{type(model.model.diffusion_model).__name__}: take that of Load Embedded Model, or for PixArt-alpha the "
                "control of Load IdentiFace Control"
            )
        patched = model.clone()
        if strength == 0:
            return patched
        control = replace(self.encode(evidence, estimate), strength=strength, start=start, end=end)
        if known is not None and cells is not None:
            device = self.patcher.load_device
            control = around(control, known.to(device), cells.to(device), erase=False)
        patched.model_options["transformer_options"][CONTROL_KEY] = lambda device: _moved(control, device)
        patched.set_additional_models(CONTROL_KEY, [self.patcher])
        return patched


def _moved(control: Control, device: torch.device) -> Control:
    tensors = {field.name: getattr(control, field.name) for field in fields(control)}
    return replace(
        control, **{name: value.to(device) for name, value in tensors.items() if isinstance(value, Tensor)}
    )


class HostGenerator:
    """Samples as `FaceGenerator` does, through the host: patches on MODEL, previews and interruption work."""

    def __init__(self, model: Any, clip: Any, vae: Any, control: HostControl) -> None:
        self.model, self.clip, self.vae, self.control = model, clip, vae, control

    def with_model(self, model: Any) -> HostGenerator:
        """The same with another MODEL."""
        return HostGenerator(model, self.clip, self.vae, self.control)

    def sample(
        self,
        prompts: Sequence[str],
        evidence: Evidence,
        seeds: Sequence[int],
        *,
        steps: int = 8,
        guidance_scale: float = 1.5,
        strength: float = 1.0,
        known: Sample | Tensor | None = None,
        mask: Tensor | None = None,
        estimate: Tensor | None = None,
        sampler: str = "dpmpp_2m",
        guide: Guide | None = None,
        on_step: OnStep | None = None,
    ) -> Sample:
        """One face per seed; see `FaceGenerator.sample`."""
        cells = None if mask is None else latent_mask(mask)
        before = known.latents if isinstance(known, Sample) else known
        noise = seeded_noise((4, SIDE // 8, SIDE // 8), seeds)
        start = torch.zeros_like(noise) if before is None else before.expand_as(noise)
        model = self.control.apply(
            self.model,
            evidence,
            strength=strength,
            known=None if before is None else start,
            cells=cells,
            estimate=estimate,
        )
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(self._words(prompts), self._words([""]))
        guider.set_cfg(guidance_scale)
        show = latent_preview.prepare_callback(model, steps)

        def callback(step: int, denoised: Tensor, x: Tensor, total: int) -> None:
            show(step, denoised, x, total)
            if on_step is not None:
                on_step(step + 1, total, denoised)

        latents = guider.sample(
            noise,
            start,
            comfy.samplers.sampler_object(sampler)
            if guide is None
            else guided_sampler(guide, sampler, seeds),
            uniform_sigmas(steps),
            denoise_mask=cells,
            callback=callback,
            disable_pbar=True,
            seed=seeds[0],
        ).to(mm.intermediate_device())
        images = to_core(self.vae.decode(latents))
        if isinstance(known, Sample) and cells is not None:
            images = paste(images, known.images.expand_as(images), cells)
        return Sample(images, latents.float().cpu())

    def _words(self, prompts: Sequence[str]) -> list[Any]:
        rows = [self.clip.encode_from_tokens(self.clip.tokenize(text)) for text in dict.fromkeys(prompts)]
        slots = dict(zip(dict.fromkeys(prompts), rows, strict=True))
        return [[torch.cat([slots[text] for text in prompts]), {}]]
