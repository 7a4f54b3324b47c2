"""What a method costs: wall time measured in turns with no guidance, and the most memory that tensors held at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakBytes(TorchDispatchMode):
    """While it is active, counts the bytes of all tensors that are made and still live; `peak` is the most at once.

    What an operation uses inside of itself is not seen. The same on every device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {
            t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)
        }
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in given:
                self._note(tensor)
        return result

    def _note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        place = storage._cdata
        known = self.live.get(place)
        if known is not None and not known[0].expired():
            return
        for gone in [key for key, (reference, _) in self.live.items() if reference.expired()]:
            self.now -= self.live.pop(gone)[1]
        self.live[place] = (StorageWeakRef(storage), storage.nbytes())
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)


def peak_bytes(do: Callable[[], object]) -> int:
    """The most bytes that tensors made by `do` held at once."""
    with PeakBytes() as counted:
        do()
    return counted.peak


def seconds(
    ways: Mapping[str, Callable[[], object]], rounds: int, *, warm: bool = True
) -> dict[str, list[float]]:
    """Wall seconds of each way in each round; ways take turns, so that a busy machine is busy for all of them.

    warm: every way is run once before, unmeasured.
    """
    for do in ways.values() if warm else ():
        do()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, do in ways.items():
            began = time.perf_counter()
            do()
            found[name].append(time.perf_counter() - began)
    return found


def ratio(mine: list[float], base: list[float]) -> float:
    """Median over rounds of one way's time by another's in the same round; the shorter list counts."""
    return median(a / b for a, b in zip(mine, base, strict=False))
