"""What guiders look with: latents to a matcher's embedding, and to how true words are of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ...errors import InputError
from ...imaging import resample

Said = Tensor | None
"""Value index per attribute of the lexicon, -1 unsaid: (SLOTS,) or (B, SLOTS); None: no words."""


@dataclass(frozen=True)
class Seen:
    """What an eye makes of B latents."""

    vectors: Tensor
    """(B, D) unit rows."""
    words: Callable[[Tensor], Tensor] | None = None
    """Stated values, as `Said` -> (B,) mean log probability that the eye gives them; None: it reads no words."""


class Eye(Protocol):
    """Latents (B, C, h, w) to what is seen; differentiable where the guider needs it."""

    def __call__(self, latents: Tensor) -> Seen: ...


class LatentEye:
    """A network that reads latents directly: no decoder, no picture."""

    def __init__(self, critic: Callable[[Tensor], tuple[Sequence[Tensor], Tensor]]) -> None:
        self.critic = critic

    def __call__(self, latents: Tensor) -> Seen:
        logits, vectors = self.critic(latents)
        return Seen(vectors, lambda said: stated(logits, said))


class DecodedEye:
    """A decoder, a fixed crop, and a matcher.

    decode: latents (B, C, h, w) -> pictures (B, 3, H, W) in [0, 1]. embed: portraits (B, 3, 128, 128) -> (B, D). read:
    portraits -> logits of the attributes, or None. crop: (B or 1, 2, 3) matrix from the picture's pixels to the portrait's,
    for pictures in which the face is elsewhere; None: the picture is the portrait.
    """

    def __init__(
        self,
        decode: Callable[[Tensor], Tensor],
        embed: Callable[[Tensor], Tensor],
        read: Callable[[Tensor], Sequence[Tensor]] | None = None,
        crop: Tensor | None = None,
    ) -> None:
        self.decode, self.embed, self.read, self.crop = decode, embed, read, crop

    def portraits(self, latents: Tensor) -> Tensor:
        """(B, 3, 128, 128) in [0, 1]; antialiased where the picture is larger."""
        from ...faces.alignment import PORTRAIT_SIDE, warp_antialiased

        pictures = self.decode(latents)
        if self.crop is not None:
            crop = self.crop.to(pictures).expand(len(pictures), -1, -1)
            return warp_antialiased(pictures, crop, PORTRAIT_SIDE)
        return resample(pictures, (PORTRAIT_SIDE, PORTRAIT_SIDE), "bilinear")

    def __call__(self, latents: Tensor) -> Seen:
        portraits = self.portraits(latents)
        read = self.read
        words = None if read is None else lambda said: stated(read(portraits), said)
        return Seen(self.embed(portraits), words)


def stated(logits: Sequence[Tensor], said: Any) -> Tensor:
    """(B,) mean log probability of the stated values; 0 where nothing is stated. logits: one (B, values) per attribute."""
    values = said.expand(len(logits[0]), -1)
    if values.shape[1] != len(logits):
        raise InputError(
            f"guidance: words need a value for each of {len(logits)} attributes, got {values.shape[1]}"
        )
    terms, counts = [], []
    for place, one in enumerate(logits):
        value = values[:, place].to(one.device).long()
        picked = one.log_softmax(1).gather(1, value.clamp(min=0)[:, None])[:, 0]
        terms.append(torch.where(value >= 0, picked, torch.zeros_like(picked)))
        counts.append(value >= 0)
    return torch.stack(terms).sum(0) / torch.stack(counts).sum(0).clamp(min=1)
