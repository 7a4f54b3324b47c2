"""How much memory a piece of work takes at its peak, mapped files among it: for programs that tests start."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STATUS = Path("/proc/self/status")
_KILO = 1024


def _bytes(field: str) -> int:
    if STATUS.is_file():
        found = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
        return int(found.split()[1]) * _KILO
    # getrusage knows the peak alone; Linux counts the parent's in, which is why it is not asked there.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KILO


@contextmanager
def grown() -> Iterator[Callable[[], int]]:
    """Measures the lines inside: the yielded function gives by how many bytes memory grew at most."""
    before = _bytes("VmRSS")
    yield lambda: _bytes("VmHWM") - before


def peak() -> int:
    """Bytes of this process at its peak."""
    return _bytes("VmHWM")
