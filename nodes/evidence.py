"""Stage: evidence. What is left of a face: a low-quality photo, a sketch, words."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from . import sockets
from .images import one, to_core, to_host

CATEGORY = "IdentiFace/evidence"
FACES = ("automatic", "whole picture", "by number", "by box")
EXTRACTORS = ("own", "canny", "lineart_standard", "hed", "lineart", "lineart-coarse", "pidinet")


class ExampleCase(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceExampleCase",
            display_name="Example Case",
            category=CATEGORY,
            description="What a witness left of a person who does not exist: to try the pack without a "
            "file of your own. Put Load Image and Description in its place.",
            inputs=[],
            outputs=[
                sockets.out(io.Image, "photo", tooltip="A tiny photo from another day."),
                sockets.out(io.Image, "drawing", tooltip="A rough sketch, drawn from memory."),
                sockets.out(
                    sockets.Description, "description", tooltip="Words, some of them missing or wrong."
                ),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from identiface_core.imaging import read_image
        from identiface_core.rounds.case_input import read_case

        from .folders import EXAMPLE

        case = read_case(EXAMPLE)
        pictures = [None if path is None else to_host(read_image(path)) for path in (case.lq, case.sketch)]
        return io.NodeOutput(*pictures, case.description)


class LQPhoto(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceLQPhoto",
            display_name="LQ Photo",
            category=CATEGORY,
            is_output_node=True,
            description="A small or blurred photo of the face, cut to the face; says how much of a person "
            "is left in it.",
            inputs=[
                io.Image.Input(
                    "image", tooltip="One photo, any size. A tiny crop of the face itself is fine."
                ),
                io.Combo.Input(
                    "face",
                    options=list(FACES),
                    default=FACES[0],
                    tooltip="Which face is meant. 'automatic': up to 64 px the picture is the face; in a "
                    "larger one there must be just one face. 'whole picture': the picture is the "
                    "face, whatever its size.",
                ),
                io.Int.Input(
                    "number",
                    default=0,
                    min=0,
                    max=99,
                    tooltip="With 'by number': 0 is the surest face found.",
                ),
                io.String.Input(
                    "box",
                    default="",
                    tooltip="With 'by box': the face as x0, y0, x1, y1 in pixels of the photo.",
                ),
                sockets.Finder.Input(
                    "finder",
                    optional=True,
                    tooltip="Needed to find a face in a larger photo. Of Load Face Detector for real people, of Load Embedded "
                    "Model for drawn ones.",
                ),
            ],
            outputs=[
                sockets.out(sockets.Evidence, "evidence"),
                sockets.out(io.Image, "crop"),
                sockets.out(
                    io.Float, "recognisability", tooltip="0 (nobody could tell) to 1 (a clear portrait)."
                ),
            ],
        )

    @classmethod
    def execute(cls, image: Any, face: str, number: int, box: str, finder: Any = None) -> io.NodeOutput:
        from identiface_core.evidence.lq import enlarge, prepare_lq
        from identiface_core.evidence.values import Evidence

        sockets.one_of(face, FACES, "LQ Photo: face")
        choice: Any = {"automatic": None, "whole picture": "whole", "by number": number}.get(face, face)
        photo = prepare_lq(one(image, "LQ Photo"), read_box(box) if face == "by box" else choice, finder)
        crop = to_host(photo.crop)
        note = f"recognisability {photo.recognisability:.2f}, face {photo.native_side} px wide"
        note = ". ".join([note, *(one for one in (photo.taken, photo.warning) if one)])
        large = to_host(enlarge(photo.crop, 128, 128))
        shown = {**ui.PreviewImage(large, cls=cls).as_dict(), "text": [note]}
        return io.NodeOutput(Evidence(lq=photo.crop), crop, photo.recognisability, ui=shown)


def read_box(text: str) -> tuple[float, float, float, float]:
    """Four numbers; InputError for anything else."""
    from identiface_core.errors import InputError

    try:
        x0, y0, x1, y1 = (float(piece) for piece in text.replace(",", " ").split())
    except ValueError:
        raise InputError(
            f"a box is four numbers 'x0, y0, x1, y1' in pixels of the photo, this is {text!r}"
        ) from None
    return x0, y0, x1, y1


class SimulateCamera(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceSimulateCamera",
            display_name="Simulate LQ Camera",
            category=CATEGORY,
            description="Degrades a good picture to what a poor camera would have kept of it: for trials, "
            "not for evidence.",
            inputs=[
                io.Image.Input("image", tooltip="Good pictures; every one is degraded with its own seed."),
                io.Combo.Input(
                    "model",
                    options=["simple", "camera"],
                    default="simple",
                    tooltip="simple: area-averaged down, as published. camera: blur, noise, compression "
                    "and shake as well.",
                ),
                io.Int.Input(
                    "side", default=8, min=8, max=128, tooltip="Width and height in pixels that are left."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip="Camera model: how poor it is; 1 as published.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    tooltip="Camera model: the draw of noise and shake.",
                ),
            ],
            outputs=[sockets.out(io.Image, "lq")],
        )

    @classmethod
    def execute(cls, image: Any, model: str, side: int, strength: float, seed: int) -> io.NodeOutput:
        import torch

        from identiface_core.evidence.camera import simulate_camera
        from identiface_core.evidence.lq import simulate_simple

        sockets.one_of(model, ("simple", "camera"), "Simulate LQ Camera: model")
        pictures = to_core(image)
        if model == "simple":
            taken = [simulate_simple(picture, str(side)) for picture in pictures]
        else:
            taken = [simulate_camera(picture, side, strength, seed + i) for i, picture in enumerate(pictures)]
        return io.NodeOutput(to_host(torch.stack(taken)))


class Sketch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceSketch",
            display_name="Sketch",
            category=CATEGORY,
            is_output_node=True,
            description="A drawing of the face, cleaned to dark lines on white; or the lines of a photo.",
            inputs=[
                io.Image.Input(
                    "image", tooltip="One drawing (or photo) of the face, frontal, filling the picture."
                ),
                io.Combo.Input(
                    "kind",
                    options=["drawing", "photo"],
                    default="drawing",
                    tooltip="drawing: lines are cleaned. photo: lines are extracted, as if someone had "
                    "drawn it.",
                ),
                io.Combo.Input(
                    "extractor",
                    options=list(EXTRACTORS),
                    default=EXTRACTORS[0],
                    optional=True,
                    tooltip="What extracts a photo's lines. own: as the embedded model's drawings are. The others come from the "
                    "package controlnet_aux; hed, lineart and pidinet need weights as well.",
                ),
            ],
            outputs=[
                sockets.out(sockets.Evidence, "evidence"),
                sockets.out(
                    io.Image,
                    "lines",
                    tooltip="512 x 512: for a ControlNet too; those of 'own' are 128 x 128.",
                ),
            ],
        )

    @classmethod
    def execute(cls, image: Any, kind: str, extractor: str = EXTRACTORS[0]) -> io.NodeOutput:
        import folder_paths

        from identiface_core.evidence.extractors import extract_lines, lines_to_sketch
        from identiface_core.evidence.sketch import FINE_SIDE, clean_sketch, extract_sketch
        from identiface_core.evidence.values import Evidence

        sockets.one_of(kind, ("drawing", "photo"), "Sketch: kind")
        sockets.one_of(extractor, EXTRACTORS, "Sketch: extractor")
        picture = one(image, "Sketch")
        fine = None
        if kind == "drawing":
            lines, fine = clean_sketch(picture), clean_sketch(picture, side=FINE_SIDE)
        elif extractor == EXTRACTORS[0]:
            lines = extract_sketch(picture)
        else:
            found = extract_lines(picture, extractor, folders=[folder_paths.models_dir])
            lines, fine = lines_to_sketch(found), lines_to_sketch(found, FINE_SIDE)
        shown = to_host(lines if fine is None else fine)
        return io.NodeOutput(
            Evidence(sketch=lines, fine_sketch=fine), shown, ui=ui.PreviewImage(shown, cls=cls)
        )


class Describe(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceDescription",
            display_name="Description",
            category=CATEGORY,
            description="The witness's words: about the whole face, and about each part.",
            inputs=[
                io.String.Input(
                    "overview",
                    multiline=True,
                    default="",
                    tooltip="The whole face: 'A young woman with pale skin.' The published bracket form "
                    "is read too: A young woman. ['hair'] Long black hair.",
                ),
                io.String.Input(
                    "parts",
                    multiline=True,
                    default="",
                    tooltip="One part a line, as in 'eyes: narrow brown eyes'. Parts: eyes, brows, mouth, "
                    "nose, ears, hair, glasses, beard, skin.",
                ),
            ],
            outputs=[
                sockets.out(sockets.Description, "description"),
                sockets.out(io.String, "text", tooltip="The published form."),
            ],
        )

    @classmethod
    def execute(cls, overview: str, parts: str) -> io.NodeOutput:
        from identiface_core.evidence.description import Description

        said = Description.parse(overview).to_mapping() if overview.strip() else {}
        for part, text in read_parts(parts):
            said[part] = f"{said[part]} {text}" if part in said else text
        description = Description.from_mapping(said)
        return io.NodeOutput(description, description.to_text())


def read_parts(text: str) -> list[tuple[str, str]]:
    """(part, words) of lines "part: words"; InputError for one without a colon, empty ones are left out."""
    from identiface_core.errors import InputError

    found = []
    for line in filter(str.strip, text.splitlines()):
        part, colon, words = line.partition(":")
        if not colon:
            raise InputError(
                f'Description: write each part as "eyes: narrow brown eyes", this line names none: {line!r}'
            )
        found.append((part.strip(), words.strip()))
    return found


class JoinEvidence(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceEvidence",
            display_name="Evidence",
            category=CATEGORY,
            description="Joins what there is: photo, sketch, words. One of them is enough.",
            inputs=[
                sockets.Evidence.Input("lq_photo", optional=True, tooltip="From LQ Photo."),
                sockets.Evidence.Input("sketch", optional=True, tooltip="From Sketch."),
                sockets.Description.Input("description", optional=True, tooltip="From Description."),
            ],
            outputs=[sockets.out(sockets.Evidence, "evidence")],
        )

    @classmethod
    def execute(cls, lq_photo: Any = None, sketch: Any = None, description: Any = None) -> io.NodeOutput:
        from identiface_core.evidence.values import Evidence

        lines, fine = (None, None) if sketch is None else (sketch.sketch, sketch.fine_sketch)
        photo = None if lq_photo is None else lq_photo.lq
        return io.NodeOutput(Evidence(photo, lines, description, fine))


NODES = [ExampleCase, LQPhoto, SimulateCamera, Sketch, Describe, JoinEvidence]
