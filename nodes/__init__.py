"""IdentiFace for ComfyUI: thin nodes over `identiface_core`, one file per stage."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import folders
from .core import register_core

register_core()


class IdentiFaceExtension(ComfyExtension):
    """All nodes of the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        from . import (
            case,
            conditioning,
            evidence,
            faces,
            gallery,
            guidance,
            identity,
            loop,
            matchers,
            model,
            sampling,
        )

        folders.register()
        stages = (
            model,
            evidence,
            faces,
            conditioning,
            matchers,
            identity,
            guidance,
            sampling,
            gallery,
            loop,
            case,
        )
        return [node for stage in stages for node in stage.NODES]
