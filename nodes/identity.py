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

    @property
    def made(self) -> str:
        """Of what, for people to read."""
        if self.kinds:
            return f"made from evidence ({', '.join(self.kinds)})"
        return f"made from {'generated faces' if self.embedding.synthetic else 'photos'}"

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
            outputs=[
                sockets.out(
                    sockets.Embedding,
                    "query",
                    tooltip="Where the evidence points: for Search Gallery and Identity Guidance.",
                )
            ],
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
            description="Faces to one search query: the consensus of all pictures, which should show one person. Photos count "
            "by their quality.",
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
                    tooltip="Finds and aligns the face. Leave it out for pictures that are square portraits "
                    "already, such as generated ones.",
                ),
                sockets.Faces.Input(
                    "faces",
                    optional=True,
                    tooltip="Of Detect Face, for the pictures of `image`: the face that was chosen there, instead of a finder.",
                ),
                *(
                    io.Image.Input(
                        f"image_{number}",
                        optional=True,
                        tooltip="More pictures of the same person, of any size; square portraits unless a finder is linked.",
                    )
                    for number in (2, 3, 4)
                ),
            ],
            outputs=[
                sockets.out(
                    sockets.Embedding, "query", tooltip="The consensus of the pictures, by this matcher."
                ),
                sockets.out(io.Float, "quality", tooltip="How far the pictures can be trusted, 0 to 1."),
                sockets.out(io.String, "text", tooltip="The quality of each picture."),
            ],
        )

    @classmethod
    def execute(
        cls, matcher: Any, image: Any, origin: str, finder: Any = None, faces: Any = None, **more: Any
    ) -> io.NodeOutput:
        import torch

        from identiface_core.matchers.base import Embedding
        from identiface_core.matchers.probe import embed_face
        from identiface_core.matchers.quality import fuse_references
        from identiface_core.rounds.case import BY_GENERATED
        from identiface_core.rounds.consensus import consensus

        sockets.one_of(origin, ("generated", "photo"), "Embed Face: origin")
        batches = [image, *(one for _, one in sorted(more.items()) if one is not None)]
        seen = [
            embed_face(matcher, picture, points)
            for place, batch in enumerate(batches)
            for picture, points in faces_in(batch, finder, faces if place == 0 else None)
        ]
        vectors, quality = torch.cat([one.vectors for one in seen]), torch.cat([one.quality for one in seen])
        drawn = origin == "generated"
        # What scores of generated faces mean was measured on their plain consensus.
        vector = consensus(vectors) if drawn else fuse_references(vectors, quality.clamp_min(1e-3))
        trust = float(quality.mean())
        source = BY_GENERATED if drawn else "portrait"
        text = "\n".join(f"picture {i}: quality {value:.2f}" for i, value in enumerate(quality.tolist()))
        query = Query(Embedding(vector, matcher.name, synthetic=drawn, quality=trust), source)
        return io.NodeOutput(query, trust, text, ui={"text": [text]})


def faces_in(image: Any, finder: Any, faces: Any) -> list[tuple[Any, Any]]:
    """(picture (3, H, W), points (5, 2) or None for a portrait) for each picture of an IMAGE that is not skipped."""
    if faces is not None:
        from .faces import paired

        return [
            (one.portrait(picture, max(one.size)), None)
            if one.chosen is None
            else (picture, one.faces[one.chosen].points)
            for picture, one in paired(image, faces, "Embed Face")
            if one.chosen is not None or one.whole
        ]
    pictures = to_core(image)
    if finder is None:
        return [(picture, None) for picture in pictures]
    return [
        (picture, the_only_face(picture, finder, f"Embed Face, picture {i}").points)
        for i, picture in enumerate(pictures)
    ]


def the_only_face(picture: Any, finder: Any, name: str) -> Any:
    """`faces.base.Face`; NoFaceError and SeveralFacesError say what a node can do about it."""
    from identiface_core.faces.choice import choose_face

    return choose_face(
        finder.find_faces(picture),
        None,
        name=name,
        otherwise=", or unlink the finder if this is a portrait already",
    )


NODES = [EmbedEvidence, EmbedFace]
