"""Downloads against a server that breaks off, changes its mind, asks for logins, and lies."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from identiface_core.catalogue import download as download_module
from identiface_core.catalogue.download import WAITS, download
from identiface_core.catalogue.fetch import fetch
from identiface_core.catalogue.manifest import Entry, read_manifest
from identiface_core.catalogue.places import places
from identiface_core.catalogue.store import Store
from identiface_core.errors import OutputError, WeightsError
from tests.core.weights_server import UNPINNED, WEIGHTS, Shelf, entry_toml, manifest, serving

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
PAGE = b"<!DOCTYPE html><title>Log in</title>"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COMFYUI_PATH", "IDENTIFACE_MIRROR", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.setattr(download_module, "WAITS", (0.0,) * len(WAITS))


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with serving(Shelf()) as found:
        yield found


@pytest.fixture
def get(tmp_path: Path, shelf: Shelf) -> Callable[..., Path]:
    """`fetch` of an entry with these changes, from the shelf, into `models`."""

    def run(**changes: object) -> Path:
        entry, store = made(tmp_path, **changes), Store(places(tmp_path / "models"))
        return fetch(entry, store, mirror=shelf.base)

    return run


def made(tmp_path: Path, **changes: object) -> Entry:
    (entry,) = read_manifest(manifest(tmp_path / "manifest", net=entry_toml(**changes)))
    return entry


def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "identiface_matchers" / "net.safetensors"


def beside(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in target(tmp_path).parent.iterdir())


def test_a_file_comes_whole_and_leaves_nothing_beside(tmp_path: Path, shelf: Shelf, get: Any) -> None:
    assert get() == target(tmp_path) and target(tmp_path).read_bytes() == WEIGHTS
    assert beside(tmp_path) == ["net.safetensors"]
    ((path, headers),) = shelf.asked
    assert path == "/someone/nets/resolve/main/net.safetensors"
    assert headers["User-Agent"].startswith("identiface/") and "Authorization" not in headers


def test_progress_ends_at_the_whole(tmp_path: Path, shelf: Shelf) -> None:
    seen: list[tuple[int, int]] = []
    download(shelf.base, tmp_path / "a", progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, len(WEIGHTS)) and seen[-1] == (len(WEIGHTS), len(WEIGHTS))


def test_a_broken_connection_is_gone_on_with(tmp_path: Path, shelf: Shelf, get: Any) -> None:
    shelf.cuts = [300_000, 200_000, 0]
    assert get().read_bytes() == WEIGHTS
    assert shelf.ranges_asked() == [None, "bytes=300000-", "bytes=500000-", "bytes=500000-"]


def test_as_long_as_something_comes_it_is_gone_on_with(shelf: Shelf, get: Any) -> None:
    shelf.cuts = [60_000] * 3 * len(WAITS)
    assert get().read_bytes() == WEIGHTS and len(shelf.asked) == 3 * len(WAITS) + 1


def test_another_run_goes_on_where_one_was_killed(
    tmp_path: Path, shelf: Shelf, get: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.cuts = [300_000]

    def kill(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(
            f"{shelf.base}/someone/nets/resolve/main/net.safetensors", target(tmp_path), size=None, sleep=kill
        )
    assert beside(tmp_path) == ["net.safetensors.part", "net.safetensors.part.json"]
    assert get().read_bytes() == WEIGHTS and shelf.ranges_asked() == [None, "bytes=300000-"]


def test_a_server_that_ignores_ranges_begins_anew(tmp_path: Path, shelf: Shelf, get: Any) -> None:
    shelf.cuts, shelf.ranges = [300_000], False
    assert get().read_bytes() == WEIGHTS
    assert shelf.ranges_asked() == [None, "bytes=300000-"]


@pytest.mark.parametrize("change", ["etag", "size"])
def test_a_part_of_another_file_is_thrown_away(tmp_path: Path, shelf: Shelf, get: Any, change: str) -> None:
    part = target(tmp_path).with_name("net.safetensors.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"old" * 1000)
    notes = {"url": f"{shelf.base}/someone/nets/resolve/main/net.safetensors", "mark": '"one"'}
    total = len(WEIGHTS) + (change == "size")
    part.with_name(f"{part.name}.json").write_text(json.dumps({**notes, "total": total}), encoding="utf-8")
    shelf.etag = '"two"' if change == "etag" else '"one"'
    assert get().read_bytes() == WEIGHTS
    assert shelf.ranges_asked() == ["bytes=3000-", None]


@pytest.mark.parametrize("notes", ["", "{}", '{"url": 1}', "[]", '{"url": "", "mark": "", "total": "x"}'])
def test_a_part_that_nobody_knows_is_begun_anew(tmp_path: Path, shelf: Shelf, get: Any, notes: str) -> None:
    part = target(tmp_path).with_name("net.safetensors.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"old")
    part.with_name(f"{part.name}.json").write_text(notes, encoding="utf-8")
    assert get().read_bytes() == WEIGHTS and shelf.ranges_asked() == [None]


def test_without_a_mark_nothing_is_gone_on_with(tmp_path: Path, shelf: Shelf, get: Any) -> None:
    shelf.cuts, shelf.etag = [300_000], None
    assert get().read_bytes() == WEIGHTS and shelf.ranges_asked() == [None, None]


def test_a_part_beyond_the_end_is_begun_anew(tmp_path: Path, shelf: Shelf) -> None:
    download(shelf.base, tmp_path / "a")
    notes = tmp_path / "a.part.json"
    notes.write_text(json.dumps({**json.loads(notes.read_text()), "total": 10**9}), encoding="utf-8")
    assert download(shelf.base, tmp_path / "a").read_bytes() == WEIGHTS
    assert shelf.ranges_asked() == [None, f"bytes={len(WEIGHTS)}-", None]


def test_a_length_that_is_not_told_is_left_to_the_hash(shelf: Shelf, get: Any) -> None:
    shelf.lengthless = True
    assert get().read_bytes() == WEIGHTS


def test_busy_servers_are_asked_again(tmp_path: Path, shelf: Shelf, get: Any) -> None:
    shelf.statuses = [503, 429, 500]
    assert get().read_bytes() == WEIGHTS and len(shelf.asked) == 4


def test_a_connection_that_brings_nothing_is_given_up(tmp_path: Path, shelf: Shelf, get: Any) -> None:
    shelf.cuts = [1000, *[0] * 20]
    with pytest.raises(WeightsError) as caught:
        get()
    text = str(caught.value)
    assert "1,000 bytes are kept" in text and str(target(tmp_path).parent) in text
    assert len(shelf.asked) == 1 + len(WAITS)
    shelf.cuts = []
    assert get().read_bytes() == WEIGHTS and shelf.ranges_asked()[-1] == "bytes=1000-"


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (404, "there is no such file"),
        (410, "there is no such file"),
        (401, "log in or accept its terms"),
        (403, "log in or accept its terms"),
        (400, "the server refuses"),
    ],
)
def test_refusals_are_said_once_and_at_once(
    tmp_path: Path, shelf: Shelf, get: Any, status: int, says: str
) -> None:
    shelf.statuses = [status]
    with pytest.raises(WeightsError, match=says) as caught:
        get()
    assert f"status {status}" in str(caught.value) and "By hand" in str(caught.value)
    assert len(shelf.asked) == 1 and not target(tmp_path).exists()


def test_a_web_page_is_not_weights(tmp_path: Path, shelf: Shelf, get: Any) -> None:
    shelf.content, shelf.kind = PAGE, "text/html; charset=utf-8"
    with pytest.raises(WeightsError, match="a web page came instead"):
        get(**UNPINNED)
    assert not target(tmp_path).exists() and len(shelf.asked) == 1


def test_a_page_that_claims_to_be_a_file_is_noticed_and_not_locked(
    tmp_path: Path, shelf: Shelf, get: Any
) -> None:
    shelf.content = PAGE
    with pytest.raises(WeightsError, match="no safetensors file; it begins with b'<!DOCTYPE'") as caught:
        get(**UNPINNED)
    assert beside(tmp_path) == ["net.safetensors.rejected"] and "net.safetensors.rejected" in str(
        caught.value
    )
    assert Store(places(tmp_path / "models")).lock.get("net") is None


FORMATS = {
    "net.onnx": ("onnx", b"\x08\x07rest"),
    "net.pth": ("pickle", b"PK\x03\x04"),
    "net.pt": ("pickle", b"\x80\x02}"),
}


@pytest.mark.parametrize("file", FORMATS)
def test_other_formats_are_glanced_at_too(shelf: Shelf, get: Any, file: str) -> None:
    form, content = FORMATS[file]
    shelf.content = PAGE
    with pytest.raises(WeightsError, match=f"no {form} file"):
        get(format=form, file=file, **UNPINNED)
    shelf.content = content
    assert get(format=form, file=file, **UNPINNED).read_bytes() == content


def test_another_hash_is_rejected_and_kept_aside(tmp_path: Path, shelf: Shelf, get: Any) -> None:
    shelf.content = WEIGHTS[:-1] + b"x"
    found, wanted = (hashlib.sha256(content).hexdigest() for content in (shelf.content, WEIGHTS))
    with pytest.raises(WeightsError) as caught:
        get()
    text = str(caught.value)
    assert found in text and wanted in text and "pinned by its publisher" in text
    assert beside(tmp_path) == ["net.safetensors.rejected"]
    shelf.content = WEIGHTS
    assert get().read_bytes() == WEIGHTS, "the rejected file is not gone on with"


def test_another_size_is_refused_before_anything_comes(tmp_path: Path, shelf: Shelf, get: Any) -> None:
    shelf.content = WEIGHTS + b"more"
    with pytest.raises(WeightsError, match=f"has {len(WEIGHTS) + 4:,} bytes, wanted {len(WEIGHTS):,}"):
        get()
    assert beside(tmp_path) == []


def test_an_unpinned_file_is_locked_at_first_and_checked_from_then_on(
    tmp_path: Path, shelf: Shelf, get: Any
) -> None:
    here = get(**UNPINNED)
    locked = Store(places(tmp_path / "models")).lock.get("net")
    assert locked and locked.sha256 == hashlib.sha256(WEIGHTS).hexdigest() and shelf.base in locked.source
    here.unlink()
    shelf.content, shelf.etag = WEIGHTS[:-1] + b"x", '"two"'
    with pytest.raises(WeightsError, match=r"when it first came here.*take 'net' out of .*lock\.json"):
        get(**UNPINNED)
    assert beside(tmp_path) == ["net.safetensors.rejected"]


def test_a_file_put_there_by_hand_is_taken_and_checked(tmp_path: Path, shelf: Shelf, get: Any) -> None:
    target(tmp_path).parent.mkdir(parents=True)
    target(tmp_path).write_bytes(WEIGHTS)
    assert get(**UNPINNED) == target(tmp_path) and shelf.asked == []
    locked = Store(places(tmp_path / "models")).lock.get("net")
    assert locked and locked.source == str(target(tmp_path))
    target(tmp_path).write_bytes(WEIGHTS[:-1] + b"x")
    with pytest.raises(WeightsError, match="Move it away"):
        get()
    assert target(tmp_path).read_bytes() == WEIGHTS[:-1] + b"x", "a user's own file is left alone"


def test_what_came_is_not_read_through_again(tmp_path: Path, shelf: Shelf, get: Any) -> None:
    get()
    store = Store(places(tmp_path / "models"), lambda path, size: pytest.fail(f"{path} was read"))
    assert store.find(made(tmp_path)) == target(tmp_path)


def test_the_proxy_of_the_environment_is_used(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", shelf.base)
    assert download("http://hub.invalid/some/file", tmp_path / "a").read_bytes() == WEIGHTS
    assert shelf.asked[0][0] == "http://hub.invalid/some/file"
    monkeypatch.delenv("http_proxy")
    with pytest.raises(WeightsError, match="cannot be reached"):
        download("http://hub.invalid/some/file", tmp_path / "b")


def test_a_token_is_sent_to_the_host_itself(tmp_path: Path, shelf: Shelf) -> None:
    download(shelf.base, tmp_path / "a", token="secret")
    assert shelf.asked[0][1]["Authorization"] == "Bearer secret"


def test_offline_is_one_sentence_with_the_address_and_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def nowhere(*arguments: Any, **_: Any) -> Any:
        calls.append(arguments)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    entry, store = made(tmp_path), Store(places(tmp_path / "models"))
    with pytest.raises(WeightsError) as caught:
        fetch(entry, store, mirror="http://mirror.example")
    text = str(caught.value)
    assert "http://mirror.example/someone/nets/resolve/main/net.safetensors: cannot be reached" in text
    assert f"put it, under any name, into {target(tmp_path).parent}" in text and len(calls) == 1
    unpinned = made(tmp_path, **UNPINNED)
    with pytest.raises(
        WeightsError, match="save it as .*net.safetensors, and run `identiface weights get net`"
    ):
        fetch(unpinned, store, mirror="http://mirror.example")


def test_nobody_listening_is_said_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(WeightsError, match="cannot be reached"):
        download(f"http://127.0.0.1:{port}/", tmp_path / "a", sleep=lambda _: pytest.fail("waited"))


def test_room_is_made_sure_of_before(tmp_path: Path, get: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    with pytest.raises(OutputError, match="still to come, 10,000 are free: make room"):
        get()
    assert beside(tmp_path) == []


def test_a_disk_that_fills_up_is_an_output_error(
    tmp_path: Path, get: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download_module, "_copy", full)
    with pytest.raises(OutputError, match="net.safetensors.part: cannot be written: No space"):
        get()


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path, get: Any) -> None:
    (tmp_path / "models").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        get()
