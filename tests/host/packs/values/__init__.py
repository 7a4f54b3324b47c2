"""Nodes for tests only: values of types that come from nodes of newer hosts or of other packs, written as JSON."""

from __future__ import annotations

import json
from typing import Any


class FaceLandmarks:
    """What the face landmarker of newer hosts gives, with arrays in place of lists."""

    CATEGORY, FUNCTION = "tests", "make"
    RETURN_TYPES = ("FACE_LANDMARKS",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("STRING", {"multiline": True})}}

    def make(self, value: str) -> tuple[Any]:
        import numpy as np

        found = json.loads(value)
        for face in (face for frame in found["frames"] for face in frame):
            face["landmarks_xy"] = np.array(face["landmarks_xy"], np.float32)
        return (found,)


class BoundingBoxes:
    """A BOUNDING_BOX."""

    CATEGORY, FUNCTION = "tests", "make"
    RETURN_TYPES = ("BOUNDING_BOX",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("STRING", {"multiline": True})}}

    def make(self, value: str) -> tuple[Any]:
        return (json.loads(value),)


NODE_CLASS_MAPPINGS = {"FaceLandmarksForTests": FaceLandmarks, "BoundingBoxesForTests": BoundingBoxes}
