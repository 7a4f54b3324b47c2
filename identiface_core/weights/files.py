"""One way to store tensors: a safetensors file whose header says what it is, and which is whole or refused.

Disk format, version 1. The header's metadata holds `format` ("identiface"), `version` ("1"), `kind` (what the
file is), `config` (JSON), `extra` (JSON) and `sha256` (of the rest of the header and the tensor bytes), so a
damaged file is noticed also where nobody pinned its hash. The same tensors always give the same bytes.
Half-precision tensors come back as float32; integer, bool and float64 tensors come back as they were.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from identiface_core.errors import OutputError, WeightsError
from identiface_core.weights.layout import AGAIN, in_short, misfits, parse_layout

_SHIPPED = Path(__file__).absolute().parents[1]
HALF_TYPES = (torch.float16, torch.bfloat16)

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class Header:
    """What a file says about itself."""

    kind: str
    """What it holds, such as "face-net" or "gallery"."""
    config: dict[str, Any]
    """Constructor arguments of the network, or whatever the writer of other tensors noted."""
    extra: dict[str, Any]
    """Anything else that belongs to the file, such as a calibration or how long it was trained."""
    checksum: str
    """sha256 of kind, config, extra and tensor bytes, 64 hex digits."""


def save_module(
    path: str | Path, module: nn.Module, *, half: bool = True, extra: Mapping[str, Any] | None = None
) -> None:
    """Write `module` to one file: its class's `kind`, its `config` and its state.

    With `half`, float32 tensors are stored as float16, except those whose values do not fit (above 65504).
    If this raises, nothing has changed: OutputError for a full disk or a read-only folder.
    """
    kind, config = _kind_of(type(module)), _config_of(module)
    state = {name: _for_disk(tensor, half) for name, tensor in module.state_dict().items()}
    _write(path, state, kind, config, extra or {})


def load_module(path: str | Path, cls: type[ModuleT], *, sha256: str | None = None) -> ModuleT:
    """The network of class `cls` stored at `path`, float32, on the CPU, in eval mode.

    `sha256`: what the whole file must hash to (64 hex digits). WeightsError for a file that is missing,
    truncated, damaged, no safetensors, of another kind, or with other tensors than `cls(**config)` has. The
    global random state is left as it was.
    """
    path = Path(path)
    header, tensors = _read(path, _kind_of(cls), sha256)
    with torch.random.fork_rng(devices=[]):
        module = _build(path, cls, header.config, tensors)
    module.load_state_dict(tensors)
    return module.eval()


def save_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    kind: str,
    config: Mapping[str, Any],
    *,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors by name, in the types they have. If this raises (OutputError), nothing has changed."""
    copies = {name: _for_disk(tensor, half=False) for name, tensor in tensors.items()}
    _write(path, copies, kind, config, extra or {})


def load_tensors(
    path: str | Path, kind: str | None = None, sha256: str | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors at `path` by name, on the CPU, and their config; WeightsError as `load_module`."""
    header, tensors = _read(path, kind, sha256)
    return tensors, header.config


def read_header(path: str | Path) -> Header:
    """What the file at `path` says about itself; the tensor bytes are neither read nor checked."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            return _parse_header(path, stream.read(8), stream.read, size).header
    except OSError as error:
        raise unreadable(path, error) from error


def sha256_of(path: str | Path) -> str:
    """sha256 of the whole file, 64 hex digits. WeightsError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise unreadable(Path(path), error) from error
    return digest.hexdigest()


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a file wholly or not at all; missing folders are made. OutputError says why it was not."""
    write_parts(path, [data], len(data))


def write_parts(path: str | Path, parts: Iterable[bytes | memoryview], size: int) -> None:
    """`write_atomic` of parts that need not be in memory together; `size` bytes in all."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("xb") as stream:
                stream.writelines(parts)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(
            f"{path}: cannot write {size:,} bytes: {_reason(error)}. Nothing was changed."
        ) from error


def check_writable(path: str | Path) -> None:
    """Ask, before long work, whether `write_atomic` could write the file `path`; OutputError says why not.

    Nothing is left behind: missing folders are not made, and a file that is there stays as it is.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise OutputError(f"{path}: a file is to be written, but this is a folder: name a file in it")
        above = path.absolute().parents
        folder = next((one for one in above if one.exists()), above[0])
        probe = folder / f".{path.name}.{uuid.uuid4().hex[:8]}.part"
        probe.open("xb").close()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {_reason(error)}. Nothing was changed.") from error


def _kind_of(cls: type[nn.Module]) -> str:
    kind = getattr(cls, "kind", None)
    if not isinstance(kind, str):
        raise TypeError(f"{cls.__name__} has no class attribute `kind`: a name for its weight files")
    return kind


def _config_of(module: nn.Module) -> dict[str, Any]:
    config = vars(module).get("config")
    if not isinstance(config, dict):
        raise TypeError(f"{type(module).__name__} has no `config`: a dict of its constructor arguments")
    return config


def _for_disk(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
    if half and tensor.dtype == torch.float32:
        small = tensor.to(torch.float16)
        if torch.equal(small.isinf(), tensor.isinf()):
            return small
    return tensor


def _write(
    path: str | Path,
    tensors: dict[str, Tensor],
    kind: str,
    config: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> None:
    written = safetensors.torch.save(tensors)
    length: int = struct.unpack("<Q", written[:8])[0]
    entries = json.loads(written[8 : 8 + length])
    data = memoryview(written)[8 + length :]
    header = sealed_header(kind, config, extra, entries, [data])
    write_parts(path, [header, data], len(header) + len(data))


def sealed_header(
    kind: str,
    config: Mapping[str, Any],
    extra: Mapping[str, Any],
    entries: Mapping[str, Any],
    parts: Iterable[bytes | memoryview],
) -> bytes:
    """The first bytes of a file, up to the tensors': what it says about itself, with its checksum.

    entries: safetensors' own, by name. parts: the tensors' bytes in the order of the file.
    """
    texts = {
        "format": "identiface",
        "version": "1",
        "kind": kind,
        "config": json.dumps(dict(config), sort_keys=True),
        "extra": json.dumps(dict(extra), sort_keys=True),
    }
    texts["sha256"] = checksum(texts, entries, parts)
    # The library writes metadata in no fixed order; equal content shall give equal files.
    header = json.dumps({"__metadata__": texts, **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header


def checksum(
    texts: Mapping[str, str], entries: Mapping[str, Any], parts: Iterable[bytes | memoryview]
) -> str:
    """sha256 of what a header says, without the checksum itself, and of the tensors' bytes; 64 hex digits."""
    signed = {name: text for name, text in texts.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps([signed, entries], sort_keys=True).encode())
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _read(path: str | Path, kind: str | None, sha256: str | None) -> tuple[Header, dict[str, Tensor]]:
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    found = "" if sha256 is None else hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise WeightsError(
            f"{path}: its sha256 is {found}, wanted {sha256.lower()}: the file is damaged or another one. "
            "Get it again from where it came; for the shipped weights reinstall IdentiFace."
        )
    raw = _parse_header(path, content[:8], lambda count: content[8 : 8 + count], len(content))
    header = raw.header
    if kind is not None and header.kind != kind:
        raise WeightsError(
            f"{path}: wanted a file of kind '{kind}', this one is of kind '{header.kind}'. Choose another."
        )
    if checksum(raw.texts, raw.entries, [memoryview(content)[raw.start :]]) != header.checksum:
        raise WeightsError(f"{path}: the content does not match its own checksum: it is damaged. {AGAIN}")
    try:
        tensors = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path}: not a valid safetensors file ({error}). {AGAIN}") from error
    # In the order of names: the library gives them in any order.
    return header, {name: t.float() if t.dtype in HALF_TYPES else t for name, t in sorted(tensors.items())}


@dataclass(frozen=True)
class _RawHeader:
    header: Header
    texts: dict[str, str]
    entries: dict[str, Any]
    """safetensors' own entry for each tensor: type, shape, offsets."""
    start: int
    """Where the tensor bytes start."""


def _parse_header(path: Path, first: bytes, read: Callable[[int], bytes], size: int) -> _RawHeader:
    """`first` are the first eight bytes, `read(count)` gives those after them, `size` is that of the file."""
    layout = parse_layout(path, first, read, size)
    texts = layout.texts
    if texts.get("format") != "identiface":
        raise WeightsError(f"{path}: a safetensors file, but not written by IdentiFace. Choose another file.")
    if texts.get("version") != "1":
        found = texts.get("version")
        raise WeightsError(f"{path}: format version {found!r}, this program reads '1'. Update IdentiFace.")
    try:
        config, extra = json.loads(texts["config"]), json.loads(texts["extra"])
        header = Header(texts["kind"], dict(config), dict(extra), texts["sha256"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(f"{path}: its header is damaged ({error}). {AGAIN}") from error
    return _RawHeader(header, texts, layout.entries, layout.start)


def _build(path: Path, cls: type[ModuleT], config: dict[str, Any], tensors: Mapping[str, Tensor]) -> ModuleT:
    try:
        try:
            # Without storage first: a damaged config must not make us allocate more than the file holds.
            with torch.device("meta"):
                _check_fit(path, cls(**config), tensors)
        except RuntimeError:
            pass  # constructors that look at values cannot run without storage
        module = cls(**config)
    except (TypeError, ValueError, KeyError, RuntimeError, ArithmeticError, MemoryError) as error:
        raise WeightsError(
            f"{path}: its configuration {config} does not make a {cls.__name__} ({error}). "
            "The file was made by another version of IdentiFace, or is damaged: get or make it again."
        ) from error
    _check_fit(path, module, tensors)
    return module


def _check_fit(path: Path, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    wanted = module.state_dict()
    faults = misfits(
        {name: tuple(here.shape) for name, here in wanted.items()},
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
    )
    faults += [
        f"'{name}' has type {tensors[name].dtype}, wanted {here.dtype}"
        for name, here in wanted.items()
        if name in tensors and tensors[name].is_floating_point() != here.is_floating_point()
    ]
    if faults:
        raise WeightsError(f"{path}: does not fit {type(module).__name__}: {in_short(faults)}. {AGAIN}")
    names = {name for name, _ in module.named_parameters()}
    bad = [name for name in sorted(names & set(tensors)) if not torch.isfinite(tensors[name]).all()]
    if bad:
        raise WeightsError(f"{path}: tensor '{bad[0]}' holds values that are not finite. {AGAIN}")


def unreadable(path: Path, error: OSError) -> WeightsError:
    """The error for a weight file that the system does not let us read."""
    if isinstance(error, FileNotFoundError):
        return WeightsError(
            f"{path}: no such file. "
            + (
                "It ships with IdentiFace: reinstall it."
                if _SHIPPED in path.absolute().parents
                else "Give an existing path."
            )
        )
    if path.is_dir():
        return WeightsError(f"{path}: a folder, where a file is wanted. Give the path of a file.")
    return WeightsError(f"{path}: cannot be read: {_reason(error)}. Check the path and its permissions.")


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return "the disk is full: free some space or choose another folder"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "no permission to write or read there, or the folder is read-only: choose another"
    return error.strerror or str(error)
