"""Which face is meant: every way to choose says what it chose, and pictures without a face keep their number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from identiface_core.errors import InputError, NoFaceError, SeveralFacesError
from identiface_core.faces.alignment import align, apply_matrix, canonical_points
from identiface_core.faces.base import Face, Finder, KnownFaces, points_of
from identiface_core.faces.choice import HOW, Selection, choose_face, likeness_to, select_face, selection_by

PICTURE = torch.linspace(0, 1, 200 * 320).reshape(1, 200, 320).expand(3, -1, -1)


@dataclass
class Fixed:
    """A finder that always sees the same."""

    faces: list[Face]
    asked: Any = "its own"

    def find_faces(self, image: Tensor, *, threshold: float | None = None) -> list[Face]:
        self.asked = threshold
        return self.faces


def face(x: float, y: float, side: float, score: float) -> Face:
    box = (x, y, x + side, y + 1.1 * side)
    return Face(box, points_of(box), score)


def finder(*faces: Face) -> Fixed:
    made: Finder = Fixed(list(faces))  # what it promises is checked by mypy
    assert isinstance(made, Fixed)
    return made


THREE = (face(10, 20, 40, 0.9), face(100, 30, 80, 0.8), face(250, 100, 30, 0.7))


def test_the_only_one_is_taken_and_several_are_an_error() -> None:
    alone = select_face(PICTURE, finder(THREE[1]))
    assert alone.chosen == 0 and alone.reason == "the only face: 80 x 88 px"
    for on_no_face in ("error", "skip", "pass through"):
        with pytest.raises(SeveralFacesError, match="3 faces were found.*1: 100,30,180,118"):
            select_face(PICTURE, finder(*THREE), on_no_face=on_no_face)


def test_every_choice_says_what_it_chose() -> None:
    def chosen(how: str, **more: Any) -> tuple[int | None, str]:
        found = select_face(PICTURE, finder(*THREE), how, **more)
        return found.chosen, found.reason

    assert chosen("largest") == (1, "face number 1 (counting from 0) of 3: the largest, 80 x 88 px")
    assert chosen("by number", number=2) == (2, "face number 2 (counting from 0) of 3: as asked, 30 x 33 px")
    index, reason = chosen("by box", box=(12, 20, 50, 64))
    assert index == 0
    assert reason == "face number 0 (counting from 0) of 3: overlaps the box by 95%, 40 x 44 px"


@pytest.mark.parametrize(
    ("choice", "how"),
    [
        (2, {"how": "by number", "number": 2}),
        ("largest", {"how": "largest"}),
        ((12, 20, 50, 64), {"how": "by box"}),
    ],
)
def test_a_choice_in_one_value(choice: Any, how: dict[str, Any]) -> None:
    if how["how"] == "by box":
        how["box"] = choice
    found = selection_by(PICTURE, finder(*THREE), choice, name="street")
    assert (found.chosen, found.reason) == (
        (same := select_face(PICTURE, finder(*THREE), **how)).chosen,
        same.reason,
    )
    with pytest.raises(SeveralFacesError, match=r"street: 3 faces.* Say --face: 0: 10,20"):
        selection_by(PICTURE, finder(*THREE), None, name="street", several="Say --face")
    with pytest.raises(NoFaceError, match="or run away"):
        selection_by(
            PICTURE, finder(), choice if choice == "largest" else None, name="a", otherwise=", or run away"
        )


def test_the_nearest_face_is_chosen_by_its_embedding_and_its_cosine_said() -> None:
    """Three faces in red, green and blue; the embedding is a portrait's mean colour."""
    picture = torch.zeros(3, 200, 320)
    for i, one in enumerate(THREE):
        x0, y0, x1, y1 = (round(value) for value in one.box)
        picture[i, y0:y1, x0:x1] = 1

    def embed(pictures: Tensor, points: Tensor) -> Tensor:
        return align(pictures, points)[..., 50:90, 50:80].mean((2, 3))

    olive = torch.tensor([0.6, 0.8, 0.0])
    found = select_face(picture, finder(*THREE), "nearest", likeness=likeness_to(embed, olive))
    assert found.chosen == 1
    assert found.reason == (
        "face number 1 (counting from 0) of 3: cosine 0.80 with the reference (others: 0.60, 0.00)"
    )


def test_threshold_is_passed_on() -> None:
    own, asked = finder(THREE[0]), finder(THREE[0])
    select_face(PICTURE, own)
    select_face(PICTURE, asked, threshold=0.3)
    assert (own.asked, asked.asked) == (None, 0.3)


@pytest.mark.parametrize("how", [how for how in HOW if how != "by box"])
def test_no_face_is_an_error_unless_asked_otherwise(how: str) -> None:
    def nobody(picture: Tensor, points: Tensor) -> Tensor:
        raise AssertionError("nothing to compare")

    with pytest.raises(NoFaceError, match="street: no face was found"):
        select_face(PICTURE, finder(), how, likeness=nobody, name="street")
    skipped = select_face(PICTURE, finder(), how, likeness=nobody, on_no_face="skip", picture=4)
    assert (skipped.picture, skipped.chosen, skipped.matrix(128), skipped.portrait(PICTURE)) == (
        4,
        None,
        None,
        None,
    )
    assert skipped.reason.endswith("The picture is left out.")


def test_a_missing_number_or_an_empty_box_is_no_face() -> None:
    found = select_face(PICTURE, finder(THREE[0]), "by number", number=3, on_no_face="skip")
    assert found.chosen is None and "no face number 3" in found.reason and len(found.faces) == 1
    found = select_face(PICTURE, finder(THREE[0]), "by box", box=(200, 0, 220, 20), on_no_face="skip")
    assert found.chosen is None and "no face was found in the box 200,0,220,20" in found.reason


def test_an_empty_box_means_that_nobody_marked_a_face() -> None:
    with pytest.raises(NoFaceError, match="street: no box was given"):
        select_face(PICTURE, finder(THREE[0]), "by box", box=(), name="street")
    found = select_face(PICTURE, finder(THREE[0]), "by box", box=(), on_no_face="skip")
    assert found.chosen is None and found.reason.endswith("The picture is left out.")


def test_what_cannot_be_given_is_not_advised() -> None:
    """Only who chooses by `choose_face` can say 'whole'."""
    with pytest.raises(NoFaceError) as chosen:
        select_face(PICTURE, finder(), "largest")
    assert str(chosen.value).endswith("Give a sharper or larger picture of the face.")
    with pytest.raises(NoFaceError, match="or 'whole' if"):
        choose_face([])
    with pytest.raises(NoFaceError, match="face, or walk on"):
        choose_face([], otherwise=", or walk on")


def test_known_faces_are_found_again() -> None:
    known = KnownFaces(THREE)
    assert select_face(PICTURE, known, "largest").chosen == 1
    assert known.find_faces(PICTURE) == list(THREE) and known.find_faces(PICTURE, threshold=0.85) == [
        THREE[0]
    ]


@pytest.mark.parametrize("points", [torch.ones(5, 2), torch.full((5, 2), float("nan"))])
def test_a_find_without_a_shape_gives_no_portrait(points: Tensor) -> None:
    found = select_face(PICTURE, finder(Face((0.0, 0.0, 9.0, 9.0), points, 0.9)), picture=3)
    with pytest.raises(InputError, match="picture 3, the only face: .*coincide"):
        found.portrait(PICTURE)


def test_passed_through_the_whole_picture_stands_for_the_portrait() -> None:
    found = select_face(PICTURE, finder(), on_no_face="pass through")
    assert found.whole and "passed through whole, not aligned" in found.reason
    portrait = found.portrait(PICTURE, 160)
    assert portrait is not None and portrait.shape == (3, 160, 160)
    corners = torch.tensor([[[0.0, 0], [320, 200]]])
    assert apply_matrix(found.matrix(160), corners).tolist() == [[[0, 30], [160, 130]]]  # type: ignore[arg-type]
    assert portrait[0, 40, 80] == pytest.approx(float(PICTURE[0, 20, 160]), abs=0.01)


def test_a_chosen_face_comes_to_the_canonical_framing() -> None:
    found = select_face(PICTURE, finder(*THREE), "largest")
    matrix = found.matrix(256)
    assert matrix is not None
    assert torch.allclose(apply_matrix(matrix, THREE[1].points[None])[0], canonical_points(256), atol=1e-2)
    assert isinstance(found, Selection) and found.size == (200, 320)


def test_incomplete_choices_are_told() -> None:
    for how, match in (
        ("nearest", "say to whom"),
        ("by box", "give a box"),
        ("best", "the only one, largest"),
    ):
        with pytest.raises(InputError, match=match):
            select_face(PICTURE, finder(*THREE), how)
    with pytest.raises(InputError, match="error, skip, pass through; this is 'ignore'"):
        select_face(PICTURE, finder(), on_no_face="ignore")
