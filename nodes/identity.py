"""Stage: identity. Evidence and faces as vectors that a gallery can be searched with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from . import sockets
from .images import to_core

CATEGORY = "IdentiFace/identity"


@dataclass(frozen=True)
class Query:
    """The EMBEDDING socket: an embedding, and what it was made from: that decides how its scores read."""

    embedding: Any
    """`matchers.base.Embedding`."""
    source: str
    """"portrait", or the name of a candidate list of `rounds.case`."""
    kinds: tuple[str, ...] = ()
    """Kinds of evidence that it was made from, if any."""

    def calibration(self, toolkit: Any) -> Any:
        """The table that reads this query's scores; None where the model has none for it."""
        from identiface_core.rounds.engine import calibration_for

        if self.embedding.matcher != toolkit.matcher_a.name:
            return None
        return calibration_for(toolkit.calibrations, self.source, self.kinds)


class EmbedEvidence(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceEmbedEvidence",
            display_name="Embed Evidence",
            category=CATEGORY,
            description="Photo, sketch and words straight to a search query, without drawing a face: the "
            "best first search.",
            inputs=[
                sockets.Toolkit.Input(
                    "toolkit", tooltip="Of Load Embedded Model: evidence encoder and text encoder."
                ),
                sockets.Evidence.Input("evidence", tooltip="Any of the three kinds may be missing."),
            ],
            outputs=[sockets.out(sockets.Embedding, "query")],
        )

    @classmethod
    def execute(cls, toolkit: Any, evidence: Any) -> io.NodeOutput:
        from identiface_core.matchers.base import Embedding
        from identiface_core.rounds.case import BY_EVIDENCE

        vector = toolkit.evidence_encoder.query(evidence, toolkit.text_encoder)
        embedding = Embedding(vector, toolkit.matcher_a.name, synthetic=True)
        return io.NodeOutput(Query(embedding, BY_EVIDENCE, tuple(evidence.kinds)))


class EmbedFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceEmbedFace",
            display_name="Embed Face",
            category=CATEGORY,
            description="Faces to one search query: the consensus of all pictures of the batch, which "
            "should show one person.",
            inputs=[
                sockets.Matcher.Input(
                    "matcher", tooltip="The guiding matcher searches; judge with the other one."
                ),
                io.Image.Input("image", tooltip="One or more pictures of one person."),
                io.Combo.Input(
                    "origin",
                    options=["generated", "photo"],
                    default="generated",
                    tooltip="What the pictures are. A query made from generated faces says so wherever it "
                    "goes.",
                ),
                sockets.Finder.Input(
                    "finder",
                    optional=True,
                    tooltip="Finds and aligns the face. Leave it out for pictures that are portraits "
                    "already, such as generated ones.",
                ),
            ],
            outputs=[sockets.out(sockets.Embedding, "query")],
        )

    @classmethod
    def execute(cls, matcher: Any, image: Any, origin: str, finder: Any = None) -> io.NodeOutput:
        import torch

        from identiface_core.faces.finder import portrait_of
        from identiface_core.imaging import resize
        from identiface_core.matchers.base import Embedding
        from identiface_core.rounds.case import BY_GENERATED
        from identiface_core.rounds.consensus import consensus

        sockets.one_of(origin, ("generated", "photo"), "Embed Face: origin")
        pictures = to_core(image)
        if finder is None:
            portraits = resize(pictures, 128, 128)
        else:
            portraits = torch.stack([portrait_of(picture, finder) for picture in pictures])
        vector = consensus(matcher.embed(portraits))
        drawn = origin == "generated"
        return io.NodeOutput(
            Query(Embedding(vector, matcher.name, synthetic=drawn), BY_GENERATED if drawn else "portrait")
        )


NODES = [EmbedEvidence, EmbedFace]
