"""A tiny model that plays the embedded one: deterministic, without weights, quick."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.diffusion.generator import Sample
from identiface_core.evidence.lexicon import ATTRIBUTES
from identiface_core.evidence.values import Evidence
from identiface_core.gallery import Gallery, enrol
from identiface_core.parts import MASK_CHANNELS


def faces(n: int, seed: int = 0) -> Tensor:
    """(n, 3, 128, 128) soft random pictures."""
    generator = torch.Generator().manual_seed(seed)
    return F.interpolate(torch.rand(n, 3, 4, 4, generator=generator), (128, 128), mode="bilinear")


def _seed_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


class Matcher:
    def __init__(self, name: str, cells: int) -> None:
        self.name, self.cells, self.dimension = name, cells, 3 * cells * cells

    def embed(self, portraits: Tensor) -> Tensor:
        return F.normalize((F.adaptive_avg_pool2d(portraits, self.cells) - 0.5).flatten(1), dim=1)

    def embed_with_quality(self, portraits: Tensor, points: None = None) -> Any:
        return SimpleNamespace(vectors=self.embed(portraits), quality=torch.ones(len(portraits)))


class Encoder:
    """Sees the LQ photo as matcher A would; words and sketch give a fixed direction."""

    def query(self, evidence: Evidence, text_encoder: Any) -> Tensor:
        if evidence.lq is not None:
            picture = F.interpolate(evidence.lq[None], (128, 128), mode="bilinear")
        else:
            words = "" if evidence.description is None else evidence.description.full_prompt()
            picture = faces(1, _seed_of(words))
        return Matcher("embedded-a", 4).embed(picture)[0]


class Generator:
    """Draws the person it was told of (`towards`), with noise by seed; a part round changes only the mask."""

    def __init__(self, towards: Tensor | None = None) -> None:
        self.towards, self.calls = towards, 0
        self.guides: list[Any] = []
        self.stop_at: int | None = None

    def sample(
        self,
        prompts: Sequence[str],
        evidence: Evidence,
        seeds: Sequence[int],
        *,
        steps: int,
        guidance_scale: float,
        strength: float,
        known: Sample | None = None,
        mask: Tensor | None = None,
        estimate: Tensor | None = None,
        guide: Any = None,
        on_step: Callable[..., None] | None = None,
    ) -> Sample:
        self.calls += 1
        self.guides.append(guide)
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        noise = torch.cat([faces(1, seed) for seed in seeds])
        base = faces(1, _seed_of(prompts[0])) if self.towards is None else self.towards[None]
        images = (0.75 * base + 0.25 * noise).clamp(0, 1)
        if known is not None and mask is not None:
            images = images * mask + known.images * (1 - mask)
        for _ in range(steps):
            if on_step is not None:
                on_step()
        latents = F.adaptive_avg_pool2d(images, 16)
        return Sample(images, torch.cat([latents, latents[:, :1]], 1))


class TextEncoder:
    def read(self, text: str) -> Any:
        unknown = tuple(word for word in text.lower().split() if word == "flurbish")
        return SimpleNamespace(said=self.understood(text), unknown_words=unknown, warning=None)

    def understood(self, text: str) -> dict[str, str]:
        said = {"nose length": "long"} if "long nose" in text.lower() else {}
        if "glasses" in text.lower():
            said["glasses"] = "none" if "no glasses" in text.lower() else "glasses"
        return said


class Reader:
    """Says how dark a face is: the first value of every attribute for black, the last for white."""

    def agreement(self, portraits: Tensor, stated: list[int]) -> Tensor:
        assert len(stated) == len(ATTRIBUTES)
        said = [(v, len(a.values)) for v, a in zip(stated, ATTRIBUTES, strict=True) if v >= 0]
        light = portraits.mean((1, 2, 3))
        return torch.stack([1 - (light - v / (n - 1)).abs() for v, n in said]).mean(0)


def segmenter(images: Tensor) -> Tensor:
    """Eyes, brows, nose, mouth and hair are always seen; ears and glasses never."""
    out = torch.zeros(len(images), len(MASK_CHANNELS), 128, 128)
    boxes = {
        "eyes": (54, 68, 38, 90),
        "brows": (46, 54, 38, 90),
        "nose": (62, 82, 54, 74),
        "mouth": (84, 98, 48, 80),
        "hair": (10, 34, 24, 104),
    }
    for part, (top, bottom, left, right) in boxes.items():
        out[:, MASK_CHANNELS.index(part), top:bottom, left:right] = 1
    out[:, MASK_CHANNELS.index("skin")] = 0.6 * (out.sum(1) == 0)
    return out


class Finder:
    def find_faces(self, image: Tensor) -> list[Any]:
        from identiface_core.faces.alignment import CANONICAL_POINTS
        from identiface_core.faces.base import Face, box_of

        points = CANONICAL_POINTS * (image.shape[-1] / 128)
        return [Face(box_of(points), points, 0.9)]


class Calibration:
    def fpir(self, score: float, gallery_size: int) -> float:
        return min(1.0, gallery_size * 10 ** (-6 * max(score, 0.0)))


def fake_model(towards: Tensor | None = None) -> Any:
    """Everything a case needs, with the attributes of `EmbeddedModel`."""
    calibrations = {name: Calibration() for name in ("portrait", "evidence", "generated", "both")}
    return SimpleNamespace(
        generator=Generator(towards),
        text_encoder=TextEncoder(),
        evidence_encoder=Encoder(),
        matcher_a=Matcher("embedded-a", 4),
        matcher_b=Matcher("embedded-b", 5),
        segmenter=segmenter,
        finder=Finder(),
        reader=Reader(),
        hashes={"matcher_a.safetensors": "0" * 64},
        calibrations=calibrations,
        critic=None,
    )


def fake_gallery(n: int = 30, seed: int = 7) -> Gallery:
    """`n` people; person i is face i of `faces(n, seed)`."""
    model = fake_model()
    pairs = [(f"person {i:03d}", face) for i, face in enumerate(faces(n, seed))]
    return enrol(pairs, (model.matcher_a, model.matcher_b))
