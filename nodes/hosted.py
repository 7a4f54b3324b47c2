"""Matchers in the care of the host's memory manager.

Host modules are imported here at top level: this file is only imported when a node runs.
"""

from __future__ import annotations

import copy
from typing import Any

import comfy.model_management as mm
from torch import Tensor

from .native import patcher


class HostMatcher:
    """The MATCHER socket: a matcher whose network is brought to the device for each use, and away when room is needed.

    Everything but the four ways to use the network is the matcher's own.
    """

    def __init__(self, matcher: Any) -> None:
        self.matcher = matcher
        self.patcher = patcher(matcher.net)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "matcher":
            raise AttributeError(name)
        return getattr(self.matcher, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy is the bare matcher, in nobody's care: whoever copies it takes it where it is needed."""
        return copy.deepcopy(self.matcher, memo)

    def embed(self, pictures: Tensor, points: Tensor | None = None) -> Tensor:
        """See `matchers.base.Matcher.embed`."""
        return self._here().embed(pictures, points)

    def embed_with_quality(self, pictures: Tensor, points: Tensor | None = None) -> Any:
        """See `matchers.base.Matcher.embed_with_quality`."""
        return self._here().embed_with_quality(pictures, points)

    def features(self, pictures: Tensor, points: Tensor | None = None) -> Tensor | None:
        """The last map in which places of the face are apart, or None."""
        return self._here().features(pictures, points)

    def _here(self) -> Any:
        mm.load_models_gpu([self.patcher])
        return self.matcher
