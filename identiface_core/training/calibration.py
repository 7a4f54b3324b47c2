"""Fitting the calibrations on people nobody was trained on: what strangers score, by kind of comparison."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from identiface_core.evidence.encoder import EvidenceEncoder
from identiface_core.evidence.words import TextEncoder
from identiface_core.matchers.calibration import Calibration, fit
from identiface_core.matchers.network import FaceNet
from identiface_core.training.data import World
from identiface_core.training.evidence import queries, witness_clues
from identiface_core.training.matchers import embed_views

CLUE_SETS: tuple[tuple[str, ...], ...] = (
    ("lq", "sketch", "words"),
    ("lq", "sketch"),
    ("lq", "words"),
    ("sketch", "words"),
    ("lq",),
    ("sketch",),
    ("words",),
)


def impostors(probes: Tensor, gallery: Tensor) -> Tensor:
    """Cosines of probes (N, D) with everybody but the own row of gallery (N, D), flat."""
    scores = probes @ gallery.T
    return scores[~torch.eye(len(scores), dtype=torch.bool)]


def fit_calibrations(
    world: World,
    matcher_a: FaceNet,
    matcher_b: FaceNet,
    encoder: EvidenceEncoder | None = None,
    text_encoder: TextEncoder | None = None,
    generated: Mapping[str, Tensor] | None = None,
) -> dict[str, Calibration]:
    """All tables that ship, by name.

    "portrait" and "portrait-b": portrait against portrait with A and with B. "evidence": evidence queries
    against portraits with A, all sets of clues pooled; "evidence/lq+words" and so on: one set each.
    generated: further tables by name from impostor scores, such as "generated" (consensus of generated faces
    against portraits). `world` must be people that nothing was trained on.
    """
    portraits = {"portrait": matcher_a, "portrait-b": matcher_b}
    tables: dict[str, Calibration] = {}
    gallery = embed_views(matcher_a, world, 0)
    for name, matcher in portraits.items():
        templates = embed_views(matcher, world, 0)
        tables[name] = fit(
            torch.cat([impostors(embed_views(matcher, world, v), templates) for v in (1, None)])
        )
    if encoder is not None and text_encoder is not None:
        pooled = []
        clues = witness_clues(world, text_encoder)
        for kinds in CLUE_SETS:
            scores = impostors(queries(encoder, clues, kinds), gallery)
            tables["evidence/" + "+".join(kinds)] = fit(scores)
            pooled.append(scores)
        tables["evidence"] = fit(torch.cat(pooled))
    return tables | {name: fit(scores) for name, scores in (generated or {}).items()}
