"""What flows between our nodes beside ComfyUI's own types: values of the core, one socket type each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

Toolkit = io.Custom("IDENTIFACE_TOOLKIT")
"""`embedded.EmbeddedModel`: all networks of one model, which belong together."""
Control = io.Custom("IDENTIFACE_CONTROL")
"""`native.HostControl`: control branch and autoencoder in the memory manager's care."""
Matcher = io.Custom("IDENTIFACE_MATCHER")
"""`matchers.base.Matcher`."""
Encoder = io.Custom("IDENTIFACE_ENCODER")
"""`identity.QueryEncoder`: evidence encoder with its text encoder and calibration."""
Parts = io.Custom("IDENTIFACE_PARTS")
"""`faces.sources.PartSource`."""
Finder = io.Custom("IDENTIFACE_FINDER")
"""`faces.base.Finder`."""
Faces = io.Custom("IDENTIFACE_FACES")
"""Tuple of `faces.choice.Selection`, one for each picture of a batch."""
Evidence = io.Custom("IDENTIFACE_EVIDENCE")
"""`evidence.values.Evidence`; any of the three kinds may be missing."""
Description = io.Custom("IDENTIFACE_DESCRIPTION")
"""`evidence.description.Description`."""
Embedding = io.Custom("IDENTIFACE_EMBEDDING")
"""`identity.Query`: an embedding and what it was made from."""
Gallery = io.Custom("IDENTIFACE_GALLERY")
"""`gallery.store.Gallery`."""
Candidates = io.Custom("IDENTIFACE_CANDIDATES")
"""`gallery.values.Candidates`: a lead, not an identification."""
Case = io.Custom("IDENTIFACE_CASE")
"""A case in progress; a new value after each round."""


def out(kind: Any, name: str, tooltip: str | None = None) -> Any:
    """An output called `name`. Ids must differ from those of inputs; without a name the type is shown."""
    return kind.Output(f"{name}_out", display_name=name, tooltip=tooltip)


def one_of(value: str, options: Sequence[str], what: str) -> str:
    """`value`, if it is an option. The host does not check combos of V3 nodes: any text can arrive."""
    if value not in options:
        from identiface_core.errors import InputError

        raise InputError(f"{what}: {value!r} is unknown; choose one of {', '.join(options)}")
    return value
