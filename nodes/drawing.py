"""Rounds drawn with any MODEL of the host: its own checkpoint, ControlNets, LoRAs, samplers and text encoders.

The face is found in each picture that is drawn and cut out as a portrait, which everything else looks at; masks of
parts go the way back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.sample
import comfy.samplers
import latent_preview
import torch
from torch import Tensor

from identiface_core.diffusion.autoencoder import FACTOR
from identiface_core.diffusion.generator import Sample
from identiface_core.diffusion.masking import latent_mask, paste
from identiface_core.diffusion.sampling import OnStep, seeded_noise
from identiface_core.errors import InputError
from identiface_core.evidence.values import Evidence
from identiface_core.faces.alignment import (
    canonical_points,
    invert_similarity,
    similarity_from_points,
    warp,
    warp_antialiased,
)
from identiface_core.rounds.cautions import GUIDANCE

from .guiding import guidance_on
from .images import to_core

PORTRAIT = 256
"""Side in pixels of the portraits that are cut out."""
WORDS = "{words}"
"""Place of a round's words in the prompt."""


@dataclass(frozen=True)
class DrawingSettings:
    """How the host samples; as in its KSampler."""

    steps: int
    cfg: float
    sampler: str
    scheduler: str
    prompt: str
    """Text around a round's words; `WORDS` stands where they go."""


@dataclass(frozen=True)
class HostDrawing:
    """Draws with a MODEL as `rounds.toolkit.Generator` asks."""

    model: Any
    clip: Any
    vae: Any
    positive: Any
    """CONDITIONING: whatever it carries beside its text, such as ControlNets, goes with every round's words."""
    negative: Any
    finder: Any
    shape: tuple[int, int, int]
    """Channels, height and width of the latents."""
    how: DrawingSettings
    control: Any = None
    """A CONTROL for this MODEL, or None."""

    def with_model(self, model: Any) -> HostDrawing:
        """The same with another MODEL."""
        return replace(self, model=model)

    def settings(self, given: Any) -> Any:
        """The case's settings with this generator's own."""
        cfg = self.how.cfg
        return replace(given, guidance_scale=cfg, photo_guidance=cfg, steps=self.how.steps)

    def sample(
        self,
        prompts: Sequence[str],
        evidence: Evidence,
        seeds: Sequence[int],
        *,
        steps: int,
        strength: float = 1.0,
        known: Sample | None = None,
        mask: Tensor | None = None,
        estimate: Tensor | None = None,
        on_step: OnStep | None = None,
        **_: Any,
    ) -> Sample:
        """One face per seed. A released or embedded control reads the evidence; ControlNets in `positive` have their own.

        mask: (1, 1, S, S) over the portrait of `known`; outside it the picture stays as it is, to the grey level.
        """
        if len(set(prompts)) != 1:
            raise InputError(f"one prompt for all seeds is wanted here, got {len(set(prompts))}")
        cells = None
        noise = seeded_noise(self.shape, seeds)
        start = torch.zeros_like(noise)
        if known is not None and mask is not None:
            before = self._picture(known)
            cells = latent_mask(self._in_picture(known, mask, before.shape[-2:]))
            start = known.latents.expand_as(noise).contiguous()
        latents = self._sampled(prompts[0], evidence, strength, noise, start, cells, seeds[0], steps, on_step)
        if not bool(torch.isfinite(latents).all()):
            raise InputError(
                "Toolkit From Model: the MODEL gave latents that are not finite: try another sampler or scheduler, fewer "
                "controls, or the MODEL in another type (fp32 or bf16 instead of fp16)"
            )
        pictures = to_core(self.vae.decode(latents))
        if pictures.shape[-1] != FACTOR * noise.shape[-1]:
            cell = pictures.shape[-1] / noise.shape[-1]
            raise InputError(
                f"Toolkit From Model: the VAE makes {cell:g} pixels of a latent cell, {FACTOR} are wanted: link the VAE that "
                "belongs to the MODEL"
            )
        if known is not None and cells is not None:
            pictures = paste(pictures, self._picture(known).expand_as(pictures), cells)
        framing, found = self._framing(pictures, known)
        portraits = warp_antialiased(pictures, framing, PORTRAIT).clamp(0, 1)
        return Sample(portraits, latents.float().cpu(), pictures, framing, found)

    def _sampled(
        self,
        prompt: str,
        evidence: Evidence,
        strength: float,
        noise: Tensor,
        start: Tensor,
        cells: Tensor | None,
        seed: int,
        steps: int,
        on_step: OnStep | None,
    ) -> Tensor:
        model = self.model
        if self.control is not None and (evidence.lq is not None or evidence.sketch is not None):
            model = self.control.apply(model, evidence, strength=strength, size=tuple(noise.shape[-2:]))
        show = latent_preview.prepare_callback(model, steps)

        def callback(step: int, denoised: Tensor, x: Tensor, total: int) -> None:
            show(step, denoised, x, total)
            if on_step is not None:
                on_step(step + 1, total, denoised)

        return comfy.sample.sample(
            model,
            noise,
            steps,
            self.how.cfg,
            self.how.sampler,
            self.how.scheduler,
            self._words(prompt),
            self.negative,
            start,
            noise_mask=cells,
            callback=callback,
            disable_pbar=True,
            seed=seed,
        )

    def _words(self, prompt: str) -> Any:
        """`positive` with the text of this round instead of its own."""
        text = self.how.prompt.replace(WORDS, prompt).strip(" ,")
        carried = {key: value for key, value in self.positive[0][1].items() if key != "pooled_output"}
        encoded = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))
        return [[tokens, {**carried, **options}] for tokens, options in encoded]

    def _framing(self, pictures: Tensor, known: Sample | None) -> tuple[Tensor, Tensor | None]:
        """(N, 2, 3), to the portraits, and (N,) whether a face was found.

        A part round keeps the frame of the face it started from, and looks for none. A picture without a face counts as framed
        already, as evidence is.
        """
        if known is not None and known.framing is not None:
            return known.framing.expand(len(pictures), -1, -1), None
        target = canonical_points(PORTRAIT)
        faces = [self.finder.find_faces(picture) for picture in pictures]
        frames = [
            similarity_from_points(here[0].points, target)[0] if here else whole(picture)
            for here, picture in zip(faces, pictures, strict=True)
        ]
        return torch.stack(frames), torch.tensor([float(bool(here)) for here in faces])

    @staticmethod
    def _picture(known: Sample) -> Tensor:
        return known.images if known.pictures is None else known.pictures

    @staticmethod
    def _in_picture(known: Sample, mask: Tensor, size: Sequence[int]) -> Tensor:
        """A mask over the portrait as one over the picture, (1, 1, H, W)."""
        if known.framing is None:
            return mask
        return warp(mask, invert_similarity(known.framing), (size[0], size[1]), padding="zeros")


def whole(picture: Tensor) -> Tensor:
    """(2, 3): a picture (3, H, W) as the portrait, fitted in and centred."""
    height, width = picture.shape[-2:]
    scale = PORTRAIT / max(height, width)
    right, down = ((PORTRAIT - scale * side) / 2 for side in (width, height))
    return torch.tensor([[scale, 0.0, right], [0.0, scale, down]])


def traits_of(model: Any) -> dict[str, str]:
    """What a case file says of the MODEL that draws: which it is, and by what it is led."""
    told = guidance_on(model)
    return {"model": fingerprint_of(model), **({GUIDANCE: told} if told else {})}


def fingerprint_of(model: Any) -> str:
    """What tells this MODEL from another, 16 hex digits: names, shapes and first values of its weights, and its patches.

    Not a hash of all bytes: that would take minutes for a large checkpoint.
    """
    digest = hashlib.sha256()
    for name, tensor in model.model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten()[:16].float().cpu().contiguous().numpy().tobytes())
    for name, patches in model.patches.items():
        digest.update(f"{name} {[patch[0] for patch in patches]}".encode())
    return digest.hexdigest()[:16]
