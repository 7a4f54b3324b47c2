"""Stage: case. Keep a case as files, and go on with it later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from . import folders, sockets

CATEGORY = "IdentiFace/case"


class SaveCase(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceSaveCase",
            display_name="Save Case",
            category=CATEGORY,
            is_output_node=True,
            description="Writes the case to ComfyUI's output folder: case.json, a picture per round "
            "(marked as generated), contact sheets, report.html.",
            inputs=[
                sockets.Case.Input("case", tooltip="From Iterate, Part Round or Choose Candidate."),
                io.String.Input(
                    "name",
                    default="case",
                    tooltip="Folder under output/identiface; a case of that name is replaced.",
                ),
            ],
            outputs=[sockets.out(io.String, "folder")],
        )

    @classmethod
    def execute(cls, case: Any, name: str) -> io.NodeOutput:
        folder = case_folder(name)
        saved = case.save_to(folder)
        name = "rounds.png" if (folder / "rounds.png").is_file() else "candidates.png"
        picture = {"filename": name, "subfolder": f"identiface/{folder.name}", "type": "output"}
        ranked = [
            {"rank": one.rank, "person": one.person, "score": one.score, "fpir": one.fpir}
            for one in saved.candidates
        ]
        return io.NodeOutput(
            str(folder),
            ui={"images": [picture], "candidates": ranked, "text": [saved.stop_reason or "not finished"]},
        )


class LoadCase(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceLoadCase",
            display_name="Load Case",
            category=CATEGORY,
            description="Goes on with a saved case: its rounds are read, not drawn again. Evidence, "
            "gallery, settings and models must be those it was run with.",
            inputs=[
                sockets.Case.Input(
                    "case", tooltip="From Start Case, with the same evidence, gallery and settings."
                ),
                io.String.Input("name", default="case", tooltip="Folder under output/identiface."),
            ],
            outputs=[sockets.out(sockets.Case, "case")],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str, **_: Any) -> Any:
        file = Path(folder_paths.get_output_directory()) / "identiface" / name / "case.json"
        return file.stat().st_mtime_ns if file.is_file() else float("nan")

    @classmethod
    def execute(cls, case: Any, name: str) -> io.NodeOutput:
        return io.NodeOutput(case.loaded_from(case_folder(name)))


def case_folder(name: str) -> Path:
    """Where a case of that name lies; InputError for a name that is no plain file name."""
    return Path(folder_paths.get_output_directory()) / "identiface" / folders.plain(name)


NODES = [SaveCase, LoadCase]
