"""Matchers of real photographs: a network that reads faces cut out to the ArcFace template."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from identiface_core.matchers.base import Colour, Embedded
from identiface_core.matchers.quality import quality_of
from identiface_core.matchers.template import check_pictures, cut, residual, template

ASK = "not known here: read the terms of wherever the file came from"


class AlignedMatcher:
    """A frozen network behind the interface of a matcher, see `base.Matcher`.

    net: crops (B, 3, side, side) in [-1, 1] (or what `prepared` gives) to embeddings (B, D) of any length; its
    `spatial(crops) -> (B, C, h, w)`, if it has one, gives the last map in which places are apart. typical: length of an average
    training face's embedding, see `quality.typical_norm`; None if nothing tells it.
    """

    differentiable = True

    def __init__(
        self,
        net: nn.Module,
        *,
        name: str,
        dimension: int,
        fingerprint: str,
        side: int = 112,
        colour: Colour = "rgb",
        licence: str = ASK,
        typical: float | None = None,
    ) -> None:
        self.net = net.eval().requires_grad_(False)
        self.name, self.dimension, self.side = name, dimension, side
        self.colour, self.licence, self.fingerprint, self.typical = colour, licence, fingerprint, typical

    def embed(self, pictures: Tensor, points: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> (B, D) unit vectors on the pictures' device, see `Matcher.embed`."""
        return F.normalize(self.lengthy(pictures, points), dim=1)

    def embed_with_quality(self, pictures: Tensor, points: Tensor | None = None) -> Embedded:
        """As `embed`, and how far each picture can be trusted."""
        found = self.lengthy(pictures, points)
        norms = found.norm(dim=1)
        residuals = None if points is None else residual(points)
        return Embedded(
            F.normalize(found, dim=1), quality_of(norms, self.typical, residuals), norms, residuals
        )

    def crops(self, pictures: Tensor, points: Tensor | None = None) -> Tensor:
        """(B, 3, side, side) RGB in [0, 1]: what the network is shown; what the map of `features` lies over."""
        return cut(check_pictures(pictures, points, self.name), points, self.side)

    @property
    def crop_points(self) -> Tensor:
        """(5, 2): where the points of the face lie in `crops`."""
        return template(self.side)

    def features(self, pictures: Tensor, points: Tensor | None = None) -> Tensor | None:
        """(B, C, h, w): the last map in which places of the crop are apart; None for a network that shows none."""
        spatial = getattr(self.net, "spatial", None)
        return None if spatial is None else spatial(self._input(pictures, points)).to(pictures.device)

    def lengthy(self, pictures: Tensor, points: Tensor | None = None) -> Tensor:
        """(B, D) before normalisation."""
        if not len(pictures):
            return check_pictures(pictures, points, self.name).new_zeros(0, self.dimension)
        return self._vectors(self._input(pictures, points)).float().to(pictures.device)

    def prepared(self, crops: Tensor) -> Tensor:
        """Crops as the network wants their values: [-1, 1]."""
        return crops * 2 - 1

    def _vectors(self, given: Tensor) -> Tensor:
        vectors: Tensor = self.net(given)
        return vectors

    def _input(self, pictures: Tensor, points: Tensor | None) -> Tensor:
        crops = self.crops(pictures, points)
        if self.colour == "bgr":
            crops = crops.flip(1)
        like = next((t for t in self._tensors() if t.is_floating_point()), crops)
        return self.prepared(crops).to(like)

    def _tensors(self) -> list[Tensor]:
        return [*self.net.parameters(), *self.net.buffers()]
