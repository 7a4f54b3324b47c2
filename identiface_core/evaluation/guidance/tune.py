"""Scales are chosen here, on the validation people: by the judge's gain, for every method alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .methods import METHODS, Method, base_of
from .people import VALIDATION
from .quality import faces_of, figures, gathered

if TYPE_CHECKING:
    from .bench import Plan


def _scales(*scales: float, **more: Any) -> tuple[dict[str, Any], ...]:
    return tuple({"scale": scale, **more} for scale in scales)


GRID: Mapping[str, tuple[dict[str, Any], ...]] = {
    "default": _scales(0.01, 0.02, 0.03, 0.04, 0.05, 0.06),
    "latent_2m": (
        *_scales(0.05, 0.1, 0.13),
        *_scales(0.03, schedule="early"),
        *_scales(0.03, 0.05, schedule="constant"),
    ),
    "decoded": _scales(0.02, 0.04, 0.06),
    "full": (*_scales(0.05, 0.1, 0.15), *_scales(0.03, schedule="constant")),
    "full_travel": _scales(0.02, 0.04, 0.06),
    "freedom": _scales(1.0, 5.0, 20.0, 40.0),
    "mpgd": _scales(0.01, 0.02, 0.04, 0.06),
    "mpgd_projected": _scales(0.02, 0.04, 0.06),
    "search": _scales(0.01, 0.02, 0.04),
    "estimate:default": _scales(0.02, 0.03, 0.04, 0.06, 0.1, 0.2),
}
"""Settings that are tried, by method; what is not named is as the library ships it."""


def candidates(method: Method) -> list[Method]:
    """A method at every setting of its grid, named by it."""
    return [
        replace(method.at(**one), name=f"{method.name} {' '.join(f'{k}={v}' for k, v in one.items())}")
        for one in GRID.get(method.name, ())
    ]


def tune(plan: Plan, progress: Callable[[str, int, int, str], None]) -> dict[str, dict[str, Any]]:
    """Figures by method and setting, over the first people of the validation world."""
    tried = [one for name in plan.methods for one in candidates(METHODS[name].over(plan.steps))]
    bases = [METHODS[name] for name in dict.fromkeys(base_of(one.name) for one in tried)]
    answers = []
    for done, total, answer in faces_of(
        [*bases, *tried], VALIDATION, plan.people, plan.steps, plan.processes
    ):
        answers.append(answer)
        progress("tuning", done, total, f"{len(tried)} settings")
    return figures(*gathered(answers))
