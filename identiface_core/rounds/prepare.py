"""What a case is run on: evidence and a gallery, from a user's files or from values, with a record of them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from identiface_core.errors import GalleryError, InputError, NoFaceError, SeveralFacesError
from identiface_core.evidence.lq import prepare_lq, recognisability
from identiface_core.evidence.sketch import clean_sketch
from identiface_core.evidence.values import Evidence
from identiface_core.gallery import Gallery, enrol_folder
from identiface_core.gallery.enrolment import fingerprint
from identiface_core.imaging import read_image, to_uint8
from identiface_core.matchers.verdict import WEAK_BELOW, verdict_on
from identiface_core.weights.files import sha256_of

from .case_input import CaseInput

if TYPE_CHECKING:
    from torch import Tensor

    from .toolkit import Toolkit

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


def prepare(case: CaseInput, model: Toolkit, on_progress: Progress | None = None) -> Prepared:
    """Read the pictures, clean them, open or enrol the gallery.

    Raises `InputError` for a picture or face that cannot be used, `GalleryError` for a gallery that cannot be
    opened or made; both name the file.
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
        if photo.taken:
            warnings.append(
                f'{photo.taken} (in a case file: face = [x0, y0, x1, y1], or face = "whole" if it does)'
            )
        alone = case.sketch is None and case.description is None
        if alone and photo.recognisability < WEAK_BELOW:
            verdict = verdict_on(photo.recognisability)
            warnings.append(f"{case.lq.name}: {verdict.sentence} {verdict.advice}")
        elif photo.warning:
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
            warnings.append(
                f"words that the text encoder does not know were ignored: {', '.join(read.unknown_words)}"
            )
        if read.warning:
            warnings.append(read.warning)
    evidence = Evidence(lq, sketch, case.description)
    gallery, source, skipped = _gallery(case, model, on_progress)
    if skipped:
        warnings.append(f"{len(skipped)} gallery pictures were not enrolled: the case file says why")
    return prepared_from(
        evidence, gallery, source=source, evidence_record=record, skipped=skipped, warnings=warnings
    )


def prepared_from(
    evidence: Evidence,
    gallery: Gallery,
    *,
    source: str = "memory",
    evidence_record: Mapping[str, Any] | None = None,
    skipped: Sequence[Mapping[str, str]] = (),
    warnings: Sequence[str] = (),
) -> Prepared:
    """The same from values, without any file.

    source: what the case file calls the gallery. evidence_record: what it says of the evidence (by default
    `record_of`). skipped: {"file", "reason"} of each picture that was not enrolled.
    """
    said = record_of(evidence) if evidence_record is None else dict(evidence_record)
    found = {
        "source": source,
        "people": len(gallery),
        "sha256": gallery_digest(gallery),
        "skipped": [dict(one) for one in skipped],
    }
    return Prepared(evidence, said, gallery, found, tuple(warnings))


def record_of(evidence: Evidence) -> dict[str, Any]:
    """What a case file says of evidence that came as values: pictures have no file, and go by their pixels."""
    lq, sketch, words = evidence.lq, evidence.sketch, evidence.description
    return {
        "lq": None
        if lq is None
        else {
            "file": "LQ Photo",
            "sha256": _pixels_hash(lq),
            "face": None,
            "native_side": lq.shape[-1],
            "recognisability": float(recognisability(lq)),
        },
        "sketch": None if sketch is None else {"file": "Sketch", "sha256": _pixels_hash(sketch)},
        "description": None if words is None else words.to_mapping(),
    }


def gallery_digest(gallery: Gallery) -> str:
    """sha256 of names and templates, 64 hex digits."""
    digest = hashlib.sha256("\n".join(gallery.people).encode())
    for name in sorted(gallery.templates):
        digest.update(name.encode())
        digest.update(gallery.templates[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_gallery(prepared: Prepared, model: Toolkit) -> None:
    """Raise `GalleryError`, naming the source, unless the gallery was enrolled with both matchers of `model`."""
    for matcher in (model.matcher_a, model.matcher_b):
        try:
            prepared.gallery.templates_of(
                matcher.name, dimension=matcher.dimension, fingerprint=fingerprint(matcher)
            )
        except GalleryError as error:
            raise GalleryError(f"gallery {prepared.gallery_record['source']}: {error}") from error


def _gallery(
    case: CaseInput, model: Toolkit, on_progress: Progress | None
) -> tuple[Gallery, str, list[dict[str, str]]]:
    """The gallery, what to call it, and the pictures that were not enrolled."""
    if case.gallery is None:
        from identiface_core.embedded import load_demo_gallery

        return load_demo_gallery(), "embedded", []
    if not case.gallery.is_dir():
        return Gallery.load(case.gallery), case.gallery.name, []

    def enrolling(done: int, total: int, name: str) -> None:
        if on_progress is not None:
            on_progress("gallery", done, total, f"enrolling {name}")

    made = enrol_folder(case.gallery, model, enrolling)
    # A case file names no folder of the machine it was run on.
    here = f"{case.gallery}{os.sep}"
    skipped = [
        {"file": one.path.relative_to(case.gallery).as_posix(), "reason": one.reason.replace(here, "")}
        for one in made.skipped
    ]
    return made.gallery, case.gallery.name, skipped


def _pixels_hash(image: Tensor) -> str:
    return hashlib.sha256(to_uint8(image).cpu().contiguous().numpy().tobytes()).hexdigest()
