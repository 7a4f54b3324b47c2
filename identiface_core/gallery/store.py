"""A gallery as one value and one file: people, one template per matcher and person, thumbnails, where each
came from."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from identiface_core.errors import GalleryError, WeightsError
from identiface_core.weights.files import load_tensors, save_tensors

KIND = "gallery"
MAX_PEOPLE = 1_000_000
MAX_THUMBNAIL = 256
"""Pixels. A stored thumbnail with a longer side is refused before it is decoded."""
ORIGINS = ("captured", "edited", "generated")
ENROL = "enrol again with `identiface gallery enrol FOLDER --out FILE`"


@dataclass(frozen=True)
class Gallery:
    """People and their templates. Frozen: `add` and `remove` give a new gallery."""

    people: tuple[str, ...]
    """Names, each once, in the order of enrolment."""
    templates: Mapping[str, Tensor]
    """Matcher name -> (N, D) float32 unit rows."""
    thumbnails: tuple[bytes, ...]
    """One JPEG per person."""
    origins: tuple[str, ...]
    """Per person "captured", "edited" or "generated": a generated picture that was enrolled says so."""
    matchers: Mapping[str, str] = field(default_factory=dict)
    """Matcher name -> fingerprint of its weights."""

    def __post_init__(self) -> None:
        n = len(self.people)
        if len(set(self.people)) != n:
            twice = next(p for i, p in enumerate(self.people) if p in self.people[:i])
            raise GalleryError(
                f"{twice!r} is in the gallery twice, and one person is one entry: rename one, then {ENROL}"
            )
        if len(self.thumbnails) != n or len(self.origins) != n or not set(self.origins) <= set(ORIGINS):
            raise GalleryError(
                f"{n} people, {len(self.thumbnails)} thumbnails, {len(self.origins)} origins: no fit: {ENROL}"
            )
        if set(self.templates) != set(self.matchers):
            raise GalleryError(
                f"templates of {sorted(self.templates)} but matchers {sorted(self.matchers)}: {ENROL}"
            )
        for name, rows in self.templates.items():
            if rows.dim() != 2 or len(rows) != n or rows.dtype != torch.float32:
                raise GalleryError(
                    f"templates of {name!r}: wanted ({n}, D) float32, "
                    f"got {tuple(rows.shape)} {rows.dtype}: {ENROL}"
                )
            if n and not torch.allclose(rows.norm(dim=1), torch.ones(n), atol=1e-3):
                raise GalleryError(f"templates of {name!r} are not unit vectors: {ENROL}")

    def __len__(self) -> int:
        return len(self.people)

    def templates_of(
        self, matcher: str, *, dimension: int | None = None, fingerprint: str | None = None
    ) -> Tensor:
        """(N, D) templates made with `matcher`.

        `dimension` and `fingerprint`, where given, must be those of enrolment. Raises `GalleryError` for an
        empty gallery and for another matcher (or the same with other weights): scores across matchers mean
        nothing.
        """
        if not self.people:
            raise GalleryError(
                "the gallery is empty: enrol people with `identiface gallery enrol FOLDER --out FILE`"
            )
        if matcher not in self.templates:
            raise GalleryError(
                f"the gallery was enrolled with {' and '.join(self.templates)}, the query was made with {matcher}: search with "
                f"the same matcher, or {ENROL}"
            )
        rows = self.templates[matcher]
        if dimension is not None and rows.shape[1] != dimension:
            raise GalleryError(
                f"matcher {matcher!r} gives {dimension}-d embeddings, "
                f"the gallery holds {rows.shape[1]}-d ones: {ENROL}"
            )
        if fingerprint is not None and fingerprint != self.matchers[matcher]:
            raise GalleryError(
                f"the gallery was made with other weights of matcher {matcher!r} "
                f"({self.matchers[matcher][:12]}, now {fingerprint[:12]}): {ENROL}"
            )
        return rows

    def add(self, other: Gallery) -> Gallery:
        """Both galleries' people. Raises `GalleryError` when a name is in both or the matchers differ."""
        if not self.people:
            return other
        if dict(self.matchers) != dict(other.matchers):
            raise GalleryError(
                f"cannot join galleries made with {dict(self.matchers)} and {dict(other.matchers)}: {ENROL}"
            )
        templates = {name: torch.cat([rows, other.templates[name]]) for name, rows in self.templates.items()}
        return Gallery(
            self.people + other.people,
            templates,
            self.thumbnails + other.thumbnails,
            self.origins + other.origins,
            self.matchers,
        )

    def remove(self, people: Collection[str]) -> Gallery:
        """The gallery without `people`. Raises `GalleryError` for a name that is not there."""
        unknown = sorted(set(people) - set(self.people))
        if unknown:
            raise GalleryError(
                f"cannot remove {unknown[0]!r}: the gallery of {len(self)} people has nobody of that name"
            )
        return self.take([i for i, person in enumerate(self.people) if person not in set(people)])

    def take(self, rows: Sequence[int]) -> Gallery:
        """The people at `rows`, in that order."""
        index = torch.tensor(list(rows), dtype=torch.long)
        return Gallery(
            tuple(self.people[i] for i in rows),
            {name: t[index] for name, t in self.templates.items()},
            tuple(self.thumbnails[i] for i in rows),
            tuple(self.origins[i] for i in rows),
            self.matchers,
        )

    def thumbnail(self, person: str) -> Tensor:
        """(3, H, W) float in [0, 1]: the picture kept of `person`. Raises `GalleryError` for an unknown name
        or a bad picture."""
        if person not in self.people:
            raise GalleryError(f"the gallery of {len(self)} people has nobody called {person!r}")
        return decode_thumbnail(self.thumbnails[self.people.index(person)], person)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all (`OutputError`)."""
        blob = b"".join(self.thumbnails)
        ends = torch.tensor([0, *(len(t) for t in self.thumbnails)], dtype=torch.int64).cumsum(0)
        tensors = {
            "people": _bytes(json.dumps(self.people, ensure_ascii=False).encode()),
            "thumbnails": _bytes(blob),
            "ends": ends,
            "origins": torch.tensor([ORIGINS.index(o) for o in self.origins], dtype=torch.uint8),
        }
        names = sorted(self.templates)
        tensors |= {f"templates.{i}": self.templates[name] for i, name in enumerate(names)}
        save_tensors(path, tensors, KIND, {"matchers": [[name, self.matchers[name]] for name in names]})

    @classmethod
    def load(cls, path: str | Path) -> Gallery:
        """Read what `save` wrote. Raises `GalleryError`, naming the file, for one that is missing, truncated,
        damaged, of another kind, or inconsistent within."""
        try:
            tensors, config = load_tensors(path, KIND)
        except WeightsError as error:
            raise GalleryError(f"gallery {error} To make it anew: {ENROL}.") from error
        try:
            return cls._from_tensors(tensors, config)
        except GalleryError as error:
            raise GalleryError(f"gallery {path}: {error}") from error
        except (
            KeyError,
            ValueError,
            TypeError,
            IndexError,
            AttributeError,
            RuntimeError,
            RecursionError,
        ) as error:
            raise GalleryError(
                f"gallery {path}: its content does not fit together ({error}): {ENROL}"
            ) from error

    @classmethod
    def _from_tensors(cls, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Gallery:
        people = json.loads(_raw(tensors["people"]))
        if not isinstance(people, list) or not all(isinstance(p, str) and p for p in people):
            raise ValueError("names must be a list of texts")
        if len(people) > MAX_PEOPLE:
            raise ValueError(f"{len(people):,} people, at most {MAX_PEOPLE:,}")
        blob, ends = _raw(tensors["thumbnails"]), tensors["ends"].tolist()
        if len(ends) != len(people) + 1 or ends[0] != 0 or ends[-1] != len(blob) or ends != sorted(ends):
            raise ValueError("thumbnail offsets")
        thumbnails = tuple(blob[a:b] for a, b in pairwise(ends))
        origins = tuple(ORIGINS[i] for i in tensors["origins"].tolist())
        matchers = {str(name): str(fingerprint) for name, fingerprint in config["matchers"]}
        templates = {name: tensors[f"templates.{i}"] for i, name in enumerate(matchers)}
        return cls(tuple(people), templates, thumbnails, origins, matchers)


def encode_thumbnail(portrait: Tensor, side: int = 128) -> bytes:
    """JPEG of (3, H, W) in [0, 1], `side` pixels square."""
    from identiface_core.imaging import resize, to_pil

    stream = io.BytesIO()
    to_pil(resize(portrait[None], side, side)[0]).save(stream, "JPEG", quality=88)
    return stream.getvalue()


def decode_thumbnail(data: bytes, person: str) -> Tensor:
    """(3, H, W) float in [0, 1]. Raises `GalleryError` for bytes that are no small JPEG."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            if max(picture.size) > MAX_THUMBNAIL:
                raise ValueError(f"{picture.size[0]} x {picture.size[1]} pixels, at most {MAX_THUMBNAIL}")
            pixels = np.array(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise GalleryError(f"the thumbnail of {person!r} cannot be shown ({error}): {ENROL}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.zeros(0, dtype=torch.uint8)


def _raw(tensor: Tensor) -> bytes:
    if tensor.dtype != torch.uint8 or tensor.dim() != 1:
        raise ValueError(f"wanted bytes, got {tensor.dtype} {tuple(tensor.shape)}")
    return tensor.numpy().tobytes()
