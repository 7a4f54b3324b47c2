"""How ONNX files of other projects are known: by what goes in and what comes out, never by their own name.

Each rule takes a graph's inputs and outputs and gives what it knows, or None.
"""

from __future__ import annotations

from collections.abc import Callable

from identiface_core.weights.families import Recognised
from identiface_core.weights.onnx_graph import Graph

OnnxRule = Callable[[Graph], Recognised | None]

STRIDES = (8, 16, 32)
YUNET_OUTPUTS = tuple(f"{what}_{stride}" for what in ("cls", "obj", "bbox", "kps") for stride in STRIDES)
SCRFD_WIDTHS = (1, 1, 1, 4, 4, 4, 10, 10, 10)
"""Last sides of SCRFD's outputs: scores, boxes and points at three strides."""
LANDMARK_WIDTHS = {212: 106, 3309: 68}
"""Numbers that InsightFace's landmark networks give, and the points that are in them."""


def yunet(graph: Graph) -> Recognised | None:
    """YuNet as OpenCV and libfacedetection publish it since 2023."""
    if graph.picture and {port.name for port in graph.outputs} == set(YUNET_OUTPUTS):
        return Recognised("face-detector", "a face detector (YuNet)", {"family": "yunet"})
    return None


def scrfd(graph: Graph) -> Recognised | None:
    """InsightFace's SCRFD; without points it is known, too, and told apart by a fact."""
    if not graph.picture or len(graph.outputs) not in (6, 9):
        return None
    widths = [port.shape[-1] if port.shape else None for port in graph.outputs]
    wanted = SCRFD_WIDTHS[: len(widths)]
    if any(have not in (want, None) for have, want in zip(widths, wanted, strict=True)):
        return None
    return Recognised(
        "face-detector", "a face detector (SCRFD)", {"family": "scrfd", "points": len(widths) == 9}
    )


def face_parsing(graph: Graph) -> Recognised | None:
    """A network that gives each pixel scores of classes. `order`: whose numbers the classes have."""
    if not graph.picture or not graph.outputs or len(graph.outputs[0].shape) != 4:
        return None
    classes = graph.outputs[0].shape[1]
    if classes is None or classes < 4:
        return None
    # The two known families number the same 19 classes differently; only Hugging Face's calls its input so.
    order = "celebamask" if graph.inputs[0].name == "pixel_values" else "bisenet"
    title = f"a face parsing network of {classes} classes"
    return Recognised("face-parsing", title, {"classes": classes, "order": order})


def face_landmarks(graph: Graph) -> Recognised | None:
    """InsightFace's 2d106det and 1k3d68."""
    if not graph.picture or graph.picture[-2:] != (192, 192) or len(graph.outputs) != 1:
        return None
    points = LANDMARK_WIDTHS.get((graph.outputs[0].shape or (None,))[-1] or 0)
    if points is None:
        return None
    return Recognised("face-landmarks", f"a network for {points} points of a face", {"points": points})


def face_matcher(graph: Graph) -> Recognised | None:
    """ArcFace, AdaFace, SFace, EdgeFace: an aligned face of about 112 px to one vector; AdaFace's give its length beside it.

    A graph that leaves its sides open is known by the usual lengths of such vectors. A thousand values are ImageNet's classes.
    """
    sides = set(graph.picture[-2:])
    shapes = [port.shape for port in graph.outputs]
    if len(sides) != 1 or not shapes or len(shapes[0]) != 2 or shapes[1:] not in ([], [(shapes[0][0], 1)]):
        return None
    side, dimension = sides.pop(), shapes[0][1]
    usual = dimension in (128, 256, 512) if side is None else 96 <= side <= 160
    if not usual or dimension is None or dimension < 64 or dimension == 1000:
        return None
    facts = {"dimension": dimension, "side": side or 112}
    return Recognised("matcher-onnx", "a face matcher (ONNX)", facts)


ONNX_RULES: tuple[OnnxRule, ...] = (yunet, scrfd, face_parsing, face_landmarks, face_matcher)
"""In the order in which they are asked."""
