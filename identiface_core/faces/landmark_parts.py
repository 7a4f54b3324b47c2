"""Parts of real portraits from points on the face: InsightFace's networks in ONNX files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from identiface_core.faces.alignment import FACE_BOX, PORTRAIT_SIDE, warp_antialiased
from identiface_core.faces.landmarks import parts_from_landmarks
from identiface_core.weights.onnx_graph import Session
from identiface_core.weights.recognise import expected

SIDE = 192
"""Side, in pixels, of the crops that these networks take."""
LOOSE = 1.5
"""Side of such a crop, in longer sides of the face's box."""


class LandmarkParts:
    """A `sources.PartSource` from 2d106det (106 points) or 1k3d68 (68 points).

    Both take RGB in 0..255, a loose crop around the face's box, and give coordinates in [-1, 1] across the crop: pixel
    = (x + 1) * 96. In canonical framing the box is known, so no detector is needed.
    """

    def __init__(self, path: str | Path, purpose: str = "A source of parts") -> None:
        """Raises WeightsError for another file, and where onnxruntime is missing."""
        found = expected(path, "face-landmarks", purpose)
        self.session = Session(path, purpose)
        self.count = int(found.facts["points"])

    def points(self, portraits: Tensor) -> Tensor:
        """Points `(B, N, 2)` in pixels of portraits `(B, 3, S, S)` in canonical framing."""
        size = portraits.shape[-1]
        x0, y0, x1, y1 = (value * size / PORTRAIT_SIDE for value in FACE_BOX)
        scale = SIDE / (LOOSE * max(x1 - x0, y1 - y0))
        shift = torch.tensor([SIDE / 2 - scale * (x0 + x1) / 2, SIDE / 2 - scale * (y0 + y1) / 2])
        matrix = torch.cat([torch.eye(2) * scale, shift[:, None]], 1)[None]
        crops = warp_antialiased(
            portraits.float().cpu(), matrix.expand(len(portraits), -1, -1), SIDE, padding="zeros"
        )
        found = []
        for crop in crops:
            values = torch.from_numpy(self.session.run((crop * 255)[None].numpy())[0]).float().flatten()
            # 1k3d68 gives 1103 points of a dense mesh in three dimensions, of which the last 68 are those meant.
            spatial = values.reshape(-1, 3 if self.count == 68 else 2)
            found.append(((spatial[-self.count :, :2] + 1) * (SIDE / 2) - shift) / scale)
        return torch.stack(found)

    def __call__(self, portraits: Tensor) -> Tensor:
        """Portraits `(B, 3, S, S)` in [0, 1] -> probabilities `(B, 9, S, S)`, channels as `parts.MASK_CHANNELS`."""
        return parts_from_landmarks(self.points(portraits), portraits.shape[-1])
