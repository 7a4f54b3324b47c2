"""What a case is run with: a generator, two matchers, and whatever else reads evidence and faces.

`embedded.EmbeddedModel` is one such toolkit; another has a diffusion model of the user's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from identiface_core.imaging import resize

if TYPE_CHECKING:
    from identiface_core.diffusion.generator import Sample
    from identiface_core.diffusion.guidance.base import Guide
    from identiface_core.diffusion.sampling import OnStep
    from identiface_core.evidence.values import Evidence
    from identiface_core.evidence.words import TextEncoder
    from identiface_core.faces.reader import AttributeReader
    from identiface_core.matchers.base import Matcher
    from identiface_core.matchers.calibration import Calibration
    from identiface_core.matchers.latent import LatentCritic

PHOTO_WEIGHT = 0.5
"""Share of a query read off the LQ photo alone in the fused query. A choice, not a measurement: which of photo and
generated faces finds more depends on the photo, the generator and the matcher."""

DRAWN_NONE = ("portrait", "evidence")
"""Impostor tables of queries that no generator had a part in."""


class Generator(Protocol):
    """Draws faces; `diffusion.generator.FaceGenerator` is one."""

    def sample(
        self,
        prompts: Sequence[str],
        evidence: Evidence,
        seeds: Sequence[int],
        *,
        steps: int,
        guidance_scale: float,
        strength: float,
        known: Sample | None,
        mask: Tensor | None,
        estimate: Tensor | None,
        guide: Guide | None,
        on_step: OnStep | None,
    ) -> Sample:
        """One face per seed, as portraits in canonical framing; see `FaceGenerator.sample`."""


class QueryMaker(Protocol):
    """Makes a search query of evidence without drawing a face; `evidence.encoder.EvidenceEncoder` is one."""

    def query(self, evidence: Evidence, text_encoder: Any) -> Tensor | None:
        """(D,) unit vector in the searching matcher's space; None where this evidence gives none."""


class Toolkit(Protocol):
    """Everything a case needs."""

    @property
    def generator(self) -> Generator: ...
    @property
    def text_encoder(self) -> TextEncoder:
        """Reads what words say; the generator may have one of its own."""

    @property
    def evidence_encoder(self) -> QueryMaker: ...
    @property
    def matcher_a(self) -> Matcher:
        """Searches."""

    @property
    def matcher_b(self) -> Matcher:
        """Judges only."""

    @property
    def segmenter(self) -> Any:
        """Portraits (B, 3, S, S) to part probabilities (B, 9, S, S), see `faces.segmenter`."""

    @property
    def finder(self) -> Any:
        """`find_faces(picture) -> list[Face]`."""

    @property
    def reader(self) -> AttributeReader | None:
        """Reads words off a face; None where nothing can for this kind of picture."""

    @property
    def critic(self) -> LatentCritic | None:
        """Reads the generator's latents in the searching matcher's space, to guide; None where nothing does."""

    @property
    def hashes(self) -> Mapping[str, str]:
        """What tells these networks from others, by name; written into the case."""

    @property
    def calibrations(self) -> Mapping[str, Calibration]:
        """Impostor tables of the searching matcher by query."""


@dataclass(frozen=True)
class PhotoQuery:
    """A query of the LQ photo alone, as the matcher sees it; a sketch or words make none."""

    matcher: Matcher
    side: int = 128
    """Pixels to which a smaller photo is enlarged before the matcher sees it."""

    @torch.no_grad()
    def query(self, evidence: Evidence, text_encoder: Any) -> Tensor | None:
        """(D,), or None without a photo."""
        if evidence.lq is None:
            return None
        side = max(self.side, evidence.lq.shape[-1])
        vector: Tensor = self.matcher.embed(resize(evidence.lq, side, side)[None])[0]
        return vector.detach().float().cpu()


@dataclass(frozen=True)
class ModelToolkit:
    """A toolkit around a generator of the user's own. Fields as in `Toolkit`; see `toolkit_around`."""

    generator: Generator
    text_encoder: TextEncoder
    evidence_encoder: QueryMaker
    matcher_a: Matcher
    matcher_b: Matcher
    segmenter: Any
    finder: Any
    reader: AttributeReader | None
    hashes: Mapping[str, str]
    calibrations: Mapping[str, Calibration]
    critic: LatentCritic | None = None


def toolkit_around(
    generator: Generator,
    base: Toolkit,
    hashes: Mapping[str, str],
    *,
    matcher: Matcher | None = None,
    judge: Matcher | None = None,
    parts: Any = None,
    finder: Any = None,
) -> ModelToolkit:
    """A toolkit that draws with `generator`; whatever is not given is that of `base`.

    hashes: what tells the generator from others, by name. With a matcher of its own the query is read off the LQ photo
    (`PhotoQuery`), since the evidence encoder answers in the other one's space, and scores are not calibrated: tables that
    were measured on another matcher, or on another generator's faces, would be wrong here. Nothing reads words off faces:
    the reader knows the people that `base` draws.
    """
    from identiface_core.gallery.enrolment import fingerprint

    own = matcher is not None
    searching, judging = matcher or base.matcher_a, judge or base.matcher_b
    tables = {} if own else base.calibrations
    return ModelToolkit(
        generator=generator,
        text_encoder=base.text_encoder,
        evidence_encoder=PhotoQuery(searching) if own else base.evidence_encoder,
        matcher_a=searching,
        matcher_b=judging,
        segmenter=parts or base.segmenter,
        finder=finder or base.finder,
        reader=None,
        hashes={**hashes, "matcher": fingerprint(searching), "judge": fingerprint(judging)},
        calibrations={name: table for name, table in tables.items() if name.split("/")[0] in DRAWN_NONE},
    )
