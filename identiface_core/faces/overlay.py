"""A picture with its faces marked: numbered boxes and points, the chosen face in another colour."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from identiface_core.faces.base import Face
from identiface_core.imaging import from_uint8, to_pil

CHOSEN, OTHER = (255, 200, 0), (0, 190, 255)
"""RGB of the chosen face and of the others."""


def faces_shown(image: Tensor, faces: Sequence[Face], chosen: int | None = None) -> Tensor:
    """The picture `(3, H, W)` in [0, 1] with every face's box, number and five points drawn over it: `(3, H, W)`."""
    import numpy as np
    from PIL import ImageDraw, ImageFont

    picture = to_pil(image)
    pen = ImageDraw.Draw(picture)
    unit = max(1, round(max(image.shape[-2:]) / 300))
    letters = ImageFont.load_default(max(10, 6 * unit))
    for i, face in enumerate(faces):
        colour = CHOSEN if i == chosen else OTHER
        x0, y0, x1, y1 = face.box
        pen.rectangle((x0, y0, x1, y1), outline=colour, width=unit)
        for x, y in face.points.tolist():
            pen.ellipse((x - unit, y - unit, x + unit, y + unit), fill=colour)
        label = pen.textbbox((x0, y0), str(i), letters)
        pen.rectangle((label[0] - unit, label[1] - unit, label[2] + unit, label[3] + unit), fill=colour)
        pen.text((x0, y0), str(i), fill=(0, 0, 0), font=letters)
    return from_uint8(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
