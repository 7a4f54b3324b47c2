"""LQ photos: the published simple model value by value, the camera model, and preparing what users have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from identiface_core.errors import InputError, NoFaceError, SeveralFacesError
from identiface_core.evidence.camera import simulate_camera
from identiface_core.evidence.lq import (
    enlarge,
    parse_size,
    prepare_lq,
    recognisability,
    simulate_simple,
)
from identiface_core.evidence.values import Evidence
from identiface_core.faces.alignment import CANONICAL_POINTS
from identiface_core.faces.base import Face, box_of
from identiface_core.faces.finder import FaceFinder
from identiface_core.imaging import from_uint8, resize
from identiface_core.synthesis.identity import canonical_nuisance, sample_identities
from identiface_core.synthesis.portrait import render

REFERENCE = Path(__file__).parent / "data" / "reference" / "lq-simple-reference.safetensors"


class KnownFaces(FaceFinder):
    """A finder that sees what it is told."""

    def __init__(self, *points: Tensor) -> None:
        super().__init__()
        self.known = [Face(box_of(p), p, 0.9 - 0.1 * i) for i, p in enumerate(points)]

    def find_faces(self, image: Tensor, *, threshold: float = 0.5) -> list[Face]:
        return self.known


@pytest.fixture(scope="module")
def portraits() -> Tensor:
    return render(sample_identities(4, 77), canonical_nuisance(4)).image


def levels(image: Tensor) -> Tensor:
    return (image * 255).round().permute(1, 2, 0).int()


@pytest.mark.parametrize("size", ["8", "16x12", "32"])
def test_simple_lq_agrees_with_the_released_code(size: str) -> None:
    reference = load_file(REFERENCE)
    width, height = parse_size(size)
    picture = from_uint8(reference["input_uint8_hwc"].permute(2, 0, 1))
    small = simulate_simple(picture, size)
    assert small.shape == (3, height, width)
    name = f"{width}x{height}"
    assert (levels(small) - reference[f"lq_{name}_uint8_hwc"].int()).abs().max() <= 1
    large = levels(enlarge(small, 256, 256))[::16]
    assert (large - reference[f"up_from_{name}_every_16th_row_uint8"].int()).abs().max() <= 1


def test_simple_lq_truncates_rather_than_rounds() -> None:
    assert levels(simulate_simple(torch.full((3, 16, 16), 99.9 / 255), "8")).unique().tolist() == [99]


@pytest.mark.parametrize("text", ["", "0", "8x", "x8", "-8", "8x0", "9999", "8.5", "a"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="WxH"):
        simulate_simple(torch.zeros(3, 8, 8), text)


def test_camera_is_reproducible_and_seeded(portraits: Tensor) -> None:
    first = simulate_camera(portraits[0], 16, seed=4)
    assert first.shape == (3, 16, 16)
    assert first.dtype == torch.float32
    assert 0 <= first.min() <= first.max() <= 1
    assert first.equal(simulate_camera(portraits[0], 16, seed=4))
    assert not first.equal(simulate_camera(portraits[0], 16, seed=5))


def test_camera_gets_worse_with_strength(portraits: Tensor) -> None:
    def error(strength: float) -> float:
        clean = resize(portraits, 16, 16)
        shot = torch.stack([simulate_camera(p, 16, strength, seed=s) for s, p in enumerate(portraits)])
        return float((shot - clean - (shot - clean).mean((2, 3), keepdim=True)).std())

    assert error(0.2) < error(1.0) < error(3.0)


@pytest.mark.parametrize(("side", "strength"), [(4, 1.0), (500, 1.0), (16, -1.0), (16, 9.0)])
def test_camera_settings_out_of_range(side: int, strength: float) -> None:
    with pytest.raises(InputError, match="this is"):
        simulate_camera(torch.zeros(3, 32, 32), side, strength)


def test_a_small_picture_is_the_cropped_face() -> None:
    lq = prepare_lq(torch.rand(3, 32, 24))
    assert lq.crop.shape == (3, 32, 32)
    assert lq.native_side == 32


def test_a_picture_taken_whole_for_its_size_alone_is_said(portraits: Tensor) -> None:
    small = resize(portraits[0], 64, 64)
    said = prepare_lq(small, name="torso.png").taken
    assert said is not None and "torso.png: taken whole" in said and "64 px" in said
    assert prepare_lq(small, "whole").taken is None, "whoever asked for it knows"
    assert prepare_lq(portraits[0], finder=KnownFaces(CANONICAL_POINTS)).taken is None


@pytest.mark.parametrize("face", [None, "whole", (4, 4, 30, 30)])
def test_a_picture_without_contrast_is_refused(face: Any) -> None:
    with pytest.raises(InputError, match=r"grey\.png: no contrast"):
        prepare_lq(torch.full((3, 40, 60), 0.5), face, name="grey.png")


def test_whole_takes_a_large_picture_as_it_is(portraits: Tensor) -> None:
    lq = prepare_lq(resize(portraits[0], 400, 400), "whole")
    assert lq.crop.shape == (3, 128, 128)
    assert lq.native_side == 400
    assert lq.warning is None


def test_found_face_comes_in_canonical_framing_at_native_size(portraits: Tensor) -> None:
    scene = torch.full((3, 200, 300), 0.5)
    scene[:, 60:108, 150:198] = resize(portraits[0], 48, 48)
    points = CANONICAL_POINTS * 48 / 128 + torch.tensor([150.0, 60.0])
    lq = prepare_lq(scene, finder=KnownFaces(points))
    assert lq.native_side == 48
    assert (lq.crop - scene[:, 60:108, 150:198]).abs().max() < 0.01
    boxed = prepare_lq(scene, box_of(points))
    assert (boxed.crop - lq.crop).abs().max() < 0.02


def test_no_face_several_faces_and_choices() -> None:
    scene = torch.rand(3, 200, 300)
    one, two = CANONICAL_POINTS * 0.5, CANONICAL_POINTS * 0.6 + 90
    with pytest.raises(NoFaceError, match=r"photo\.jpg.*whole"):
        prepare_lq(scene, finder=KnownFaces(), name="photo.jpg")
    with pytest.raises(SeveralFacesError, match=r"photo\.jpg.*0: 18,19,46,51.*1: "):
        prepare_lq(scene, finder=KnownFaces(one, two), name="photo.jpg")
    assert prepare_lq(scene, 1, KnownFaces(one, two)).native_side == 77
    with pytest.raises(NoFaceError, match="number 2"):
        prepare_lq(scene, 2, KnownFaces(one, two))
    with pytest.raises(InputError, match="box"):
        prepare_lq(scene)
    with pytest.raises(InputError, match="coincide"):
        prepare_lq(scene, finder=KnownFaces(torch.full((5, 2), 40.0)))


def test_box_that_is_none() -> None:
    with pytest.raises(InputError, match="x0 < x1"):
        prepare_lq(torch.rand(3, 200, 200), (10, 10, 5, 20))


def test_one_pixel_cannot_show_a_face() -> None:
    with pytest.raises(InputError, match=r"photo\.png: 1 x 1 px"):
        prepare_lq(torch.rand(3, 1, 1), name="photo.png")


def test_recognisability_is_the_log_of_the_effective_side(portraits: Tensor) -> None:
    def mean(pictures: Tensor) -> float:
        return sum(recognisability(p) for p in pictures) / len(pictures)

    for side in (16, 32, 64):
        expected = torch.tensor(side / 4).log2().item() / 4
        assert abs(mean(resize(portraits, side, side)) - expected) < 0.12
    small = mean(resize(portraits, 16, 16))
    assert mean(resize(resize(portraits, 16, 16), 128, 128)) < small + 0.25  # enlarging adds nothing
    noise = 0.2 * torch.randn(portraits.shape, generator=torch.Generator().manual_seed(0))
    noisy = resize((portraits + noise).clamp(0, 1), 128, 128)
    assert mean(resize(portraits, 32, 32)) > mean(resize(portraits, 32, 32) + noise[..., :32, :32])
    assert mean(noisy) <= mean(portraits)
    assert recognisability(torch.full((3, 64, 64), 0.5)) == 0.0


def test_warning_below_the_threshold(portraits: Tensor) -> None:
    lq = prepare_lq(simulate_simple(portraits[0], "8"), name="photo.png")
    assert lq.warning is not None
    assert "photo.png" in lq.warning
    assert prepare_lq(resize(portraits[0], 32, 32)).warning is None


def test_evidence_needs_one_kind_and_checks_it() -> None:
    with pytest.raises(InputError, match="no evidence"):
        Evidence()
    assert Evidence(lq=torch.rand(3, 8, 8)).kinds == ("lq",)
    assert Evidence(lq=torch.rand(3, 8, 8), sketch=torch.ones(1, 128, 128)).kinds == ("lq", "sketch")
    for bad in (
        torch.rand(1, 8, 8),
        torch.rand(3, 0, 8),
        torch.full((3, 8, 8), 2.0),
        torch.full((3, 8, 8), float("nan")),
    ):
        with pytest.raises(InputError, match="LQ photo"):
            Evidence(lq=bad)
    with pytest.raises(InputError, match="sketch"):
        Evidence(sketch=torch.ones(1, 64, 64))


def test_a_box_outside_the_picture_is_refused() -> None:
    with pytest.raises(InputError, match="outside the picture of 96 x 80 px"):
        prepare_lq(torch.rand(3, 80, 96), (500, 500, 600, 600))
