"""The one place where pictures change their layout between ComfyUI's sockets and the core."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def to_core(image: Tensor) -> Tensor:
    """IMAGE (B, H, W, 1, 3 or 4) -> core (B, 3, H, W), float32 on the CPU; grey becomes RGB, transparency is laid over white.

    Raises InputError for another shape, for no picture or none with pixels, and for values that are not finite numbers.
    """
    from identiface_core.errors import InputError

    shape = tuple(image.shape)
    if len(shape) != 4 or shape[-1] not in (1, 3, 4) or 0 in shape:
        raise InputError(
            f"pictures (count, height, width, channels) with 1, 3 or 4 channels are wanted, this is {shape}: link an image"
        )
    image = image.detach().float().cpu()
    sound = image.isfinite().flatten(1).all(1)
    if not bool(sound.all()):
        raise InputError(
            f"picture {int((~sound).nonzero()[0])} has values that are not finite numbers: what made it failed (a VAE in half "
            "precision can)"
        )
    image = image.clamp(0, 1)
    if shape[-1] == 4:
        alpha = image[..., 3:]
        image = image[..., :3] * alpha + (1 - alpha)
    return image.expand(*shape[:3], 3).movedim(-1, 1).contiguous()


def to_host(image: Tensor) -> Tensor:
    """Core (B, C, H, W) or (C, H, W), C = 1 or 3 -> IMAGE (B, H, W, 3)."""
    if image.dim() == 3:
        image = image[None]
    return image.detach().float().cpu().expand(-1, 3, -1, -1).movedim(1, -1).contiguous()


def one(image: Tensor, what: str) -> Tensor:
    """The only picture of an IMAGE, as core (3, H, W); InputError names `what` when there are several."""
    if image.shape[0] != 1:
        from identiface_core.errors import InputError

        raise InputError(
            f"{what}: one picture is wanted, this batch has {image.shape[0]}; pick one with ImageFromBatch"
        )
    return to_core(image)[0]
