"""The door of the ComfyUI pack: faces from a blurred photo, a sketch and words, and the people like them."""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """What ComfyUI calls to get the nodes; nothing is imported before."""
    from .nodes import IdentiFaceExtension

    return IdentiFaceExtension()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
