"""Sketches: cleaned from every kind of paper, and extracted from photos in the style of the drawn ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.errors import InputError
from identiface_core.evidence.sketch import clean_sketch, extract_sketch, is_inverted
from identiface_core.synthesis.identity import canonical_nuisance, sample_identities
from identiface_core.synthesis.portrait import draw_sketch, render

IDENTITIES = sample_identities(3, 78)


@pytest.fixture(scope="module")
def drawings() -> Tensor:
    return draw_sketch(IDENTITIES)


def large(drawing: Tensor) -> Tensor:
    return F.interpolate(drawing[None], (500, 500), mode="bicubic")[0].clamp(0, 1)


def away(cleaned: Tensor, drawing: Tensor) -> float:
    assert cleaned.shape == (1, 128, 128)
    assert 0 <= cleaned.min() <= cleaned.max() <= 1
    return float((cleaned - drawing).abs().mean())


def test_a_clean_sketch_stays_as_it_is(drawings: Tensor) -> None:
    for drawing in drawings:
        assert away(clean_sketch(drawing), drawing) < 0.02


@pytest.mark.parametrize(
    "kind", ["coloured paper", "white on black", "blue pen", "pencil", "underexposed", "lamp"]
)
def test_paper_pen_and_light(drawings: Tensor, kind: str) -> None:
    page = large(drawings[0]).expand(3, -1, -1)
    tint = torch.tensor([0.95, 0.85, 0.6])[:, None, None]
    slope = torch.linspace(0.5, 1, 500)
    made = {
        "coloured paper": page * tint,
        "white on black": 1 - page,
        "blue pen": 1 - (1 - page) * torch.tensor([0.9, 0.6, 0.1])[:, None, None],
        "pencil": 1 - 0.3 * (1 - page),
        "underexposed": 0.35 * page,
        "lamp": page * slope,
    }[kind]
    assert is_inverted(made) == (kind == "white on black")
    assert away(clean_sketch(made), drawings[0]) < 0.04
    assert clean_sketch(made)[0, 2:20, 2:20].min() > 0.95  # blank paper is blank


def test_wide_margins_are_cropped(drawings: Tensor) -> None:
    page = torch.full((1, 1400, 1000), 0.9)
    page[:, 300:800, 150:650] = 0.9 * large(drawings[0])
    rows = (clean_sketch(page)[0] < 0.5).any(1).nonzero()
    assert int(rows.max() - rows.min()) > 90  # 45 without cropping


def test_a_picture_that_is_not_square_is_padded(drawings: Tensor) -> None:
    cleaned = clean_sketch(large(drawings[0])[:, :, 90:410])
    assert cleaned[0, :, :15].min() > 0.95
    assert cleaned[0, :, -15:].min() > 0.95


@pytest.mark.parametrize("kind", ["white", "grey", "noise", "ramp", "dot", "black"])
def test_empty_sketch_says_how_much_ink_was_found(kind: str) -> None:
    page = torch.ones(3, 200, 200)
    if kind == "grey":
        page = page * 0.3
    elif kind == "black":
        page = page * 0
    elif kind == "noise":
        page = (0.8 + 0.03 * torch.randn(page.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    elif kind == "ramp":
        page = torch.linspace(0.5, 0.9, 200).expand(3, 200, -1)
    elif kind == "dot":
        page[:, 100:106, 100:106] = 0
    with pytest.raises(InputError, match=r"drawing\.png.*empty.*%.*0\.4%") as caught:
        clean_sketch(page, name="drawing.png")
    assert ("darker pen" in str(caught.value)) == (kind not in ("grey", "black")), (
        "nothing is darker than black"
    )


@pytest.mark.parametrize("size", [(1, 1), (3, 400)])
def test_too_small(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="too small"):
        clean_sketch(torch.zeros(3, *size))


def test_extracted_sketch_is_like_the_drawn_one(drawings: Tensor) -> None:
    photos = render(IDENTITIES, canonical_nuisance(3)).image
    extracted = torch.stack([extract_sketch(p) for p in photos])
    assert extracted.shape == (3, 1, 128, 128)
    distance = torch.cdist(F.avg_pool2d(extracted, 2).flatten(1), F.avg_pool2d(drawings, 2).flatten(1))
    assert distance.argmin(1).tolist() == [0, 1, 2]  # each is nearest to the drawing of its own person
    assert float((extracted - drawings).abs().mean()) < 0.08


def test_extracting_from_any_shape() -> None:
    assert extract_sketch(torch.rand(3, 40, 300)).shape == (1, 128, 128)
    assert extract_sketch(torch.full((1, 10, 10), 0.5)).min() > 0.99
