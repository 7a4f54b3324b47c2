"""What the workflows for photographs share: matchers and detectors, evidence, the case."""

from __future__ import annotations

from typing import Any

from tests.host.graphs import node
from tests.host.server import Graph

MATCHER, JUDGE = "auraface_v1_glintr100.onnx", "adaface_ir50_webface4m.safetensors"
DETECTOR, PARTS = "face_detection_yunet_2023mar.onnx", "face_parsing_resnet18.onnx"
CASE = {
    "seed": 42,
    "seeds": 4,
    "steps": 20,
    "guidance_scale": 5.0,
    "strength": 1.0,
    "candidates": 10,
    "exclude": "",
}
COLOURS = ("#3f789e", "#88aa88", "#b58b2a", "#8a4f7d", "#a1309b")


def titled(made: dict[str, Any], title: str) -> dict[str, Any]:
    return {**made, "_meta": {"title": title}}


def faces() -> Graph:
    """Ids: embedded, matcher, judge, finder, parts."""
    return {
        "embedded": node("IdentiFaceLoadEmbeddedModel"),
        "matcher": titled(
            node("IdentiFaceLoadMatcher", file=MATCHER, colour="automatic"), "Matcher: searches"
        ),
        "judge": titled(node("IdentiFaceLoadMatcher", file=JUDGE, colour="automatic"), "Matcher: judges"),
        "finder": node("IdentiFaceLoadFaceDetector", file=DETECTOR),
        "parts": node("IdentiFaceLoadFaceParts", file=PARTS),
    }


def evidence() -> Graph:
    """Ids: example, photo, sketch, evidence."""
    return {
        "example": node("IdentiFaceExampleCase"),
        "photo": node(
            "IdentiFaceLQPhoto",
            image=["example", 0],
            face="automatic",
            number=0,
            box="",
            finder=["finder", 0],
        ),
        "sketch": node("IdentiFaceSketch", image=["example", 1], kind="drawing"),
        "evidence": node(
            "IdentiFaceEvidence", lq_photo=["photo", 0], sketch=["sketch", 0], description=["example", 2]
        ),
    }


def case(name: str) -> Graph:
    """Ids: gallery, start, iterate, face, sheet, save; of the toolkit `toolkit`."""
    return {
        "gallery": node(
            "IdentiFaceEnrolFaces", toolkit=["toolkit", 0], folder="people", save=False, name="people"
        ),
        "start": node(
            "IdentiFaceStartCase",
            toolkit=["toolkit", 0],
            evidence=["evidence", 0],
            gallery=["gallery", 0],
            **CASE,
        ),
        "iterate": node("IdentiFaceIterate", case=["start", 0], rounds=12),
        "face": titled(node("PreviewImage", images=["iterate", 2]), "Faces of the rounds"),
        "sheet": node("IdentiFaceCandidateSheet", case=["iterate", 0]),
        "save": node("IdentiFaceSaveCase", case=["iterate", 0], name=name),
    }


def toolkit(**how: Any) -> dict[str, Any]:
    """Toolkit From Model with everything linked."""
    return node(
        "IdentiFaceModelToolkit", toolkit=["embedded", 8], matcher=["matcher", 0], judge=["judge", 0], parts=["parts", 0],
        finder=["finder", 0], latent=["empty", 0], **how,
    )  # fmt: skip


def files(*lines: tuple[str, str, str]) -> str:
    """A table of files for a note: name for `identiface weights get`, file, folder below `models`."""
    rows = "\n".join(f"| `{name}` | `{file}` | `models/{folder}` |" for name, file, folder in lines)
    return f"| `identiface weights get ...` | file | goes to |\n|---|---|---|\n{rows}"


FACE_FILES = (
    ("auraface", MATCHER, "identiface_matchers"),
    ("adaface-ir50", JUDGE, "identiface_matchers"),
    ("yunet-2023mar", DETECTOR, "identiface_faces"),
    ("face-parsing-resnet18", PARTS, "identiface_faces"),
)
MEANING = (
    "A candidate is **an investigative lead, not an identification**. Generated faces are guesses that fit the evidence, "
    "photographs of nobody. With matchers of your own, scores are not calibrated: nobody measured how often a stranger reaches "
    "them.\n\nRead the licences: `identiface weights list` shows them; some matchers and all of insightface's packs are for "
    "research only."
)
STEPS = (
    "1. Put pictures of the people to search into `input/people`: one file, or one folder, per person.\n2. Put *Load Image* in "
    "place of the photo and the drawing of **Example Case**, and **Description** in place of its words. Any of the three may be "
    "missing: take its link (and its ControlNet) away.\n3. Run. **Iterate** draws the whole face, then part by part."
)
