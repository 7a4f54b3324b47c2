"""`identiface gallery enrol`, `search` and `info`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from identiface_core.cli.console import Stages, console, rate, say, show_table

if TYPE_CHECKING:
    from identiface_core.embedded import EmbeddedModel
    from identiface_core.faces.base import Finder
    from identiface_core.gallery import Gallery
    from identiface_core.matchers.base import Matcher
    from identiface_core.matchers.calibration import Calibration

EMBEDDED = "embedded"
LISTED = 10
"""So many pictures that were left out are named."""


@dataclass(frozen=True)
class _Networks:
    """What enrols photographs, see `gallery.enrolment.EnrolmentModel`."""

    finder: Finder
    matcher_a: Matcher
    matcher_b: Matcher
    calibrations: Mapping[str, Calibration]


def enrol(
    folder: Path,
    out: Path,
    *,
    face: Any = None,
    matchers: Sequence[Path] = (),
    detector: Path | None = None,
    device: str = "cpu",
) -> int:
    """Enrol a folder of pictures into the gallery file `out`; pictures left out are named with the reason.

    matchers: one or two files for photographs, instead of the embedded two; detector: likewise. Raises the library's errors:
    `GalleryError` for the folder and `OutputError` for `out` at once.
    """
    from identiface_core.errors import InputError
    from identiface_core.gallery import enrol_folder
    from identiface_core.gallery.enrolment import pictures_of
    from identiface_core.weights.files import check_writable

    # What cannot end well is said before minutes of work, not after them.
    pictures_of(folder)
    check_writable(out)
    if len(matchers) > 2:
        raise InputError(f"a gallery is enrolled with one matcher or two, these are {len(matchers)}")
    screen = console()
    model = _networks(matchers, detector, face, device)
    with Stages(screen) as stages:
        made = enrol_folder(folder, model, lambda done, total, name: stages("enrol", done, total, name), face)
    made.gallery.save(out)
    say(screen, f"{out}: {len(made.gallery)} people enrolled, {len(made.skipped)} pictures left out")
    for one in made.skipped[:LISTED]:
        say(screen, f"  {one.path}: {one.reason}")
    if len(made.skipped) > LISTED:
        say(screen, f"  and {len(made.skipped) - LISTED} more")
    return 0


def search_image(
    file: str,
    image: Path,
    *,
    k: int = 10,
    face: Any = None,
    matcher: Path | None = None,
    detector: Path | None = None,
    device: str = "cpu",
) -> int:
    """Show the `k` people of the gallery `file` whose templates are most like the face in `image`.

    matcher, detector: files for photographs, instead of the embedded ones. The false-positive rates of such a matcher are read
    off the gallery, whose people are strangers to each other; a gallery too small for that tells none.
    """
    from identiface_core.errors import GalleryError, InputError
    from identiface_core.faces.choice import choose_face
    from identiface_core.gallery import search
    from identiface_core.gallery.enrolment import fingerprint
    from identiface_core.imaging import read_image
    from identiface_core.matchers.base import Embedding
    from identiface_core.matchers.calibration import calibrate
    from identiface_core.matchers.probe import embed_face
    from identiface_core.provenance import Origin, read_origin
    from identiface_core.rounds.case import NOTICE

    screen = console()
    picture, gallery = read_image(image), _open(file)
    model = _networks(() if matcher is None else (matcher,), detector, face, device)
    searching = model.matcher_a
    points = None
    if face != "whole":
        points = choose_face(model.finder.find_faces(picture), face, name=image.name).points
    try:
        templates = gallery.templates_of(
            searching.name, dimension=searching.dimension, fingerprint=fingerprint(searching)
        )
    except GalleryError as error:
        raise GalleryError(f"gallery {file}: {error}") from error
    generated = read_origin(image) is Origin.GENERATED
    seen = embed_face(searching, picture, points)
    query = Embedding(
        seen.vectors[0].float().cpu(), searching.name, synthetic=generated, quality=float(seen.quality[0])
    )
    if matcher is None:
        table = model.calibrations.get("portrait")
    else:
        try:
            table = calibrate(searching, templates)
        except InputError:
            table = None  # too few people
    found = search(gallery, query, k, calibration=table)
    rows = [(str(one.rank), one.person, f"{one.score:.3f}", rate(one.fpir)) for one in found.entries]
    show_table(screen, f"Candidates among {len(gallery)} people", ("rank", "person", "score", "FPIR"), rows)
    if generated:
        say(screen, f"Note: {image.name} says that it was generated: it shows a guess, not a person.")
    say(screen, NOTICE)
    return 0


def info(file: str) -> int:
    """Show what a gallery file holds."""
    screen, gallery = console(), _open(file)
    say(screen, f"{file}: {len(gallery)} people")
    for name, templates in gallery.templates.items():
        weights = gallery.matchers[name][:12]
        say(screen, f"  matcher {name}: {templates.shape[1]}-d templates, weights {weights}")
    for origin, count in sorted(Counter(gallery.origins).items()):
        say(screen, f"  {origin} pictures: {count}")
    return 0


def _networks(
    matchers: Sequence[Path], detector: Path | None, face: Any, device: str
) -> EmbeddedModel | _Networks:
    """The embedded model, or in its place the user's matchers and detector. InputError for a matcher of photographs whose faces
    the embedded finder, which knows drawn people, would have to find."""
    from identiface_core.embedded import load_embedded
    from identiface_core.errors import InputError
    from identiface_core.faces.onnx_finders import load_finder
    from identiface_core.matchers.load import load_matcher

    if matchers and detector is None and face != "whole":
        raise InputError(
            "--matcher is for photographs, in which the embedded finder does not find faces well: give --detector too, a "
            "SCRFD or YuNet (`identiface weights list --role detector`), or --face whole for portraits that are cut out already"
        )
    loaded = [load_matcher(path) for path in matchers]
    finder = None if detector is None else load_finder(detector, "--detector")
    if loaded and finder is not None:
        return _Networks(finder, loaded[0], loaded[-1], {})
    model = load_embedded(device)
    if loaded:
        return _Networks(model.finder, loaded[0], loaded[-1], {})
    if finder is not None:
        return _Networks(finder, model.matcher_a, model.matcher_b, model.calibrations)
    return model


def _open(file: str) -> Gallery:
    if file == EMBEDDED:
        from identiface_core.embedded import load_demo_gallery

        return load_demo_gallery()
    from identiface_core.gallery import Gallery

    return Gallery.load(file)
