"""What can tell where the parts of a face are: one interface, and the files and hands that offer it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from identiface_core.errors import InputError
from identiface_core.faces.landmark_parts import LandmarkParts
from identiface_core.faces.outlines import ORDER, layered
from identiface_core.faces.parsing import FaceParsingParts
from identiface_core.faces.segmenter import PartSegmenter
from identiface_core.weights.files import load_module
from identiface_core.weights.recognise import expected


class PartSource(Protocol):
    """What `segmenter.part_mask` and part rounds read the parts of a face from."""

    def __call__(self, portraits: Tensor) -> Tensor:
        """Portraits `(B, 3, S, S)` in [0, 1], canonical framing, any S -> probabilities `(B, 9, S, S)`.

        Channels as `parts.MASK_CHANNELS`; those of a pixel sum to 1.
        """
        ...


def load_parts(path: str | Path, purpose: str = "A source of parts") -> PartSource:
    """The source of parts in the file at `path`, known by its content: a face parsing network, points of a face, or a
    segmenter that IdentiFace trained.

    purpose: what needs it, as the beginning of a sentence. Raises WeightsError for any other file, saying what it is.
    """
    found = expected(path, ("face-parsing", "face-landmarks", PartSegmenter.kind), purpose)
    if found.kind == "face-parsing":
        return FaceParsingParts(path, purpose)
    if found.kind == "face-landmarks":
        return LandmarkParts(path, purpose)
    return load_module(path, PartSegmenter)


def parts_from_masks(masks: Mapping[str, Tensor]) -> Tensor:
    """Masks by part, painted or from anywhere, as a `PartSource` gives them: `(B, 9, H, W)`.

    masks: `(B, 1, H, W)`, `(B, H, W)` or `(H, W)` in [0, 1], all of one size, by the names of `parts.MASK_CHANNELS` but for
    the background, which is what is left. Where masks overlap, the part in front (`outlines.ORDER`) hides the other.
    Raises InputError for no mask, an unknown part, or masks of different sizes.
    """
    unknown = sorted(set(masks) - set(ORDER))
    if unknown or not masks:
        raise InputError(
            f"masks of parts: one or more of {', '.join(ORDER)} are wanted, these are {', '.join(unknown) or 'none'}"
        )
    flat = {part: mask.float().cpu().reshape(-1, *mask.shape[-2:]) for part, mask in masks.items()}
    sizes = {tuple(mask.shape) for mask in flat.values()}
    if len(sizes) > 1:
        raise InputError(
            f"masks of parts: all must have one size, these have {' and '.join(map(str, sorted(sizes)))}"
        )
    return layered({part: [mask.clamp(0, 1)] for part, mask in flat.items()})
