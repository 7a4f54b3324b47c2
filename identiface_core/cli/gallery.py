"""`identiface gallery enrol`, `search` and `info`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from identiface_core.cli.console import FPIR, Stages, console, rate, say, show_table
from identiface_core.cli.networks import finder_from, matchers_from, warn_of_drawn

if TYPE_CHECKING:
    from rich.console import Console

    from identiface_core.embedded import EmbeddedModel
    from identiface_core.faces.base import Finder
    from identiface_core.gallery import Gallery
    from identiface_core.matchers.base import Matcher
    from identiface_core.matchers.calibration import Calibration

EMBEDDED = "embedded"
LISTED = 10
"""So many pictures that were left out are named."""
SEVERAL = "Say which with --face: its number, a box x0,y0,x1,y1 around it, or largest"
NO_FACE = ", or --face whole if the picture is the cropped face already"
SUFFIX = ".safetensors"
NOTICE = (
    "This is an investigative lead, not an identification. Somebody always comes first; the person sought may not be in this "
    "gallery. A trained examiner must compare independent evidence before anybody acts on this."
)


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
    `GalleryError` for the folder, `OutputError` and InputError for `out` at once.
    """
    from identiface_core.errors import InputError
    from identiface_core.gallery import enrol_folder
    from identiface_core.gallery.folder import pictures_of
    from identiface_core.weights.files import check_writable

    # What cannot end well is said before minutes of work, not after them.
    pictures_of(folder)
    check_writable(out)
    if out.suffix != SUFFIX:
        raise InputError(f"--out {out}: gallery files end in {SUFFIX}: say --out {out.with_suffix(SUFFIX)}")
    if len(matchers) > 2:
        raise InputError(f"a gallery is enrolled with one matcher or two, these are {len(matchers)}")
    screen = console()
    model = _networks(matchers_from(matchers, screen), detector, face, device)
    if detector is not None:
        warn_of_drawn((model.matcher_a, model.matcher_b), model.finder, screen)
    with Stages(screen) as stages:
        made = enrol_folder(
            folder,
            model,
            lambda done, total, name: stages("enrol", done, total, name),
            face,
            several=SEVERAL,
            otherwise=NO_FACE,
        )
    made.gallery.save(out)
    say(screen, f"{out}: {len(made.gallery)} people enrolled, {len(made.skipped)} pictures left out")
    _listed(screen, [f"{one.path}: {one.reason}" for one in made.skipped])
    if made.several:
        say(screen, f"several faces in {len(made.several)} of the pictures that were used; taken was")
        _listed(screen, [f"{path}: {reason}" for path, reason in made.several])
    for odd in made.oddities:
        say(screen, f"Note: {odd}")
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
    from identiface_core.faces.choice import selection_by
    from identiface_core.gallery import search
    from identiface_core.gallery.enrolment import fingerprint
    from identiface_core.imaging import read_image
    from identiface_core.matchers.base import Embedding
    from identiface_core.matchers.calibration import calibrate
    from identiface_core.matchers.probe import embed_face
    from identiface_core.provenance import Origin, read_origin

    screen, gallery = console(), _open(file)
    loaded = matchers_from(() if matcher is None else (matcher,), screen)
    if loaded:
        _check_enrolled(gallery, file, loaded[0], given=True)
    model = _networks(loaded, detector, face, device)
    searching = model.matcher_a
    _check_enrolled(gallery, file, searching, given=bool(loaded))
    picture = read_image(image)
    drawn = detector is not None and warn_of_drawn((searching,), model.finder, screen)
    points = None
    if face != "whole":
        chosen = selection_by(
            picture, model.finder, face, name=image.name, several=SEVERAL, otherwise=NO_FACE
        )
        points = chosen.points
        if len(chosen.faces) > 1:
            say(screen, f"{image.name}: {chosen.reason}")
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
    table: Calibration | None = None
    if loaded:
        try:
            table = calibrate(searching, templates)
            means = f"Measured by comparing this gallery's {len(gallery)} people with each other."
        except InputError as error:
            means = f"Here it is unknown: {error}"
    elif drawn:
        means = f"Here it is unknown: the error rates of {searching.name} are those of drawn people."
    else:
        table, means = model.calibrations.get("portrait"), "Measured on drawn people."
    found = search(gallery, query, k, calibration=table)
    least = None if table is None else table.fpir(inf, len(gallery))
    rows = [
        (
            str(one.rank),
            one.person + (" (generated picture)" if one.generated else ""),
            f"{one.score:.3f}",
            rate(one.fpir, least),
        )
        for one in found.entries
    ]
    show_table(screen, f"Candidates among {len(gallery)} people", ("rank", "person", "score", "FPIR"), rows)
    say(screen, f"{FPIR} {means}")
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
        say(screen, f"  people with {origin} pictures: {count}")
    return 0


def _networks(
    loaded: Sequence[Matcher], detector: Path | None, face: Any, device: str
) -> EmbeddedModel | _Networks:
    """The embedded model, or in its place the user's matchers and detector. InputError for a matcher of photographs whose faces
    the embedded finder, which knows drawn people, would have to find."""
    from identiface_core.embedded import load_embedded
    from identiface_core.errors import InputError

    if loaded and detector is None and face != "whole":
        raise InputError(
            "--matcher is for photographs, in which the embedded finder does not find faces well: give --detector too, a "
            "SCRFD or YuNet (`identiface weights list --role detector`), or --face whole for portraits that are cut out already"
        )
    finder = None if detector is None else finder_from(detector)
    if loaded and finder is not None:
        return _Networks(finder, loaded[0], loaded[-1], {})
    model = load_embedded(device)
    if loaded:
        return _Networks(model.finder, loaded[0], loaded[-1], {})
    if finder is not None:
        return _Networks(finder, model.matcher_a, model.matcher_b, model.calibrations)
    return model


def _check_enrolled(gallery: Gallery, file: str, matcher: Matcher, *, given: bool) -> None:
    """GalleryError, which says what to give, for a gallery without templates of `matcher`; given: it is that of --matcher."""
    from identiface_core.errors import GalleryError

    if matcher.name in gallery.templates or not gallery.people:
        return
    names = " and ".join(gallery.templates)
    advice = f"give --matcher FILE with {'that one' if len(gallery.templates) == 1 else 'one of these'} (and --detector FILE)"
    if all(name.startswith(EMBEDDED) for name in gallery.templates):
        advice = "leave out --matcher"
    raise GalleryError(
        f"gallery {file} was enrolled with {names}, not with {matcher.name}{' of --matcher' if given else ''}: {advice}, or "
        "enrol people again"
    )


def _listed(screen: Console, lines: Sequence[str]) -> None:
    for line in lines[:LISTED]:
        say(screen, f"  {line}")
    if len(lines) > LISTED:
        say(screen, f"  and {len(lines) - LISTED} more")


def _open(file: str) -> Gallery:
    if file == EMBEDDED:
        from identiface_core.embedded import load_demo_gallery

        return load_demo_gallery()
    from identiface_core.errors import GalleryError
    from identiface_core.gallery import Gallery
    from identiface_core.gallery.folder import PICTURES

    path = Path(file)
    if path.is_dir():
        raise GalleryError(
            f"{file}: a folder. `identiface gallery enrol {file} --out FILE{SUFFIX}` makes a gallery file of its pictures"
        )
    if path.suffix.lower() in PICTURES:
        raise GalleryError(
            f"{file}: a picture, where a gallery file is wanted: `identiface gallery search GALLERY{SUFFIX} PICTURE`"
        )
    return Gallery.load(file)
