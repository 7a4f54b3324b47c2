"""Stage: faces. Real photographs: which face is meant, its portrait, its parts, and the way back into the picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from comfy_api.latest import io, ui

from . import folders, sockets
from .evidence import read_box
from .images import to_core, to_host

CATEGORY = "IdentiFace/faces"
EMBEDDED = "embedded"
HOW = ("the only one", "largest", "by number", "by box", "nearest")
ON_NO_FACE = ("error", "skip", "pass through")


class LoadFaceDetector(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceLoadFaceDetector",
            display_name="Load Face Detector",
            category=CATEGORY,
            description="Finds faces in real photographs: SCRFD or YuNet from an ONNX file. The embedded one knows drawn "
            "people.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[EMBEDDED, *folders.face_files()],
                    default=EMBEDDED,
                    tooltip="An ONNX file in models/identiface_faces or models/insightface. What it is, is told by its "
                    "content. `identiface weights get yunet-2023mar` brings one.",
                ),
            ],
            outputs=[sockets.out(sockets.Finder, "finder")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> Any:
        return folders.state_of_face_file(file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        from identiface_core.embedded import FILES, FOLDER
        from identiface_core.faces.onnx_finders import load_finder

        path = FOLDER / FILES["finder"] if file == EMBEDDED else folders.face_file(file, "Load Face Detector")
        return io.NodeOutput(load_finder(path, "Load Face Detector"))


class LoadFaceParts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceLoadFaceParts",
            display_name="Load Face Parts",
            category=CATEGORY,
            description="Tells where the parts of a real face are: a face parsing network (19 classes), or points on the "
            "face (2d106det, 1k3d68). The embedded one knows drawn people.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[EMBEDDED, *folders.face_files()],
                    default=EMBEDDED,
                    tooltip="An ONNX file in models/identiface_faces or models/insightface. What it is, is told by its "
                    "content. `identiface weights get face-parsing-resnet18` brings one.",
                ),
            ],
            outputs=[sockets.out(sockets.Parts, "parts")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> Any:
        return folders.state_of_face_file(file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        from identiface_core.embedded import FILES, FOLDER
        from identiface_core.faces.sources import load_parts

        path = FOLDER / FILES["segmenter"] if file == EMBEDDED else folders.face_file(file, "Load Face Parts")
        return io.NodeOutput(load_parts(path, "Load Face Parts"))


class DetectFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceDetectFace",
            display_name="Detect Face",
            category=CATEGORY,
            is_output_node=True,
            description="Finds the faces of each picture, shows them with numbers, chooses one, and says which and why.",
            inputs=[
                io.Image.Input("image", tooltip="One or more pictures, any size."),
                sockets.Finder.Input(
                    "finder",
                    optional=True,
                    tooltip="Of Load Face Detector; not needed where landmarks are linked.",
                ),
                io.Combo.Input(
                    "choice",
                    options=list(HOW),
                    default=HOW[0],
                    tooltip="Which face is meant. 'the only one': several are an error. 'nearest': the one most like the "
                    "reference.",
                ),
                io.Int.Input(
                    "number",
                    default=0,
                    min=0,
                    max=499,
                    tooltip="With 'by number': as the overlay shows; 0 is the surest face.",
                ),
                io.String.Input(
                    "box",
                    default="",
                    tooltip="With 'by box': x0, y0, x1, y1 in pixels of the picture; the face that overlaps it most.",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Score from which a find counts. 0: the detector's own.",
                ),
                io.Combo.Input(
                    "on_no_face",
                    options=list(ON_NO_FACE),
                    default=ON_NO_FACE[0],
                    tooltip="A picture without the wanted face. skip: Align Face leaves it out. pass through: it takes the whole "
                    "picture, not aligned.",
                ),
                sockets.Matcher.Input(
                    "matcher", optional=True, tooltip="With 'nearest': what compares the faces."
                ),
                sockets.Embedding.Input(
                    "reference",
                    optional=True,
                    tooltip="With 'nearest': who is looked for; made by the same matcher.",
                ),
                io.Custom("BOUNDING_BOX").Input(
                    "boxes",
                    optional=True,
                    tooltip="With 'by box': a box of another node, for each picture its first one.",
                    extra_dict={"forceInput": True},
                ),
                io.Custom("FACE_LANDMARKS").Input(
                    "landmarks",
                    optional=True,
                    tooltip="Points on these pictures from the host's own face landmarker: its faces, in place of a finder.",
                ),
            ],
            outputs=[
                sockets.out(sockets.Faces, "faces", tooltip="For Align Face and Paste Face Back."),
                sockets.out(io.Image, "overlay", tooltip="The pictures with numbered boxes."),
                sockets.out(io.String, "text", tooltip="What was found and chosen, a line for each face."),
                sockets.out(
                    io.Custom("BOUNDING_BOX"),
                    "boxes",
                    tooltip="All boxes of each picture, for the host's own nodes.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Any,
        choice: str,
        number: int,
        box: str,
        threshold: float,
        on_no_face: str,
        finder: Any = None,
        matcher: Any = None,
        reference: Any = None,
        boxes: Any = None,
        landmarks: Any = None,
    ) -> io.NodeOutput:
        import torch

        from identiface_core.faces.base import listed
        from identiface_core.faces.choice import select_face
        from identiface_core.faces.overlay import faces_shown

        sockets.one_of(choice, HOW, "Detect Face: choice")
        sockets.one_of(on_no_face, ON_NO_FACE, "Detect Face: on_no_face")
        pictures, likeness = to_core(image), likeness_of(matcher, reference) if choice == "nearest" else None
        given = boxes_of(boxes, len(pictures)) if boxes is not None else None
        typed = read_box(box) if choice == "by box" and given is None else None
        finders = finders_of(finder, landmarks, pictures)
        found = [
            select_face(
                picture,
                finders[i],
                choice,
                number=number,
                box=typed if given is None else given[i],
                likeness=likeness,
                threshold=threshold or None,
                on_no_face=on_no_face,
                picture=i,
                name=f"Detect Face, picture {i}",
            )
            for i, picture in enumerate(pictures)
        ]
        overlay = to_host(
            torch.stack([faces_shown(p, s.faces, s.chosen) for p, s in zip(pictures, found, strict=True)])
        )
        text = "\n".join(f"picture {s.picture}: {s.reason}\n  {listed(s.faces)}" for s in found)
        if given is not None and choice != "by box":
            text += f"\nThe linked boxes were not used: the choice is '{choice}', not 'by box'."
        shown = {**ui.PreviewImage(overlay, cls=cls).as_dict(), "text": [text]}
        return io.NodeOutput(tuple(found), overlay, text, [host_boxes(s.faces) for s in found], ui=shown)


class AlignFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFaceAlignFace",
            display_name="Align Face",
            category=CATEGORY,
            description="Portraits in the framing that all our models know: eyes level, one size, the whole head.",
            inputs=[
                io.Image.Input("image", tooltip="The pictures that Detect Face saw."),
                sockets.Faces.Input("faces", tooltip="Of Detect Face."),
                io.Int.Input(
                    "size",
                    default=512,
                    min=128,
                    max=1024,
                    step=8,
                    tooltip="Width and height of a portrait. The embedded models know 128.",
                ),
            ],
            outputs=[
                sockets.out(
                    io.Image, "portraits", tooltip="One for each picture that Detect Face did not skip."
                )
            ],
        )

    @classmethod
    def execute(cls, image: Any, faces: Any, size: int) -> io.NodeOutput:
        import torch

        portraits = [
            selection.portrait(picture, size) for picture, selection in paired(image, faces, "Align Face")
        ]
        return io.NodeOutput(to_host(torch.stack([one for one in portraits if one is not None])))


class PasteFaceBack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IdentiFacePasteFaceBack",
            display_name="Paste Face Back",
            category=CATEGORY,
            description="Puts portraits back into the pictures that Align Face cut them from. The result is no photograph any "
            "more.",
            inputs=[
                io.Image.Input("image", tooltip="The pictures that Detect Face saw."),
                io.Image.Input("portraits", tooltip="Of Align Face, changed; in the same order."),
                sockets.Faces.Input("faces", tooltip="Of Detect Face."),
                io.Float.Input(
                    "edge",
                    default=0.08,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    tooltip="Soft rim of the portrait, as a share of its side; without a mask.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="What of the portrait is pasted, in its own framing, as Part Mask gives.",
                ),
            ],
            outputs=[sockets.out(io.Image, "image")],
        )

    @classmethod
    def execute(cls, image: Any, portraits: Any, faces: Any, edge: float, mask: Any = None) -> io.NodeOutput:
        import torch

        from identiface_core.errors import InputError
        from identiface_core.faces.paste import paste_back

        pairs, drawn = list(paired(image, faces, "Paste Face Back")), to_core(portraits)
        wanted = [i for i, (_, selection) in enumerate(pairs) if selection.matrix(128) is not None]
        if len(drawn) != len(wanted) or (mask is not None and len(mask) not in (1, len(drawn))):
            given = "" if mask is None else f" and {len(mask)} masks"
            raise InputError(
                f"Paste Face Back: {len(wanted)} portraits are wanted, one for each picture with a face, these are "
                f"{len(drawn)}{given}"
            )
        result = [picture for picture, _ in pairs]
        for k, i in enumerate(wanted):
            matrix = pairs[i][1].matrix(drawn.shape[-1])
            own = None if mask is None else mask[min(k, len(mask) - 1)].float().cpu()
            result[i] = paste_back(result[i], drawn[k], matrix, own, edge=edge)
        return io.NodeOutput(to_host(torch.stack(result)))


def paired(image: Any, faces: Any, what: str) -> Iterator[tuple[Any, Any]]:
    """(picture, selection) one by one; InputError unless the faces were found in these pictures."""
    from identiface_core.errors import InputError, NoFaceError

    pictures = to_core(image)
    sizes = {selection.size for selection in faces}
    if len(pictures) != len(faces) or sizes != {tuple(pictures.shape[-2:])}:
        seen = " and ".join(f"{width} x {height}" for height, width in sorted(sizes))
        raise InputError(
            f"{what}: the faces were found in {len(faces)} pictures of {seen} px, "
            f"these are {len(pictures)} of {pictures.shape[-1]} x {pictures.shape[-2]} px: link the same pictures"
        )
    if all(selection.matrix(128) is None for selection in faces):
        raise NoFaceError(f"{what}: every picture was skipped. {faces[0].reason}")
    return zip(pictures, faces, strict=True)


def likeness_of(matcher: Any, reference: Any) -> Any:
    """How like the reference portraits are; None unless both are given, InputError for one of another matcher."""
    from identiface_core.errors import InputError
    from identiface_core.faces.choice import likeness_to

    if matcher is None or reference is None:
        return None
    if reference.embedding.matcher != matcher.name:
        raise InputError(
            f"Detect Face: the reference was made by matcher '{reference.embedding.matcher}', this one is '{matcher.name}': "
            "embed it with the same"
        )
    return likeness_to(matcher.embed, reference.embedding.vector)


def host_boxes(faces: Any) -> list[dict[str, Any]]:
    """Faces of a picture in the form of the host's BOUNDING_BOX."""
    return [
        {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "label": "face", "score": face.score}
        for face in faces
        for x0, y0, x1, y1 in [face.box]
    ]


def finders_of(finder: Any, landmarks: Any, pictures: Any) -> list[Any]:
    """What finds the faces of each picture: the host's landmarks, if there are any, else the detector for all."""
    from identiface_core.errors import InputError
    from identiface_core.faces.host_landmarks import finders_of_host

    count, _, height, width = pictures.shape
    if landmarks is not None:
        return list(finders_of_host(landmarks, count, (height, width)))
    if finder is None:
        raise InputError(
            "Detect Face: link finder, of Load Face Detector, or landmarks, of the host's own face landmarker"
        )
    return [finder] * count


def boxes_of(boxes: Any, count: int) -> list[tuple[float, ...]]:
    """The first box for each of `count` pictures, from the host's BOUNDING_BOX: one, or a list of lists; () without any."""
    from identiface_core.errors import InputError

    rows = (boxes or [[]]) if isinstance(boxes, list) else [boxes]
    rows = [row if isinstance(row, list) else [row] for row in rows]
    if len(rows) not in (1, count):
        raise InputError(
            f"Detect Face: boxes for {count} pictures are wanted, a list for each; these are for {len(rows)}"
        )
    return [_corners(row[0]) if row else () for row in rows] * (count if len(rows) == 1 else 1)


def _corners(box: Any) -> tuple[float, ...]:
    from identiface_core.errors import InputError

    try:
        x, y, width, height = (float(box[name]) for name in ("x", "y", "width", "height"))
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"Detect Face: a box has four numbers x, y, width and height; this is {box!r:.200}"
        ) from None
    return (x, y, x + width, y + height)


NODES = [LoadFaceDetector, LoadFaceParts, DetectFace, AlignFace, PasteFaceBack]
