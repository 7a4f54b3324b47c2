"""The weight manifest: what ships is whole and honest, and a wrong TOML is refused by file and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from identiface_core.catalogue.manifest import FOLDER, ROLES, Entry, chosen, read_manifest
from identiface_core.catalogue.sources import BASES, address, page, token
from identiface_core.errors import InputError, WeightsError
from tests.core.weights_server import UNPINNED, entry_toml, manifest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = read_manifest()


def one(tmp_path: Path, text: str, name: str = "net") -> Entry:
    (entry,) = read_manifest(manifest(tmp_path / "manifest", **{name: text}))
    return entry


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(WeightsError) as caught:
        one(tmp_path, text)
    assert str(tmp_path / "manifest" / "net.toml") in str(caught.value)
    return str(caught.value)


def test_every_file_of_the_manifest_is_read_and_every_role_has_one() -> None:
    assert {entry.name for entry in SHIPPED} == {path.stem for path in FOLDER.glob("*.toml")}
    assert {entry.role for entry in SHIPPED} == set(ROLES)
    assert len({entry.sha256 for entry in SHIPPED if entry.pinned}) == len([e for e in SHIPPED if e.pinned])


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: entry.name)
def test_what_is_unclear_is_said(entry: Entry) -> None:
    if entry.commercial_use == "unclear" or entry.size is None and not entry.size_about_mb:
        assert entry.note
    if re.search("non-commercial|NC", entry.weights_licence):
        assert entry.commercial_use == "no"
    if entry.revision == "main":
        assert entry.pinned is None, "a branch moves, so its hash cannot be known for good"


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_hosts_are_named_by_a_word_only(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|huggingface\.co|github\.com", text)


def test_hosts_are_written_in_one_place_of_the_code() -> None:
    names = [base.split("//")[1] for base in BASES.values()]
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "identiface_core").rglob("*.py")
        if any(name in path.read_text(encoding="utf-8") for name in names)
    }
    assert found == {"identiface_core/catalogue/sources.py"}


def test_the_manifest_lies_beside_the_package_as_it_does_in_a_wheel() -> None:
    import identiface_core

    assert Path(identiface_core.__file__).resolve().parents[1] / "weights_manifest" == FOLDER
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'include = ["identiface_core*", "weights_manifest"]' in text
    assert 'weights_manifest = ["*.toml"]' in text


def test_the_shipped_folder_is_there() -> None:
    (embedded,) = chosen(SHIPPED, ["embedded"])
    assert (ROOT / embedded.folder / embedded.sha256).is_file()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"licence": "MIT"}, "unknown key 'licence'"),
        ({"sha265": "x"}, "unknown key 'sha265': did you mean 'sha256'?"),
        ({"role": None}, "the key 'role' is missing"),
        ({"repository": None}, "the key 'repository' is missing"),
        ({"role": "wizard"}, "role: wanted one of"),
        ({"host": "ftp"}, "host: wanted one of"),
        ({"format": "gguf"}, "format: wanted one of"),
        ({"commercial_use": "maybe"}, "commercial_use: wanted one of yes, no, unclear"),
        ({"name": "other"}, "name: wanted 'net'"),
        ({"title": " "}, "title: wanted a text"),
        ({"title": 3}, "title: wanted a text, got 3"),
        ({"size": 0}, "size: wanted a number above 0"),
        ({"size": 1.5}, "size: wanted a number above 0"),
        ({"size": True}, "size: wanted a number above 0"),
        ({"size_about_mb": 3}, "size: known exactly"),
        ({"size": None}, "size: needed with a sha256"),
        ({"sha256": "ABC"}, "sha256: wanted 64 lower-case hex digits"),
        ({"sha256": "A" * 64}, "sha256: wanted 64 lower-case hex digits"),
        ({"repository": "nets"}, "repository: wanted 'owner/name'"),
        ({"path": "../net.safetensors"}, "path: wanted a path below the repository"),
        ({"path": "/net.safetensors"}, "path: wanted a path below the repository"),
        ({"folder": "a/../../b"}, "folder: wanted a folder below the models folder"),
        ({"folder": "C:/b"}, "folder: wanted a folder below the models folder"),
        ({"file": "a/net.safetensors"}, "file: wanted a plain name"),
        ({"file": "net.pth"}, "file: wanted a plain name ending in .safetensors"),
        ({"host": "shipped"}, "repository: not for what is shipped"),
    ],
)
def test_a_wrong_value_names_the_file_and_the_key(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    assert says in refused(tmp_path, entry_toml(**changes))


@pytest.mark.parametrize("text", ["name = ", "[[[", "\x00", "a = [" * 5000, "x = 1\n" * 20000])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    refused(tmp_path, text)


def test_a_missing_folder_and_a_taken_place_are_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weight manifest there"):
        read_manifest(tmp_path / "none")
    folder = manifest(tmp_path, a=entry_toml("a"), b=entry_toml("b", file="a.safetensors"))
    with pytest.raises(WeightsError, match=r"b\.toml: file: identiface_matchers/a.safetensors is also .*'a'"):
        read_manifest(folder)


def test_sizes_that_may_be_it(tmp_path: Path) -> None:
    assert one(tmp_path, entry_toml(size=100)).may_be(100)
    assert not one(tmp_path, entry_toml(size=100)).may_be(101)
    about = one(tmp_path, entry_toml(size=None, size_about_mb=10))
    assert about.may_be(10_900_000) and not about.may_be(11_100_000) and not about.may_be(8_900_000)
    assert one(tmp_path, entry_toml(**UNPINNED)).may_be(5)


def test_names_are_chosen_in_order_and_typos_get_a_hint() -> None:
    assert [entry.name for entry in chosen(SHIPPED, ["yunet", "auraface", "yunet"])] == ["yunet", "auraface"]
    with pytest.raises(InputError, match="did you mean 'auraface'"):
        chosen(SHIPPED, ["aurafase"])
    with pytest.raises(InputError, match="weights list"):
        chosen(SHIPPED, ["zzz"])


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IDENTIFACE_MIRROR", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("host", "layout"),
    [
        ("huggingface", "someone/nets/resolve/v1/a%20b/net.onnx"),
        ("github", "someone/nets/raw/v1/a%20b/net.onnx"),
        ("github-release", "someone/nets/releases/download/v1/a%20b/net.onnx"),
    ],
)
def test_addresses(tmp_path: Path, plain: None, host: str, layout: str) -> None:
    changes = {"host": host, "revision": "v1", "path": "a b/net.onnx"}
    entry = one(tmp_path, entry_toml(**changes))
    assert address(entry) == f"{BASES[host]}/{layout}" and page(entry) == f"{BASES[host]}/someone/nets"
    assert address(entry, "http://mirror:8/x/") == f"http://mirror:8/x/{layout}"
    with pytest.raises(InputError, match="a mirror must be a URL"):
        address(entry, "mirror")


def test_mirrors_come_from_the_environment_and_learn_no_token(
    tmp_path: Path, plain: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = one(tmp_path, entry_toml())
    released = one(tmp_path, entry_toml(host="github-release"))
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert token(entry) == "secret" and token(released) is None and token(entry, "http://m") is None
    monkeypatch.setenv("HF_ENDPOINT", "http://hub")
    assert address(entry).startswith("http://hub/") and address(released).startswith(BASES["github-release"])
    assert token(entry) is None
    monkeypatch.setenv("IDENTIFACE_MIRROR", "http://all")
    assert address(entry).startswith("http://all/") and address(released).startswith("http://all/")
