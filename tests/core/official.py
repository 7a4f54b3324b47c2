"""Checkpoints as the released code saves them, of any size: the real list of names, scaled down; values are random."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

REFERENCE = Path(__file__).parent / "data" / "reference"
KEYS = json.loads((REFERENCE / "identiface-xl-keys.json").read_text())["keys"]
"""All 674 released tensors: name, shape, role, and what diffusers and ComfyUI call them."""

XL = 1152


def shapes(
    *, width: int = 48, depth: int = 6, copies: int = 3, captions: int = 32, tokens: int = 12, table: int = 8
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint of that size. table: tokens a side of the stored positions."""
    sides = {4096: captions, 120: tokens} | {
        XL * times // 3: width * times // 3 for times in (1, 3, 6, 9, 12, 18)
    }
    found = {}
    for one in KEYS:
        parts = one["key"].removeprefix("base_model.").split(".")
        if parts[0] == "blocks" and int(parts[1]) >= depth:
            continue
        if parts[0] == "controlnet" and int(parts[1]) >= copies:
            continue
        found[one["key"]] = tuple(sides.get(side, side) for side in one["shape"])
    found["base_model.pos_embed"] = (1, table * table, width)
    return found


def state(seed: int = 0, *, fill: bool = True, **size: int) -> dict[str, Tensor]:
    """A checkpoint's `state_dict`, normal with deviation 0.02; without `fill` all zero, which is quick."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * 0.02 if fill else torch.zeros(shape)
        for name, shape in shapes(**size).items()
    }


def save(path: Path, tensors: dict[str, Tensor]) -> Path:
    """Write a checkpoint with all that the released trainer saves, the optimiser's two moments among it."""
    trained = [name for name in tensors if not name.startswith("base_model.")]
    moments = {
        i: {
            "step": torch.tensor(12345.0),
            "exp_avg": torch.zeros_like(tensors[name]),
            "exp_avg_sq": torch.zeros_like(tensors[name]),
        }
        for i, name in enumerate(trained)
    }
    groups = [{"lr": 2e-5, "betas": (0.9, 0.999), "weight_decay": 0.03, "params": list(moments)}]
    content = {
        "state_dict": tensors,
        "optimizer": {"state": moments, "param_groups": groups},
        "scheduler": {"base_lrs": [2e-5], "last_epoch": 12345, "lr_lambdas": [None]},
        "epoch": 30,
        "step": 12345,
    }
    torch.save(content, path)
    return path


def below(tensors: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    """The tensors whose names begin with the first prefix, without it; with several, all of them with their names."""
    if len(prefixes) == 1:
        cut = len(prefixes[0])
        return {name[cut:]: t for name, t in tensors.items() if name.startswith(prefixes[0])}
    return {name: t for name, t in tensors.items() if name.startswith(prefixes)}
