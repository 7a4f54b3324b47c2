"""`bench photos` and galleries of photographs: the figures on cosines that are known, and files to files."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core import cli
from identiface_core.embedded import FOLDER
from identiface_core.errors import InputError
from identiface_core.evaluation.photos import equal_error, measure, separation
from identiface_core.faces.alignment import CANONICAL_POINTS
from identiface_core.faces.base import Face, box_of
from identiface_core.imaging import read_image, write_png
from identiface_core.matchers.onnx_matcher import OnnxMatcher

MATCHER, FINDER = FOLDER / "matcher_a.safetensors", FOLDER / "finder.safetensors"
SIDE = 128


class Colours:
    """A matcher that knows people by the colour of their pictures."""

    name, dimension, side = "colours", 3, 64

    def embed(self, pictures: Tensor, points: Tensor | None = None) -> Tensor:
        return F.normalize(pictures.mean((2, 3)) - 0.5, dim=1)


class Everywhere:
    """A finder that sees a face in every picture, two in wide ones and none in black ones."""

    def find_faces(self, image: Tensor, *, threshold: float = 0.5) -> list[Face]:
        if not image.any():
            return []
        places = [CANONICAL_POINTS + torch.tensor([shift, 0.0]) for shift in range(0, image.shape[-1], SIDE)]
        return [Face(box_of(points), points, 0.9) for points in places]


def photo(colour: tuple[float, float, float], seed: int, width: int = SIDE) -> Tensor:
    noise = 0.05 * torch.randn(3, SIDE, width, generator=torch.Generator().manual_seed(seed))
    return (torch.tensor(colour)[:, None, None] + noise).clamp(0.01, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    people = {"ann": (0.9, 0.3, 0.3), "bob": (0.3, 0.9, 0.3), "cid": (0.3, 0.3, 0.9)}
    for p, (name, colour) in enumerate(people.items()):
        (tmp_path / "people" / name).mkdir(parents=True)
        for i in range(3):
            write_png(tmp_path / "people" / name / f"{i}.png", photo(colour, 10 * p + i), origin="captured")
    return tmp_path / "people"


# The figures


def test_the_equal_error_of_known_cosines() -> None:
    same = torch.tensor([True, True, True, True, False, False, False, False])
    apart = torch.tensor([0.6, 0.7, 0.8, 0.9, 0.1, 0.2, 0.3, 0.4])
    assert equal_error(apart, same) == (0.0, pytest.approx(0.6))
    one_wrong = torch.tensor([0.25, 0.7, 0.8, 0.9, 0.1, 0.2, 0.3, 0.65])
    assert equal_error(one_wrong, same)[0] == pytest.approx(0.25)
    # What cannot tell anybody apart is a coin, in whatever order the pairs come.
    assert equal_error(torch.ones(8), same)[0] == equal_error(torch.ones(8), ~same)[0] == 0.5
    # A pair of weight 0 is not there.
    weights = torch.tensor([0.0, 1, 1, 1, 1, 1, 1, 1], dtype=torch.float64)
    assert equal_error(one_wrong, same, weights)[0] < 0.25


def test_a_photo_is_compared_with_all_others_and_never_with_itself() -> None:
    people = ["a", "a", "a", "b", "b", "c"]
    vectors = F.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    once = separation(vectors, vectors, people, twice=True)
    assert (len(once.mated), len(once.strangers)) == (3 + 1, 15 - 4)
    assert float(once.mated.max()) < 0.999
    both = separation(vectors, vectors, people)
    assert (len(both.mated), len(both.strangers)) == (8, 22)
    assert both.auc == pytest.approx(once.auc) and both.eer.low <= both.eer.value <= both.eer.high
    assert once.threshold is None and once.fnmr is None  # eleven strangers vouch for nothing
    assert (once.eer.low, once.eer.high) == (0, 1), "three people tell nothing about others"


def test_the_pairs_where_wrong_labels_show_are_named_and_a_verdict_given() -> None:
    vectors = torch.eye(4)[[0, 0, 1, 1, 2, 2, 3, 0]]  # the last one is a's, under d's name
    found = separation(vectors, vectors, list("aabbccdd"), twice=True)
    assert [(one.first, one.second) for one in found.least_alike][0] == (6, 7)
    assert {(one.first, one.second) for one in found.most_alike[:2]} == {(0, 7), (1, 7)}
    assert len(found.least_alike) == 4 and len(found.most_alike) == 5
    assert found.most_alike[0].cosine == pytest.approx(1) and found.least_alike[0].cosine == pytest.approx(0)
    assert separation(vectors, vectors, list("aabbccdd")).most_alike == ()
    good = separation(vectors[:6], vectors[:6], list("aabbcc"), twice=True)
    same = torch.ones(8, 4) / 2
    useless = separation(same, same, list("aabbccdd"), twice=True)
    assert good.verdict.startswith("tells these people apart, EER 0.0 %")
    assert "hardly" in useless.verdict and "guessing" in useless.verdict
    assert "often" in found.verdict


def test_the_threshold_keeps_its_promise() -> None:
    generator = torch.Generator().manual_seed(1)
    middles = F.normalize(torch.randn(40, 32, generator=generator), dim=1)
    vectors = F.normalize(
        middles.repeat_interleave(3, 0) + 0.12 * torch.randn(120, 32, generator=generator), dim=1
    )
    found = separation(vectors, vectors, [f"{i // 3}" for i in range(120)], twice=True)
    assert found.fmr == 0.001 and found.threshold is not None
    assert 0 < float((found.strangers >= found.threshold).double().mean()) <= 0.001
    assert found.fnmr == float((found.mated.double() < found.threshold).double().mean())
    assert found.auc > 0.99


# Folders


def test_people_of_a_folder_are_told_apart(folder: Path) -> None:
    write_png(folder / "bob" / "dark.png", torch.zeros(3, SIDE, SIDE), origin="captured")
    write_png(folder / "bob" / "two.png", photo((0.3, 0.9, 0.3), 7, 2 * SIDE), origin="captured")
    report = measure(folder, Everywhere(), [Colours()], sizes=(8,))  # type: ignore[list-item]
    assert [one.path.name for one in report.skipped] == ["dark.png", "two.png"]
    assert "no face" in report.skipped[0].reason
    assert (
        report.skipped[1].reason.startswith("2 faces were found") and "--largest" in report.skipped[1].reason
    )
    assert [row.probe for row in report.rows] == ["photo", "8 px"]
    assert all(row.eer.value == 0 and row.matcher == "colours" for row in report.rows)
    assert (len(report.rows[0].mated), len(report.rows[1].mated)) == (9, 18)
    assert report.rows[1].recognisability < report.rows[0].recognisability
    assert report.several == ()
    largest = measure(folder, Everywhere(), [Colours()], largest=True)  # type: ignore[list-item]
    assert len(largest.people) == 10
    ((path, reason),) = largest.several
    assert path.name == "two.png" and "of 2: the largest" in reason


def test_one_bad_photo_is_left_out(folder: Path) -> None:
    """Points that coincide, and a network that breaks down on one photo."""

    class Once(Everywhere):
        seen = 0

        def find_faces(self, image: Tensor, *, threshold: float = 0.5) -> list[Face]:
            self.seen += 1
            return (
                [Face((9, 9, 50, 50), torch.full((5, 2), 40.0), 0.9)]
                if self.seen == 2
                else super().find_faces(image)
            )

    class Breaks(Colours):
        seen = 0

        def embed(self, pictures: Tensor, points: Tensor | None = None) -> Tensor:
            self.seen += 1
            return super().embed(pictures) * (float("nan") if self.seen == 3 else 1)

    report = measure(folder, Once(), [Breaks()])  # type: ignore[list-item]
    assert [one.reason.split(" ")[-3:] for one in report.skipped] == [
        ["not", "finite", "numbers"],
        ["are", "not", "finite"],
    ]
    assert len(report.people) == 7 and report.rows[0].eer.value == 0


def test_cosines_that_are_no_numbers_are_refused() -> None:
    vectors = torch.eye(4)
    vectors[1] = float("nan")
    with pytest.raises(InputError, match="finite"):
        separation(vectors, vectors, ["a", "a", "b", "b"])


def test_nobody_to_compare_is_said(folder: Path) -> None:
    with pytest.raises(InputError, match="4 to 128 px"):
        measure(folder, Everywhere(), [], sizes=(3,))
    for person in ("bob", "cid"):
        for file in (folder / person).iterdir():
            write_png(file, torch.zeros(3, SIDE, SIDE), origin="captured")
    with pytest.raises(InputError, match=r"Of 9 pictures 3 could be used, of 1 people.*no face"):
        measure(folder, Everywhere(), [])


# The commands


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.mark.skipif(not MATCHER.is_file(), reason="the embedded model is not trained yet")
def test_a_matcher_of_ones_own_enrols_and_searches(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery, probe = tmp_path / "g.safetensors", folder / "cid" / "0.png"
    network = ("--matcher", MATCHER, "--face", "whole")
    assert run("gallery", "enrol", folder, "--out", gallery, *network) == 0
    assert "3 people enrolled" in capsys.readouterr().out
    assert run("gallery", "search", gallery, probe, *network) == 0
    assert "unknown" in capsys.readouterr().out  # three people make no table
    assert run("gallery", "search", gallery, probe, "--matcher", MATCHER) == 2
    assert "give --detector" in capsys.readouterr().err
    assert (
        run("gallery", "enrol", folder, "--out", gallery, "--face", "whole", "--matcher", *[MATCHER] * 3) == 2
    )
    assert "one matcher or two" in capsys.readouterr().err


@pytest.mark.skipif(not MATCHER.is_file(), reason="the embedded model is not trained yet")
def test_bench_photos_prints_and_writes(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("identiface_core.cli.photos.finder_from", lambda *_: Everywhere())
    write_png(folder / "bob" / "1.png", photo((0.3, 0.9, 0.3), 7, 2 * SIDE), origin="captured")
    out = tmp_path / "found.json"
    networks = ("--matcher", MATCHER, "--detector", FINDER)
    assert run("bench", "photos", folder, *networks, "--largest", "--json", out) == 0
    text = capsys.readouterr().out
    assert "9 photos of 3 people; 0 left out" in text and "too few" in text and "= mated" in text
    assert "several faces in 1 of the photos" in text and "of 2: the largest" in text
    assert "too few people for an interval" in text and "No threshold" in text and "on these very" not in text
    steps = [line.split()[:3] for line in text.splitlines() if line[7:9] == "to"]
    ends = [(float(low), float(high)) for low, _, high in steps]
    assert all(before[1] == after[0] for before, after in pairwise(ends)) and ends[-1][1] >= 1
    assert "least alike" in text and "bob/1.png" in text
    assert "strangers that are most alike" in text and "these people" in text
    found = json.loads(out.read_text("utf-8"))
    assert (found["photos"], found["people"]) == (9, 3)
    assert [one["file"] for one in found["several"]] == ["1.png"]
    assert found["rows"][0]["mated"]["count"] == 9 and 0 <= found["rows"][0]["eer"]["value"] <= 1


PHOTOS, ARCFACE, DETECTOR = (
    os.environ.get(f"IDENTIFACE_{name}") for name in ("PHOTOS", "ARCFACE_ONNX", "DETECTOR_ONNX")
)


@pytest.mark.skipif(
    not (PHOTOS and ARCFACE and DETECTOR),
    reason="set IDENTIFACE_PHOTOS, IDENTIFACE_ARCFACE_ONNX and IDENTIFACE_DETECTOR_ONNX to your own",
)
def test_real_photographs_are_separated() -> None:
    from identiface_core.faces.onnx_finders import load_finder
    from identiface_core.gallery.folder import pictures_of

    assert PHOTOS and ARCFACE and DETECTOR
    finder, matcher = load_finder(DETECTOR), OnnxMatcher(ARCFACE)
    report = measure(PHOTOS, finder, [matcher], largest=True)
    row = report.rows[0]
    assert row.eer.value < 0.05 and row.auc > 0.98, row
    assert len(report.skipped) <= 0.05 * len(report.people)
    # The executor that carries gradients agrees with onnxruntime on real weights.
    picture = read_image(next(path for _, path in pictures_of(PHOTOS) if finder.find_faces(read_image(path))))
    points = finder.find_faces(picture)[0].points[None]
    crops = matcher.crops(picture[None], points).requires_grad_(True)
    vector = matcher.embed(crops, matcher.crop_points[None])
    assert torch.allclose(vector.detach(), matcher.embed(picture[None], points), atol=1e-4)
    vector.sum().backward()
    assert crops.grad is not None and float(crops.grad.abs().sum()) > 0
