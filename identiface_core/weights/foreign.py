"""Weight files of any origin, opened without reading their tensors: what is in them, and one tensor when asked.

safetensors are read straight into the tensor's own memory. PyTorch's archives (.pth, .pt, .ckpt) are mapped and opened
with `weights_only=True`, which builds tensors and plain values and runs nothing: the one place in IdentiFace that opens a
pickle, for offline conversion and for saying what a file is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from identiface_core.errors import WeightsError
from identiface_core.weights.files import unreadable
from identiface_core.weights.layout import AGAIN, Layout, Shapes, parse_layout, refuse_text

Format = Literal["safetensors", "torch", "onnx"]

TYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
"""safetensors' names of the types that we read."""

STATES = ("state_dict", "model_state_dict", "model", "module", "net", "params_ema", "params", "generator")
"""Under which names checkpoints keep their tensors, beside optimisers and the like."""

_ZIP = b"PK\x03\x04"
_OLD_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_ONNX_FIELDS = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)
"""The fields that may follow the format version in an ONNX file, as protobuf tags."""


class Tensors(Mapping[str, Tensor]):
    """Tensors by name, each read when it is asked for and kept by nobody."""

    def __init__(
        self,
        shapes: Shapes,
        read: Callable[[str], Tensor],
        notes: Mapping[str, Any] | None = None,
        path: Path | None = None,
    ) -> None:
        self.shapes = shapes
        self.notes: Mapping[str, Any] = notes or {}
        """What lies beside the tensors: a header's texts, a checkpoint's numbers (epoch, step)."""
        self.path = path
        """The file they are in; None for tensors in memory."""
        self._read = read

    @property
    def name(self) -> str:
        """What a sentence calls them."""
        return "the tensors" if self.path is None else str(self.path)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.shapes:
            raise KeyError(name)
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def below(self, prefix: str) -> Tensors:
        """The tensors whose names begin with `prefix`, under the rest of their names."""
        shapes = {name[len(prefix) :]: s for name, s in self.shapes.items() if name.startswith(prefix)}
        return Tensors(shapes, lambda name: self._read(prefix + name), self.notes, self.path)

    def without(self, names: Collection[str]) -> Tensors:
        """The tensors of all other names."""
        shapes = {name: s for name, s in self.shapes.items() if name not in names}
        return Tensors(shapes, self._read, self.notes, self.path)


def in_memory(tensors: Mapping[str, Tensor]) -> Tensors:
    """Tensors that are there already, as `Tensors`."""
    if isinstance(tensors, Tensors):
        return tensors
    return Tensors({name: tuple(t.shape) for name, t in tensors.items()}, tensors.__getitem__)


def open_tensors(path: str | Path, *, pickles: bool = False) -> Tensors:
    """What is in the file at `path`: safetensors, and with `pickles` PyTorch's archives as well.

    WeightsError for a file that is missing, damaged, truncated, of no known format, or a web page or git-lfs
    pointer in its place.
    """
    path = Path(path)
    kind = format_of(path)
    if kind == "safetensors":
        file = SafetensorsFile(path)
        return Tensors(file.shapes, file.read, file.layout.texts, path)
    if kind == "onnx":
        raise WeightsError(
            f"{path}: an ONNX graph, wanted a file of tensors (safetensors). Choose another file."
        )
    if not pickles:
        raise WeightsError(
            f"{path}: a PyTorch checkpoint (pickle), wanted safetensors: pickles are read by the offline "
            "converter alone. Convert it, or get the same weights as safetensors."
        )
    return _open_archive(path)


def format_of(path: Path) -> Format:
    """What the first bytes of the file say it is. WeightsError where that is nothing we can open."""
    try:
        with path.open("rb") as stream:
            first = stream.read(16)
            size = stream.seek(0, 2)
    except OSError as error:
        raise unreadable(path, error) from error
    if not first:
        raise WeightsError(f"{path}: the file is empty. {AGAIN}")
    refuse_text(path, first, size)
    if first.startswith(_ZIP):
        return "torch"
    if first[8:9] == b"{" and first[3:8] == bytes(5):
        return "safetensors"
    if len(first) > 2 and first[0] == 0x08 and 1 <= first[1] < 32 and first[2] in _ONNX_FIELDS:
        return "onnx"
    if first.startswith(_OLD_PICKLES):
        raise WeightsError(
            f"{path}: a pickle in PyTorch's format from before version 1.6, or of another program: it cannot be "
            "looked at without reading it whole. Get the same weights as safetensors."
        )
    if first.startswith(b"GGUF"):
        raise WeightsError(f"{path}: a GGUF file, wanted safetensors. Get the same weights as safetensors.")
    raise WeightsError(
        f"{path}: neither safetensors, nor a PyTorch checkpoint, nor ONNX ({size:,} bytes, the first are "
        f"{first[:8].hex(' ')}). {AGAIN}"
    )


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, which share its memory."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a safetensors file."""

    type: str
    shape: tuple[int, ...]
    first: int
    last: int
    """Bytes after the beginning of the first tensor; `last` is one past the end."""


class SafetensorsFile:
    """A safetensors file whose header has been read and checked. WeightsError as `open_tensors`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as stream:
                self.size = stream.seek(0, 2)
                stream.seek(0)
                self.layout: Layout = parse_layout(path, stream.read(8), stream.read, self.size)
        except OSError as error:
            raise unreadable(path, error) from error
        self.places = {name: self._place(name, raw) for name, raw in self.layout.entries.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return {name: place.shape for name, place in self.places.items()}

    @property
    def order(self) -> list[str]:
        """The names in the order in which the tensors lie in the file."""
        return sorted(self.places, key=lambda name: (self.places[name].first, self.places[name].last))

    @property
    def holes(self) -> bool:
        """Whether there are bytes that belong to no tensor, or to two."""
        places = [self.places[name] for name in self.order]
        ends = [0, *(place.last for place in places)]
        return [place.first for place in places] != ends[:-1] or self.layout.start + ends[-1] != self.size

    def read(self, name: str) -> Tensor:
        """One tensor. WeightsError if its type is none of `TYPES`, or does not fit its place."""
        place = self.places[name]
        if place.type not in TYPES:
            raise WeightsError(
                f"{self.path}: tensor '{name}' has the type '{place.type}', which is not read."
            )
        count, kind = place.last - place.first, TYPES[place.type]
        if count != math.prod(place.shape) * kind.itemsize:
            raise WeightsError(
                f"{self.path}: tensor '{name}' of {place.shape} {kind} does not fit the {count:,} bytes that it "
                f"has in the file: the header is damaged. {AGAIN}"
            )
        tensor = torch.empty(place.shape, dtype=kind)
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.layout.start + place.first)
                got: int = stream.readinto(bytes_of(tensor))
        except OSError as error:
            raise unreadable(self.path, error) from error
        if got != count:
            raise WeightsError(f"{self.path}: ends within tensor '{name}': truncated. {AGAIN}")
        return tensor

    def _place(self, name: str, raw: Any) -> Place:
        kind, shape, ends = raw.get("dtype"), raw.get("shape"), raw.get("data_offsets")
        if not (isinstance(kind, str) and _whole(shape) and _whole(ends) and len(ends) == 2):
            raise WeightsError(f"{self.path}: the header's entry of tensor '{name}' is damaged. {AGAIN}")
        return Place(kind, tuple(shape), ends[0], ends[1])


def _whole(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(one) is int and 0 <= one < 2**48 for one in numbers)


def _open_archive(path: Path) -> Tensors:
    if path.suffix == ".safetensors":  # PyTorch goes by that name
        raise WeightsError(f"{path}: a PyTorch checkpoint with a wrong name: rename it to end in .pth.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:  # a damaged archive makes PyTorch raise almost anything
        reason = str(error).strip().split("\n")[0][:200]
        if type(error).__name__ == "UnpicklingError":
            raise WeightsError(
                f"{path}: a checkpoint with more in it than tensors and plain values, which could run code when "
                f"it is read, so it is not ({reason}). Get the same weights as safetensors."
            ) from error
        raise WeightsError(
            f"{path}: truncated or damaged, or no PyTorch checkpoint ({reason}). {AGAIN}"
        ) from error
    state, beside = _state_of(content)
    if not state:
        raise WeightsError(
            f"{path}: a PyTorch file without named tensors (a {type(content).__name__}). Choose another file."
        )
    notes = {name: value for name, value in beside.items() if isinstance(value, int | float | str)}
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return Tensors(shapes, state.__getitem__, {**notes, "holds": sorted(map(str, beside))}, path)


def _state_of(content: Any) -> tuple[dict[str, Tensor], Mapping[Any, Any]]:
    """The named tensors of a checkpoint, and what lies beside them."""
    if not isinstance(content, Mapping):
        return {}, {}
    for name in (None, *STATES):
        candidate = content if name is None else content.get(name)
        if isinstance(candidate, Mapping):
            state = {n: t for n, t in candidate.items() if isinstance(n, str) and isinstance(t, Tensor)}
            if state:
                return state, {k: v for k, v in content.items() if k != name and k not in state}
    return {}, content
