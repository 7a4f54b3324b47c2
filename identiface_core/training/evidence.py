"""Training the evidence encoder: clues of a noisy witness to matcher A's embedding of *other* pictures of the
person.

Nothing of a clue comes from the pictures that make its target: the LQ photo is taken from one view, the
target is the mean embedding of the person's other pictures, the sketch is a witness's, the words omit and
err.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from identiface_core.evidence.encoder import KINDS, EvidenceEncoder, resize_lq, resize_sketch
from identiface_core.evidence.words import TextEncoder
from identiface_core.matchers.network import FaceNet
from identiface_core.synthesis.phrases import describe
from identiface_core.training import augment
from identiface_core.training.data import World, floats
from identiface_core.training.latents import fingerprint, fingerprint_of
from identiface_core.training.loop import Stage, bfloat16
from identiface_core.training.matchers import embed_views, identification
from identiface_core.weights.files import load_tensors, save_tensors

LQ_SHARES: tuple[tuple[int, float], ...] = ((8, 0.60), (12, 0.10), (16, 0.12), (24, 0.09), (32, 0.09))
"""Sides of the LQ photos in training and the share of the batch that has each."""

CLUES: tuple[tuple[str, ...], ...] = (KINDS, ("lq", "sketch"), ("lq",), ("sketch",), ("words",))
"""Sets of clues that are reported in validation."""

NET: dict[str, Any] = {"sketch_widths": (32, 64, 128), "lq_widths": (32, 64, 112), "trunk": 208}
"""Widths of the shipped encoder."""

TEXTS = 3
"""Texts per person; each batch mixes the slots of two of them, so that few texts give many."""


class EvidenceStage(Stage):
    """Contrastive against everybody's mean embedding (matcher A is frozen, so a bank serves) plus cosine to
    the target.
    """

    name = "evidence"
    seed = 81
    lr = 2e-3
    weight_decay = 0.02
    ema = 0.998
    autocast = True
    warmup = 150
    batch = 128
    scale = 18.0
    cosine = 0.3
    dropout = 0.30

    def __init__(
        self,
        world: World,
        matcher: FaceNet,
        text_encoder: TextEncoder,
        validation: World | None = None,
        *,
        steps: int = 6000,
        device: str | torch.device = "cpu",
    ) -> None:
        self.world, self.validation, self.steps = world, validation, steps
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            encoder = EvidenceEncoder(dimension=matcher.config["dimension"], **NET)
        self.encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules = nn.ModuleDict({"encoder": self.encoder})
        self.device = torch.device(device)
        matcher, text_encoder = matcher.to(device).eval(), text_encoder.to(device).eval()
        self.people = world.people
        self._templates = templates(matcher, world)
        self._words = word_bank(
            text_encoder, np.array(world.attributes[: self.people]), TEXTS, seed=self.seed
        )
        self._bank = F.normalize(self._templates.mean(1)).to(self.device)
        if validation is not None:
            self._test_gallery = embed_views(matcher, validation, 0)
            self._test_clues = witness_clues(validation, text_encoder)

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One batch of people, each with a random subset of clues (never none)."""
        with torch.autocast("cpu", enabled=False):
            people, view, clues = self._draw(generator)
        others = torch.ones(len(people), self._templates.shape[1], 1)
        others[torch.arange(len(people)), view] = 0.0
        target = F.normalize((self._templates[people] * others).sum(1)).to(self.device)
        query = self.encoder(*(x.to(self.device) for x in clues))
        people = people.to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            scores = query @ self._bank.T
            mates = (query * target).sum(1)
            scores = scores.scatter(1, people[:, None], mates[:, None])
            contrast = F.cross_entropy(self.scale * scores, people)
        return {
            "loss": contrast + self.cosine * (1 - mates).mean(),
            "mates": mates.mean(),
            "right": (scores.argmax(1) == people).float().mean(),
        }

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """People (B,), the view whose LQ photo is seen (B,), and the clues in the encoder's order."""
        g = generator
        people = torch.randperm(self.people, generator=g)[: self.batch]
        view, clues = draw_clues(self.world, people, self._words, g)
        present = torch.rand(len(people), 3, generator=g) >= self.dropout
        none = ~present.any(1)
        present[none, torch.randint(0, 3, (int(none.sum()),), generator=g)] = True
        return people, view, (*clues, present)

    def validate(self) -> dict[str, float]:
        """Unseen people, a middle witness: rank-1 and rank-10 by the clues that are there."""
        figures: dict[str, float] = {}
        for kinds in CLUES if self.validation is not None else ():
            result = identification(queries(self.encoder, self._test_clues, kinds), self._test_gallery)
            figures |= {f"{'+'.join(kinds)}/{k}": result[k] for k in ("rank1", "rank10")}
        return figures


def draw_clues(
    world: World, people: Tensor, words: Tensor, generator: torch.Generator
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Clues of people (B,) of any world: the view (B,) whose LQ photo is seen, and LQ photos, sketches and words as
    `EvidenceEncoder` reads them.

    words: (people, TEXTS, SLOTS, WIDTH) bank; every slot comes from one of two texts of the person.
    """
    g, n, rows = generator, len(people), people.numpy()
    view = torch.randint(0, world.info.views, (n,), generator=g)
    lq = simulate_lq(
        floats(world.views_small[rows, view.numpy()]),
        torch.from_numpy(world.view_points[rows, view.numpy()]),
        g,
    )
    which = torch.randint(0, world.info.sketches, (n,), generator=g).numpy()
    sketch = augment_sketch(resize_sketch(floats(world.sketches[rows, which])[:, None]), g)
    flipped = torch.rand(n, 1, 1, 1, generator=g) < 0.5
    lq, sketch = (torch.where(flipped, x.flip(3), x) for x in (lq, sketch))
    first, second = (words[people, torch.randint(0, TEXTS, (n,), generator=g)] for _ in range(2))
    mixed = torch.rand(n, words.shape[2], 1, generator=g) < 0.5 * torch.rand(n, 1, 1, generator=g)
    return view, (lq, sketch, torch.where(mixed, second, first).float())


@torch.no_grad()
def estimates(
    encoder: EvidenceEncoder, world: World, text_encoder: TextEncoder, *, draws: int = 2, seed: int = 82
) -> Tensor:
    """(people, 7, draws, D) float16: what the encoder makes of draws of each person's clues, for every set of them.

    Set k holds kind i of `KINDS` where bit i of k + 1 is set. What the generator learns to draw towards.
    """
    device = encoder.word_null.device
    words = word_bank(text_encoder, np.array(world.attributes[: world.people]), TEXTS, seed=seed)
    sets = torch.tensor([[bool(k + 1 >> i & 1) for i in range(len(KINDS))] for k in range(7)])
    generator, rows = torch.Generator().manual_seed(seed), []
    for people in torch.arange(world.people).split(100):
        made = []
        for _ in range(draws):
            _, clues = draw_clues(world, people, words, generator)
            with bfloat16(device):
                each = [
                    encoder(*(x.to(device) for x in clues), present.expand(len(people), -1).to(device))
                    for present in sets
                ]
            made.append(torch.stack(each, 1))
        rows.append(torch.stack(made, 2).half().cpu())
    return torch.cat(rows)


def overconfidence(seen: Tensor, seen_faces: Tensor, unseen: Tensor, unseen_faces: Tensor) -> Tensor:
    """(7,) length of the noise that makes estimates of people trained on as near to their faces as those of others are.

    seen (N, 7, K, D), unseen (M, 7, K, D): estimates. *_faces (N or M, D): unit embeddings of the people's portraits.
    Noise of length s, at a right angle, divides a cosine by sqrt(1 + s^2).
    """
    near, far = (
        torch.einsum("nskd,nd->nsk", asked.float(), faces).mean((0, 2))
        for asked, faces in ((seen, seen_faces), (unseen, unseen_faces))
    )
    return ((near / far).square() - 1).clamp_min(0).sqrt()


def kept_estimates(encoder: EvidenceEncoder, world: World, text_encoder: TextEncoder, path: Path) -> Tensor:
    """`estimates`, kept in the file `path` and read from there while encoder and world are the same."""
    config = {"encoder": fingerprint(encoder), "world": fingerprint_of(world)}
    if path.exists():
        tensors, stored = load_tensors(path, "estimates")
        if stored == config:
            return tensors["estimates"].half()
    made = estimates(encoder, world, text_encoder)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, {"estimates": made}, "estimates", config)
    return made


@torch.no_grad()
def templates(matcher: FaceNet, world: World) -> Tensor:
    """(people, views + 1, D) embeddings of every view and of the canonical portrait, aligned."""
    return torch.stack([embed_views(matcher, world, v) for v in (*range(world.info.views), None)], 1)


@torch.no_grad()
def word_bank(
    text_encoder: TextEncoder,
    values: np.ndarray[tuple[int, ...], np.dtype[np.int8]],
    texts: int,
    *,
    seed: int,
    omit: float | None = None,
    wrong: float | None = None,
) -> Tensor:
    """(people, texts, SLOTS, WIDTH) float16 slots of what witnesses say about people with these attribute
    values.

    omit, wrong: rates; by default drawn per text: 0 in 15 % of texts, else up to .8 omitted; up to .15 wrong.
    A fixed rate would make a complete description something never seen.
    """
    said: list[str] = []
    for person, row in enumerate(values.tolist()):
        for k in range(texts):
            g = torch.Generator().manual_seed((seed * 1_000_003 + person) * 16 + k)
            draw = torch.rand(3, generator=g)
            rate = omit if omit is not None else 0.0 if draw[0] < 0.15 else 0.8 * float(draw[1])
            errors = wrong if wrong is not None else 0.15 * float(draw[2])
            said.append(describe(row, g, omit=rate, wrong=errors).description.full_prompt())
    order = sorted(range(len(said)), key=lambda i: len(said[i]))  # texts of like length share a batch
    slots: list[Tensor] = [torch.empty(0)] * len(said)
    for i in range(0, len(order), 64):
        chunk = order[i : i + 64]
        encoded = text_encoder(text_encoder.tokenise([said[j] for j in chunk])).half().cpu()
        for j, slot in zip(chunk, encoded, strict=True):
            slots[j] = slot
    return torch.stack(slots).unflatten(0, (len(values), texts))


def witness_clues(
    world: World, text_encoder: TextEncoder, *, view: int = 1, side: int = 8
) -> tuple[Tensor, ...]:
    """LQ photos (N, 3, 32, 32) of one view, sketches (N, 1, 64, 64) and words (N, SLOTS, WIDTH) of a middle
    witness; for any world but the training one.
    """
    n = world.people
    plain = torch.Generator().manual_seed(3)
    points = torch.from_numpy(np.array(world.view_points[:n, view]))
    matrix = augment.alignment_jitter(points, 64, plain, aligned=1, landmark=1.5, shift=0, rotate=0, scale=0)
    seen = augment.place(floats(world.views_small[:n, view]), matrix)
    sketch = resize_sketch(floats(world.sketches[:n, 0])[:, None])
    words = word_bank(text_encoder, np.array(world.attributes[:n]), 1, seed=5, omit=0.3, wrong=0.1)[
        :, 0
    ].float()
    return resize_lq(shrink_to(seen, side)), sketch, words


@torch.no_grad()
def queries(encoder: EvidenceEncoder, clues: tuple[Tensor, ...], kinds: tuple[str, ...]) -> Tensor:
    """(N, D) query embeddings on the CPU from the clues of `witness_clues`, using only these kinds."""
    device = encoder.word_null.device
    present = torch.tensor([[kind in kinds for kind in KINDS]]).expand(len(clues[0]), -1)
    parts = zip(*(x.split(100) for x in (*clues, present)), strict=True)
    return torch.cat([encoder(*(x.to(device) for x in batch)).cpu() for batch in parts])


def simulate_lq(pictures: Tensor, points: Tensor, generator: torch.Generator) -> Tensor:
    """Portraits (B, 3, 64, 64) and points (B, 5, 2) at 128 px to LQ photos as the encoder reads them, (B, 3,
    32, 32).

    Imperfect alignment, blur, colour and light, then each row down to its side (`LQ_SHARES`), noise, 8 bits,
    and up again.
    """
    g = generator
    matrix = augment.alignment_jitter(
        points, pictures.shape[-1], g, landmark=2.0, shift=0.02, rotate=3.0, scale=0.04
    )
    x = augment.place(pictures, matrix)
    x = augment.colour(x, g, strength=0.7, grey=0.08)
    x = augment.sometimes(x, 0.25, g, lambda y: augment.blur(y, g, widest=2.5))
    x = augment.sometimes(x, 0.10, g, lambda y: augment.erase(y, g, largest=0.3))
    out, start = [], 0
    for place, (side, share) in enumerate(LQ_SHARES):
        last = place == len(LQ_SHARES) - 1
        stop = len(x) if last else min(len(x), start + round(share * len(x)))
        if stop > start:
            small = augment.sometimes(
                shrink_to(x[start:stop], side), 0.5, g, lambda y: augment.noise(y, g, 0.04)
            )
            out.append(resize_lq(torch.round(small * 255) / 255))
        start = stop
    return torch.cat(out)


def augment_sketch(sketch: Tensor, generator: torch.Generator) -> Tensor:
    """Sketches (B, 1, 64, 64) as other hands would have drawn them: bent, shifted, thicker or paler, with
    strokes missing.
    """
    g = generator
    n = len(sketch)
    matrix = augment.alignment_jitter(
        torch.zeros(n, 5, 2), 64, g, aligned=0, shift=0.015, rotate=2.0, scale=0.04
    )
    x = augment.place(sketch, matrix)
    x = augment.sometimes(x, 0.6, g, lambda y: augment.bend(y, g, 0.7))
    x = augment.sometimes(x, 0.3, g, lambda y: augment.blur(y, g, widest=1.0))
    ink = (1 - x) * augment.uniform(n, 0.5, 1.5, g)
    x = (1 - ink.clamp(0, 1)) * augment.uniform(n, 0.92, 1.0, g)
    for _ in range(3):
        x = augment.sometimes(
            x, 0.35, g, lambda y: torch.maximum(y, augment.erase(torch.zeros_like(y), g, largest=0.25).ceil())
        )
    return augment.sometimes(x, 0.3, g, lambda y: augment.noise(y, g, 0.04))


def shrink_to(pictures: Tensor, side: int) -> Tensor:
    """Portraits (B, 3, H, W) as a camera of side x side pixels sees them."""
    return F.interpolate(pictures, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(
        0, 1
    )
