"""The benchmark of guidance: all methods side by side in one run, on the same people and seeds."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from identiface_core import __version__
from identiface_core.diffusion.guidance.check import Check
from identiface_core.embedded import load_embedded
from identiface_core.errors import InputError

from ..probes import GALLERY_PEOPLE
from .cost import peak_bytes, ratio, seconds
from .methods import DEFAULT, ESTIMATE, METHODS, UNGUIDED, Method, base_of
from .people import people
from .quality import draw, faces_of, figures, gathered
from .shapes import EMBEDDED, SHAPES, shape_cost, weight

if TYPE_CHECKING:
    from identiface_core.embedded import EmbeddedModel

Progress = Callable[[str, int, int, str], None]
"""Called with (stage, done, total, what is being done)."""
MOST = 500
SEEDS = 4
"""Faces per sampling when time is measured: as many as a case draws in a round."""
REPORTED = (
    "wall_ratio", "memory_ratio", "judge_gain", "judge_gain_share", "judge_gain_error", "judge_rises", "judge",
    "judge_gain_per_second", "seconds", "a", "a_gain", "target", "target_spread", "target_gain", "asked_gain",
    "asked_agrees", "gap", "warning", "fid_judge", "fid_judge_ratio", "fid_latent", "fid_latent_ratio", "people",
    "label", "options",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What a run measures."""

    people: int = 100
    steps: int = 20
    shapes: tuple[str, ...] = (EMBEDDED,)
    methods: tuple[str, ...] = tuple(METHODS)
    rounds: int = 5
    processes: int = 2
    threads: int = 1

    def __post_init__(self) -> None:
        if not 2 <= self.people <= MOST:
            raise InputError(f"--people wants a number from 2 to {MOST}, got {self.people}")
        if not 1 <= self.steps <= 200:
            raise InputError(f"--steps wants a number from 1 to 200, got {self.steps}")
        if not 1 <= self.processes <= 64:
            raise InputError(f"--processes wants a number from 1 to 64, got {self.processes}")
        for what, names, known in (
            ("shape", self.shapes, (EMBEDDED, *SHAPES)),
            ("method", self.methods, tuple(METHODS)),
        ):
            for name in names:
                if name not in known:
                    raise InputError(f"unknown {what} '{name}'; known are: {', '.join(known)}")


def run(plan: Plan, progress: Progress) -> dict[str, dict[str, Any]]:
    """Figures by method; those of another model's shape under "SHAPE/default".

    judge_gain: rise of matcher B's cosine to another picture of the person, over the same seed unguided, mean over people.
    """
    found: dict[str, dict[str, Any]] = {}
    if EMBEDDED in plan.shapes:
        methods = _with_bases(plan.methods, plan.steps)
        costs = _costs(methods, plan, progress)
        answers = []
        for done, total, answer in faces_of(methods, GALLERY_PEOPLE, plan.people, plan.steps, plan.processes):
            answers.append(answer)
            progress("faces", done, total, "drawing by every method")
        found = _joined(methods, figures(*gathered(answers)), costs)
        found[UNGUIDED]["about"] = about(plan)
    for name in plan.shapes:
        if name != EMBEDDED:
            rows = shape_cost(name, progress=progress)
            found |= {f"{name}/{mode}": row for mode, row in rows.items()}
    return found


def _with_bases(names: Sequence[str], steps: int) -> list[Method]:
    """The methods in their order, with those that they are compared with, for so many steps."""
    wanted = {*names, *(base_of(name) for name in names)}
    return [METHODS[name].over(steps) for name in METHODS if name in wanted]


def _costs(methods: Sequence[Method], plan: Plan, progress: Progress) -> dict[str, dict[str, float]]:
    """Seconds of one sampling of `SEEDS` faces, and ratios of wall time and of peak memory to no guidance."""
    model = load_embedded()
    drawing = model.generator
    for net in (drawing.transformer, drawing.control, drawing.autoencoder, drawing.text_encoder):
        net.requires_grad_(False)
    (person,) = people(model, 0, 1)
    before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)

    def way(method: Method) -> Callable[[], object]:
        return lambda: draw(model, person, method, list(range(SEEDS)), plan.steps)

    try:
        took: dict[str, list[float]] = {method.name: [] for method in methods}
        for done in range(plan.rounds):
            progress("time", done, plan.rounds, "methods in turns")
            timed = [m for m in methods if m.share == 1 or done == 0]
            for name, values in seconds({m.name: way(m) for m in timed}, 1, warm=done == 0).items():
                took[name] += values
        progress("time", plan.rounds, plan.rounds, "methods in turns")
        peaks = {m.name: peak_bytes(way(m)) + held(model, m) for m in methods}
    finally:
        torch.set_num_threads(before)
    return {
        m.name: {
            "seconds": median(took[m.name]),
            "wall_ratio": ratio(took[m.name], took[base_of(m.name)]),
            "memory_ratio": peaks[m.name] / peaks[base_of(m.name)],
        }
        for m in methods
    }


def held(model: EmbeddedModel, method: Method) -> int:
    """Bytes of the networks that a method needs in memory."""
    drawing = model.generator
    nets = [drawing.transformer, drawing.control, drawing.autoencoder, drawing.text_encoder]
    if method.options.scale > 0 and method.options.end > method.options.start:
        latent = method.name.removeprefix(ESTIMATE) in (DEFAULT, "default_stop", "latent_2m")
        nets.append(model.critic if latent and model.critic is not None else model.matcher_a.net)
    return sum(weight(net) for net in nets)


def _joined(
    methods: Sequence[Method], quality: dict[str, dict[str, Any]], costs: dict[str, dict[str, float]]
) -> dict[str, dict[str, Any]]:
    found = {}
    for method in methods:
        base, row = base_of(method.name), {**quality[method.name], **costs[method.name]}
        added = (row["wall_ratio"] - 1) * costs[base]["seconds"] / SEEDS
        row["judge_gain_per_second"] = row["judge_gain"] / added if added > 0 else None
        checked = Check(
            row["target"], row["judge"], row["target"] - row["target_gain"], row["judge"] - row["judge_gain"]
        )
        row |= {"gap": checked.gap, "warning": checked.warning, "label": method.label}
        row["options"] = {k: v for k, v in vars(method.options).items() if v is not None}
        found[method.name] = {key: row[key] for key in REPORTED if key in row}
    return found


def about(plan: Plan) -> dict[str, Any]:
    """What a run was made with."""
    return {
        "version": __version__,
        "people": plan.people,
        "steps": plan.steps,
        "rounds": plan.rounds,
        "threads": plan.threads,
        "torch": torch.__version__,
        "processor": platform.machine(),
        "weights": dict(load_embedded().hashes),
    }
