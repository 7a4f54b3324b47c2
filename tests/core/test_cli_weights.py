"""`identiface weights`: what a person reads before, during and after a download."""

from __future__ import annotations

import io
import json
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from identiface_core import cli
from identiface_core.catalogue.manifest import FOLDER, read_manifest
from identiface_core.cli import weights as cli_weights
from tests.core.weights_server import UNPINNED, WEIGHTS, Shelf, entry_toml, manifest, serving

ROOT = Path(__file__).resolve().parents[2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COMFYUI_PATH", "IDENTIFACE_MIRROR", "HF_ENDPOINT", "HF_TOKEN", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "stdin", io.StringIO())


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the manifest that the command reads."""

    def install(**entries: str) -> None:
        found = read_manifest(manifest(tmp_path / "manifest", **entries))
        monkeypatch.setattr(cli_weights, "read_manifest", lambda: found)

    return install


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with serving(Shelf()) as found:
        yield found


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Exit code and everything printed, for `identiface weights` with these arguments."""

    def call(*arguments: str) -> tuple[int, str]:
        code = cli.main(["weights", *arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def stored(tmp_path: Path) -> Path:
    return tmp_path / "models" / "identiface_matchers" / "net.safetensors"


def test_list_shows_every_file_with_its_licence(run: Any) -> None:
    code, text = run("list")
    assert code == 0
    for entry in read_manifest():
        assert f" {entry.name} " in text, "names are never cut short"
    for piece in (
        "9.79 GB",
        "CC BY-NC-SA 4.0",
        "unclear",
        "unpinned",
        "publisher",
        "unpinned, stated by nobody",
    ):
        assert piece in text


def test_list_by_role_and_as_json(run: Any) -> None:
    code, text = run("list", "--role", "detector", "--json")
    listed = json.loads(text)
    assert code == 0 and {one["role"] for one in listed} == {"detector"}
    assert {"sha256", "commercial_use", "repository", "note"} <= set(listed[0])
    code, text = run("list", "--role", "wizard")
    assert code == 2 and "choose one of" in text


def test_the_page_shows_what_the_manifest_says(run: Any) -> None:
    page = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    code, table = run("list", "--markdown")
    between = page.partition("<!-- table: begin -->")[2].partition("<!-- table: end -->")[0]
    assert code == 0 and between.strip() == table.strip(), "make it again: identiface weights list --markdown"


def test_the_readme_of_the_manifest_knows_every_key() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    from dataclasses import fields

    from identiface_core.catalogue.manifest import Entry

    assert [field.name for field in fields(Entry) if f"`{field.name}`" not in text] == []


def test_get_shows_the_licence_before_it_downloads(tmp_path: Path, ours: Any, shelf: Shelf, run: Any) -> None:
    ours(net=entry_toml(note="Ask first."))
    arguments = ("get", "net", "--models", str(tmp_path / "models"), "--mirror", shelf.base)
    code, text = run(*arguments)
    assert code == 2 and "--yes" in text and shelf.asked == []
    for piece in (
        "A net (1.0 MB)",
        "CC BY-NC 4.0",
        "MIT",
        "no; the publisher's terms",
        "Ask first.",
        shelf.base,
    ):
        assert piece in text
    code, text = run(*arguments, "--yes")
    assert code == 0 and stored(tmp_path).read_bytes() == WEIGHTS and f"net: {stored(tmp_path)}" in text
    assert text.index("CC BY-NC") < text.index("net 1/1 MB")
    code, text = run(*arguments)
    assert code == 0 and f"net: already here: {stored(tmp_path)}" in text and len(shelf.asked) == 1


@pytest.mark.parametrize(("answer", "fetched"), [("y", True), ("YES ", True), ("", False), ("n", False)])
def test_get_asks_on_a_terminal(
    tmp_path: Path,
    ours: Any,
    shelf: Shelf,
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    fetched: bool,
) -> None:
    ours(net=entry_toml())
    asked: list[str] = []
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or answer)
    code, text = run("get", "net", "--models", str(tmp_path / "models"), "--mirror", shelf.base)
    assert code == 0 and stored(tmp_path).exists() == fetched and len(asked) == 1
    assert fetched or "Nothing was downloaded." in text


def test_get_takes_several_and_what_is_elsewhere(tmp_path: Path, ours: Any, shelf: Shelf, run: Any) -> None:
    ours(net=entry_toml(), other=entry_toml("other", b"x" * 10), shipped=shipped_toml())
    elsewhere = tmp_path / "models" / "loras" / "mine.bin"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes(b"x" * 10)
    models = ("--models", str(tmp_path / "models"))
    code, text = run("get", "other", "net", "shipped", "--yes", *models, "--mirror", shelf.base)
    assert code == 0 and f"other: already here: {elsewhere}" in text and "shipped: ships with" in text
    assert stored(tmp_path).exists() and len(shelf.asked) == 1


def shipped_toml() -> str:
    missing = dict.fromkeys(("repository", "revision", "path", "file", "size"))
    return entry_toml("shipped", **{**missing, "host": "shipped", "sha256": "hashes.json", "folder": "here"})


def test_get_says_that_nobody_states_a_hash_and_that_a_pickle_is_not_read(
    tmp_path: Path, ours: Any, shelf: Shelf, run: Any
) -> None:
    ours(net=entry_toml(format="pickle", file="net.pth", **UNPINNED))
    shelf.content = b"PK\x03\x04"
    arguments = ("get", "net", "--yes", "--models", str(tmp_path / "models"), "--mirror", shelf.base)
    code, text = run(*arguments)
    assert code == 0 and "Nobody states its sha256" in text and "never loaded as it is" in text
    (tmp_path / "models" / "identiface_matchers" / "net.pth").unlink()
    code, text = run(*arguments)
    assert code == 0 and "Nobody states" not in text, "now it was checked by the lock"


def test_failures_are_one_line_and_2(tmp_path: Path, ours: Any, shelf: Shelf, run: Any) -> None:
    ours(net=entry_toml())
    shelf.statuses = [404]
    code, text = run("get", "net", "--yes", "--models", str(tmp_path / "models"), "--mirror", shelf.base)
    assert code == 2 and text.splitlines()[-1].startswith("identiface: ") and "there is no such file" in text
    assert run("get", "nett")[1] == "identiface: no weights are called 'nett': did you mean 'net'?\n"
    assert run("get", "net", "--yes", "--mirror", "nowhere")[0] == 2


def test_where_shows_every_place(tmp_path: Path, ours: Any, run: Any) -> None:
    ours(net=entry_toml(), shipped=shipped_toml())
    stored(tmp_path).parent.mkdir(parents=True)
    stored(tmp_path).write_bytes(WEIGHTS[:-1] + b"x")
    models = ("--models", str(tmp_path / "models"))
    code, text = run("where", "net", *models)
    assert code == 2 and f"{tmp_path / 'models'}: 1 file\n" in text and "no such folder" in text
    assert f"{stored(tmp_path)}: another file: sha256" in text
    assert "/someone/nets/resolve/main/net.safetensors" in text and "By hand:" in text
    here = tmp_path / "models" / "renamed"
    here.write_bytes(WEIGHTS)
    code, text = run("where", "net", *models)
    assert code == 0 and f"{here}: it is\n" in text and text.endswith(f"Used: {here}\n")
    ours(loose=entry_toml("loose", **UNPINNED))
    code, text = run("where", "loose", *models)
    assert code == 2 and "nobody states its sha256" in text and "run `identiface weights get loose`" in text
    ours(shipped=shipped_toml())
    assert run("where", "shipped") == (0, "shipped ships with the package, in here\n")


def test_verify_reads_again_and_tells_what_is_wrong(tmp_path: Path, ours: Any, run: Any) -> None:
    ours(net=entry_toml(), loose=entry_toml("loose", **UNPINNED), away=entry_toml("away", b"y" * 9))
    models = ("--models", str(tmp_path / "models"))
    stored(tmp_path).parent.mkdir(parents=True)
    stored(tmp_path).write_bytes(WEIGHTS)
    stored(tmp_path).with_name("loose.safetensors").write_bytes(b"anything")
    code, text = run("verify", *models)
    assert code == 0 and f"good    net: {stored(tmp_path)}" in text and "unknown loose" in text
    assert "away" not in text and "2 here, 0 of them not as it should be" in text
    code, text = run("verify", "away", *models)
    assert code == 2 and "absent  away" in text
    stored(tmp_path).write_bytes(WEIGHTS[:-1] + b"x")
    code, text = run("verify", "net", *models)
    assert code == 2 and "BAD     net:" in text and "Move it away and get it again" in text


def test_verify_checks_what_is_shipped(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = types.ModuleType("identiface_core.embedded")
    embedded.FOLDER = Path("here")  # type: ignore[attr-defined]
    embedded.check_files = lambda folder: {"a": "1", "b": "2"}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "identiface_core.embedded", embedded)
    assert run("verify", "embedded") == (0, "good    embedded: 2 files as in hashes.json\n")


def test_import_and_parity_are_passed_on(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    released = types.ModuleType("identiface_core.cli.released")
    released.import_released = lambda *a, **k: seen.append((a, k)) or 0  # type: ignore[attr-defined]
    released.parity = lambda *a, **k: seen.append((a, k)) or 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "identiface_core.cli.released", released)
    monkeypatch.setattr(cli, "released", released, raising=False)
    assert run("import", "kind", "a.pth", "--out", "o")[0] == 0
    assert run("import", "kind", "a.pth", "--out", "o", "--base", "b", "--full", "--heads", "16")[0] == 0
    assert cli.main(["parity", "--weights", "w", "--case", "c", "--json"]) == 1
    assert seen == [
        (("kind", Path("a.pth")), {"out": Path("o"), "base": None, "half": True, "heads": None}),
        (("kind", Path("a.pth")), {"out": Path("o"), "base": Path("b"), "half": False, "heads": 16}),
        ((Path("w"), Path("c")), {"json": True}),
    ]


@pytest.mark.parametrize("arguments", [[], ["get"], ["where"], ["where", "a", "b"], ["import", "k", "s"]])
def test_wrong_arguments_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["weights", *arguments])
    assert end.value.code == 2 and "usage:" in capsys.readouterr().err
