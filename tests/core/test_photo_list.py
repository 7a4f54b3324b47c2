"""`bench photos --list`: photographs and networks found by content; the list, the figures and the page that are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from identiface_core import cli
from identiface_core.errors import InputError
from identiface_core.evaluation.photo_list import files_below, gather, need, read_list
from identiface_core.evaluation.photo_page import page
from identiface_core.faces.alignment import CANONICAL_POINTS
from identiface_core.faces.base import Face, box_of
from identiface_core.imaging import write_png
from identiface_core.weights.files import sha256_of

from .matcher_files import arcface_like, faces

BENCHMARKS = Path(__file__).parents[2] / "docs" / "benchmarks"
TERMS = {"repository": "some/networks", "commit": "c0ffee", "path": "file.onnx", "terms": "none"}


class Everywhere:
    """A finder that sees one face in every picture."""

    def find_faces(self, image: Tensor, *, threshold: float = 0.5) -> list[Face]:
        return [Face(box_of(CANONICAL_POINTS), CANONICAL_POINTS, 0.9)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Clones as a user may have them: four photos of two people and two networks, under names that say nothing."""
    root = tmp_path / "clones"
    (root / "a" / "deep").mkdir(parents=True)
    for i, picture in enumerate(faces(4)):
        write_png(root / "a" / "deep" / f"{i}.png", picture, origin="captured")
    for name, dimension in (("detector", 16), ("matcher", 32)):
        (root / f"{name}.onnx").write_bytes(arcface_like(dimension))
    return root


@pytest.fixture
def listed(root: Path, tmp_path: Path) -> Path:
    photos = [sha256_of(root / "a" / "deep" / f"{i}.png") for i in range(4)]
    found: dict[str, Any] = {
        "sources": [{"repository": "some/photos", "commit": "beef"}],
        "people": [{"repository": "some/photos", "photos": photos[i : i + 2]} for i in (0, 2)],
        **{
            f"{role}s": [{**TERMS, "name": f"a {role}", "sha256": sha256_of(root / f"{role}.onnx")}]
            for role in ("detector", "matcher")
        },
    }
    path = tmp_path / "list.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def test_photos_are_found_by_content_and_those_missing_are_named(
    root: Path, listed: Path, tmp_path: Path
) -> None:
    known, moved = read_list(listed), root / "elsewhere.PNG"
    (root / "a" / "deep" / "3.png").rename(moved)
    gone = root / "a" / "deep" / "0.png"
    lost = sha256_of(gone)
    gone.unlink()
    files, folder = files_below(root), tmp_path / "photos"
    folder.mkdir()
    (line,) = gather(known, files, folder)
    assert line == f"1 photos of some/photos are not here: clone it at beef ({lost[:12]})"
    copies = [path for path in folder.rglob("*") if path.is_file()]
    assert sorted(path.parent.name for path in copies) == ["001", "002", "002"]
    assert all(path.name == f"{sha256_of(path)[:16]}.png" for path in copies)
    assert sha256_of(moved) in {sha256_of(path) for path in copies}
    need(known.matchers, files)
    (root / "matcher.onnx").unlink()
    with pytest.raises(
        InputError, match=r"a matcher: file.onnx of some/networks at c0ffee, sha256 [0-9a-f]{64}"
    ):
        need(known.matchers, files_below(root))


def test_what_cannot_be_used_is_said(listed: Path, tmp_path: Path) -> None:
    for name in ("none", "photos"):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="none of the listed photos is here:\n4 photos of some/photos"):
        gather(read_list(listed), files_below(tmp_path / "none"), tmp_path / "photos")
    with pytest.raises(InputError, match="no such folder"):
        files_below(tmp_path / "nowhere")
    wrong = tmp_path / "wrong.json"
    for text in ("{", "[]", '{"people": [{"photos": 3}]}'):
        wrong.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match="a list of photographs is wanted"):
            read_list(wrong)


def run(*arguments: object) -> int:
    return cli.main(["bench", "photos", *(str(argument) for argument in arguments)])


def test_bench_photos_measures_what_a_list_names(
    root: Path,
    listed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("photos.finder_from", "photo_list.load_finder"):
        monkeypatch.setattr(f"identiface_core.cli.{name}", lambda *_: Everywhere())
    (root / "a" / "deep" / "0.png").unlink()
    out, written = tmp_path / "found.json", tmp_path / "found.md"
    assert run(root, "--list", listed, "--lq", 16, "--json", out, "--page", written) == 0
    said = capsys.readouterr()
    assert "1 photos of some/photos are not here" in said.err and "a matcher" in said.out
    found = json.loads(out.read_text("utf-8"))
    assert found["missing"] == 1 and found["matchers"][0]["sha256"] == sha256_of(root / "matcher.onnx")
    (detector,) = found["detectors"]
    assert (detector["photos"], detector["people"], detector["network"]["name"]) == (3, 2, "a detector")
    assert [(row["matcher"], row["probe"]) for row in detector["rows"]] == [
        ("a matcher", "photo"),
        ("a matcher", "16 px"),
    ]
    assert written.read_text("utf-8") == page(found)
    # With networks of one's own the photos alone are the list's.
    own = ("--matcher", root / "matcher.onnx", "--detector", root / "detector.onnx")
    assert run(root, "--list", listed, *own) == 0
    assert "3 photos of 2 people" in capsys.readouterr().out
    for wrong in ((), ("--list", listed, *own[:2]), ("--page", written, *own), own[2:]):
        assert run(root, *wrong) == 2
        assert "--matcher and --detector" in capsys.readouterr().err


# What is published


def test_the_published_list_is_whole_and_names_nobody() -> None:
    known = read_list(BENCHMARKS / "photos.json")
    photos = [photo for person in known.people for photo in person.photos]
    assert len(set(photos)) == len(photos) >= 80 and len(known.people) >= 20
    assert all(len(person.photos) > 1 and person.repository in known.commits for person in known.people)
    hashes = [*photos, *(one.sha256 for one in (*known.detectors, *known.matchers))]
    assert all(len(bytes.fromhex(one)) == 32 for one in hashes)
    commits = [*known.commits.values(), *(one.commit for one in (*known.detectors, *known.matchers))]
    assert all(len(bytes.fromhex(one)) == 20 for one in commits)


def test_the_published_page_tells_the_published_figures_of_the_published_list() -> None:
    found = json.loads((BENCHMARKS / "photos-figures.json").read_text("utf-8"))
    assert (BENCHMARKS / "photos.md").read_text("utf-8") == page(found)
    known = json.loads((BENCHMARKS / "photos.json").read_text("utf-8"))
    assert found["matchers"] == known["matchers"] and found["missing"] == 0
    assert [one["network"] for one in found["detectors"]] == known["detectors"]
    listed = sum(len(person["photos"]) for person in known["people"])
    assert all(one["photos"] + len(one["skipped"]) == listed for one in found["detectors"])
