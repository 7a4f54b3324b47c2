"""The benchmark: which searches are made (`Plan`), and the making of them, spread over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from identiface_core import __version__
from identiface_core.embedded import load_embedded
from identiface_core.errors import InputError
from identiface_core.evidence.lexicon import ATTRIBUTES, slot
from identiface_core.rounds.case_input import Settings
from identiface_core.rounds.prepare import gallery_digest
from identiface_core.synthesis.attributes import attribute_values
from identiface_core.synthesis.identity import FAMILY, RENDERER_VERSION
from identiface_core.synthesis.witness import LEVELS

from .galleries import FAMILIES, SHIPPED, SIZES, gallery_of, look_alike_gallery, look_alike_order
from .harness import ask, check_decoy, check_pictures, check_views
from .journal import Journal
from .part_words import Moved, move_words
from .pool import spread
from .probes import (
    EVIDENCE_PICTURE,
    GALLERY_PEOPLE,
    GALLERY_PICTURE,
    LOOK_ALIKES,
    STRANGERS,
    draw_probe,
    people_of,
    pictures,
)
from .scores import Scores, score
from .studio import World
from .systems import SYSTEMS, AnySystem
from .trainings import PROBES as TRAINING_PROBES
from .trainings import SYSTEMS as TRAINING_SYSTEMS
from .trainings import WORDS as TRAINING_WORDS
from .trainings import Training, trainings_in, world_of

if TYPE_CHECKING:
    from identiface_core.gallery import Gallery

SUITES = ("embedded",)
WORDS = "part_words"
"""Name, beside those of the systems, of the measurement of words in part rounds."""
HONEST = "middle"
"""The witness whose results are quoted; look-alikes are searched with this one's evidence."""
FULL, QUICK = 200, 30
"""Probes with a mate, and as many without, of the full and of the quick suite."""
FULL_WORDS, QUICK_WORDS = 100, 8
"""Faces on which words are tried. How people truly differ is read off `FULL_WORDS` portraits in any case."""
DECOYS = 2
"""Probes per level that are asked again with a decoy for the truth. A leak into a choice of one face in four escapes one of
them about every fourth time, so that there must be several.
"""
WORDS_PIECE = 10
"""Faces per piece of work."""
LOOK_ALIKE_SYSTEMS = ("true_photo", "evidence_encoder", "everything")
CHEAP = ("true_photo", *(name for name in SYSTEMS if name == "raw_lq" or name.startswith("evidence_encoder")))
"""Systems that generate nothing."""
QUICK_HONEST = (
    *CHEAP, "text", "sketch", "lq", "sketch_text", "lq_text", "lq_sketch", "one_shot", "one_shot_unguided", "consensus_4",
    "consensus_8", "rounds", "everything",
)  # fmt: skip
"""What the quick suite asks with the evidence of the middle witness."""
QUICK_OTHERS = (*CHEAP, "one_shot", "consensus_4")
"""The same for the others. Of strangers it asks `CHEAP`: thirty of them tell little of an error rate of 0.01."""
RIGHT_WORDS = ("rounds_right_words", "everything_right_words")
LEFT_OUT: Mapping[str, tuple[str, ...]] = {
    "careful": RIGHT_WORDS,
    "poor": (*RIGHT_WORDS, "oracle", "reference", "one_shot_unguided", "consensus_8_unguided"),
}
"""What the full suite leaves out unless it is asked for by name: words that are right already cannot be corrected, and
comparisons that take most of the time are made with better evidence. Strangers are searched for with generated faces at
`HONEST` alone.
"""
ASKED = ("sex", "age", "skin tone")
"""Attributes of a person that the records name."""

Progress = Callable[[str, int, int, str], None]
"""Called with (stage, done, total, what is being done)."""
ByLevel = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Plan:
    """Which searches a run makes. Names of systems by level, in the order of reports."""

    mated: ByLevel
    strangers: ByLevel
    look_alikes: ByLevel
    probes: int = FULL
    look_alike_probes: int = FULL
    words: int = FULL_WORDS
    """Faces on which words are tried; 0: not at all."""
    decoys: int = DECOYS
    people: int = SHIPPED
    processes: int = 2
    quick: bool = False
    trainings: tuple[Training, ...] = ()
    """Trainings for comparison, asked at the level of `look_alikes`."""

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that are measured."""
        return tuple(self.mated)


def plan_of(
    *,
    quick: bool = False,
    levels: Sequence[str] = (),
    only: Sequence[str] = (),
    probes: int | None = None,
    people: int = SHIPPED,
    processes: int = 2,
    trainings: Path | None = None,
) -> Plan:
    """The plan of the full or the quick suite, or of what is asked for.

    levels: by default all. only: names of systems, or `WORDS`; by default all, in the quick suite a choice of each. probes:
    with a mate, and as many without. trainings: folder of trainings for comparison. Raises `InputError` for an unknown name,
    listing the known ones, for a number that the galleries do not allow, and for a folder without trainings.
    """
    levels = tuple(dict.fromkeys(levels)) or tuple(LEVELS)
    check_known("level", levels, LEVELS)
    check_known("system", only, (*SYSTEMS, WORDS))
    if probes is not None and not 1 <= probes <= SHIPPED:
        raise InputError(f"--probes wants a number from 1 to {SHIPPED}, got {probes}")
    if people not in SIZES:
        raise InputError(f"a gallery of {' or '.join(map(str, SIZES))} people is wanted, got {people}")
    if processes < 1:
        raise InputError(f"--processes wants a number of 1 or more, got {processes}")

    def chosen(full: Iterable[str], short: Iterable[str]) -> tuple[str, ...]:
        names = set(full) & set(only) if only else set(short) if quick else set(full)
        return tuple(name for name in SYSTEMS if name in names)

    def full_suite(level: str, names: Iterable[str]) -> list[str]:
        return [name for name in names if only or name not in LEFT_OUT.get(level, ())]

    open_set = [name for name, system in SYSTEMS.items() if system.strangers]
    count = probes or (QUICK if quick else FULL)
    hard = HONEST if HONEST in levels else levels[0]
    words = (QUICK_WORDS if quick else FULL_WORDS) if probes is None else min(FULL_WORDS, probes)
    return Plan(
        mated={
            x: chosen(full_suite(x, SYSTEMS), QUICK_HONEST if x == HONEST else QUICK_OTHERS) for x in levels
        },
        strangers={x: chosen(open_set if only or x == HONEST else CHEAP, CHEAP) for x in levels},
        look_alikes={hard: chosen(LOOK_ALIKE_SYSTEMS, CHEAP[:1] + ("evidence_encoder",))},
        probes=count,
        look_alike_probes=min(count, FAMILIES * FAMILY),
        words=words if not only or WORDS in only else 0,
        decoys=min(DECOYS, count),
        people=people,
        processes=processes,
        quick=quick,
        trainings=() if trainings is None else trainings_in(trainings),
    )


def check_known(what: str, asked: Iterable[str], known: Iterable[str]) -> None:
    """Raise `InputError` for the first name that is not known, with all that are."""
    for name in asked:
        if name not in known:
            raise InputError(f"unknown {what} '{name}'; known are: {', '.join(known)}")


@dataclass(frozen=True)
class Search:
    """One piece of work: every system of a list on one probe."""

    group: int
    level: str
    number: int
    systems: tuple[str, ...]
    decoy: bool = False
    training: str = ""
    """Which training draws: its name and the digest of its weights; "" for the shipped one."""


@dataclass(frozen=True)
class WordsPiece:
    """Words tried on portraits of the gallery's people from `first` on."""

    first: int
    redrawn: int
    """Of `WORDS_PIECE` people, on how many the words are tried; the others only tell how people truly differ."""
    training: str = ""
    """As in `Search`."""


@dataclass(frozen=True)
class Searched:
    """What became of a `Search`."""

    search: Search
    person: str
    """Name in the gallery; "" for a stranger."""
    values: dict[str, str]
    """Sex, age and skin tone."""
    features: tuple[float, ...]
    """Of the true portrait, by the judging matcher."""
    scores: dict[str, Scores]


@dataclass(frozen=True)
class Measured:
    """Everything that a run measured, in an order that does not depend on the number of processes."""

    plan: Plan
    mated: dict[str, list[Searched]]
    strangers: dict[str, list[Searched]]
    look_alikes: dict[str, list[Searched]]
    words: list[list[Moved]]
    gallery: Gallery
    look_alike_gallery: Gallery | None
    versions: dict[str, str] = field(default_factory=dict)
    calibrations: Mapping[str, Any] = field(default_factory=dict)
    trainings: Mapping[str, tuple[list[Searched], list[list[Moved]]]] = field(default_factory=dict)
    """By name of the training: searches, and words."""


def run(plan: Plan, progress: Progress, kept: Path | None = None) -> Measured:
    """Make all searches of a plan. Raises `harness.LeakError` if anything that is measured has seen the truth.

    kept: journal of what is done already, and of what is done now; `InputError` if it is of other weights or galleries.
    """
    check_views(EVIDENCE_PICTURE, GALLERY_PICTURE)
    model = load_embedded()
    gallery = gallery_of(
        model,
        plan.people,
        processes=plan.processes,
        progress=lambda done, total: progress("gallery", done, total, "enrolling people"),
    )
    hard = None
    if any(plan.look_alikes.values()):
        hard = look_alike_gallery(
            model,
            processes=plan.processes,
            progress=lambda done, total: progress("look-alikes", done, total, "enrolling people"),
        )
    jobs = _jobs(plan)
    about = {
        "version": __version__,
        "renderer": RENDERER_VERSION,
        "weights": dict(model.hashes),
        "gallery": gallery_digest(gallery),
        "settings": asdict(Settings()),
    }
    journal = Journal[Search | WordsPiece, Searched | list[Moved]](kept, about, _read)
    done = journal.done(jobs)
    left = [place for place in range(len(jobs)) if place not in done]
    todo = [jobs[place] for place in left]
    needs = (plan.people, hard is not None, plan.trainings)
    for place, result in spread(_do, todo, plan.processes, _open, needs):
        journal.add(todo[place], result)
        done[left[place]] = result
        progress("searches", len(done), len(jobs), _told(todo[place]))
    found = [(job, done[place]) for place, job in enumerate(jobs)]

    def searched(training: str = "") -> list[Searched]:
        return [one for job, one in found if isinstance(one, Searched) and job.training == training]

    def words(training: str = "") -> list[list[Moved]]:
        return [one for job, one in found if not isinstance(one, Searched) and job.training == training]

    def of(group: int) -> dict[str, list[Searched]]:
        ours = [one for one in searched() if one.search.group == group]
        levels = dict.fromkeys(one.search.level for one in ours)
        return {x: [one for one in ours if one.search.level == x] for x in levels}

    return Measured(
        plan,
        of(GALLERY_PEOPLE),
        of(STRANGERS),
        of(LOOK_ALIKES),
        words(),
        gallery,
        hard,
        dict(model.hashes),
        model.calibrations,
        {one.name: (searched(one.key), words(one.key)) for one in plan.trainings},
    )


def _jobs(plan: Plan) -> list[Search | WordsPiece]:
    """All pieces of work, the long ones first."""

    def words(faces: int, training: str = "") -> list[Search | WordsPiece]:
        firsts = range(0, FULL_WORDS if faces else 0, WORDS_PIECE)
        return [WordsPiece(first, max(0, min(WORDS_PIECE, faces - first)), training) for first in firsts]

    jobs = words(plan.words)
    for group, by_level, count in (
        (GALLERY_PEOPLE, plan.mated, plan.probes),
        (STRANGERS, plan.strangers, plan.probes),
        (LOOK_ALIKES, plan.look_alikes, plan.look_alike_probes),
    ):
        for level, names in by_level.items():
            if names:
                decoys = plan.decoys if group == GALLERY_PEOPLE else 0
                jobs += [Search(group, level, number, names, number < decoys) for number in range(count)]
    level = next(iter(plan.look_alikes))
    for one in plan.trainings:
        numbers = range(min(TRAINING_PROBES, plan.probes))
        jobs += words(min(TRAINING_WORDS, plan.words), one.key)
        jobs += [
            Search(GALLERY_PEOPLE, level, n, TRAINING_SYSTEMS, n < plan.decoys, one.key) for n in numbers
        ]
    return jobs


def _told(job: Search | WordsPiece) -> str:
    if job.training:
        return f"training '{job.training.split('@')[0]}'"
    if isinstance(job, WordsPiece):
        return "words in part rounds"
    who = {GALLERY_PEOPLE: "with a mate", STRANGERS: "without a mate", LOOK_ALIKES: "look-alikes"}
    return f"{job.level} witness, {who[job.group]}"


def _read(found: Any) -> Searched | list[Moved]:
    """A result from the journal."""
    if isinstance(found, list):
        return [
            Moved(
                one["name"],
                tuple((first, second) for first, second in one["asked"]),
                tuple(one["truly"]),
                tuple(one["values"]),
                one["outside"],
            )
            for one in found
        ]
    search = found["search"]
    scores = {
        name: Scores(
            **{
                **one,
                "features": None if one["features"] is None else tuple(one["features"]),
                "trail": tuple((part, rank) for part, rank in one["trail"]),
            }
        )
        for name, one in found["scores"].items()
    }
    return Searched(
        Search(**{**search, "systems": tuple(search["systems"])}),
        found["person"],
        found["values"],
        tuple(found["features"]),
        scores,
    )


_WORLDS: dict[int | str, World] = {}
"""The worlds of this worker process by group of people; by the key of a training those in which it draws."""


def _open(people: int, look_alikes: bool, trainings: Iterable[Training]) -> None:
    """Load the networks and the galleries, which are drawn already, into this process."""
    model = load_embedded()
    world = World(model, gallery_of(model, people))
    _WORLDS.clear()
    _WORLDS.update({GALLERY_PEOPLE: world, STRANGERS: world})
    if look_alikes:
        _WORLDS[LOOK_ALIKES] = World(model, look_alike_gallery(model))
    _WORLDS.update({one.key: world_of(one, world) for one in trainings})


def _do(job: Search | WordsPiece) -> Searched | list[Moved]:
    if isinstance(job, WordsPiece):
        portraits = pictures(GALLERY_PEOPLE, job.first, WORDS_PIECE, None)
        values = attribute_values(people_of(GALLERY_PEOPLE, job.first, WORDS_PIECE))
        seeds = range(job.first, job.first + job.redrawn)
        return move_words(_WORLDS[job.training or GALLERY_PEOPLE].model, portraits, values, seeds)
    return search(job, _WORLDS[job.training or job.group])


def search(job: Search, world: World) -> Searched:
    """Make one search with all its systems, and its share of the checks for leaks."""
    person = look_alike_order(job.number) if job.group == LOOK_ALIKES else job.number
    probe = draw_probe(person, job.level, job.group, job.number)
    if probe.truth.row >= 0:
        check_pictures(probe, world, pictures(job.group, person, 1, GALLERY_PICTURE)[0])
    systems: list[AnySystem] = [SYSTEMS[name] for name in job.systems]
    asked = ask(systems, probe, world)
    if job.decoy:
        check_decoy(systems, probe, draw_probe(person + 1, job.level, job.group), world, first=asked)
    with torch.no_grad():
        features = world.model.matcher_b.embed(probe.truth.portrait[None])[0].float().cpu()
    return Searched(
        job,
        world.gallery.people[probe.truth.row] if probe.truth.row >= 0 else "",
        {name: ATTRIBUTES[slot(name)].values[probe.truth.values[slot(name)]].name for name in ASKED},
        tuple(features.tolist()),
        {s.name: score(asked[s.name], world, probe.truth, generated=s.draws) for s in systems},
    )
