"""Stage "slopes": the critic learns to point where the decoder and matcher A point.

A guide follows the critic's gradient, so the gradient is what must be right: values may agree while slopes do not. The critic
is trained further on both (Sobolev training, arXiv 1706.04859), on latents as a guided sampling meets them: noisy and smooth,
and moved by the critic itself, so that what it wrongly likes is put right. The generator keeps the critic that it was
trained with; this one ships, and guides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..diffusion.guidance.base import size
from ..matchers.network import shrink
from ..weights.files import load_tensors, save_tensors
from .critic import as_predicted
from .loop import Stage, step_generator

if TYPE_CHECKING:
    from ..diffusion.autoencoder import Autoencoder
    from ..matchers.latent import LatentCritic
    from ..matchers.network import FaceNet
    from .latents import Latents

KIND = "slopes"
LESSONS = {"train": 8000, "validation": 300}
"""Lessons by split."""
PIECE = 50
"""Lessons made at a time."""
FURTHEST = 0.25
"""Largest move by the critic, as a share of the latents' size."""
Embed = Callable[[Tensor], Tensor]
"""Latents (B, 4, 16, 16) -> unit rows (B, D), differentiable."""


@dataclass(frozen=True)
class Lessons:
    """What decoder and matcher say of N latents."""

    latents: Tensor
    """(N, 4, 16, 16) float16."""
    faces: Tensor
    """(N, D) float16: the embedding of what they decode to."""
    targets: Tensor
    """(N, D) float16: somebody else's face."""
    slopes: Tensor
    """(N, 4, 16, 16) float16 of size 1: which way the cosine to the target rises."""
    people: Tensor
    """(N,) whose portrait the latents were made from."""

    def __len__(self) -> int:
        return len(self.latents)


def slope(embed: Embed, latents: Tensor, targets: Tensor, *, trained: bool = False) -> tuple[Tensor, Tensor]:
    """Embeddings (B, D) at latents (B, C, h, w), and the gradient (B, C, h, w) of their cosine to `targets` (B, D).

    trained: keep what is needed to differentiate both with respect to weights.
    """
    with torch.enable_grad():
        source = latents.detach().clone().requires_grad_(True)
        vectors = embed(source)
        (found,) = torch.autograd.grad((vectors * targets).sum(), source, create_graph=trained)
    return (vectors, found) if trained else (vectors.detach(), found)


def matcher_behind(autoencoder: Autoencoder, matcher: FaceNet) -> Embed:
    """What the critic is to imitate: the decoder, then the matcher."""
    autoencoder.eval().requires_grad_(False)
    matcher.eval().requires_grad_(False)
    return lambda latents: matcher(shrink(autoencoder.decode(latents)))


def lessons(
    latents: Latents,
    faces: Tensor,
    critic: Embed,
    teacher: Embed,
    count: int,
    path: Path | None = None,
    *,
    made_of: Mapping[str, str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Lessons:
    """`count` lessons of people's portraits; kept in the file `path`, and read from there while they would be the same.

    faces: (N, D) unit rows, whom targets are chosen from. critic: moves half of the latents towards their target. made_of:
    what tells world and networks from others. progress: called with (lessons made, count).
    """
    config = {"count": count, "seed": seed, **(made_of or {})}
    if path is not None and path.exists():
        tensors, stored = load_tensors(path, KIND)
        if stored == config:
            return Lessons(**{f.name: tensors[f.name] for f in fields(Lessons)})
    pieces = []
    for first in range(0, count, PIECE):
        generator = step_generator(seed, first)
        pieces.append(_piece(latents, faces, critic, teacher, min(PIECE, count - first), generator))
        if progress is not None:
            progress(min(first + PIECE, count), count)
    made = Lessons(*(torch.cat([getattr(piece, f.name) for piece in pieces]) for f in fields(Lessons)))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {f.name: getattr(made, f.name) for f in fields(Lessons)}
        save_tensors(path, tensors, KIND, config)
    return made


def _piece(
    latents: Latents, faces: Tensor, critic: Embed, teacher: Embed, count: int, generator: torch.Generator
) -> Lessons:
    people = torch.randint(len(latents), (count,), generator=generator)
    side = torch.randint(2, (count,), generator=generator)
    others = torch.randint(len(faces), (count,), generator=generator)
    targets = faces[others]
    seen = as_predicted(latents.portraits[people, side].float(), generator)
    _, liked = slope(critic, seen, targets)
    far = FURTHEST * torch.rand(count, 1, 1, 1, generator=generator)
    far[: count // 2] = 0
    seen = seen + far * size(seen) * liked / size(liked)
    vectors, rises = slope(teacher, seen, targets)
    return Lessons(seen.half(), vectors.half(), targets.half(), (rises / size(rises)).half(), people)


class SlopesStage(Stage):
    """The critic, trained further on lessons: values, slopes, and the words that it could read before.

    attributes: (N, SLOTS) of the people that lessons were made from; unseen: lessons of other people.
    """

    name = "slopes"

    def __init__(
        self,
        critic: LatentCritic,
        lessons: Lessons,
        attributes: Tensor,
        unseen: Lessons,
        unseen_attributes: Tensor,
        *,
        steps: int = 3000,
        batch: int = 32,
        seed: int = 0,
    ) -> None:
        self.lessons, self.values = lessons, attributes
        self.unseen, self.unseen_values = unseen, unseen_attributes
        self.steps, self.batch, self.seed = steps, batch, seed
        self.lr, self.weight_decay, self.ema = 5e-4, 0.05, 0.995
        self.validate_every = 100
        self.critic = critic.requires_grad_(True)
        self.modules = nn.ModuleDict({"critic": critic})

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(self.lessons), (self.batch,), generator=generator)
        # Slopes of one sample must not depend on the others of its batch.
        self.critic.eval()
        read, value, slopes = self.compared(self.lessons, rows, self.values)
        return {"loss": value + slopes + 0.2 * read, "read": read, "value": value, "slopes": slopes}

    def compared(
        self, lessons: Lessons, rows: Tensor, attributes: Tensor, *, trained: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean cross-entropy of the words, and 1 - cosine of embeddings and of slopes, over some lessons."""
        device = next(self.critic.parameters()).device
        latents, faces, targets, rises = (
            getattr(lessons, name)[rows].float().to(device)
            for name in ("latents", "faces", "targets", "slopes")
        )
        logits: list[Tensor] = []

        def embed(x: Tensor) -> Tensor:
            read, vectors = self.critic(x)
            logits.extend(read)
            return vectors

        vectors, found = slope(embed, latents, targets, trained=trained)
        values = attributes[lessons.people[rows]].to(device)
        read = torch.stack([F.cross_entropy(x, v) for x, v in zip(logits, values.T, strict=True)]).mean()
        value = 1 - F.cosine_similarity(vectors, faces).mean()
        slopes = 1 - F.cosine_similarity(found.flatten(1), rises.flatten(1)).mean()
        return read, value, slopes

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """On unseen people: cosines of embeddings and of slopes to decoder and matcher."""
        rows = torch.arange(len(self.unseen))
        read, value, slopes = self.compared(self.unseen, rows, self.unseen_values, trained=False)
        return {"read": float(read), "cosine": 1 - float(value), "slopes": 1 - float(slopes)}
