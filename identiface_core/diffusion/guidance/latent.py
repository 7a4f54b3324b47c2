"""Guidance by a matcher that reads latents: no decoder, no picture, no way back through the denoiser.

    x0' = x0 + w sqrt(1 + sigma'^2) rms(x0) g / rms(g),   g = d objective(critic(x0)) / d x0

then a step with half fresh noise (`travel`). Moves are large at first, while the network still has most of the sampling to make
a face of them, and small at the end. The default on the embedded model. A look costs about half a pass of the network there,
and a fifth of what decoding and matching cost; five looks in a sampling are enough, the steps between repeat the last move.
The critic was trained on noisy and smoothed latents, as predictions are, and to point where decoder and matcher point
(`training.slopes`).

Typical range: scale 0.01 to 0.05. Reference: MPGD (arXiv 2311.16424) for the rule, ID3 (arXiv 2409.17576) for the objective.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from .base import Guide, Options
from .eyes import LatentEye, Said
from .targets import Target
from .travel import TravelGuide

OPTIONS = Options(scale=0.04, end=0.9, every_n=4)
"""For 20 steps, see `Options.over`; chosen on the validation people, see docs/guidance.md."""


def latent_guide(
    critic: Callable[[Tensor], tuple[Sequence[Tensor], Tensor]],
    target: Target,
    options: Options = OPTIONS,
    said: Said = None,
) -> Guide:
    """A guide whose eye is `critic`: latents -> (logits per attribute, unit embeddings), such as `LatentCritic`."""
    return TravelGuide(LatentEye(critic), target, options, said)
