"""MPGD (He et al. 2024, arXiv 2311.16424, algorithm 1 and MPGD-AE): the gradient is taken at x0, not through the denoiser.

    x0' = x0 - c_t dL(eye(x0)) / dx0,   then a DDIM step from x0' with the noise that was predicted before

c_t = scale / (rms(gradient) sqrt(alpha_bar[t-1])) as in the authors' code; eta 0.5; no guidance in the last tenth. With
`project` the moved prediction is put back on the manifold that an autoencoder knows: decoded and encoded again.

Typical range: scale 0.01 to 0.05 on latents of variance 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Guide, Options
from .eyes import Eye, Said
from .targets import Target
from .travel import TravelGuide

OPTIONS = Options(scale=0.04, end=0.9)
"""The scale was chosen on the validation people, see docs/guidance.md."""


@dataclass(frozen=True)
class MpgdGuide(TravelGuide):
    """A travelling guide that looks at x0; project: latents -> latents of what they show, or None."""

    project: Callable[[Tensor], Tensor] | None = None

    def landed(self, moved: Tensor) -> Tensor:
        """See `TravelGuide.landed`."""
        if self.project is None:
            return moved
        with torch.no_grad():
            return self.project(moved)


def mpgd_guide(
    eye: Eye,
    target: Target,
    options: Options = OPTIONS,
    said: Said = None,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Guide:
    """MPGD without, or with, a projection by an autoencoder."""
    return MpgdGuide(eye, target, options, said, project=project)
