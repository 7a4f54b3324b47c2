"""Which face of a picture is meant, and its portrait. A choice is never silent: it says which face, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from identiface_core.errors import InputError, NoFaceError, SeveralFacesError
from identiface_core.faces.alignment import (
    PORTRAIT_SIDE,
    align,
    canonical_points,
    check_points,
    similarity_from_points,
    warp_antialiased,
)
from identiface_core.faces.base import (
    Box,
    Face,
    Finder,
    area,
    box_text,
    check_box,
    listed,
    overlap,
    points_of,
)

FaceChoice = int | Sequence[float] | None
"""Index into the list of faces (best first, from 0), a box `(x0, y0, x1, y1)`, or None: there must be just
one.
"""
Likeness = Callable[[Tensor, Tensor], Tensor]
"""A picture `(3, H, W)` and the points `(N, 5, 2)` of faces in it -> their cosines with somebody, `(N,)`."""

HOW = ("the only one", "largest", "by number", "by box", "nearest")
"""How a face can be chosen of several. "nearest": the one most like somebody."""
ON_NO_FACE = ("error", "skip", "pass through")
"""What a picture without the wanted face gives: NoFaceError, no portrait, or the whole picture as a portrait."""
SEVERAL = "Choose by number or by box"
"""What to do where several faces are found, unless who calls knows better."""
BOX_OR_WHOLE = ", a box around it (x0,y0,x1,y1), or 'whole' if the picture already is the cropped face"
"""What else can be given where no face is found, on the command line and in a case."""


@dataclass(frozen=True)
class Selection:
    """The faces of one picture of a batch, and which of them is meant."""

    picture: int
    """Index of the picture in its batch, kept where others are skipped."""
    size: tuple[int, int]
    """(height, width) of the picture in pixels."""
    faces: tuple[Face, ...]
    chosen: int | None
    """Index into `faces`; None if none is meant."""
    reason: str
    """Why, for people to read."""
    whole: bool = False
    """Without a chosen face: the whole picture stands for the portrait. Else such a picture is left out."""

    @property
    def points(self) -> Tensor | None:
        """`(5, 2)` of the chosen face, in pixels of the picture."""
        return None if self.chosen is None else self.faces[self.chosen].points

    def matrix(self, size: int) -> Tensor | None:
        """Similarity `(1, 2, 3)` from pixels of the picture to those of its portrait of `size` px; None if left out.

        Raises InputError for a chosen face whose points coincide or are not finite.
        """
        if self.chosen is not None:
            points = self.faces[self.chosen].points
            check_points(points, f"picture {self.picture}, {numbered(self.chosen, len(self.faces))}")
            return similarity_from_points(points, canonical_points(size))
        if not self.whole:
            return None
        height, width = self.size
        scale = size / max(height, width)
        return torch.tensor(
            [[[scale, 0, (size - scale * width) / 2], [0, scale, (size - scale * height) / 2]]]
        )

    def portrait(self, image: Tensor, size: int = PORTRAIT_SIDE) -> Tensor | None:
        """Portrait `(3, size, size)` out of the picture `(3, H, W)`; None if the picture is left out."""
        matrix = self.matrix(size)
        return None if matrix is None else warp_antialiased(image[None], matrix, size)[0]


def select_face(
    image: Tensor,
    finder: Finder,
    how: str = HOW[0],
    *,
    number: int = 0,
    box: Sequence[float] | None = None,
    likeness: Likeness | None = None,
    threshold: float | None = None,
    on_no_face: str = ON_NO_FACE[0],
    picture: int = 0,
    name: str = "the picture",
    several: str = SEVERAL,
    otherwise: str = "",
) -> Selection:
    """Finds the faces of a picture `(3, H, W)` and chooses one.

    how: one of `HOW`, with `number`, `box` or `likeness` where it needs them; an empty box: nobody marked a face in this
    picture. threshold: None for the finder's own.
    on_no_face: one of `ON_NO_FACE`, for a picture without any face or without the one asked for.
    several, otherwise: what errors tell to do, as in `choose_face`.
    Raises SeveralFacesError where one was wanted and there are more, whatever `on_no_face` says; NoFaceError;
    InputError for an unknown or incomplete choice.
    """
    if on_no_face not in ON_NO_FACE:
        raise InputError(
            f"what to do without a face is one of {', '.join(ON_NO_FACE)}; this is {on_no_face!r}"
        )
    faces = finder.find_faces(image) if threshold is None else finder.find_faces(image, threshold=threshold)
    size = (image.shape[-2], image.shape[-1])
    choose = partial(choose_face, faces, name=name, several=several, otherwise=otherwise)
    try:
        chosen, reason = _chosen(image, faces, how, number, box, likeness, choose)
    except NoFaceError as error:
        if on_no_face == "error":
            raise
        whole = on_no_face == "pass through"
        then = "passed through whole, not aligned" if whole else "left out"
        return Selection(picture, size, tuple(faces), None, f"{error} The picture is {then}.", whole)
    return Selection(picture, size, tuple(faces), chosen, f"{numbered(chosen, len(faces))}: {reason}")


def numbered(index: int, count: int) -> str:
    """What a face of a picture is called. Numbers are those that a choice takes, from 0, which nobody must guess."""
    return "the only face" if count == 1 else f"face number {index} (counting from 0) of {count}"


def selection_by(
    image: Tensor,
    finder: Finder,
    choice: FaceChoice | Literal["largest"],
    *,
    name: str,
    several: str = SEVERAL,
    otherwise: str = "",
) -> Selection:
    """As `select_face`, with the choice in one value: None for the only face, its number, a box around it, or "largest"."""
    select = partial(select_face, image, finder, name=name, several=several, otherwise=otherwise)
    if choice is None or choice == "largest":
        return select(choice or HOW[0])
    if isinstance(choice, int):
        return select("by number", number=choice)
    assert not isinstance(choice, str)
    return select("by box", box=choice)


def likeness_to(embed: Callable[[Tensor, Tensor], Tensor], reference: Tensor) -> Likeness:
    """Cosine with `reference` `(D,)` in the space of `embed`, a matcher's: pictures `(1, 3, H, W)` and points `(1, 5, 2)` in,
    `(1, D)` out. Each face is cut from the picture itself, by the matcher's own template.
    """

    def compare(picture: Tensor, points: Tensor) -> Tensor:
        vectors = torch.cat([embed(picture[None], one[None]) for one in points])
        return torch.cosine_similarity(vectors, reference.to(vectors)[None])

    return compare


def choose_face(
    faces: Sequence[Face],
    choice: FaceChoice = None,
    *,
    name: str = "the picture",
    several: str = SEVERAL,
    otherwise: str = BOX_OR_WHOLE,
) -> Face:
    """The face that `choice` names: an index from 0, a box (the face that overlaps it most), or None for the
    only one.

    Raises NoFaceError for no face (or none inside the box), SeveralFacesError for several faces and no
    choice; the text lists the numbered boxes. `name` is what the picture is called in these texts, `several` what to do where
    several faces are found, `otherwise` what else can be done where none is.
    """
    if isinstance(choice, Sequence) and not isinstance(choice, str):
        box = check_box(choice, name)
        best = max(faces, key=lambda face: overlap(face.box, box), default=None)
        if best is None or overlap(best.box, box) <= 0:
            raise NoFaceError(
                f"{name}: no face was found in the box {box_text(box)}. Found: {listed(faces)}."
            )
        return best
    if not faces:
        raise NoFaceError(
            f"{name}: no face was found. Give a sharper or larger picture of the face{otherwise}."
        )
    if choice is None:
        if len(faces) > 1:
            raise SeveralFacesError(
                f"{name}: {len(faces)} faces were found, one is wanted. {several}: {listed(faces)}."
            )
        return faces[0]
    if isinstance(choice, bool) or not isinstance(choice, int):
        raise InputError(
            f"{name}: a face is chosen by a number, a box (x0,y0,x1,y1) or 'whole'; this is {choice!r}"
        )
    if not 0 <= choice < len(faces):
        raise NoFaceError(f"{name}: there is no face number {choice}. Found: {listed(faces)}.")
    return faces[choice]


def portrait_of(
    image: Tensor,
    finder: Finder,
    choice: FaceChoice = None,
    *,
    size: int = PORTRAIT_SIDE,
    name: str = "the picture",
) -> Tensor:
    """Portrait `(3, size, size)` of the chosen face of a picture `(3, H, W)`. Errors as `choose_face`.

    A box in which the finder sees no face is an error here; `portrait_in_box` takes a box at its word.
    """
    face = choose_face(finder.find_faces(image), choice, name=name)
    return align(image[None], face.points[None], size)[0]


def portrait_in_box(image: Tensor, box: Sequence[float], size: int = PORTRAIT_SIDE) -> Tensor:
    """Portrait `(3, size, size)` of an upright face that fills `box` in a picture `(3, H, W)`; nothing is
    searched. Raises InputError for a box without an area.
    """
    box = check_box(box)
    points = points_of(box)
    check_points(points, f"the box {box_text(box)}")
    matrix = similarity_from_points(points, canonical_points(size))
    return warp_antialiased(image[None], matrix, size)[0]


def _chosen(
    image: Tensor,
    faces: Sequence[Face],
    how: str,
    number: int,
    box: Sequence[float] | None,
    likeness: Likeness | None,
    choose: partial[Face],
) -> tuple[int, str]:
    name = choose.keywords["name"]
    if how == "largest":
        choose(0)  # says where there is none
        best = max(range(len(faces)), key=lambda i: area(faces[i].box))
        return best, f"the largest, {_size_text(faces[best].box)}"
    if how == "nearest":
        if likeness is None:
            raise InputError(f"{name}: to choose the nearest face, say to whom: a matcher and an embedding")
        choose(0)
        points = torch.stack([face.points for face in faces])
        with torch.no_grad():
            cosines = likeness(image, points).tolist()
        best = max(range(len(faces)), key=cosines.__getitem__)
        others = ", ".join(f"{c:.2f}" for i, c in enumerate(cosines) if i != best)
        return best, f"cosine {cosines[best]:.2f} with the reference" + (
            f" (others: {others})" if others else ""
        )
    if how == "by box" and box is None:
        raise InputError(f"{name}: to choose by box, give a box x0,y0,x1,y1 around the face")
    if how == "by box" and box is not None and len(box) == 0:
        raise NoFaceError(f"{name}: no box was given for this picture.")
    choices: dict[str, FaceChoice] = {"the only one": None, "by number": number, "by box": box}
    if how not in choices:
        raise InputError(f"{name}: a face is chosen by one of {', '.join(HOW)}; this is {how!r}")
    face = choose(choices[how])
    reasons = {"by number": "as asked, ", "by box": f"overlaps the box by {_share(face.box, box):.0%}, "}
    index = next(i for i, one in enumerate(faces) if one is face)
    return index, f"{reasons.get(how, '')}{_size_text(face.box)}"


def _share(found: Box, wanted: Sequence[float] | None) -> float:
    return 0.0 if wanted is None else overlap(found, check_box(wanted))


def _size_text(box: Box) -> str:
    return f"{box[2] - box[0]:.0f} x {box[3] - box[1]:.0f} px"
