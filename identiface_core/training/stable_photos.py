"""A folder of photos, encoded once: what the training of a control for Stable Diffusion reads, never pixels.

Of every photo and of its mirror image: its latent, and some draws of what a witness might give of it, a sketch and an LQ photo.
Each photo's file is written when it is done, so that an encoding that was stopped goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.stable_base import FACTOR, StableBase
from ..errors import InputError
from ..evidence.camera import simulate_camera
from ..evidence.description import Description
from ..evidence.lq import simulate_simple
from ..evidence.sketch import extract_sketch
from ..imaging import read_image, resize
from ..weights.files import load_tensors, save_tensors
from .latents import fingerprint
from .loop import step_generator

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
DEFAULT_TEXT = "a photo of a face"
"""What is said of a photo without a text beside it."""
LQ_SIDES = (8, 8, 12, 16, 24, 32)
INK = (0.6, 1.3)
"""A witness's pencil is fainter or stronger than what is extracted."""
PAPER, CRISP = 0.15, (1.5, 4.0)
"""A crisp drawing leaves blank what is fainter than the first, and makes all else darker by so much."""
DRAWS = 2
"""Sketches and LQ photos drawn of each photo and of its mirror image."""
SIDES = (64, 2048)
"""Smallest and largest side that is trained at, in pixels."""
PHOTO, TEXT = "encoded-photo", "encoded-text"


@dataclass(frozen=True)
class Photo:
    """A picture file and what is said of it."""

    path: Path
    name: str
    """Its path below the folder."""
    texts: tuple[str, ...]
    """The whole text first; of a bracketed description then the prompt of each part's round."""


@dataclass(frozen=True)
class EncodedPhotos:
    """N encoded photos on disk. Latents are (4, h, w)."""

    files: tuple[Path, ...]
    words: tuple[tuple[Path, ...], ...]
    """The texts of each photo, encoded."""
    silence: Tensor
    """(L, W): what the text encoder makes of no words."""

    def __len__(self) -> int:
        return len(self.files)

    def photo(self, index: int) -> dict[str, Tensor]:
        """`photo` (2, 4, h, w), as it is and mirrored; `sketch`, `lq` (2, DRAWS, 4, h, w), float32."""
        return load_tensors(self.files[index], PHOTO)[0]

    def context(self, index: int, which: int) -> Tensor:
        """(L, W): one of the photo's texts, encoded."""
        return load_tensors(self.words[index][which], TEXT)[0]["context"]

    def part(self, rows: slice) -> EncodedPhotos:
        """Some of them."""
        return EncodedPhotos(self.files[rows], self.words[rows], self.silence)


def find_photos(folder: Path) -> list[Photo]:
    """All picture files below a folder by name; NAME.txt beside a picture is what is said of it.

    Raises InputError for a folder without pictures, and for a text that is no description.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise InputError(f"{folder}: no photos to train on: wanted a folder of {', '.join(SUFFIXES)} files")
    return [
        Photo(path, path.relative_to(folder).as_posix(), _texts(path.with_suffix(".txt"))) for path in paths
    ]


def encode_photos(
    photos: Sequence[Photo],
    base: StableBase,
    folder: Path,
    *,
    side: int = 512,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> EncodedPhotos:
    """Latents and texts of all photos, kept in `folder` and not made again while photo, text, autoencoder, text encoder and side
    are the same.

    Photos are cropped to the centre square and resized to `side` px. progress: called with (photos done, photos).
    """
    if side % FACTOR or not SIDES[0] <= side <= SIDES[1]:
        raise InputError(f"--side {side}: wanted a multiple of {FACTOR} from {SIDES[0]} to {SIDES[1]} px")
    seen = f"{fingerprint(base.vae)} {side} {seed} {DRAWS}"
    read = fingerprint(base.text)
    files: list[Path] = []
    words: list[tuple[Path, ...]] = []
    for done, photo in enumerate(photos, start=1):
        stat = photo.path.stat()
        key = _hash(f"{photo.name} {stat.st_size} {stat.st_mtime_ns} {seen}")
        path = folder / "photos" / f"{key}.safetensors"
        if not path.exists():
            generator = step_generator(seed, int(key[:12], 16))
            save_tensors(path, _encoded(read_image(photo.path), base, side, generator), PHOTO, {"side": side})
        files.append(path)
        words.append(tuple(_written(text, base, folder, read) for text in photo.texts))
        if progress is not None:
            progress(done, len(photos))
    silence = load_tensors(_written("", base, folder, read), TEXT)[0]["context"]
    return EncodedPhotos(tuple(files), tuple(words), silence)


def square(image: Tensor, side: int) -> Tensor:
    """The centre square of (3, H, W), resized to `side` px."""
    edge = min(image.shape[-2:])
    top, left = ((n - edge) // 2 for n in image.shape[-2:])
    return resize(image[:, top : top + edge, left : left + edge], side, side)


def witnessed(image: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One draw of sketch (1, side, side) and LQ photo (3, side, side) of a face (3, H, W), enlarged as evidence is.

    Half of the sketches are soft, as those of 128 px are when enlarged; the others have the crisp lines of larger drawings.
    """
    ink, crisp, contrast, strength, kind = torch.rand(5, generator=generator).tolist()
    sketch = resize(1 - (1 - extract_sketch(image)) * (INK[0] + ink * (INK[1] - INK[0])), side, side)
    if crisp < 0.5:
        sketch = 1 - F.relu(1 - sketch - PAPER) * (CRISP[0] + contrast * (CRISP[1] - CRISP[0]))
    lq_side = LQ_SIDES[int(torch.randint(len(LQ_SIDES), (), generator=generator))]
    seed = int(torch.randint(2**31, (), generator=generator))
    lq = (
        simulate_simple(image, str(lq_side))
        if kind < 0.5
        else simulate_camera(image, lq_side, 0.5 + strength, seed)
    )
    return sketch.clamp(0, 1), resize(lq, side, side)


def _encoded(image: Tensor, base: StableBase, side: int, generator: torch.Generator) -> dict[str, Tensor]:
    face = square(image, side)
    device = next(base.vae.parameters()).device
    pictures: list[Tensor] = []
    for view in (face, face.flip(-1)):
        draws = [witnessed(view, side, generator) for _ in range(DRAWS)]
        sketches, photos = zip(*draws, strict=True)
        pictures += [view, *sketches, *photos]
    latents = torch.cat([base.encode(one[None].to(device)).half().cpu() for one in pictures])
    views = latents.unflatten(0, (2, 1 + 2 * DRAWS))
    return {"photo": views[:, 0], "sketch": views[:, 1 : 1 + DRAWS], "lq": views[:, 1 + DRAWS :]}


def _written(text: str, base: StableBase, folder: Path, read: str) -> Path:
    path = folder / "texts" / f"{_hash(f'{text} {read}')}.safetensors"
    if not path.exists():
        save_tensors(path, {"context": base.context([text])[0].half().cpu()}, TEXT, {"text": text})
    return path


def _texts(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return (DEFAULT_TEXT,)
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
        if not text:
            return (DEFAULT_TEXT,)
        said = Description.parse(text)
    except (UnicodeDecodeError, InputError) as error:
        raise InputError(f"{path}: {error}") from error
    rounds = [said.prompt(part) for part in said.parts() if part != "overview"]
    return tuple(dict.fromkeys([said.full_prompt(), *rounds]))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
