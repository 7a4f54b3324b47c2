"""What a matcher is, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from identiface_core.errors import InputError
from identiface_core.matchers.network import FaceNet, shrink


@dataclass(frozen=True)
class Embedding:
    """One face as a matcher sees it."""

    vector: Tensor
    """(D,) float32 unit vector."""
    matcher: str
    """Name of the matcher that made it; vectors of different matchers are never compared."""
    synthetic: bool
    """True if the face was generated (or read from evidence) rather than photographed."""
    quality: float = 1.0
    """How far the picture can be trusted to show the identity, in [0, 1]."""


@runtime_checkable
class Matcher(Protocol):
    """Turns aligned portraits into unit vectors whose cosine says how alike two faces are."""

    @property
    def name(self) -> str:
        """Names the network and its weights; stored with every template."""

    @property
    def dimension(self) -> int:
        """Length D of the vectors."""

    def embed(self, portraits: Tensor) -> Tensor:
        """(B, 3, 128, 128) RGB in [0, 1], aligned -> (B, D) unit vectors; carries gradient if the portraits
        do.
        """


class EmbeddedMatcher:
    """The matcher that ships with the library: a `FaceNet` in eval mode, frozen."""

    def __init__(self, net: FaceNet, name: str) -> None:
        self.net = net.eval().requires_grad_(False)
        self.name = name
        self.dimension: int = net.config["dimension"]

    def embed(self, portraits: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1], aligned -> (B, D) unit vectors; differentiable in the portraits.

        Raises InputError for anything that is not a batch of RGB pictures.
        """
        if portraits.ndim != 4 or portraits.shape[1] != 3:
            raise InputError(
                f"matcher '{self.name}' wants portraits (B, 3, 128, 128), got {tuple(portraits.shape)}: "
                "align the face first and stack portraits into a batch"
            )
        if portraits.shape[0] == 0:
            return portraits.new_zeros(0, self.dimension)
        vectors: Tensor = self.net(shrink(portraits))
        return vectors
