"""What a matcher is, and what it gives."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor, nn

from identiface_core.faces.alignment import CANONICAL_POINTS, PORTRAIT_SIDE, align
from identiface_core.matchers.network import SIDE, FaceNet, shrink
from identiface_core.matchers.quality import quality_of, typical_norm
from identiface_core.matchers.template import check_pictures, residual

Colour = Literal["rgb", "bgr"]


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


@dataclass(frozen=True)
class Embedded:
    """A batch of faces as a matcher sees them, and how far each can be trusted."""

    vectors: Tensor
    """(B, D) unit rows, the same that `embed` gives."""
    quality: Tensor
    """(B,) in [0, 1], see `quality.quality_of`; carries no gradient."""
    norms: Tensor
    """(B,) lengths of the features before normalisation."""
    residuals: Tensor | None
    """(B,) how far the points were from the template once aligned, in eye distances; None for portraits."""


@runtime_checkable
class Matcher(Protocol):
    """Turns faces into unit vectors whose cosine says how alike two faces are."""

    @property
    def name(self) -> str:
        """Names the network and its weights; stored with every template."""

    @property
    def dimension(self) -> int:
        """Length D of the vectors."""

    @property
    def side(self) -> int:
        """Side in pixels of the crop that the network reads."""

    @property
    def colour(self) -> Colour:
        """Order of the channels that the network reads. `embed` takes RGB whatever this is."""

    @property
    def licence(self) -> str:
        """Terms of the weights, in a sentence."""

    @property
    def differentiable(self) -> bool:
        """Whether `embed` carries gradients from the pictures."""

    @property
    def fingerprint(self) -> str:
        """Hash of the content; equal for equal weights read in an equal way."""

    def embed(self, pictures: Tensor, points: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> (B, D) unit vectors; carries gradient if pictures or points do.

        points: (B, 5, 2), where the five points of the face lie in each picture; None: the pictures are portraits in canonical
        framing, of any side. Raises InputError for anything else.
        """

    def embed_with_quality(self, pictures: Tensor, points: Tensor | None = None) -> Embedded:
        """As `embed`, and how far each picture can be trusted."""


class EmbeddedMatcher:
    """The matcher that ships with the library: a `FaceNet` in eval mode, frozen."""

    side = SIDE
    colour: Colour = "rgb"
    licence = "as IdentiFace itself; trained on drawn people only"
    differentiable = True

    def __init__(self, net: FaceNet, name: str) -> None:
        self.net = net.eval().requires_grad_(False)
        self.name = name
        self.dimension: int = net.config["dimension"]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the network's tensors."""
        return digest_of(self.net)

    def embed(self, pictures: Tensor, points: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> (B, D) unit vectors on the pictures' device, see `Matcher.embed`."""
        return F.normalize(self._lengthy(pictures, points), dim=1)

    def embed_with_quality(self, pictures: Tensor, points: Tensor | None = None) -> Embedded:
        """As `embed`, and how far each picture can be trusted."""
        found = self._lengthy(pictures, points)
        norms = found.norm(dim=1)
        residuals = None if points is None else residual(points, target=CANONICAL_POINTS)
        return Embedded(
            F.normalize(found, dim=1),
            quality_of(norms, typical_norm(self.net.norm), residuals),
            norms,
            residuals,
        )

    def features(self, pictures: Tensor, points: Tensor | None = None) -> Tensor:
        """(B, C, 4, 4): the last map in which places of the portrait are apart."""
        return self.net.spatial(self._input(pictures, points)).to(pictures.device)

    def crops(self, pictures: Tensor, points: Tensor | None = None) -> Tensor:
        """(B, 3, S, S): what the map of `features` lies over."""
        pictures = check_pictures(pictures, points, self.name)
        return pictures if points is None else align(pictures, points, PORTRAIT_SIDE)

    def _input(self, pictures: Tensor, points: Tensor | None) -> Tensor:
        return shrink(self.crops(pictures, points)).to(self.net.head.weight)

    def _lengthy(self, pictures: Tensor, points: Tensor | None) -> Tensor:
        if not len(pictures):
            return check_pictures(pictures, points, self.name).new_zeros(0, self.dimension)
        return self.net.lengthy(self._input(pictures, points)).to(pictures.device)


def digest_of(net: nn.Module) -> str:
    """sha256 over names and values of a network's tensors, 64 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
