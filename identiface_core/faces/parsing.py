"""Parts of real portraits from a face parsing network of others, in an ONNX file: 19 classes of CelebAMask-HQ.

Two numberings of the same 19 classes are in use: that of the BiSeNets (zllrunning's face-parsing.PyTorch and what was
made from it) and that of the data set's own list (Hugging Face's SegFormers). A file does not say which it has; graphs whose
input is called `pixel_values` have the latter. Left and right are united here, so whose left is meant does not matter.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.errors import WeightsError
from identiface_core.imaging import resize
from identiface_core.parts import MASK_CHANNELS
from identiface_core.weights.onnx_graph import Session
from identiface_core.weights.recognise import expected

SIDE = 512
"""Side, in pixels, of the pictures that these networks were trained with; used where the graph takes any."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, of RGB in [0, 1]."""

ORDERS: dict[str, tuple[str, ...]] = {
    "bisenet": (
        "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r",
        "nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
    ),
    "celebamask": (
        "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
        "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
    ),
}  # fmt: skip
"""Names of the classes in the order of their numbers, by numbering."""

CHANNEL: dict[str, str] = {
    "background": "background", "skin": "skin", "neck": "skin", "neck_l": "skin", "cloth": "background",
    "l_brow": "brows", "r_brow": "brows", "l_eye": "eyes", "r_eye": "eyes", "eye_g": "glasses",
    "l_ear": "ears", "r_ear": "ears", "ear_r": "ears", "nose": "nose",
    "mouth": "mouth", "u_lip": "mouth", "l_lip": "mouth", "hair": "hair", "hat": "hair",
}  # fmt: skip
"""Which of our channels each class belongs to. `mouth` is the inside of the mouth, `ear_r` an earring, `neck_l` a necklace,
`eye_g` glasses; clothes are background, as behind the drawn people's shoulders."""


class FaceParsingParts:
    """A `sources.PartSource` from a face parsing network."""

    def __init__(self, path: str | Path, purpose: str = "A source of parts") -> None:
        """Raises WeightsError for another file, for other than 19 classes, and where onnxruntime is missing."""
        found = expected(path, "face-parsing", purpose)
        classes = found.facts["classes"]
        if classes != len(CHANNEL):
            raise WeightsError(
                f"{path}: {purpose} needs the {len(CHANNEL)} classes of CelebAMask-HQ, this network gives {classes}; which is "
                "which cannot be known. Choose another: `identiface weights get face-parsing-resnet18`"
            )
        self.session = Session(path, purpose)
        shape = self.session.graph.picture
        self.height, self.width = shape[2] or SIDE, shape[3] or SIDE
        self.order = str(found.facts["order"])
        """One of `ORDERS`."""

    def __call__(self, portraits: Tensor) -> Tensor:
        """Portraits `(B, 3, S, S)` in [0, 1] -> probabilities `(B, 9, S, S)`, channels as `parts.MASK_CHANNELS`."""
        mean, deviation = (torch.tensor(three).view(3, 1, 1) for three in (MEAN, DEVIATION))
        pictures = (resize(portraits.float().cpu(), self.height, self.width) - mean) / deviation
        scores = [torch.from_numpy(self.session.run(one[None].numpy())[0]).float() for one in pictures]
        classes = torch.cat(scores).softmax(1)
        united = torch.zeros(len(classes), len(MASK_CHANNELS), *classes.shape[2:])
        united.index_add_(1, self._channels(), classes)
        return F.interpolate(united, portraits.shape[-2:], mode="bilinear", align_corners=False)

    def _channels(self) -> Tensor:
        return torch.tensor([MASK_CHANNELS.index(CHANNEL[name]) for name in ORDERS[self.order]])
