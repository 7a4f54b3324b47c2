"""What the embedded model does on people it has never seen: every figure of `docs/embedded-model.md`, from one run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from identiface_core.diffusion.generator import Sample
from identiface_core.diffusion.masking import latent_mask, picture_mask
from identiface_core.embedded import EmbeddedModel
from identiface_core.evidence.lexicon import ATTRIBUTES, slot
from identiface_core.evidence.values import Evidence
from identiface_core.faces.finder import portrait_of
from identiface_core.faces.segmenter import part_template
from identiface_core.gallery import Gallery
from identiface_core.rounds.consensus import consensus, fuse
from identiface_core.synthesis.phrases import part_text

from .metrics import Rate, identification, mate_ranks, psnr
from .probes import EVIDENCE_PICTURE, GALLERY_PEOPLE, KINDS, Probes, draw_probes, pictures

Say = Callable[[str], None]
SUBSETS: tuple[tuple[str, ...], ...] = tuple(
    kinds for size in (3, 2, 1) for kinds in itertools.combinations(KINDS, size)
)
"""All, each pair, each single kind of evidence."""
WORDS: tuple[tuple[str, str, str], ...] = (
    ("hair colour", "black", "blond"),
    ("hair length", "very short", "long"),
    ("hair texture", "straight", "curly"),
    ("glasses", "none", "glasses"),
    ("beard", "none", "full"),
    ("brow thickness", "thin", "thick"),
    ("brow height", "low", "high"),
    ("eye colour", "dark brown", "blue"),
    ("eye opening", "narrow", "wide"),
    ("nose width", "narrow", "wide"),
    ("nose length", "short", "long"),
    ("mouth width", "narrow", "wide"),
    ("lower lip", "thin", "full"),
    ("lip colour", "pale", "red"),
)
"""Attribute, and the two opposite values that are asked for in part rounds."""
SEEDS = 8
STEPS = 8
GUIDANCE = 1.5


def _row(queries: Tensor, gallery: Tensor, rows: Tensor) -> dict[str, Any]:
    ranks = mate_ranks(queries, gallery, rows)
    mates = (queries * gallery[rows]).sum(1)
    first, ten = identification(ranks, 1), identification(ranks, 10)
    return {**_rate("rank1", first), **_rate("rank10", ten), "mate_cosine": round(float(mates.mean()), 4)}


def _rate(name: str, rate: Rate) -> dict[str, Any]:
    return {name: round(rate.value, 4), f"{name}_ci": [round(rate.low, 4), round(rate.high, 4)]}


@torch.no_grad()
def matchers(model: EmbeddedModel, gallery: Gallery, count: int) -> dict[str, Any]:
    """How well each matcher finds `count` people by their true other photo: the ceiling of everything else."""
    photos = pictures(GALLERY_PEOPLE, 0, count, EVIDENCE_PICTURE)
    aligned = torch.stack([portrait_of(photo, model.finder, 0) for photo in photos])
    rows = torch.arange(count)
    return {
        matcher.name: _row(matcher.embed(aligned), gallery.templates[matcher.name], rows)
        for matcher in (model.matcher_a, model.matcher_b)
    }


@torch.no_grad()
def autoencoder(model: EmbeddedModel, probes: Probes) -> dict[str, Any]:
    """PSNR of canonical portraits and of sketches after encoding and decoding, dB."""
    net = model.generator.autoencoder
    drawings = probes.sketches.expand(-1, 3, -1, -1)
    return {
        name: round(float(torch.cat([psnr(net(c), c) for c in images.split(16)]).mean()), 2)
        for name, images in (("portraits", probes.truth), ("sketches", drawings))
    }


@torch.no_grad()
def evidence_encoder(model: EmbeddedModel, gallery: Gallery, probes: Probes) -> dict[str, Any]:
    """Identification by the evidence query alone, for every set of evidence; judged in matcher A's gallery."""
    templates = gallery.templates[model.matcher_a.name]
    return {
        "+".join(kinds): _row(evidence_queries(model, probes, kinds), templates, probes.rows)
        for kinds in SUBSETS
    }


@torch.no_grad()
def evidence_queries(model: EmbeddedModel, probes: Probes, kinds: tuple[str, ...] = KINDS) -> Tensor:
    """(N, D) evidence queries of all probes, from these kinds of evidence."""
    encode, words = model.evidence_encoder.query, model.text_encoder
    return torch.stack([encode(probes.evidence(i, kinds), words) for i in range(len(probes))])


@torch.no_grad()
def generate(model: EmbeddedModel, probes: Probes, kinds: tuple[str, ...], seeds: int) -> Tensor:
    """(N, seeds, 3, 128, 128): faces generated from these kinds of evidence, whole face, no rounds."""
    faces = []
    for i in range(len(probes)):
        evidence: Evidence = probes.evidence(i, kinds)
        prompt = "" if evidence.description is None else evidence.description.full_prompt()
        made = model.generator.sample(
            [prompt], evidence, list(range(seeds)), steps=STEPS, guidance_scale=GUIDANCE if prompt else 1.0
        )
        faces.append(made.images)
    return torch.stack(faces)


@torch.no_grad()
def generated(model: EmbeddedModel, gallery: Gallery, probes: Probes, say: Say) -> dict[str, Any]:
    """Identification by generated faces: one seed for every set of evidence, 1, 4 and 8 seeds for all; each matcher apart.

    Also the fusion of the evidence query with the consensus of 8, and the seconds per face.
    """
    result: dict[str, Any] = {}
    for kinds in SUBSETS:
        started = time.monotonic()
        seeds = SEEDS if kinds == KINDS else 1
        faces = generate(model, probes, kinds, seeds)
        seconds = (time.monotonic() - started) / (len(probes) * seeds)
        for matcher in (model.matcher_a, model.matcher_b):
            templates = gallery.templates[matcher.name]
            vectors = matcher.embed(faces.flatten(0, 1)).unflatten(0, faces.shape[:2])
            for number in (1, 4, SEEDS) if seeds == SEEDS else (1,):
                queries = torch.stack([consensus(row[:number]) for row in vectors])
                row = _row(queries, templates, probes.rows)
                result[f"{'+'.join(kinds)}, {number} seed{'s' * (number > 1)}, {matcher.name}"] = row
            if seeds == SEEDS and matcher is model.matcher_a:
                asked = evidence_queries(model, probes)
                both = torch.stack(
                    [fuse(q, consensus(row), 0.7) for q, row in zip(asked, vectors, strict=True)]
                )
                result["evidence query and 8 seeds fused"] = _row(both, templates, probes.rows)
        if kinds == KINDS:
            result["portrait_psnr"] = round(float(psnr(faces[:, 0], probes.truth).mean()), 2)
            result["seconds_per_face"] = round(seconds, 3)
        say(f"generated from {'+'.join(kinds)}")
    return result


@torch.no_grad()
def words(
    model: EmbeddedModel, probes: Probes, guidance_scale: float = 2.0, names: Collection[str] = ()
) -> dict[str, Any]:
    """Do words move the part that they name? Part rounds on true portraits, without sketch or LQ photo.

    The same round is run twice, with one word at one end and at the other. `right_way`: share of faces that the attribute
    reader finds nearer to the second value when the second was asked for. `moved`: difference of the reader's answers as a
    share of its difference between people who truly have these values. `outside`: largest change of a pixel outside the mask,
    in grey levels of 255. names: only these attributes; all of `WORDS` if empty.
    """
    known = Sample(probes.truth, model.generator.autoencoder.encode(probes.truth))
    read = model.reader(probes.truth)
    result: dict[str, Any] = {}
    for name, low, high in (row for row in WORDS if not names or row[0] in names):
        attribute, place = ATTRIBUTES[slot(name)], slot(name)
        ends = [attribute.index(low), attribute.index(high)]
        mask = part_template(attribute.part).expand(len(probes), -1, -1, -1)
        contrasts, outside = [], 0.0
        for end in ends:
            asked = probes.values.clone()
            asked[:, place] = end
            prompts = [
                f"{part_text(row, 'overview', _plain(i))} {part_text(row, attribute.part, _plain(i))}"
                for i, row in enumerate(asked)
            ]
            made = model.generator.sample(
                prompts,
                None,
                list(range(len(probes))),
                steps=STEPS,
                guidance_scale=guidance_scale,
                known=known,
                mask=mask,
            )
            contrasts.append(_contrast(model.reader(made.images)[place], ends))
            away = picture_mask(latent_mask(mask)) == 0
            outside = max(outside, float(((made.images - probes.truth).abs() * away).max()) * 255)
        truly = _contrast(read[place], ends)
        spread = (
            truly[probes.values[:, place] == ends[1]].mean()
            - truly[probes.values[:, place] == ends[0]].mean()
        )
        moved = (contrasts[1] - contrasts[0]).mean() / spread
        result[name] = {
            "from": low, "to": high, "right_way": round(float((contrasts[1] > contrasts[0]).float().mean()), 4),
            "moved": round(float(moved), 3), "outside": round(outside, 3),
        }  # fmt: skip
    return result


def _plain(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _contrast(probabilities: Tensor, ends: list[int]) -> Tensor:
    return probabilities[:, ends[1]] - probabilities[:, ends[0]]


def evaluate(model: EmbeddedModel, gallery: Gallery, *, quick: bool, say: Say) -> dict[str, Any]:
    """Every figure of `docs/embedded-model.md`. quick: fewer probes."""
    photos, asked, faces, rounds = (200, 200, 30, 30) if quick else (500, 200, 100, 100)
    result: dict[str, Any] = {"gallery": len(gallery), "probes": asked, "levels": {}}
    result["true photo"] = matchers(model, gallery, photos)
    say("matchers")
    probes = draw_probes(asked, "middle")
    result["autoencoder_psnr"] = autoencoder(model, probes)
    for level in ("careful", "middle", "poor"):
        drawn = probes if level == "middle" else draw_probes(asked, level)
        result["levels"][level] = {"evidence encoder": evidence_encoder(model, gallery, drawn)}
        say(f"evidence encoder, {level} witness")
    templates = gallery.templates[model.matcher_a.name]
    result["evidence encoder, first 500 people"] = _row(
        evidence_queries(model, probes), templates[:500], probes.rows
    )
    result["levels"]["middle"]["generated"] = generated(model, gallery, probes.first(faces), say)
    result["generated_probes"] = faces
    result["words"] = words(model, probes.first(rounds))
    say("words in part rounds")
    return result
