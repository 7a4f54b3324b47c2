"""From prompts and evidence to faces: the transformer, its control branch, the autoencoder and the text
encoder together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError
from ..imaging import resize
from .autoencoder import FACTOR, Autoencoder
from .control import Control, ControlBranch
from .masking import blend_before, latent_mask, paste
from .sampling import Denoiser, OnStep, sampler_named, seeded_noise
from .schedule import denoised_from_v, scale_input, sigma_to_t, uniform_sigmas
from .transformer import forward_controlled

if TYPE_CHECKING:
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

    from ..evidence.values import Evidence
    from ..evidence.words import TextEncoder
    from .guidance.base import Guide

SIDE = 128
"""Pixels of a portrait's side."""


@dataclass(frozen=True)
class Sample:
    """Generated faces."""

    images: Tensor
    """(N, 3, 128, 128) in [0, 1]."""
    latents: Tensor
    """(N, 4, 16, 16), standardised."""
    pictures: Tensor | None = None
    """(N, 3, H, W) in [0, 1]: what was drawn, where `images` are portraits cut out of larger pictures."""
    framing: Tensor | None = None
    """(N, 2, 3): from pixels of `pictures` to pixels of `images`."""
    found: Tensor | None = None
    """(N,) 1 where a face was found in the picture, 0 where the picture was taken as framed already."""


class FaceGenerator:
    """Holds the networks of the diffusion model, all in eval mode, and samples with them."""

    def __init__(
        self,
        transformer: PixArtTransformer2DModel,
        control: ControlBranch,
        autoencoder: Autoencoder,
        text_encoder: TextEncoder,
    ) -> None:
        self.transformer = transformer.eval()
        self.control = control.eval()
        self.autoencoder = autoencoder.eval()
        self.text_encoder = text_encoder.eval()

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.autoencoder.latent_mean.device

    @torch.no_grad()
    def control_from(
        self,
        evidence: Evidence | None,
        estimate: Tensor | None = None,
        *,
        strength: float = 1.0,
        start: float = 0.0,
        end: float = 1.0,
    ) -> Control:
        """The control of one person's sketch and LQ photo, either or both of which may be missing; estimate:
        see `sample`."""
        sketch = lq = None
        if evidence is not None and evidence.sketch is not None:
            sketch = self.autoencoder.encode(resize(evidence.sketch, SIDE, SIDE)[None].to(self.device))
        if evidence is not None and evidence.lq is not None:
            lq = self.autoencoder.encode(resize(evidence.lq, SIDE, SIDE)[None].to(self.device))
        return self.control_of(sketch, lq, estimate, strength=strength, start=start, end=end)

    def control_of(
        self,
        sketch: Tensor | None,
        lq: Tensor | None,
        estimate: Tensor | None = None,
        *,
        strength: float = 1.0,
        start: float = 0.0,
        end: float = 1.0,
    ) -> Control:
        """The control of encoded clues (1, 4, h, w) and an identity estimate (D,). With none, it does nothing
        outside part rounds; a branch that reads no estimate ignores it."""
        present = torch.tensor([[float(sketch is not None), float(lq is not None)]], device=self.device)
        if sketch is None and lq is None:
            channels, cells = self.transformer.config.in_channels, SIDE // FACTOR
            latent = torch.zeros(1, channels, cells, cells, device=self.device)
        else:
            latent = self.control.freq_fusion(sketch, lq)
        towards = None
        if estimate is not None and self.control.estimate is not None:
            if estimate.shape != (self.control.estimate.in_features,):
                raise InputError(
                    f"the estimate must be ({self.control.estimate.in_features},), an embedding of the matcher "
                    f"that the control branch was trained with, not {tuple(estimate.shape)}"
                )
            towards = estimate[None].to(latent)
        return Control(self.control, latent, None, present, towards, strength, start, end)

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        evidence: Evidence | None,
        seeds: Sequence[int],
        *,
        steps: int = 8,
        guidance_scale: float = 1.5,
        strength: float = 1.0,
        known: Sample | Tensor | None = None,
        mask: Tensor | None = None,
        erase: bool = False,
        estimate: Tensor | None = None,
        start: float = 0.0,
        end: float = 1.0,
        sampler: str = "dpmpp_2m",
        guide: Guide | None = None,
        on_step: OnStep | None = None,
    ) -> Sample:
        """One face per seed; sample i depends on its prompt, the evidence and seeds[i] alone.

        prompts: one per seed, or a single one for all; "" = no words. evidence: sketch and LQ photo of the
        one person (its description is not read here: the prompts are). guidance_scale: 1 = one pass per step.
        strength, start, end: scale and window of the control. known, mask: part round; the faces to start
        from, a `Sample` or latents (N or 1, 4, 16, 16), and the mask (N or 1, 1, 128, 128), 1 = make anew.
        Outside the mask the result is the known one, exactly. erase: the clues inside the mask are not used.
        estimate: (D,) unit vector in matcher A's space that whole faces are drawn towards, such as the evidence
        query; part rounds do not read it: there the words decide.
        guide: moves the predictions towards an identity, see `guidance.base`; in a part round inside the mask alone. None, or
        one of scale 0, changes nothing, to the last bit.
        Raises InputError for numbers that do not fit together.
        """
        texts = self._texts(prompts, seeds)
        if (known is None) != (mask is None):
            raise InputError(
                "a part round needs both the faces to start from (`known`) and the mask of the part (`mask`)"
            )
        control = self.control_from(evidence, estimate, strength=strength, start=start, end=end)
        words = self.text_encoder.context(texts)
        null = self.text_encoder.context([""]).expand_as(words) if guidance_scale != 1 else None
        sigmas = uniform_sigmas(steps).to(self.device)
        shape = (self.transformer.config.in_channels, SIDE // FACTOR, SIDE // FACTOR)
        noise = seeded_noise(shape, seeds).to(self.device)
        cells = None if mask is None else latent_mask(mask.to(self.device))
        before = known.latents.to(self.device) if isinstance(known, Sample) else known
        if before is not None and cells is not None:
            before = before.to(self.device).expand(len(seeds), -1, -1, -1)
            control = around(control, before, cells, erase=erase)
        denoise = self.denoiser(words, null, control, guidance_scale)
        if before is not None and cells is not None:
            denoise = blend_before(denoise, before, noise, cells)
        start_from, walk = noise * sigmas[0], sampler_named(sampler)
        if guide is None:
            latents = walk(denoise, start_from, sigmas, on_step)
        else:
            latents = guide.sample(walk, denoise, start_from, sigmas, on_step, seeds=seeds, cells=cells)
        images = self.autoencoder.decode(latents)
        if isinstance(known, Sample) and cells is not None:
            images = paste(images, known.images.to(images).expand_as(images), cells)
        return Sample(images, latents)

    def denoiser(
        self, words: Tensor, null: Tensor | None, control: Control, guidance_scale: float
    ) -> Denoiser:
        """x0 prediction as a function of (x, sigma), with guidance on the words if there is a null text."""

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            timestep = sigma_to_t(sigma).float().to(x.device)
            active = control if control.acts_at(float(timestep)) else None
            scaled = scale_input(x, sigma)
            if null is None:
                v = forward_controlled(self.transformer, scaled, timestep.expand(len(x)), words, active)
                return denoised_from_v(x, v, sigma)
            twice = forward_controlled(
                self.transformer,
                scaled.repeat(2, 1, 1, 1),
                timestep.expand(2 * len(x)),
                torch.cat([null, words]),
                active,
            )
            without, with_words = twice.chunk(2)
            return denoised_from_v(x, without + guidance_scale * (with_words - without), sigma)

        return denoise

    def _texts(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not seeds or len(texts) not in (1, len(seeds)):
            raise InputError(
                "sampling needs at least one seed, and one prompt or as many as seeds; got "
                f"{len(seeds)} seeds, {len(texts)} prompts"
            )
        return texts * len(seeds) if len(texts) == 1 else texts


def around(control: Control, known: Tensor, cells: Tensor, *, erase: bool) -> Control:
    """The control of a part round: what surrounds the mask is shown, and with `erase` the clues inside it are
    not. The estimate is left out: what the words say of the part decides.

    known: (B, 4, h, w). cells: (B or 1, 1, h, w), 1 = to be made anew.
    """
    latent = control.latent * (1 - cells) if erase else control.latent
    if control.branch.surroundings is None:
        return replace(control, latent=latent, estimate=None)
    batch = max(len(known), len(cells))
    known, cells = known.expand(batch, -1, -1, -1), cells.expand(batch, -1, -1, -1)
    surroundings = torch.cat([known * (1 - cells), cells], dim=1)
    present = None if control.present is None else control.present.expand(batch, -1)
    return replace(
        control,
        latent=latent.expand(batch, -1, -1, -1),
        surroundings=surroundings,
        present=present,
        estimate=None,
    )
