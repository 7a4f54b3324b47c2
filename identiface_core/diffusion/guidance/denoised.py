"""Guidance through a small decoder and a matcher for pictures, without a way back through the denoiser.

As `latent`, but the eye is a decoder and a matcher: g = d objective(matcher(decode(x0))) / d x0. Works on any model whose
latents have a small differentiable decoder: the embedded autoencoder, or TAESD on Stable Diffusion and PixArt, which serves
for this as the full decoder does, at a fraction of its cost.

Typical range: scale 0.01 to 0.05. Reference: MPGD (arXiv 2311.16424).
"""

from __future__ import annotations

from .base import Guide, Options
from .eyes import DecodedEye, Said
from .targets import Target
from .travel import TravelGuide

OPTIONS = Options(scale=0.04, end=0.9, every_n=4)
"""For 20 steps; chosen on the validation people, see docs/guidance.md."""


def denoised_guide(eye: DecodedEye, target: Target, options: Options = OPTIONS, said: Said = None) -> Guide:
    """A guide that looks at decoded predictions."""
    return TravelGuide(eye, target, options, said)
