"""What an ONNX file says of itself: names, types and shapes of what goes in and comes out, without reading its weights.

An ONNX file is one protobuf message. Only the few fields that tell what the graph is for are followed, the others are
skipped over by their length, so that a file of gigabytes is looked at in milliseconds and nothing in it is executed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from identiface_core.errors import WeightsError
from identiface_core.weights.files import unreadable
from identiface_core.weights.layout import AGAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

MAX_PIECE = 1024 * 1024
"""Bytes. A longer name is taken for damage."""
MAX_FIELDS = 1_000_000
"""Fields of one message; a graph of ten thousand nodes has less than a tenth of that."""

_GRAPH, _INITIALIZER, _INPUT, _OUTPUT = 7, 5, 11, 12
"""Numbers of protobuf fields: of the model the first, of its graph the others."""


@dataclass(frozen=True)
class Port:
    """One input or output of a graph."""

    name: str
    shape: tuple[int | None, ...]
    """None for a side that may have any length."""


@dataclass(frozen=True)
class Graph:
    """What a graph takes and gives, weights left out."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def picture(self) -> tuple[int | None, ...]:
        """Shape of the only input if that is a batch of RGB pictures `(N, 3, H, W)`; else empty."""
        if len(self.inputs) != 1:
            return ()
        shape = self.inputs[0].shape
        return shape if len(shape) == 4 and shape[1] in (3, None) else ()

    @property
    def taken(self) -> str:
        """What a sentence says of it: inputs and outputs with their shapes."""
        return f"{_listed(self.inputs)} -> {_listed(self.outputs)}"


class Session:
    """A graph that runs: onnxruntime on the CPU. `run` is a pure function of its input."""

    def __init__(self, path: str | Path, purpose: str) -> None:
        """Raises WeightsError for a file that onnxruntime cannot load, and where onnxruntime is not installed.

        purpose: what needs it, as the beginning of a sentence: "Load Face Detector".
        """
        self.path = Path(path)
        self.graph = read_graph(self.path)
        runtime = _onnxruntime(purpose)
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(
                str(self.path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises many kinds of errors, without a common base
            reason = str(error).strip().split("\n")[0][:200]
            raise WeightsError(
                f"{self.path}: onnxruntime cannot load this graph ({reason}). {AGAIN}"
            ) from error

    def run(self, values: np.ndarray[Any, Any]) -> Sequence[np.ndarray[Any, Any]]:
        """All outputs for the only input, in the order of the graph."""
        return self._session.run(None, {self.graph.inputs[0].name: values})


def read_graph(path: str | Path) -> Graph:
    """Inputs and outputs of the ONNX file at `path`. WeightsError for a file that is missing, truncated or no ONNX."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            for field, start, length in _fields(stream, 0, size):
                if field == _GRAPH and length is not None:
                    return _graph(stream, start, length)
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: no ONNX graph, or a damaged one ({error}). {AGAIN}") from error
    raise WeightsError(f"{path}: no graph is in this ONNX file. {AGAIN}")


def _graph(stream: BinaryIO, start: int, length: int) -> Graph:
    ports: dict[int, list[Port]] = {_INPUT: [], _OUTPUT: []}
    weights: set[str] = set()
    for field, place, size in _fields(stream, start, length):
        if size is None:
            continue
        if field in ports:
            ports[field].append(_port(stream, place, size))
        elif field == _INITIALIZER:
            weights |= {_text(stream, at, n) for number, at, n in _fields(stream, place, size) if number == 8}
    # Old exporters list the weights among the inputs as well.
    return Graph(tuple(one for one in ports[_INPUT] if one.name not in weights), tuple(ports[_OUTPUT]))


def _port(stream: BinaryIO, start: int, length: int) -> Port:
    """ValueInfoProto: name 1, type 2 > tensor 1 > shape 2 > dimension 1 > value 1 (a number) or 2 (a name)."""
    name, shape = "", []
    for field, place, size in _fields(stream, start, length):
        if field == 1:
            name = _text(stream, place, size)
        elif field == 2:
            for at, n in _inside(stream, place, size, (1, 2, 1)):
                side = [
                    value for number, value, none in _fields(stream, at, n) if number == 1 and none is None
                ]
                shape.append(side[0] if side and side[0] > 0 else None)
    return Port(name, tuple(shape))


def _inside(
    stream: BinaryIO, start: int, length: int | None, way: tuple[int, ...]
) -> Iterator[tuple[int, int | None]]:
    """Places of the messages reached by following the fields of `way` one into the other."""
    if not way:
        yield start, length
        return
    for field, place, size in _fields(stream, start, length):
        if field == way[0]:
            yield from _inside(stream, place, size, way[1:])


def _fields(stream: BinaryIO, start: int, length: int | None) -> Iterator[tuple[int, int, int | None]]:
    """(field number, place, length) of a message's fields; for a plain number (number, value, None)."""
    if length is None:
        raise ValueError("a number stands where a message should be")
    at, end, count = start, start + length, 0
    while at < end:
        count += 1
        if count > MAX_FIELDS:
            raise ValueError("more fields than any graph has")
        key, at = _number(stream, at)
        kind, field = key & 7, key >> 3
        if kind == 0:
            value, at = _number(stream, at)
            yield field, value, None
            continue
        if kind == 2:
            size, at = _number(stream, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown kind of field {kind}")
        if at + size > end:
            raise ValueError("truncated")
        yield field, at, size
        at += size
    if at != end:
        raise ValueError("lengths that do not fit each other")


def _number(stream: BinaryIO, at: int) -> tuple[int, int]:
    stream.seek(at)
    value = 0
    for place, byte in enumerate(stream.read(10)):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("truncated")


def _text(stream: BinaryIO, start: int, length: int | None) -> str:
    if length is None or length > MAX_PIECE:
        raise ValueError("a name of impossible length")
    stream.seek(start)
    return stream.read(length).decode("utf-8")


def _listed(ports: Sequence[Port]) -> str:
    shown = [
        f"'{port.name}' ({', '.join('any' if n is None else str(n) for n in port.shape)})" for port in ports
    ]
    return ", ".join([*shown[:4], f"{len(shown) - 4} more"] if len(shown) > 4 else shown)


def _onnxruntime(purpose: str) -> Any:
    try:
        import onnxruntime
    except Exception as error:  # an installed but broken one raises anything
        raise WeightsError(
            f"{purpose} needs onnxruntime, which cannot be imported here ({error}): "
            "`pip install onnxruntime` into the Python that runs this"
        ) from error
    return onnxruntime
