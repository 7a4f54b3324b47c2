"""The training world on disk: synthetic people drawn once, read by every stage.

A world is a folder of memory-mapped `.npy` arrays, drawn in shards of 100 people by worker processes. A
killed drawing goes on where it stopped; a world can be read while it is still growing. A picture depends on
the split's seed and the person's number alone, so a world of 1,000 people is the beginning of a world of
5,000.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from identiface_core.errors import InputError
from identiface_core.evidence.lexicon import SLOTS
from identiface_core.matchers.network import SIDE, shrink
from identiface_core.synthesis.attributes import attribute_values
from identiface_core.synthesis.identity import (
    NUISANCE,
    PARAMETERS,
    RENDERER_VERSION,
    canonical_nuisance,
    look_alikes,
    sample_identities,
    sample_nuisance,
)
from identiface_core.synthesis.portrait import render
from identiface_core.synthesis.witness import LEVELS, ErrorLevel
from identiface_core.synthesis.witness import sketch as witness_sketch

SPLITS: dict[str, int] = {
    "train": 101,
    "validation": 202,
    "calibration": 303,
    "gallery": 404,
    "case": 505,
    "look-alikes": 606,
}
"""Seeds of the groups of people; no two groups share a person. Nothing is ever trained on any but `train`."""

SHARD = 100
SIZE = 128
CHUNK = 10
"""Pictures per call of the renderer: more no longer fit the processor's cache."""

Drawn = Callable[[int, int], None]


@dataclass(frozen=True)
class WorldInfo:
    """What a world holds; stored as `world.json`."""

    split: str
    people: int
    views: int
    sketches: int
    renderer_version: int = RENDERER_VERSION

    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and type of every array by name."""
        n, v, s = self.people, self.views, self.sketches
        return {
            "identities": ((n, len(PARAMETERS)), "float32"),
            "attributes": ((n, SLOTS), "int8"),
            "canonical": ((n, 3, SIZE, SIZE), "uint8"),
            "canonical_labels": ((n, SIZE, SIZE), "uint8"),
            "canonical_points": ((n, 5, 2), "float32"),
            "canonical_small": ((n, 3, SIDE, SIDE), "uint8"),
            "views": ((n, v, 3, SIZE, SIZE), "uint8"),
            "view_labels": ((n, v, SIZE, SIZE), "uint8"),
            "view_points": ((n, v, 5, 2), "float32"),
            "view_nuisance": ((n, v, len(NUISANCE)), "float32"),
            "views_small": ((n, v, 3, SIDE, SIDE), "uint8"),
            "sketches": ((n, s, SIZE, SIZE), "uint8"),
            "sketch_errors": ((n, s), "float32"),
        }


def people_of(split: str, people: int) -> Tensor:
    """(people, P) identity parameters of a split; person k is the same however many are asked for."""
    identities = sample_identities(people, SPLITS[split])
    return look_alikes(identities) if split == "look-alikes" else identities


class World:
    """A drawn world, read-only. Every array is a memory map of `people_total` rows, of which the first
    `people` are drawn.

    identities (N, P) and attributes (N, SLOTS) value indices; canonical (N, 3, 128, 128) uint8 portraits,
    canonical_labels (N, 128, 128) (channel of `parts.MASK_CHANNELS` that is strongest), canonical_points (N,
    5, 2); views (N, V, ...) likewise under random nuisance, with view_nuisance (N, V, Q); `*_small`: the 64
    px pictures that matchers read; sketches (N, S, 128, 128) of a witness whose error level is sketch_errors
    (N, S) in [0, 1]. Raises `InputError` if there is no world, or another renderer drew it.
    """

    identities: NDArray[np.float32]
    attributes: NDArray[np.int8]
    canonical: NDArray[np.uint8]
    canonical_labels: NDArray[np.uint8]
    canonical_points: NDArray[np.float32]
    canonical_small: NDArray[np.uint8]
    views: NDArray[np.uint8]
    view_labels: NDArray[np.uint8]
    view_points: NDArray[np.float32]
    view_nuisance: NDArray[np.float32]
    views_small: NDArray[np.uint8]
    sketches: NDArray[np.uint8]
    sketch_errors: NDArray[np.float32]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info = _read_info(folder)
        for name in self.info.arrays():
            setattr(self, name, np.load(folder / f"{name}.npy", mmap_mode="r"))
        self.people_total = self.info.people
        self.people = 0
        self.refresh()

    def refresh(self) -> int:
        """Look again how many people are drawn (counted without gaps); returns and sets `people`."""
        shards = math.ceil(self.info.people / SHARD)
        ready = next((k for k in range(shards) if not _done(self.folder, k).exists()), shards)
        self.people = min(ready * SHARD, self.info.people)
        return self.people


def floats(pictures: NDArray[np.uint8]) -> Tensor:
    """uint8 pictures to float32 in [0, 1], same shape."""
    pictures = np.require(pictures, requirements=("C", "W"))  # copies what is mapped read-only
    return torch.from_numpy(pictures).float().div_(255.0)


def draw_world(
    folder: Path,
    people: int,
    split: str,
    *,
    views: int = 4,
    sketches: int = 2,
    processes: int = 2,
    progress: Drawn | None = None,
) -> World:
    """Draw `people` people of a split (a key of `SPLITS`) into `folder`, going on with what is already there.

    processes: worker processes, each with one thread; 0 draws in this process. progress: called with (people
    drawn, people). Raises `InputError` if the folder holds another world or another renderer version's.
    """
    if split not in SPLITS:
        raise InputError(f"wanted one of the splits {', '.join(SPLITS)}, got '{split}'")
    info = WorldInfo(split, people, views, sketches)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "world.json").exists():
        there = _read_info(folder)
        if there != info:
            raise InputError(f"{folder} holds {there}, wanted {info}: choose another folder or remove it")
    else:
        for name, (shape, kind) in info.arrays().items():
            np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=shape).flush()
        (folder / "shards").mkdir(exist_ok=True)
        beside = folder / "world.json.tmp"
        beside.write_text(json.dumps(asdict(info), indent=1))
        os.replace(beside, folder / "world.json")
    missing = [k for k in range(math.ceil(people / SHARD)) if not _done(folder, k).exists()]
    finished = people - sum(min(SHARD, people - k * SHARD) for k in missing)
    for shard in _run(folder, missing, processes):
        finished += min(SHARD, people - shard * SHARD)
        if progress is not None:
            progress(finished, people)
    return World(folder)


def _run(folder: Path, shards: list[int], processes: int) -> Iterator[int]:
    if processes == 0 or not shards:
        for shard in shards:
            yield _draw_shard(folder, shard)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        jobs = [pool.submit(_draw_shard, folder, shard) for shard in shards]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _draw_shard(folder: Path, shard: int) -> int:
    info = _read_info(folder)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in info.arrays()}
    start, stop = shard * SHARD, min((shard + 1) * SHARD, info.people)
    seed = SPLITS[info.split]
    identities = people_of(info.split, stop)[start:]
    nuisance = sample_nuisance(stop * info.views, seed)[start * info.views :]
    arrays["identities"][start:stop] = identities.numpy()
    arrays["attributes"][start:stop] = attribute_values(identities).numpy()
    arrays["view_nuisance"][start:stop] = nuisance.view(stop - start, info.views, -1).numpy()
    _draw(identities, canonical_nuisance(len(identities)), arrays, "canonical", start)
    flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in arrays.items() if k.startswith("view")}
    _draw(identities.repeat_interleave(info.views, 0), nuisance, flat, "view", start * info.views)
    _draw_sketches(identities, info, arrays, start)
    for array in arrays.values():
        array.flush()
    _done(folder, shard).touch()
    return shard


def _draw(
    identities: Tensor, nuisance: Tensor, arrays: dict[str, NDArray[np.generic]], name: str, start: int
) -> None:
    pictures = "views" if name == "view" else name
    for i in range(0, len(identities), CHUNK):
        portrait = render(identities[i : i + CHUNK], nuisance[i : i + CHUNK])
        rows = slice(start + i, start + i + len(portrait.image))
        arrays[pictures][rows] = _bytes(portrait.image)
        arrays[f"{pictures}_small"][rows] = _bytes(shrink(portrait.image))
        arrays[f"{name}_labels"][rows] = portrait.masks.argmax(1).to(torch.uint8).numpy()
        arrays[f"{name}_points"][rows] = portrait.points.numpy()


def _draw_sketches(
    identities: Tensor, info: WorldInfo, arrays: dict[str, NDArray[np.generic]], start: int
) -> None:
    for which in range(info.sketches):
        for i in range(0, len(identities), CHUNK):
            rows = slice(start + i, start + min(i + CHUNK, len(identities)))
            level = witness_of(info.split, which, rows.start // CHUNK)
            drawn = witness_sketch(
                identities[i : i + CHUNK],
                level,
                SPLITS[info.split] * 16 + which,
                torch.arange(rows.start, rows.stop),
            )
            arrays["sketches"][rows, which] = _bytes(drawn[:, 0])
            arrays["sketch_errors"][rows, which] = level.sketch_error


def witness_of(split: str, which: int, group: int) -> ErrorLevel:
    """Who draws sketch number `which` of a group of `CHUNK` people.

    Training people meet witnesses of every kind: their first is drawn between perfect and poor, their second
    between perfect and a little worse than the middle one. Everybody else meets the middle one first, then
    the careful and the poor one.
    """
    if split != "train":
        return LEVELS[("middle", "careful", "poor")[which % 3]]
    g = torch.Generator().manual_seed(group * 16 + which)
    worst = LEVELS["poor"]
    share = float(torch.rand((), generator=g)) * (0.6 if which % 2 else 1.0)
    fewest, most = worst.missing_strokes
    return ErrorLevel(
        "drawn",
        worst.sketch_error * share,
        worst.warp * share,
        (round(fewest * share), round(most * share)),
        worst.omit * share,
        worst.wrong * share,
    )


def _bytes(image: Tensor) -> NDArray[np.uint8]:
    return (image * 255.0 + 0.5).clamp(0, 255).to(torch.uint8).numpy()


def _done(folder: Path, shard: int) -> Path:
    return folder / "shards" / f"{shard:05d}.done"


def _read_info(folder: Path) -> WorldInfo:
    path = folder / "world.json"
    try:
        info = WorldInfo(**json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise InputError(
            f"no world in {folder}: draw one first (`identiface train embedded --stage world`)"
        ) from error
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({error}): remove the folder and draw the world again"
        ) from error
    if info.renderer_version != RENDERER_VERSION:
        raise InputError(
            f"{folder} was drawn by renderer version {info.renderer_version}, this is {RENDERER_VERSION}: "
            "the same seeds are other people now; draw the world again in another folder"
        )
    return info
