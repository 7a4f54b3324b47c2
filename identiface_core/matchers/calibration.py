"""From a similarity to the error rate it means: how often would a stranger score as high.

A score says nothing by itself. The table of scores between different people (impostors), measured for one
matcher and one kind of comparison, turns it into the false match rate (FMR) of one comparison and the false
positive identification rate (FPIR) of a search through a gallery of N people (ISO/IEC 19795-1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from identiface_core.errors import InputError, WeightsError
from identiface_core.weights.files import load_tensors, save_tensors

if TYPE_CHECKING:
    from identiface_core.matchers.base import Matcher

KIND = "calibrations"
POINTS_PER_DECADE = 40


@dataclass(frozen=True)
class Calibration:
    """Impostor scores of one matcher and one kind of comparison, as a table.

    scores: (K,) float64, strictly rising. rates: (K,) float64, falling; rates[k] estimates P(an impostor
    scores >= scores[k]) as (count + 1) / (n + 1), so that it is never 0. impostors: the number n of
    comparisons behind the table.
    """

    scores: Tensor
    rates: Tensor
    impostors: int

    @property
    def floor(self) -> float:
        """The smallest rate that the table can vouch for, 1 / (n + 1); scores beyond its end report this."""
        return 1.0 / (self.impostors + 1)

    def fmr(self, score: float) -> float:
        """P(a stranger scores at least this), in [floor, 1]; falls as the score rises."""
        if math.isnan(score):
            raise InputError(
                "cannot calibrate a score that is not a number: check the embeddings it was made from"
            )
        if self.beyond(score):
            return self.floor
        logs = torch.log(self.rates).numpy()
        return float(np.exp(np.interp(score, self.scores.numpy(), logs, left=0.0)))

    def beyond(self, score: float) -> bool:
        """True if no impostor behind the table scored as high: the rate given is a bound, not an estimate."""
        return score > float(self.scores[-1])

    def fpir(self, score: float, gallery_size: int) -> float:
        """P(at least one of `gallery_size` strangers scores at least this) = 1 - (1 - fmr) **
        gallery_size.
        """
        if gallery_size < 1:
            raise InputError(f"a gallery of at least 1 person is wanted, got {gallery_size}")
        rate = self.fmr(score)
        return 1.0 if rate >= 1.0 else -math.expm1(gallery_size * math.log1p(-rate))

    def threshold(self, fpir: float, gallery_size: int) -> float:
        """The lowest score whose `fpir` at this gallery size is at most the one wanted.

        Raises InputError if `fpir` is not in (0, 1), or is smaller than the table can vouch for.
        """
        if not 0.0 < fpir < 1.0 or gallery_size < 1:
            raise InputError(
                f"wanted an FPIR in (0, 1) and a gallery of 1 or more, got {fpir} and {gallery_size}"
            )
        rate = -math.expm1(math.log1p(-fpir) / gallery_size)
        if rate < self.floor:
            least = -math.expm1(gallery_size * math.log1p(-self.floor))
            raise InputError(
                f"an FPIR of {fpir:g} in a gallery of {gallery_size} cannot be promised: the table rests on "
                f"{self.impostors} impostor comparisons, which vouch for {least:.3g} "
                "at best; ask for that or more"
            )
        logs = torch.log(self.rates).numpy()
        score = float(np.interp(-math.log(rate), -logs, self.scores.numpy()))
        while self.fmr(score) > rate:  # interpolating back and forth may land a rounding error too low
            score = math.nextafter(score, math.inf)
        return score


def fit(impostor_scores: Tensor) -> Calibration:
    """Make the table from scores between different people, any shape, at least 100 of them.

    Points lie evenly in log rate, so the deep tail is as dense as the rest and the highest scores are kept
    one by one. Scores that share people are not independent; many people count for more than many pairs.
    """
    ordered = np.sort(impostor_scores.detach().double().flatten().numpy())[::-1]
    n = len(ordered)
    if n < 100 or not np.isfinite(ordered).all():
        raise InputError(f"a calibration wants at least 100 finite impostor scores, got {n}")
    decades = math.log10(n)
    places = np.unique(np.round(np.logspace(0, decades, int(decades * POINTS_PER_DECADE) + 2)).astype(int))
    scores = np.unique(ordered[places - 1])  # rising
    counts = n - np.searchsorted(ordered[::-1], scores, side="left")  # how many score at least this
    return Calibration(torch.from_numpy(scores), torch.from_numpy((counts + 1.0) / (n + 1.0)), n)


MAX_PEOPLE = 3000
"""People whose pairs are all compared: 4.5 million comparisons. Of more, so many are taken, evenly spread."""


def calibrate(matcher: Matcher, impostor_vectors: Tensor) -> Calibration:
    """The table of a matcher from embeddings (N, D) of N different people, one each: all pairs are impostors.

    For matchers that come without a table: a gallery's own templates will do. The table then speaks of people and pictures like
    those of the gallery; somebody enrolled twice under two names spoils its end. Raises InputError for vectors of another
    matcher's length, and for fewer than 15 people, whose pairs are too few.
    """
    if impostor_vectors.dim() != 2 or impostor_vectors.shape[1] != matcher.dimension:
        raise InputError(
            f"matcher '{matcher.name}' gives {matcher.dimension} values a face, these embeddings have the shape "
            f"{tuple(impostor_vectors.shape)}: calibrate with embeddings that it made"
        )
    count = len(impostor_vectors)
    if count < 15:
        raise InputError(
            f"a calibration wants at least 15 different people, got {count}: take a larger gallery"
        )
    if count > MAX_PEOPLE:
        impostor_vectors = impostor_vectors[torch.linspace(0, count - 1, MAX_PEOPLE).long()]
    rows = torch.nn.functional.normalize(impostor_vectors.detach().double().cpu(), dim=1)
    pairs = torch.ones(len(rows), len(rows), dtype=torch.bool).triu(1)
    return fit((rows @ rows.T)[pairs])


def save_calibrations(path: str | Path, calibrations: Mapping[str, Calibration]) -> None:
    """Write calibrations by name to one safetensors file, atomically."""
    tensors = {
        f"{name}/{part}": getattr(c, part) for name, c in calibrations.items() for part in ("scores", "rates")
    }
    save_tensors(path, tensors, KIND, {"impostors": {name: c.impostors for name, c in calibrations.items()}})


def load_calibrations(path: str | Path, sha256: str | None = None) -> dict[str, Calibration]:
    """The calibrations at `path` by name; WeightsError if the file is missing, damaged or of another kind."""
    tensors, config = load_tensors(path, KIND, sha256)
    impostors = config.get("impostors")
    if not isinstance(impostors, dict):
        raise WeightsError(f"{path}: the header does not list its calibrations; get the file again")
    found = {}
    for name, n in impostors.items():
        scores, rates = tensors.get(f"{name}/scores"), tensors.get(f"{name}/rates")
        if scores is None or rates is None or not _sound(scores, rates, n):
            raise WeightsError(
                f"{path}: calibration '{name}' is not a rising table of scores; get the file again"
            )
        found[name] = Calibration(scores, rates, n)
    return found


def _sound(scores: Tensor, rates: Tensor, n: object) -> bool:
    return bool(
        isinstance(n, int)
        and n > 0
        and scores.dtype == rates.dtype == torch.float64
        and scores.ndim == 1
        and scores.shape == rates.shape
        and len(scores) >= 2
        and (scores.diff() > 0).all()
        and (rates.diff() <= 0).all()
        and (rates > 0).all()
        and (rates <= 1).all()
    )
