"""Our weight files when they are large: written and read tensor by tensor, so that nothing is in memory twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from identiface_core.errors import WeightsError
from identiface_core.weights.files import checksum, read_header, sealed_header, write_parts
from identiface_core.weights.foreign import TYPES, SafetensorsFile, Tensors, bytes_of
from identiface_core.weights.layout import AGAIN, in_short, misfits

ModuleT = TypeVar("ModuleT", bound=nn.Module)

LARGEST_HALF = 65504.0

_NAMES = {kind: name for name, kind in TYPES.items()}


def half_types(tensors: Tensors, source: str | Path, *, half: bool = True) -> dict[str, torch.dtype]:
    """The type in which to store each tensor: with `half`, float32 becomes float16, unless its values do not fit.

    Reads every tensor once. WeightsError, naming `source`, for one that holds values that are not finite.
    """
    types = {}
    for name in tensors:
        tensor = tensors[name]
        types[name] = tensor.dtype
        if tensor.dtype not in _NAMES:
            raise WeightsError(
                f"{source}: tensor '{name}' is of type {tensor.dtype}, which is not stored. {AGAIN}"
            )
        if not tensor.is_floating_point():
            continue
        largest = _largest(tensor)
        if not math.isfinite(largest):
            raise WeightsError(f"{source}: tensor '{name}' holds values that are not finite. {AGAIN}")
        if half and tensor.dtype == torch.float32 and largest <= LARGEST_HALF:
            types[name] = torch.float16
    return types


def save_stream(
    path: str | Path,
    tensors: Tensors,
    types: Mapping[str, torch.dtype],
    kind: str,
    config: Mapping[str, Any],
    *,
    extra: Mapping[str, Any] | None = None,
) -> int:
    """Write the same file as `files.save_tensors`, holding one tensor at a time; gives its size in bytes.

    types: the type in which to store each tensor. Every tensor is read twice: for the checksum, which stands
    first, and for the file. If this raises (OutputError), nothing has changed.
    """
    order = sorted(tensors, key=lambda name: (-types[name].itemsize, name))
    entries: dict[str, dict[str, Any]] = {}
    end = 0
    for name in order:
        shape = list(tensors.shapes[name])
        start, end = end, end + torch.Size(shape).numel() * types[name].itemsize
        entries[name] = {"dtype": _NAMES[types[name]], "shape": shape, "data_offsets": [start, end]}

    def parts() -> Iterator[memoryview]:
        return (bytes_of(tensors[name].to(types[name]).contiguous()) for name in order)

    header = sealed_header(kind, config, extra or {}, entries, parts())

    def whole() -> Iterator[bytes | memoryview]:
        yield header
        yield from parts()

    write_parts(path, whole(), len(header) + end)
    return len(header) + end


def load_stream(path: str | Path, cls: type[ModuleT], *, dtype: torch.dtype | None = None) -> ModuleT:
    """The network of class `cls` stored at `path`, as `files.load_module`, in little more memory than it takes.

    dtype: what floating-point parameters become; None leaves them as they are stored. The class must make all
    its tensors in its state: one that it computes at the start would stay empty.
    """
    path = Path(path)
    header = read_header(path)
    kind = getattr(cls, "kind", None)
    if header.kind != kind:
        raise WeightsError(
            f"{path}: wanted a file of kind '{kind}', this one is of kind '{header.kind}'. Choose another."
        )
    file = SafetensorsFile(path)
    try:
        with torch.device("meta"):
            module = cls(**header.config)
    except (TypeError, ValueError, KeyError, RuntimeError, ArithmeticError, MemoryError) as error:
        raise WeightsError(
            f"{path}: its configuration {header.config} does not make a {cls.__name__} ({error}). {AGAIN}"
        ) from error
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    faults = misfits(wanted, file.shapes)
    if faults:
        raise WeightsError(f"{path}: does not fit {cls.__name__}: {in_short(faults)}. {AGAIN}")
    state: dict[str, Tensor] = {}

    def parts() -> Iterator[memoryview]:
        for name in file.order:
            stored = file.read(name)
            yield bytes_of(stored)
            if stored.is_floating_point() and not math.isfinite(_largest(stored)):
                raise WeightsError(f"{path}: tensor '{name}' holds values that are not finite. {AGAIN}")
            state[name] = stored.to(dtype) if dtype is not None and stored.is_floating_point() else stored

    if file.holes or checksum(file.layout.texts, file.layout.entries, parts()) != header.checksum:
        raise WeightsError(f"{path}: the content does not match its own checksum: it is damaged. {AGAIN}")
    module.load_state_dict(state, assign=True)
    empty = [name for name, tensor in _all_tensors(module) if tensor.is_meta]
    if empty:
        raise TypeError(f"{cls.__name__} computes '{empty[0]}' itself: load it with `files.load_module`")
    return module.eval()


def _largest(tensor: Tensor) -> float:
    """The largest absolute value, NaN if there is one; 0 for no values. Makes no copy, as `isfinite` and `abs` would."""
    if not tensor.numel():
        return 0.0
    ends = torch.stack(torch.aminmax(tensor if tensor.itemsize > 1 else tensor.float()))
    return float(ends.abs().max())


def _all_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
