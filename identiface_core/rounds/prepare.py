"""From a user's files to evidence and a gallery, with a record of what was read and what to warn of."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from identiface_core.errors import GalleryError, InputError, NoFaceError, SeveralFacesError
from identiface_core.evidence.lq import prepare_lq
from identiface_core.evidence.sketch import clean_sketch
from identiface_core.evidence.values import Evidence
from identiface_core.gallery import Gallery, enrol_folder
from identiface_core.gallery.enrolment import fingerprint
from identiface_core.imaging import read_image
from identiface_core.weights.files import sha256_of

from .case_input import CaseInput

if TYPE_CHECKING:
    from identiface_core.embedded import EmbeddedModel

Progress = Callable[[str, int, int, str], None]
"""Called with (stage, done, total, what is being done); stages are "gallery" and "rounds"."""


@dataclass(frozen=True)
class Prepared:
    """What a case is run on. The records go into the case file as they are."""

    evidence: Evidence
    evidence_record: dict[str, Any]
    gallery: Gallery
    gallery_record: dict[str, Any]
    warnings: tuple[str, ...] = ()


def prepare(case: CaseInput, model: EmbeddedModel, on_progress: Progress | None = None) -> Prepared:
    """Read the pictures, clean them, open or enrol the gallery.

    Raises `InputError` for a picture or face that cannot be used, `GalleryError` for a gallery that cannot be
    searched with `model`; both name the file.
    """
    warnings: list[str] = []
    record: dict[str, Any] = {"lq": None, "sketch": None, "description": None}
    lq = sketch = None
    if case.lq is not None:
        try:
            photo = prepare_lq(read_image(case.lq), case.face, model.finder, name=case.lq.name)
        except (NoFaceError, SeveralFacesError) as error:
            how = 'face = 0, face = [x0, y0, x1, y1] or face = "whole"'
            raise type(error)(f"{error} In a case file: {how} under [evidence].") from error
        lq = photo.crop
        record["lq"] = {
            "file": case.lq.name,
            "sha256": sha256_of(case.lq),
            "face": list(case.face) if isinstance(case.face, tuple) else case.face,
            "native_side": photo.native_side,
            "recognisability": float(photo.recognisability),
        }
        if photo.warning:
            warnings.append(photo.warning)
    if case.sketch is not None:
        sketch = clean_sketch(read_image(case.sketch), name=case.sketch.name)
        record["sketch"] = {"file": case.sketch.name, "sha256": sha256_of(case.sketch)}
    if case.description is not None:
        record["description"] = case.description.to_mapping()
        read = model.text_encoder.read(case.description.full_prompt())
        words = set(re.findall("[a-z]+", case.description.full_prompt().lower()))
        if lq is None and sketch is None and words <= set(read.unknown_words):
            raise InputError(
                "the description is the only evidence, and the text encoder knows none of its words: "
                f"{', '.join(read.unknown_words)}. Describe the face in plain English, such as 'a man with grey hair'"
            )
        if read.unknown_words:
            warnings.append(f"words that the text encoder does not know: {', '.join(read.unknown_words)}")
        if read.warning:
            warnings.append(read.warning)
    evidence = Evidence(lq, sketch, case.description)
    gallery, gallery_record = _gallery(case, model, on_progress, warnings)
    return Prepared(evidence, record, gallery, gallery_record, tuple(warnings))


def _gallery(
    case: CaseInput, model: EmbeddedModel, on_progress: Progress | None, warnings: list[str]
) -> tuple[Gallery, dict[str, Any]]:
    skipped: list[dict[str, str]] = []
    if case.gallery is None:
        from identiface_core.embedded import load_demo_gallery

        source, gallery = "embedded", load_demo_gallery()
    elif case.gallery.is_dir():
        source = case.gallery.name

        def enrolling(done: int, total: int, name: str) -> None:
            if on_progress is not None:
                on_progress("gallery", done, total, f"enrolling {name}")

        made = enrol_folder(case.gallery, model, enrolling)
        gallery = made.gallery
        skipped = [
            {"file": one.path.relative_to(case.gallery).as_posix(), "reason": one.reason}
            for one in made.skipped
        ]
        if skipped:
            warnings.append(f"{len(skipped)} gallery pictures were not enrolled: the case file says why")
    else:
        if not case.gallery.exists():
            raise GalleryError(
                f"{case.gallery}: no such folder or file: name a folder of pictures, a .safetensors gallery, "
                'or "embedded"'
            )
        source, gallery = case.gallery.name, Gallery.load(case.gallery)
    for matcher in (model.matcher_a, model.matcher_b):
        try:
            gallery.templates_of(matcher.name, dimension=matcher.dimension, fingerprint=fingerprint(matcher))
        except GalleryError as error:
            raise GalleryError(f"gallery {source}: {error}") from error
    record = {"source": source, "people": len(gallery), "sha256": _digest(gallery), "skipped": skipped}
    return gallery, record


def _digest(gallery: Gallery) -> str:
    digest = hashlib.sha256("\n".join(gallery.people).encode())
    for name in sorted(gallery.templates):
        digest.update(name.encode())
        digest.update(gallery.templates[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
