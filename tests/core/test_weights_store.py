"""Finding weight files by what they hold: where is looked, what counts, and what is remembered."""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from identiface_core.catalogue import places as places_module
from identiface_core.catalogue.manifest import Entry, read_manifest
from identiface_core.catalogue.places import Places, extra_folders, own_folder, places
from identiface_core.catalogue.records import Hashes, Lock, Locked
from identiface_core.catalogue.store import Store, kind_of
from identiface_core.errors import WeightsError
from tests.core.weights_server import UNPINNED, WEIGHTS, entry_toml, manifest


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ComfyUI and no cache but those of the test."""
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))


@pytest.fixture
def entry(tmp_path: Path) -> Callable[..., Entry]:
    def make(**changes: object) -> Entry:
        (made,) = read_manifest(manifest(tmp_path / "manifest", net=entry_toml(**changes)))
        return made

    return make


def put(path: Path, content: bytes = WEIGHTS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def comfyui(folder: Path) -> Path:
    (folder / "models").mkdir(parents=True)
    (folder / "comfy").mkdir()
    (folder / "main.py").touch()
    return folder


def other(content: bytes = WEIGHTS) -> bytes:
    return content[:-1] + b"x"


def test_a_file_is_found_under_any_name_and_not_by_its_own(tmp_path: Path, entry: Any) -> None:
    put(tmp_path / "models" / "identiface_matchers" / "net.safetensors", other())
    here = put(tmp_path / "models" / "loras" / "deep" / "renamed.bin")
    store = Store(places(tmp_path / "models"))
    assert store.find(entry()) == here and store.need(entry()) == here
    own, cache = store.look(entry())
    assert [(one.path.name, one.good) for one in own.candidates] == [
        ("net.safetensors", False),
        ("renamed.bin", True),
    ]
    assert own.files == 2 and cache.files is None


def test_only_files_of_the_right_size_are_read(tmp_path: Path, entry: Any) -> None:
    put(tmp_path / "models" / "big.safetensors", WEIGHTS + b"more")
    put(tmp_path / "models" / "net.safetensors.part")
    put(tmp_path / "models" / ".hidden")
    told: list[Path] = []
    store = Store(places(tmp_path / "models"), lambda path, size: told.append(path))
    assert store.find(entry()) is None and told == []


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, entry: Any) -> None:
    here, told = put(tmp_path / "models" / "a"), []

    def store() -> Store:
        return Store(places(tmp_path / "models"), lambda path, size: told.append((path, size)))

    assert store().find(entry()) == here and store().find(entry()) == here
    assert told == [(here, len(WEIGHTS))]
    put(here, other())
    os.utime(here, (1, 1))
    assert store().find(entry()) is None and len(told) == 2
    (own_folder() / "hashes.json").write_text("{damaged", encoding="utf-8")
    assert store().find(entry()) is None and len(told) == 3


def test_verifying_reads_again_what_only_looks_unchanged(tmp_path: Path, entry: Any) -> None:
    here = put(tmp_path / "models" / "a")
    stat = here.stat()
    assert Store(places(tmp_path / "models")).check(entry(), here)
    put(here, other())
    os.utime(here, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    store = Store(places(tmp_path / "models"))
    assert store.check(entry(), here), "size and time are as they were"
    with pytest.raises(WeightsError, match="pinned by its publisher.*damaged"):
        store.check(entry(), here, again=True)


def test_an_absent_file_says_what_was_looked_for_and_where(tmp_path: Path, entry: Any) -> None:
    put(tmp_path / "models" / "a", b"small")
    with pytest.raises(WeightsError) as caught:
        Store(places(tmp_path / "models")).need(entry())
    text = str(caught.value)
    assert f"{tmp_path / 'models'} (1 file)" in text and "(no such folder)" in text
    assert f"{len(WEIGHTS):,} bytes with sha256 " in text and "identiface weights get net" in text


def test_an_unpinned_file_is_unknown_until_it_has_come_once(tmp_path: Path, entry: Any) -> None:
    net, where = entry(**UNPINNED), places(tmp_path / "models")
    here = put(tmp_path / "models" / "a")
    store = Store(where)
    assert store.find(net) is None and store.check(net, here) is None
    sha256 = store.record(net, here, "http://somewhere")
    assert Store(where).find(net) == here and Store(where).wanted(net) == sha256
    assert Lock(store.lock.path).get("net") == Locked(sha256, len(WEIGHTS), "http://somewhere")
    wrong = put(tmp_path / "b", other())
    with pytest.raises(WeightsError, match=r"first came here.*take 'net' out of .*lock\.json"):
        store.record(net, wrong, "http://somewhere")


def test_a_damaged_lock_is_an_error_and_never_ignored(tmp_path: Path, entry: Any) -> None:
    store = Store(places(tmp_path / "models"))
    here = put(tmp_path / "models" / "a")
    for text in ("{", "[]", '{"net": 1}', '{"net": {"sha256": "ab", "size": 1, "source": ""}}'):
        put(store.lock.path, text.encode())
        with pytest.raises(WeightsError, match="lock file is damaged"):
            store.record(entry(**UNPINNED), here, "x")
    assert store.find(entry()) == here, "a pinned file needs no lock"


def test_without_a_hash_the_structure_tells(
    tmp_path: Path, entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = types.ModuleType("identiface_core.weights.recognise")

    def recognise(path: Path) -> Any:
        if path.name == "none":
            raise WeightsError("no weights")
        return types.SimpleNamespace(kind=path.name, title="", facts={})

    fake.recognise = recognise  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "identiface_core.weights.recognise", fake)
    here = [put(tmp_path / "models" / name) for name in ("none", "pixart", "sd")]
    assert kind_of(here[0]) is None and kind_of(here[1]) == "pixart"
    net = entry(recognised_as="pixart", **UNPINNED)
    store = Store(places(tmp_path / "models"))
    assert store.find(net) == here[1] and "structure 'pixart'" in store.sign_of(net)


def test_links_are_followed_once(tmp_path: Path, entry: Any) -> None:
    here = put(tmp_path / "disk" / "a")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "there").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "models")
    (tmp_path / "models" / "broken").symlink_to(tmp_path / "nowhere")
    store = Store(places(tmp_path / "models"))
    found = store.find(entry())
    assert found is not None and found.samefile(here) and store.look(entry())[0].files == 1


def test_what_cannot_be_read_is_passed_over(
    tmp_path: Path, entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "models" / "a"), put(tmp_path / "models" / "b")
    real = Hashes.sha256

    def refuse(self: Hashes, path: Path, **settings: Any) -> str:
        if path.name == "a":
            raise WeightsError(f"{path}: cannot be read")
        return real(self, path, **settings)

    monkeypatch.setattr(Hashes, "sha256", refuse)
    store = Store(places(tmp_path / "models"))
    assert store.find(entry()) == tmp_path / "models" / "b"
    assert "cannot be read" in store.look(entry())[0].candidates[0].verdict


def test_places_without_a_host_are_our_own(tmp_path: Path, entry: Any) -> None:
    where = places()
    assert where == Places(
        (tmp_path / "cache" / "identiface" / "models",),
        tmp_path / "cache" / "identiface",
        tmp_path / "cache" / "identiface" / "models",
    )
    assert where.place_of(entry()) == where.target / "identiface_matchers" / "net.safetensors"


def test_places_of_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = comfyui(tmp_path / "ComfyUI")
    for given in (host, host / "models"):
        assert places(given).folders == (host / "models", own_folder() / "models")
    monkeypatch.setenv("COMFYUI_PATH", str(host))
    assert places().target == host / "models"
    where = places(tmp_path / "mine", also=[tmp_path / "more"])
    assert where.target == tmp_path / "mine"
    assert where.folders == (
        tmp_path / "mine",
        host / "models",
        tmp_path / "more",
        own_folder() / "models",
    )


def test_the_host_around_the_pack_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = comfyui(tmp_path / "ComfyUI")
    monkeypatch.setattr(places_module, "_REPOSITORY", host / "custom_nodes" / "identiface")
    assert places().target == host / "models"
    monkeypatch.setattr(places_module, "_REPOSITORY", host / "somewhere" / "identiface")
    assert places().target == own_folder() / "models"


EXTRA = """
#Rename this
a111:
    base_path: BASE/webui/   # where it is
    checkpoints: models/Stable-diffusion
    loras: |
         models/Lora
         # not this one
         models/LyCORIS
    vae: "models/my VAE"

comfyui:
     is_default: true
     custom_nodes: elsewhere
     clip: relative/clip/
other: {odd: [yaml]}
empty:
"""


def test_extra_model_paths_are_searched(tmp_path: Path, entry: Any) -> None:
    host = comfyui(tmp_path / "ComfyUI")
    (host / "extra_model_paths.yaml").write_text(EXTRA.replace("BASE", str(tmp_path)), encoding="utf-8")
    webui = tmp_path / "webui" / "models"
    assert extra_folders(host / "extra_model_paths.yaml") == (
        webui / "Stable-diffusion",
        webui / "Lora",
        webui / "LyCORIS",
        webui / "my VAE",
        host / "relative" / "clip",
    )
    here = put(webui / "LyCORIS" / "x.safetensors")
    assert Store(places(host)).find(entry()) == here


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"- a\n- b\n", b"::\n  : :\n", b"a: b: c\n\td:"])
def test_an_extra_file_that_cannot_be_understood_adds_nothing_and_harms_nothing(
    tmp_path: Path, content: bytes
) -> None:
    put(tmp_path / "extra_model_paths.yaml", content)
    assert all(isinstance(folder, Path) for folder in extra_folders(tmp_path / "extra_model_paths.yaml"))
    assert extra_folders(tmp_path / "none.yaml") == ()


def test_hashes_are_kept_as_plain_json(tmp_path: Path) -> None:
    here = put(tmp_path / "a")
    sha256 = Hashes(tmp_path / "hashes.json").sha256(here)
    kept = json.loads((tmp_path / "hashes.json").read_text(encoding="utf-8"))
    assert kept == {str(here): [len(WEIGHTS), here.stat().st_mtime_ns, sha256]}
    with pytest.raises(WeightsError, match="cannot be read"):
        Hashes(tmp_path / "hashes.json").sha256(tmp_path / "none")
