"""Does a matcher separate the people of a folder of photographs: faces found, cut out, embedded, all pairs compared (1:1).

Terms as in ISO/IEC 19795-1: a *mated* pair shows one person twice, in different photos; FMR is the share of pairs of strangers
that reach a threshold, FNMR that of mated pairs that do not, EER the rate at which the two are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from identiface_core.errors import IdentiFaceError, InputError
from identiface_core.evaluation.metrics import Rate
from identiface_core.evidence.lq import prepare_lq, simulate_simple
from identiface_core.faces.alignment import PORTRAIT_SIDE, align
from identiface_core.faces.base import Finder
from identiface_core.faces.choice import select_face
from identiface_core.gallery.enrolment import Skipped, left_out
from identiface_core.gallery.folder import pictures_of
from identiface_core.imaging import read_image, resize
from identiface_core.matchers.base import Matcher
from identiface_core.matchers.calibration import fit

RESAMPLES = 200
FMRS = (0.001, 0.01)
"""False match rates for which a threshold is looked for; the first that the pairs of strangers can vouch for is taken."""
PEOPLE = 5
"""Of fewer people the spread between them tells nothing about others: the interval is then [0, 1]."""
NAMED = 5
"""So many pairs of each kind are named."""
LARGEST = "Take the largest with --largest, or crop the picture"
SHARP = 256
"""Side of the portraits, in pixels, that are made small."""

Progress = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Pair:
    """Two photos, by their places in `Report.files`."""

    cosine: float
    first: int
    second: int


@dataclass(frozen=True)
class Separation:
    """How far the cosines of mated pairs lie from those of strangers."""

    matcher: str
    probe: str
    """What is compared with whole photos: "photo", or "24 px" for copies made so small."""
    mated: Tensor
    """(M,) cosines."""
    strangers: Tensor
    """(N,) cosines."""
    eer: Rate
    """With its 95 % interval over people."""
    eer_threshold: float
    auc: float
    """P(a mated pair is more alike than a pair of strangers), a tie counting half."""
    fmr: float | None
    """The false match rate that `threshold` promises among these strangers; None: too few of them for any."""
    threshold: float | None
    fnmr: float | None
    """Share of mated pairs below `threshold`."""
    recognisability: float
    """Mean over the probes, see `evidence.lq.recognisability`."""
    least_alike: tuple[Pair, ...] = ()
    """The mated pairs that are least alike, worst first, and"""
    most_alike: tuple[Pair, ...] = ()
    """the strangers that are most alike, where photos are compared with each other: among them are wrong labels."""

    @property
    def verdict(self) -> str:
        """What the figures mean, in a sentence."""
        if self.eer.value >= 0.35 or self.auc < 0.7:
            return (
                f"hardly tells these people apart (EER {100 * self.eer.value:.0f} %, guessing has 50 %): the wrong file, colour "
                "or scale, or no matcher of faces"
            )
        if self.eer.value >= 0.1:
            return (
                f"confuses these people often, EER {100 * self.eer.value:.0f} %: of little use for a search"
            )
        return f"tells these people apart, EER {100 * self.eer.value:.1f} %"


@dataclass(frozen=True)
class Report:
    """What was measured, on whom, and what was left out."""

    people: tuple[str, ...]
    """The person in each photo that was used, in the order of the folder."""
    skipped: tuple[Skipped, ...]
    rows: tuple[Separation, ...]
    several: tuple[tuple[Path, str], ...] = ()
    """Photos with several faces of which one was taken, and which."""
    files: tuple[Path, ...] = ()
    """The photos that were used, as `people`."""


@dataclass(frozen=True)
class _Photo:
    file: Path
    person: str
    vectors: tuple[Tensor, ...]
    """(1 + number of sizes, D) for each matcher: the photo, then its small copies."""
    recognisabilities: tuple[float, ...]


def measure(
    folder: str | Path,
    finder: Finder,
    matchers: Sequence[Matcher],
    *,
    sizes: Sequence[int] = (),
    largest: bool = False,
    on_progress: Progress | None = None,
) -> Report:
    """Compare every photo of a folder (a sub-folder is a person) with every other one, by each matcher.

    sizes: also compare copies of the faces, made into portraits of so many pixels (the face fills half of one), with the other
    photos. largest: of several faces take the largest; else such photos are left out. Raises `GalleryError` for a folder without
    pictures, `InputError` for sizes that are none, and where nobody is left with two photos, or no stranger.
    """
    if any(not 4 <= size <= PORTRAIT_SIDE for size in sizes):
        raise InputError(f"sizes of 4 to {PORTRAIT_SIDE} px are wanted, got {', '.join(map(str, sizes))}")
    files = pictures_of(folder)
    photos: list[_Photo] = []
    skipped: list[Skipped] = []
    several: list[tuple[Path, str]] = []
    for place, (person, file) in enumerate(files, start=1):
        try:
            picture = read_image(file)
            how = "largest" if largest else "the only one"
            found = select_face(picture, finder, how, name=file.name, several=LARGEST)
            assert found.chosen is not None
            photos.append(_seen(file, person, picture, found.faces[found.chosen].points, matchers, sizes))
        except IdentiFaceError as error:
            skipped.append(left_out(file, error))
        else:
            if len(found.faces) > 1:
                several.append((file, found.reason))
        if on_progress is not None:
            on_progress("photos", place, len(files), file.name)
    people = tuple(photo.person for photo in photos)
    if len(set(people)) < 2 or len(set(people)) == len(people):
        first = (
            f" The first that was left out: {skipped[0].path.name}: {skipped[0].reason}" if skipped else ""
        )
        raise InputError(
            f"{folder}: at least two people are wanted, one of them with two photos: one sub-folder per person. Of "
            f"{len(files)} pictures {len(photos)} could be used, of {len(set(people))} people.{first}"
        )
    names = ("photo", *(f"{size} px" for size in sizes))
    rows = [
        replace(
            separation(
                torch.stack([photo.vectors[m][k] for photo in photos]),
                torch.stack([photo.vectors[m][0] for photo in photos]),
                people,
                twice=k == 0,
            ),
            matcher=matcher.name,
            probe=name,
            recognisability=sum(photo.recognisabilities[k] for photo in photos) / len(photos),
        )
        for m, matcher in enumerate(matchers)
        for k, name in enumerate(names)
    ]
    files_used = tuple(photo.file for photo in photos)
    return Report(people, tuple(skipped), tuple(rows), tuple(several), files_used)


def separation(
    probes: Tensor, photos: Tensor, people: Sequence[str], *, twice: bool = False, seed: int = 0
) -> Separation:
    """The figures of unit vectors (N, D) of probes against those of photos, row i of both being photo i, of `people[i]`.

    A probe is not compared with the photo it was made of. twice: probes are the photos themselves, so that each pair is there
    twice and counts once. Raises InputError for cosines that are not finite.
    """
    names = sorted(set(people))
    person = torch.tensor([names.index(one) for one in people])
    wanted = torch.ones(len(people), len(people), dtype=torch.bool)
    wanted = wanted.triu(1) if twice else wanted.fill_diagonal_(False)
    first, second = wanted.nonzero().T
    scores = (probes.double() @ photos.double().T)[wanted]
    if not bool(scores.isfinite().all()):
        raise InputError("cosines that are finite numbers are wanted: some of these vectors are not finite")
    same = person[first] == person[second]
    mated, strangers = scores[same], scores[~same]
    eer, at = equal_error(scores, same)
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for _ in range(RESAMPLES):
        picks = torch.randint(len(names), (len(names),), generator=generator)
        often = torch.bincount(picks, minlength=len(names)).double()
        weights = torch.where(same, often[person[first]], often[person[first]] * often[person[second]])
        if weights[same].sum() > 0 and weights[~same].sum() > 0:
            drawn.append(equal_error(scores, same, weights)[0])
    told = len(names) >= PEOPLE and len(drawn) > 0
    spread = torch.tensor(drawn if told else [0.0, 1.0], dtype=torch.float64)
    interval = spread.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)) if told else spread
    ordered = strangers.sort().values
    below = torch.searchsorted(ordered, mated) + torch.searchsorted(ordered, mated, right=True)
    fmr = next((one for one in FMRS if len(strangers) >= max(100, 1 / one)), None)
    threshold = None if fmr is None else fit(strangers).threshold(fmr, 1)
    return Separation(
        "",
        "",
        mated.float(),
        strangers.float(),
        Rate(eer, *interval.tolist()),
        at,
        float(below.double().mean() / 2 / len(strangers)),
        fmr,
        threshold,
        None if threshold is None else float((mated < threshold).double().mean()),
        1.0,
        _ends(scores, same, first, second, largest=False) if twice else (),
        _ends(scores, ~same, first, second, largest=True) if twice else (),
    )


def _ends(scores: Tensor, among: Tensor, first: Tensor, second: Tensor, *, largest: bool) -> tuple[Pair, ...]:
    """The `NAMED` pairs of lowest or highest score among those wanted, the extreme one first."""
    places = among.nonzero()[:, 0]
    order = scores[places].argsort(descending=largest)[:NAMED]
    return tuple(Pair(float(scores[i]), int(first[i]), int(second[i])) for i in places[order].tolist())


def equal_error(scores: Tensor, same: Tensor, weights: Tensor | None = None) -> tuple[float, float]:
    """(EER, the threshold where it is met) of pairs: scores (P,), same (P,) bool, weights (P,) of at least 0, or None for equal
    ones. Where FMR and FNMR are nowhere equal it is their mean where they are nearest."""
    order = scores.argsort()
    ranked, mated = scores[order], same[order]
    weight = torch.ones(len(ranked), dtype=torch.float64) if weights is None else weights[order]
    missed, passed = (weight * mated).cumsum(0), (weight * ~mated).cumsum(0)
    # A threshold at a score lets through all pairs of that score: rates are known where a new score begins, and past the last.
    starts = torch.cat([torch.ones(1, dtype=torch.bool), ranked.diff() > 0]).nonzero()[:, 0]
    zero = torch.zeros(1, dtype=torch.float64)
    fnmr = torch.cat([zero, missed])[torch.cat([starts, torch.tensor([len(ranked)])])] / missed[-1]
    fmr = 1 - torch.cat([zero, passed])[torch.cat([starts, torch.tensor([len(ranked)])])] / passed[-1]
    best = int((fnmr - fmr).abs().argmin())
    at = float(ranked[starts[min(best, len(starts) - 1)]])
    return float((fnmr[best] + fmr[best]) / 2), at


@torch.no_grad()
def _seen(
    file: Path,
    person: str,
    picture: Tensor,
    points: Tensor,
    matchers: Sequence[Matcher],
    sizes: Sequence[int],
) -> _Photo:
    """One photo as every matcher sees it: cut out by its points, and small copies of it as a search with an LQ photo does.

    Raises InputError for points that show no face, and for vectors that are not finite.
    """
    sharp = align(picture[None], points[None], SHARP)[0]
    small = [prepare_lq(simulate_simple(sharp, str(size)), "whole") for size in sizes]
    large = [resize(photo.crop, PORTRAIT_SIDE, PORTRAIT_SIDE) for photo in small]
    vectors = tuple(
        torch.cat(
            [matcher.embed(picture[None], points[None]), *(matcher.embed(one[None]) for one in large)]
        ).cpu()
        for matcher in matchers
    )
    for matcher, rows in zip(matchers, vectors, strict=True):
        if not bool(rows.isfinite().all()):
            raise InputError(f"matcher '{matcher.name}' gives values that are not finite")
    whole = prepare_lq(sharp, "whole").recognisability
    return _Photo(file, person, vectors, (whole, *(photo.recognisability for photo in small)))
