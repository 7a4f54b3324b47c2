"""FreeDoM (Yu et al. 2023, arXiv 2303.09833, algorithms 1 and 2): energy guidance through the denoiser, with time travel.

    x[t-1] <- x[t-1] - rho_t dE(eye(x0(x[t]))) / dx[t],   E = || e - y ||,   rho_t = scale sqrt(alpha_bar_t)

with DDIM steps of eta 0.5 and no guidance in the last tenth, as in the authors' code for faces; a step of the middle of the
sampling, where the face is decided, is made three times. Gradients are not normalised.

Typical range: scale 5 to 30 on latents of variance 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..sampling import Denoiser
from .base import Guide, Look, Options, Run
from .eyes import Eye, Said
from .full import looked_through
from .targets import Target
from .travel import TravelGuide

OPTIONS = Options(scale=20.0, end=0.9, normalise=False)
"""The scale was chosen on the validation people, see docs/guidance.md."""
REPEATS = 3


@dataclass(frozen=True)
class Distance:
    """Minus the length of the chord to a target, instead of its cosine."""

    target: Target

    @property
    def rises(self) -> bool:
        """That of the target."""
        return self.target.rises

    def similarity(self, vectors: Tensor) -> Tensor:
        """That of the target."""
        return self.target.similarity(vectors)

    def objective(self, vectors: Tensor) -> Tensor:
        """-sqrt(2 - 2 o), where o is the target's objective."""
        return -(2 - 2 * self.target.objective(vectors)).clamp(min=1e-6).sqrt()


class FreedomGuide(TravelGuide):
    """A travelling guide that differentiates through the denoiser."""

    def looked(self, denoise: Denoiser, x: Tensor, sigma: Tensor, run: Run) -> tuple[Tensor, Look]:
        """See `TravelGuide.looked`."""
        return looked_through(self, denoise, x, sigma)


def freedom_guide(eye: Eye, target: Target, options: Options = OPTIONS, said: Said = None) -> Guide:
    """FreeDoM with its own energy."""
    return FreedomGuide(eye, Distance(target), options, said, repeats=REPEATS)
