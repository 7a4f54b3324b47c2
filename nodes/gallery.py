"""Stage: gallery. Known people, and who among them is most like a query: leads, not identifications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui

from . import folders, sockets
from .images import to_host

CATEGORY = "IdentiFace/gallery"


class OpenGallery(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceOpenGallery",
            display_name="Open Gallery",
            category=CATEGORY,
            description="Opens a gallery: the synthetic people that come with the pack, or one that was "
            "enrolled here.",
            inputs=[
                io.Combo.Input(
                    "gallery",
                    options=[folders.EMBEDDED, *folders.galleries()],
                    default=folders.EMBEDDED,
                    tooltip=f"'{folders.EMBEDDED}': synthetic people, nobody real. Others lie in "
                    f"models/{folders.GALLERIES}.",
                ),
            ],
            outputs=[sockets.out(sockets.Gallery, "gallery"), sockets.out(io.Int, "people")],
        )

    @classmethod
    def fingerprint_inputs(cls, gallery: str) -> Any:
        return folders.state_of(gallery)

    @classmethod
    def execute(cls, gallery: str) -> io.NodeOutput:
        opened = folders.open_gallery(gallery)
        return io.NodeOutput(opened, len(opened))


class EnrolFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceEnrolFaces",
            display_name="Enrol Faces",
            category=CATEGORY,
            is_output_node=True,
            description="Makes a gallery of a folder of pictures: one file, or one sub-folder, is one "
            "person.",
            inputs=[
                sockets.Toolkit.Input(
                    "toolkit", tooltip="Of Load Embedded Model: finds the faces and embeds them twice."
                ),
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="Folder of pictures on the server; relative to its input folder.",
                ),
                io.Boolean.Input(
                    "save",
                    default=False,
                    tooltip="Keep it as a file that Open Gallery lists; replaces one of the same name.",
                ),
                io.String.Input("name", default="my gallery", tooltip="Name of that file."),
                sockets.Gallery.Input("add_to", optional=True, tooltip="A gallery that these people join."),
            ],
            outputs=[
                sockets.out(sockets.Gallery, "gallery"),
                sockets.out(io.String, "report", tooltip="Who was left out, and why."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str, **_: Any) -> Any:
        return folders.state_of_folder(folder)

    @classmethod
    def execute(cls, toolkit: Any, folder: str, save: bool, name: str, add_to: Any = None) -> io.NodeOutput:
        from comfy.utils import ProgressBar

        from identiface_core.gallery import enrol_folder

        bar = ProgressBar(1)
        enrolment = enrol_folder(
            folders.input_folder(folder),
            toolkit,
            lambda done, total, _: bar.update_absolute(done, total),
        )
        gallery = enrolment.gallery if add_to is None else add_to.add(enrolment.gallery)
        if save:
            gallery.save(folders.gallery_file(name))
        left_out = [f"left out: {Path(skipped.path).name}: {skipped.reason}" for skipped in enrolment.skipped]
        report = "\n".join(
            [f"{len(enrolment.gallery)} people enrolled, {len(gallery)} in the gallery", *left_out]
        )
        return io.NodeOutput(gallery, report, ui={"text": [report]})


class SearchGallery(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceSearchGallery",
            display_name="Search Gallery",
            category=CATEGORY,
            is_output_node=True,
            description="The people most like a query, with the error rate that each score means at this "
            "gallery's size.",
            inputs=[
                sockets.Gallery.Input("gallery", tooltip="Whom to search."),
                sockets.Embedding.Input("query", tooltip="From Embed Evidence or Embed Face."),
                io.Int.Input("count", default=10, min=1, max=100, tooltip="Length of the candidate list."),
                io.String.Input(
                    "exclude", default="", multiline=True, tooltip="Names to leave out, one a line."
                ),
                sockets.Toolkit.Input(
                    "toolkit", optional=True, tooltip="Gives the error rates; without it there are none."
                ),
            ],
            outputs=[
                sockets.out(sockets.Candidates, "candidates"),
                sockets.out(io.Image, "faces", tooltip="Their pictures, best first."),
                sockets.out(io.String, "table"),
            ],
        )

    @classmethod
    def execute(
        cls, gallery: Any, query: Any, count: int, exclude: str, toolkit: Any = None
    ) -> io.NodeOutput:
        import torch

        from identiface_core.gallery import search
        from identiface_core.imaging import resize

        left_out = [line.strip() for line in exclude.splitlines() if line.strip()]
        calibration = None if toolkit is None else query.calibration(toolkit)
        candidates = search(
            gallery,
            query.embedding,
            count,
            calibration=calibration,
            exclude=left_out,
            source=query.source,
        )
        faces = torch.stack([resize(gallery.thumbnail(person), 128, 128) for person in candidates.people()])
        table = table_of(candidates)
        return io.NodeOutput(
            candidates, to_host(faces), table, ui={"text": [table], "candidates": rows_of(candidates)}
        )


class CandidateSheet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceCandidateSheet",
            display_name="Candidate Sheet",
            category=CATEGORY,
            is_output_node=True,
            description="A contact sheet of a case: evidence, the face that stands, the first candidates "
            "with their error rates.",
            inputs=[sockets.Case.Input("case", tooltip="From Iterate, Part Round or Start Case.")],
            outputs=[sockets.out(io.Image, "sheet")],
        )

    @classmethod
    def execute(cls, case: Any) -> io.NodeOutput:
        sheet = to_host(case.sheet())
        shown = {**ui.PreviewImage(sheet, cls=cls).as_dict(), "candidates": rows_of(case.candidates)}
        return io.NodeOutput(sheet, ui=shown)


def rows_of(candidates: Any) -> list[dict[str, Any]]:
    """The list as plain values, for the web page and for whoever follows the web socket."""
    return [
        {"rank": one.rank, "person": one.person, "score": round(one.score, 4), "fpir": one.fpir}
        for one in candidates.entries
    ]


def table_of(candidates: Any) -> str:
    """The list as text."""
    lines = [f"{'rank':>4}  {'person':<24} {'score':>6}  FPIR"]
    for one in candidates.entries:
        rate = "not calibrated" if one.fpir is None else f"{one.fpir:.2g}"
        lines.append(f"{one.rank:>4}  {one.person:<24} {one.score:>6.3f}  {rate}")
    return "\n".join([*lines, "An investigative lead, not an identification."])


NODES = [OpenGallery, EnrolFaces, SearchGallery, CandidateSheet]
