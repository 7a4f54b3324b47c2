"""A web server in a thread that holds a few files and misbehaves as it is told; and manifests for it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WEIGHTS = (64).to_bytes(8, "little") + json.dumps({"a": 1}).encode().ljust(64) + bytes(range(256)) * 4000
"""About a megabyte that begins as a safetensors file does."""


@dataclass
class Shelf:
    """What the server has and does."""

    content: bytes = WEIGHTS
    etag: str | None = '"one"'
    ranges: bool = True
    kind: str = "application/octet-stream"
    statuses: list[int] = field(default_factory=list)
    """Answered instead of the file, one after the other."""
    cuts: list[int] = field(default_factory=list)
    """So many bytes are sent before the connection breaks, one after the other."""
    lengthless: bool = False
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """(path, headers) of each request."""
    base: str = ""

    def ranges_asked(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.asked]


@contextmanager
def serving(shelf: Shelf) -> Iterator[Shelf]:
    """`shelf` on a free port of this machine; every path is the same file."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, shelf)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    shelf.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield shelf
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(request: BaseHTTPRequestHandler, shelf: Shelf) -> None:
    shelf.asked.append((request.path, dict(request.headers.items())))
    if shelf.statuses:
        request.send_error(shelf.statuses.pop(0))
        return
    start = 0
    wanted = request.headers.get("Range")
    if wanted and shelf.ranges:
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
    total = len(shelf.content)
    if start >= total > 0:
        request.send_error(416)
        return
    request.send_response(206 if start else 200)
    if start:
        request.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
    request.send_header("Content-Type", shelf.kind)
    if shelf.etag:
        request.send_header("ETag", shelf.etag)
    if not shelf.lengthless:
        request.send_header("Content-Length", str(total - start))
    request.end_headers()
    end = start + shelf.cuts.pop(0) if shelf.cuts else total
    request.wfile.write(shelf.content[start:end])


def entry_toml(name: str = "net", content: bytes = WEIGHTS, **changes: object) -> str:
    """The TOML of a pinned safetensors file with this content; a value of None takes its key out."""
    keys: dict[str, object] = {
        "name": name,
        "role": "matcher",
        "title": "A net",
        "host": "huggingface",
        "repository": "someone/nets",
        "revision": "main",
        "path": f"{name}.safetensors",
        "file": f"{name}.safetensors",
        "format": "safetensors",
        "folder": "identiface_matchers",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "code_licence": "MIT",
        "weights_licence": "CC BY-NC 4.0",
        "commercial_use": "no",
        **changes,
    }
    # A JSON text or number is a TOML one too.
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items() if value is not None)


UNPINNED: dict[str, object] = {"sha256": "unpinned", "size": None}


def manifest(folder: Path, **entries: str) -> Path:
    """A manifest folder with these TOMLs, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in entries.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder
