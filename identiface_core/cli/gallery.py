"""`identiface gallery enrol`, `search` and `info`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from identiface_core.cli.console import Stages, console, rate, say, show_table

if TYPE_CHECKING:
    from identiface_core.gallery import Gallery

EMBEDDED = "embedded"
LISTED = 10
"""So many pictures that were left out are named."""


def enrol(folder: Path, out: Path, *, face: Any = None, device: str = "cpu") -> int:
    """Enrol a folder of pictures into the gallery file `out`; pictures left out are named with the reason.

    Raises the library's errors: `GalleryError` for the folder and `OutputError` for `out` at once.
    """
    from identiface_core.embedded import load_embedded
    from identiface_core.gallery import enrol_folder
    from identiface_core.gallery.enrolment import pictures_of
    from identiface_core.weights.files import check_writable

    # What cannot end well is said before minutes of work, not after them.
    pictures_of(folder)
    check_writable(out)
    screen = console()
    model = load_embedded(device)
    with Stages(screen) as stages:
        made = enrol_folder(folder, model, lambda done, total, name: stages("enrol", done, total, name), face)
    made.gallery.save(out)
    say(screen, f"{out}: {len(made.gallery)} people enrolled, {len(made.skipped)} pictures left out")
    for one in made.skipped[:LISTED]:
        say(screen, f"  {one.path}: {one.reason}")
    if len(made.skipped) > LISTED:
        say(screen, f"  and {len(made.skipped) - LISTED} more")
    return 0


def search_image(file: str, image: Path, *, k: int = 10, face: Any = None, device: str = "cpu") -> int:
    """Show the `k` people of the gallery `file` whose templates are most like the face in `image`."""
    from identiface_core.embedded import load_embedded
    from identiface_core.errors import GalleryError
    from identiface_core.faces.choice import portrait_of
    from identiface_core.gallery import search
    from identiface_core.gallery.enrolment import fingerprint
    from identiface_core.imaging import read_image, resize
    from identiface_core.matchers.base import Embedding
    from identiface_core.provenance import Origin, read_origin
    from identiface_core.rounds.case import NOTICE

    screen = console()
    picture, gallery = read_image(image), _open(file)
    model = load_embedded(device)
    matcher = model.matcher_a
    if face == "whole":
        portrait = resize(picture, 128, 128)
    else:
        portrait = portrait_of(picture, model.finder, face, name=image.name)
    try:
        gallery.templates_of(matcher.name, dimension=matcher.dimension, fingerprint=fingerprint(matcher))
    except GalleryError as error:
        raise GalleryError(f"gallery {file}: {error}") from error
    generated = read_origin(image) is Origin.GENERATED
    vector = matcher.embed(portrait[None])[0].detach().float().cpu()
    query = Embedding(vector, matcher.name, synthetic=generated)
    found = search(gallery, query, k, calibration=model.calibrations.get("portrait"))
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


def _open(file: str) -> Gallery:
    if file == EMBEDDED:
        from identiface_core.embedded import load_demo_gallery

        return load_demo_gallery()
    from identiface_core.gallery import Gallery

    return Gallery.load(file)
