"""The one place where pictures change their layout between ComfyUI's sockets and the core."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def to_core(image: Tensor) -> Tensor:
    """IMAGE (B, H, W, 3 or 4) -> core (B, 3, H, W), float32 on the CPU; transparency is laid over white."""
    image = image.detach().float().cpu().clamp(0, 1)
    if image.shape[-1] == 4:
        alpha = image[..., 3:]
        image = image[..., :3] * alpha + (1 - alpha)
    return image.movedim(-1, 1).contiguous()


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
