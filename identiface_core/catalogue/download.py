"""One file over HTTP: resumed where it broke off, checked before it gets its name.

The bytes grow in `<file>.part`; `<file>.part.json` says what they are a part of. A part is gone on with only
if the server still has the same file, by ETag or date, and by size. Proxies come from the environment.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import Any, Protocol

from identiface_core import __version__
from identiface_core.errors import OutputError, WeightsError
from identiface_core.weights.files import write_atomic

TIMEOUT = 30.0
"""Seconds without a byte before a connection counts as broken."""
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts that brought nothing; an attempt that brought bytes begins the row anew."""
BLOCK = 1 << 20
SPARE = 64 * BLOCK
"""Bytes that stay free on the disk."""
RETRIED = (408, 425, 429, 500, 502, 503, 504)
HOPELESS = (socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError)
"""Reasons that a second attempt would meet again: no network, nobody there, a certificate nobody trusts."""

Progress = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all)."""


class _Broken(Exception):
    """An attempt failed in a way that another may not."""


class _Body(Protocol):
    """What is used of urllib's response."""

    status: int
    headers: Message

    def read(self, count: int, /) -> bytes: ...


@dataclass(frozen=True)
class _Part:
    """What the bytes of a part file belong to."""

    url: str
    mark: str
    """ETag, or else the date of change; "" if the server gives neither."""
    total: int


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    token: str | None = None,
    progress: Progress | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> Path:
    """Fetch `url` into `<target>.part` and return that path; the caller checks and renames it.

    size: what the file must have, in bytes. token: sent to the first host alone. Raises WeightsError for a host
    that cannot be reached, for an answer that is not the file (missing, forbidden, a web page, another size),
    and for a connection that keeps breaking; OutputError for a full disk. What came so far stays.
    """
    part = target.with_name(f"{target.name}.part")
    waits = list(WAITS)
    while True:
        before = _size(part)
        try:
            _attempt(url, part, size, token, progress or (lambda done, total: None))
            return part
        except _Broken as broken:
            if _size(part) > before:
                waits = list(WAITS)
            if not waits:
                raise WeightsError(
                    f"{url}: the connection keeps breaking ({broken}); {_size(part):,} bytes are kept, and the "
                    "same command goes on from there"
                ) from broken
            sleep(waits.pop(0))
        except OSError as error:
            raise OutputError(f"{part}: cannot be written: {error.strerror or error}") from error


def finish(part: Path, target: Path) -> None:
    """Give a checked part its name; OutputError if that is impossible."""
    try:
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(part, target)
        _notes(part).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error


def reject(part: Path, target: Path) -> Path:
    """Set a part that is not the file aside, so that the next attempt begins anew; returns where it lies."""
    aside = target.with_name(f"{target.name}.rejected")
    try:
        os.replace(part, aside)
        _notes(part).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{aside}: cannot be written: {error.strerror or error}") from error
    return aside


def _attempt(url: str, part: Path, size: int | None, token: str | None, progress: Progress) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    begun = _begun(part, url)
    if begun and _size(part) == begun.total:
        return
    response = _open(url, token, _size(part) if begun else 0)
    with response:
        here = _described(response, url)
        start = _size(part) if response.status == 206 else 0
        if response.status == 206 and (begun is None or here != begun or _offset(response) != start):
            part.unlink(missing_ok=True)
            raise _Broken("the file on the server is another one now")
        if size is not None and here.total not in (-1, size):
            raise WeightsError(
                f"{url}: the server has {here.total:,} bytes, wanted {size:,}: the publisher changed the file, "
                "or a mirror holds another one. Nothing was downloaded"
            )
        _check_space(part, here.total - start)
        write_atomic(_notes(part), json.dumps(asdict(here)).encode())
        with part.open("ab" if start else "wb") as stream:
            _copy(response, stream, start, here.total, progress)
    if here.total not in (-1, _size(part)):
        raise _Broken(f"{_size(part):,} of {here.total:,} bytes came")


def _copy(response: _Body, stream: Any, done: int, total: int, progress: Progress) -> None:
    progress(done, max(done, total))
    while True:
        try:
            block = response.read(BLOCK)
        except http.client.IncompleteRead as error:
            stream.write(error.partial)
            raise _Broken("it ended too soon") from error
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(str(error) or type(error).__name__) from error
        if not block:
            return
        stream.write(block)
        done += len(block)
        progress(done, max(done, total))


def _open(url: str, token: str | None, start: int) -> Any:
    headers = {"User-Agent": f"identiface/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        # A new opener each time: the usual one keeps the proxies of its first call.
        return urllib.request.build_opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and start:
                return _open(url, token, 0)
            raise _refused(url, error.code) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, HOPELESS):
            raise WeightsError(f"{url}: cannot be reached ({error.reason})") from error
        raise _Broken(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(str(error) or type(error).__name__) from error


def _refused(url: str, code: int) -> Exception:
    if code in RETRIED:
        return _Broken(f"HTTP status {code}")
    if code in (401, 403):
        return WeightsError(
            f"{url}: the publisher gives it only to those who log in or accept its terms (HTTP status {code}). "
            "Do so in a browser; then set HF_TOKEN if it lies on Hugging Face, or download it by hand"
        )
    if code in (404, 410):
        return WeightsError(
            f"{url}: there is no such file (HTTP status {code}): the publisher moved it, or the mirror lacks it"
        )
    return WeightsError(f"{url}: the server refuses (HTTP status {code})")


def _described(response: _Body, url: str) -> _Part:
    headers = response.headers
    if (headers.get_content_type() or "") == "text/html":
        raise WeightsError(
            f"{url}: a web page came instead of the file, such as a login or a proxy's notice: open the "
            "address in a browser to see what it asks for"
        )
    mark = headers.get("ETag") or headers.get("Last-Modified") or ""
    if response.status == 206:
        total = (headers.get("Content-Range") or "").rpartition("/")[2]
    else:
        total = headers.get("Content-Length") or ""
    return _Part(url, mark, int(total) if total.isdecimal() else -1)


def _offset(response: _Body) -> int:
    """Where a partial answer begins; -1 if it does not say."""
    first = (response.headers.get("Content-Range") or "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdecimal() else -1


def _begun(part: Path, url: str) -> _Part | None:
    """What lies in `part`, if one can go on with it: the same address, a mark to know the file by, a total."""
    try:
        notes: Mapping[str, Any] = json.loads(_notes(part).read_bytes())
        begun = _Part(**notes)
    except (OSError, ValueError, TypeError):
        return None
    known = begun.url == url and bool(begun.mark) and isinstance(begun.total, int)
    return begun if known and 0 < _size(part) <= begun.total else None


def _check_space(part: Path, wanted: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if wanted + SPARE > free:
        raise OutputError(
            f"{part.parent}: {wanted:,} bytes are still to come, {free:,} are free: make room, or name another "
            "folder with --models"
        )


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
