"""The training world: resumable, the same whatever its size, never of two renderer versions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from identiface_core.errors import InputError
from identiface_core.synthesis.identity import FAMILY, PARAMETERS
from identiface_core.synthesis.witness import LEVELS, ErrorLevel
from identiface_core.training import data
from identiface_core.training.data import SPLITS, World, draw_world, floats, people_of, witness_of

SHARD = 10


@pytest.fixture(autouse=True)
def quick_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are a plain function of identity and nuisance: the real renderer has tests of its own."""

    def render(identity: Tensor, nuisance: Tensor) -> SimpleNamespace:
        value = (identity.sum(1) + 3 * nuisance.sum(1)).remainder(1.0)
        masks = torch.zeros(len(value), 9, 128, 128)
        masks[:, 8] = 1.0
        points = value.view(-1, 1, 1) + torch.zeros(len(value), 5, 2)
        return SimpleNamespace(
            image=value.view(-1, 1, 1, 1).expand(-1, 3, 128, 128), masks=masks, points=points
        )

    def sketch(identity: Tensor, level: ErrorLevel, seed: int, person: Tensor) -> Tensor:
        value = (identity.sum(1) + level.warp + seed % 97 + person / 7).remainder(1.0)
        return value.view(-1, 1, 1, 1).expand(-1, 1, 128, 128)

    monkeypatch.setattr(data, "SHARD", SHARD)
    monkeypatch.setattr(data, "CHUNK", 5)
    monkeypatch.setattr(data, "render", render)
    monkeypatch.setattr(data, "witness_sketch", sketch)


def arrays(world: World, people: int) -> dict[str, np.ndarray]:
    return {name: np.array(getattr(world, name)[:people]) for name in world.info.arrays()}


def test_stopped_drawing_goes_on_and_a_growing_world_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = draw_world(tmp_path / "whole", SHARD + 5, "train", views=2, processes=0)
    drawn = data._draw_shard

    def killed(folder: Path, shard: int) -> int:
        if shard == 1:
            raise KeyboardInterrupt
        return drawn(folder, shard)

    monkeypatch.setattr(data, "_draw_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        draw_world(tmp_path / "parts", SHARD + 5, "train", views=2, processes=0)
    growing = World(tmp_path / "parts")
    assert (growing.people, growing.people_total) == (SHARD, SHARD + 5)
    monkeypatch.setattr(data, "_draw_shard", drawn)
    seen: list[tuple[int, int]] = []
    draw_world(
        tmp_path / "parts",
        SHARD + 5,
        "train",
        views=2,
        processes=0,
        progress=lambda done, n: seen.append((done, n)),
    )
    assert seen == [(SHARD + 5, SHARD + 5)]
    assert growing.refresh() == SHARD + 5
    for name, values in arrays(whole, SHARD + 5).items():
        assert np.array_equal(values, arrays(growing, SHARD + 5)[name]), name


def test_person_is_the_same_in_a_world_of_any_size(tmp_path: Path) -> None:
    small = draw_world(tmp_path / "small", 7, "train", processes=0)
    large = draw_world(tmp_path / "large", SHARD + 3, "train", processes=0)
    for name, values in arrays(small, 7).items():
        assert np.array_equal(values, arrays(large, 7)[name]), name


def test_witnesses_vary_in_training_and_are_fixed_elsewhere(tmp_path: Path) -> None:
    levels = np.array(
        [witness_of("train", which, group).sketch_error for which in (0, 1) for group in range(200)]
    )
    assert len(np.unique(levels)) > 300
    assert 0 <= levels.min() < 0.05 < 0.8 < levels.max() <= LEVELS["poor"].sketch_error
    measured = draw_world(tmp_path / "validation", 5, "validation", processes=0).sketch_errors
    assert (measured[:, 0] == LEVELS["middle"].sketch_error).all()


def test_splits_share_nobody() -> None:
    people = {split: people_of(split, 200) for split in SPLITS}
    assert len(set(SPLITS.values())) == len(SPLITS)
    for one in SPLITS:
        for other in SPLITS:
            if one < other:
                assert float(torch.cdist(people[one][:, :40], people[other][:, :40]).min()) > 1e-3


def test_look_alikes_differ_in_shape_alone() -> None:
    people = people_of("look-alikes", 2 * FAMILY)
    shape = torch.tensor([p.group == "shape" for p in PARAMETERS])
    family, other = people[:FAMILY], people[FAMILY:]
    assert torch.equal(family[:, ~shape], family[:1, ~shape].expand(FAMILY, -1))
    assert not torch.equal(family[0, ~shape], other[0, ~shape])
    assert float(torch.pdist(family[:, shape]).min()) > 0.01


def test_another_renderer_or_world_is_refused(tmp_path: Path) -> None:
    draw_world(tmp_path, 3, "validation", processes=0)
    with pytest.raises(InputError, match="another folder"):
        draw_world(tmp_path, 4, "validation", processes=0)
    info = json.loads((tmp_path / "world.json").read_text())
    info["renderer_version"] += 1
    (tmp_path / "world.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match="draw the world again"):
        World(tmp_path)
    with pytest.raises(InputError, match="no world"):
        World(tmp_path / "nowhere")
    with pytest.raises(InputError, match="splits"):
        draw_world(tmp_path / "x", 3, "other", processes=0)


def test_floats_copies_a_read_only_map(tmp_path: Path) -> None:
    world = draw_world(tmp_path, 3, "validation", processes=0)
    pictures = floats(world.views[[0, 2], [1, 3]])
    assert pictures.shape == (2, 3, 128, 128)
    assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1
    floats(world.canonical[:2]).mul_(0)
    assert np.array(world.canonical[:2]).any()
