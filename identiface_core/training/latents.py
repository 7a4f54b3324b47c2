"""A world encoded once: the diffusion stages read latents, never pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..diffusion.autoencoder import FACTOR, Autoencoder
from ..diffusion.masking import latent_mask
from ..faces.segmenter import part_mask, part_template
from ..imaging import resize
from ..parts import MASK_CHANNELS, PARTS
from ..weights.files import load_tensors, save_tensors
from . import augment
from .data import World, floats
from .loop import bfloat16, step_generator

LQ_SIDES = (8, 8, 8, 12, 16, 24)
LQ_DRAWS = 3
"""LQ photos per person, each of a random view at a random side of `LQ_SIDES`."""
ROUND_PARTS = PARTS[1:]
"""Parts that a round can make anew, in the order of `Latents.cells`."""
GROW = 7
"""Pixels around a part that count as the part."""
CHUNK = 25
"""People encoded at a time."""
KIND = "encoded-world"


@dataclass(frozen=True)
class Latents:
    """N people's encoded pictures. The second axis is 0 as drawn, 1 mirrored (words say nothing of left and
    right)."""

    portraits: Tensor
    """(N, 2, 4, 16, 16) float16: canonical portraits, what the generator is to make."""
    sketches: Tensor
    """(N, 2, S, 4, 16, 16) float16: sketches of a witness, with ink of varying strength."""
    lq: Tensor
    """(N, 2, LQ_DRAWS, 4, 16, 16) float16: LQ photos of other pictures of the person, enlarged."""
    cells: Tensor
    """(N, 2, len(ROUND_PARTS), 16, 16) uint8: where each part is, generously; zero where it is not seen."""

    def __len__(self) -> int:
        return len(self.portraits)


def encode_world(
    world: World,
    autoencoder: Autoencoder,
    path: Path | None = None,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Latents:
    """Latents of all people drawn so far; kept in the file `path` and read from there when world and
    autoencoder are the same.

    progress: called with (people done, people).
    """
    people = world.people
    config = {
        "people": people,
        "seed": seed,
        "autoencoder": fingerprint(autoencoder),
        "world": fingerprint_of(world),
    }
    if path is not None and path.exists():
        tensors, stored = load_tensors(path, KIND)
        if stored == config:
            return Latents(
                tensors["portraits"].half(),
                tensors["sketches"].half(),
                tensors["lq"].half(),
                tensors["cells"],
            )
    chunks = []
    for start in range(0, people, CHUNK):
        rows = np.arange(start, min(start + CHUNK, people))
        chunks.append(_encode_people(world, autoencoder, rows, step_generator(seed, start)))
        if progress is not None:
            progress(int(rows[-1]) + 1, people)
    latents = Latents(
        *(torch.cat([getattr(chunk, field.name) for chunk in chunks]) for field in fields(Latents))
    )
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(
            path, {field.name: getattr(latents, field.name) for field in fields(Latents)}, KIND, config
        )
    return latents


def template_cells() -> Tensor:
    """(len(ROUND_PARTS), 16, 16) uint8: the fixed generous region of each part."""
    return torch.cat([latent_mask(part_template(part))[:, 0] for part in ROUND_PARTS]).to(torch.uint8)


@torch.no_grad()
def _encode_people(
    world: World, autoencoder: Autoencoder, rows: np.ndarray, generator: torch.Generator
) -> Latents:
    portraits = floats(world.canonical[rows])
    sketches = floats(world.sketches[rows])[:, :, None]
    ink = torch.empty(*sketches.shape[:2], 1, 1, 1).uniform_(0.6, 1.4, generator=generator)
    sketches = 1 - ((1 - sketches) * ink).clamp(0, 1)
    photos = torch.stack([_lq_photos(world, rows, generator) for _ in range(2 * LQ_DRAWS)], dim=1)
    photos = photos.unflatten(1, (2, LQ_DRAWS))
    labels = torch.from_numpy(np.array(world.canonical_labels[rows])).long()
    cells = _part_cells(labels)
    return Latents(
        _encode(autoencoder, torch.stack([portraits, portraits.flip(-1)], 1)),
        _encode(autoencoder, torch.stack([sketches, sketches.flip(-1)], 1)),
        _encode(autoencoder, torch.stack([photos[:, 0], photos[:, 1].flip(-1)], 1)),
        torch.stack([cells, cells.flip(-1)], 1),
    )


def _encode(autoencoder: Autoencoder, images: Tensor) -> Tensor:
    """(..., C, 128, 128) -> (..., 4, 16, 16) float16."""
    device = autoencoder.latent_mean.device
    flat = images.reshape(-1, *images.shape[-3:])
    encoded = []
    for chunk in flat.split(16):
        with bfloat16(device):  # its error is far below the latent noise
            latents = autoencoder.encode(chunk.to(device, memory_format=torch.channels_last))
        encoded.append(latents.half().cpu())
    return torch.cat(encoded).reshape(*images.shape[:-3], *encoded[0].shape[1:])


def _lq_photos(world: World, rows: np.ndarray, generator: torch.Generator) -> Tensor:
    """One LQ photo (N, 3, 128, 128) per person: a random view, roughly aligned, in other light, at one
    random side, enlarged."""
    view = torch.randint(world.info.views, (len(rows),), generator=generator).numpy()
    pictures, points = (
        floats(world.views[rows, view]),
        torch.from_numpy(np.array(world.view_points[rows, view])),
    )
    matrix = augment.alignment_jitter(
        points, pictures.shape[-1], generator, landmark=1.5, shift=0.015, rotate=2.0, scale=0.03
    )
    pictures = augment.colour(augment.place(pictures, matrix), generator, strength=0.4, grey=0.03)
    pictures = augment.sometimes(pictures, 0.25, generator, lambda x: augment.blur(x, generator, widest=3.0))
    side = LQ_SIDES[int(torch.randint(len(LQ_SIDES), (), generator=generator))]
    small = augment.sometimes(
        resize(pictures, side, side), 0.5, generator, lambda x: augment.noise(x, generator, 0.04)
    )
    return resize(torch.round(small * 255) / 255, *pictures.shape[-2:])


def _part_cells(labels: Tensor) -> Tensor:
    """Labels (N, 128, 128) -> (N, len(ROUND_PARTS), 16, 16) uint8."""
    seen = F.one_hot(labels, len(MASK_CHANNELS)).permute(0, 3, 1, 2).float()
    beard = part_mask(seen, "beard", grow=0)
    parts = [seen[:, [MASK_CHANNELS.index(p)]] if p in MASK_CHANNELS else beard for p in ROUND_PARTS]
    near = F.max_pool2d(torch.cat(parts, dim=1), FACTOR + 2 * GROW, stride=FACTOR, padding=GROW)
    return (near > 0.5).to(torch.uint8)


def fingerprint(network: nn.Module) -> str:
    """Hash of all weights of a network."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def fingerprint_of(world: World) -> str:
    """Hash of what a world holds and how many of its people are drawn."""
    ends = np.concatenate(
        [world.identities[: world.people][[0, -1]].ravel(), world.canonical[world.people - 1].ravel()[::97]]
    )
    return hashlib.sha256(repr(world.info).encode() + ends.astype(np.float32).tobytes()).hexdigest()
