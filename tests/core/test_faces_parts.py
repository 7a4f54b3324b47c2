"""Parts of real portraits: parsing networks, points of a face, painted masks; any size, and back into the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.errors import InputError, NoFaceError, WeightsError
from identiface_core.faces.alignment import (
    CANONICAL_POINTS,
    align,
    apply_matrix,
    canonical_points,
    similarity_from_points,
    warp,
    warp_antialiased,
)
from identiface_core.faces.base import box_of
from identiface_core.faces.host_landmarks import finders_of_host, points_of_host
from identiface_core.faces.landmark_parts import LandmarkParts
from identiface_core.faces.landmarks import COUNTS, SCHEMES, five_of, parts_from_landmarks
from identiface_core.faces.outlines import convex_region, hull
from identiface_core.faces.parsing import CHANNEL, DEVIATION, MEAN, ORDERS, FaceParsingParts
from identiface_core.faces.paste import mask_to_picture, paste_back, rim
from identiface_core.faces.segmenter import PartSegmenter, part_mask, part_template
from identiface_core.faces.sources import load_parts, parts_from_masks
from identiface_core.parts import MASK_CHANNELS, PARTS
from identiface_core.synthesis.identity import canonical_nuisance, sample_identities
from identiface_core.synthesis.portrait import Portrait, render
from identiface_core.weights.files import save_module
from tests.core import onnx_fakes as fakes


@pytest.fixture(scope="module")
def people() -> Portrait:
    return render(sample_identities(6, 79), canonical_nuisance(6))


def channel(probabilities: Tensor, part: str) -> Tensor:
    return probabilities[:, MASK_CHANNELS.index(part)]


# --- any size


@pytest.mark.parametrize("size", [64, 256])
def test_masks_of_any_size_are_those_of_128_enlarged(people: Portrait, size: int) -> None:
    small = people.masks[:2]
    large = F.interpolate(small, (size, size), mode="bilinear")
    for part in PARTS:
        pairs = [
            (part_mask(large, part), part_mask(small, part)),
            (part_template(part, size), part_template(part)),
        ]
        for mask, wanted in pairs:
            assert mask.shape[-1] == size
            difference = F.interpolate(mask, (128, 128), mode="area" if size > 128 else "bilinear") - wanted
            assert difference.abs().mean() < 0.03, part


def test_segmenter_answers_at_the_size_of_the_portrait(people: Portrait) -> None:
    net = PartSegmenter().eval()
    with torch.no_grad():
        small = net(people.image[:2])
        large = net(F.interpolate(people.image[:2], (384, 384), mode="bicubic", antialias=True).clamp(0, 1))
    assert large.shape == (2, 9, 384, 384)
    assert (F.interpolate(large, (128, 128), mode="area") - small).abs().max() < 0.05


# --- outlines


def test_hull_keeps_the_corners_alone() -> None:
    points = torch.tensor([[0.0, 0], [4, 0], [4, 4], [0, 4], [2, 2], [2, 0], [1, 3]])
    assert {tuple(corner) for corner in hull(points).tolist()} == {(0, 0), (4, 0), (4, 4), (0, 4)}
    assert len(hull(torch.tensor([[0.0, 0], [1, 1], [2, 2]]))) == 2
    assert hull(torch.ones(4, 2)).tolist() == [[1, 1]]


def test_region_has_its_area_and_grows() -> None:
    square = torch.tensor([[20.0, 30], [60, 30], [60, 90], [20, 90]])
    region = convex_region(square, 128)
    assert float(region.sum()) == pytest.approx(40 * 60, rel=0.01)
    assert region[31:89, 21:59].min() == 1 and region[:29].max() == 0
    assert float(convex_region(square, 128, 5).sum()) == pytest.approx(50 * 70, rel=0.02)
    line = torch.tensor([[20.0, 64], [60, 64], [40, 64]])
    assert float(convex_region(line, 128, 3).sum()) == pytest.approx(40 * 6 + np.pi * 9, rel=0.05)
    assert float(convex_region(square * 4, 512).sum()) == pytest.approx(16 * 40 * 60, rel=0.01)


# --- points


def drawn(count: int, size: int = 128) -> Tensor:
    """A plain face with the points of a numbering where it wants them, in pixels of a portrait of `size` px."""
    if count == 5:
        return CANONICAL_POINTS * size / 128
    scheme = SCHEMES[count]
    points = torch.full((count, 2), 64.0)

    def ring(indices: tuple[int, ...], cx: float, cy: float, rx: float, ry: float, span: float = 2.0) -> None:
        turn = torch.linspace(0, 1, len(indices) + (span == 2.0))[: len(indices)] * torch.pi * span
        place = torch.stack([cx - rx * turn.cos(), cy + ry * turn.sin()], -1)
        points[list(indices)] = place

    ring(scheme.outline, 64, 58 if not scheme.forehead else 69, 31, 46 if not scheme.forehead else 38,
         1.0 if not scheme.forehead else 2.0)  # fmt: skip
    for side, x in ((0, 51.4), (1, 76.6)):
        ring(scheme.brows[side], x, 49.5, 9, 2)
        ring(scheme.eyes[side], x, 57.5, 6.5, 3)
    ring(scheme.nose, 64, 66, 6.5, 10)
    ring(scheme.mouth, 64, 84.6, 10, 4.5)
    points[list(scheme.tip)] = torch.tensor([64.0, 72.5])
    points[list(scheme.corners)] = torch.tensor([[54.3, 84.6], [73.7, 84.6]])
    return points * size / 128


@pytest.mark.parametrize("count", COUNTS)
def test_points_become_the_parts_they_lie_on(count: int) -> None:
    parts = parts_from_landmarks(drawn(count), 128)
    assert parts.shape == (1, 9, 128, 128)
    assert torch.allclose(parts.sum(1), torch.ones(1, 128, 128), atol=1e-5)
    at = {
        "eyes": [(51, 57), (77, 57)],
        "brows": [(51, 49), (77, 49)],
        "nose": [(64, 68)],
        "mouth": [(64, 85)],
        "skin": [(64, 98), (45, 72), (83, 72), (64, 42)],
        "hair": [(64, 15), (30, 30), (98, 30)],
        "ears": [(28, 62), (100, 62)],
        "background": [(4, 4), (123, 123), (64, 125), (5, 110)],
    }
    for part, places in at.items():
        for x, y in places:
            assert channel(parts, part)[0, y, x] > 0.9, (part, x, y)
    assert channel(parts, "glasses").max() == 0, "points cannot tell"
    for part in ("eyes", "brows", "nose", "mouth"):
        assert 0.002 < channel(parts, part).mean() < 0.04, part


@pytest.mark.parametrize("count", COUNTS)
def test_a_turned_or_larger_face_has_the_same_parts(count: int) -> None:
    straight = parts_from_landmarks(drawn(count), 128)
    angle = torch.tensor(0.35)
    turn = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    moved = (drawn(count) - 64) @ turn.T + 64
    back = torch.cat([turn.T, (torch.tensor([64.0, 64]) - turn.T @ torch.tensor([64.0, 64]))[:, None]], 1)
    again = warp(parts_from_landmarks(moved, 128), back[None], 128)
    inner = slice(24, 104)
    assert (again - straight)[..., inner, inner].abs().mean() < 0.02
    large = parts_from_landmarks(drawn(count, 512), 512)
    assert (F.interpolate(large, (128, 128), mode="area") - straight).abs().mean() < 0.005


def test_five_points_fit_the_drawn_people(people: Portrait) -> None:
    parts = parts_from_landmarks(people.points, 128)
    truth = people.masks
    for part, least in (("eyes", 0.7), ("nose", 0.6), ("mouth", 0.7), ("brows", 0.5)):
        mask, there = part_mask(parts, part)[:, 0], channel(truth, part)
        visible = there.sum((1, 2)) > 10
        held = ((mask * there).sum((1, 2)) / there.sum((1, 2)).clamp_min(1))[visible]
        assert held.mean() > least, (part, held)


def test_five_points_come_out_of_any_numbering() -> None:
    for count in COUNTS:
        assert (five_of(drawn(count)) - CANONICAL_POINTS).abs().max() < 1.5, count


def test_other_points_are_refused() -> None:
    with pytest.raises(InputError, match=r"5, 68, 106, 468, 478 are wanted, these are \(1, 17, 2\)"):
        parts_from_landmarks(torch.rand(17, 2), 128)
    with pytest.raises(InputError, match="the eyes coincide"):
        parts_from_landmarks(torch.ones(68, 2), 128)
    with pytest.raises(InputError, match="not finite"):
        parts_from_landmarks(torch.full((5, 2), torch.nan), 128)


def host_value(*frames: list[Tensor], size: tuple[int, int] = (256, 256)) -> dict[str, object]:
    return {
        "frames": [[{"landmarks_xy": one.numpy()} for one in faces] for faces in frames],
        "image_size": size,
        "connection_sets": {},
    }


def test_landmarks_of_the_host_are_read() -> None:
    points = drawn(478, 256)
    far = points * 0.2
    found = points_of_host(host_value([far, points], [points]), 2, 128)
    assert torch.allclose(found, drawn(478).expand(2, -1, -1), atol=1e-3)
    with pytest.raises(NoFaceError, match="picture 1"):
        points_of_host(host_value([points], []), 2, 128)
    with pytest.raises(InputError, match="of 1 pictures, these are 2"):
        points_of_host(host_value([points]), 2, 128)
    with pytest.raises(InputError, match="these are 7"):
        points_of_host(host_value([points[:7]]), 1, 128)
    for bad in ({}, [1, 2], {"frames": []}):
        with pytest.raises(InputError, match="FACE_LANDMARKS"):
            points_of_host(bad, 1, 128)


@pytest.mark.parametrize("count", COUNTS)
def test_landmarks_of_the_host_are_faces(count: int) -> None:
    """In pixels of a picture that is larger than the one they were found on, by another factor each way."""
    near, far = drawn(count, 256), drawn(count, 256) * 0.2 + 9
    finders = finders_of_host(host_value([far, near], [], size=(256, 512)), 2, (512, 1536))
    assert [len(one.find_faces(torch.zeros(3, 1, 1))) for one in finders] == [2, 0]
    face = finders[0].find_faces(torch.zeros(3, 1, 1))[1]
    assert torch.allclose(face.points, five_of(near) * torch.tensor([3.0, 2.0]), atol=1e-3)
    assert face.box == box_of(face.points) and face.score == 1
    with pytest.raises(InputError, match="of 1 pictures, these are 2"):
        finders_of_host(host_value([near]), 2, (256, 256))
    with pytest.raises(InputError, match="picture 0: .*coincide"):
        finders_of_host(host_value([near * 0]), 1, (256, 256))


@pytest.mark.parametrize(("count", "dimensions"), [(106, 2), (68, 3)])
def test_landmark_networks_speak_of_their_crop(tmp_path: Path, count: int, dimensions: int) -> None:
    """Planted coordinates come back in pixels of the portrait, also of a larger one."""
    wanted = drawn(count)
    crop = (
        wanted - torch.tensor([64.0, 70.0])
    ) / 48  # a square of 96 px around the face's box becomes [-1, 1]
    values = torch.zeros(1103 if dimensions == 3 else count, dimensions)
    values[-count:, :2] = crop
    shape = (1, 3, 192, 192)
    path = fakes.constant(tmp_path / "f", {"fc1": values.reshape(1, -1).numpy()}, name="data", shape=shape)
    source = load_parts(path)
    assert isinstance(source, LandmarkParts) and source.count == count
    assert torch.allclose(source.points(torch.rand(2, 3, 128, 128))[1], wanted, atol=1e-2)
    assert torch.allclose(source.points(torch.rand(1, 3, 512, 512))[0], wanted * 4, atol=4e-2)
    assert torch.allclose(source(torch.rand(1, 3, 128, 128)), parts_from_landmarks(wanted, 128), atol=1e-2)


# --- parsing networks


def painted(order: str) -> tuple[Tensor, np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """A portrait of 19 stripes in 19 colours, (1, 3, 190, 190), and those colours as a network sees them."""
    levels = np.array([(i % 3, i // 3 % 3, i // 9) for i in range(19)]) / 2.0
    stripes = torch.from_numpy(levels).float().T[:, None, :].repeat_interleave(10, 2).expand(3, 190, 190)
    return stripes[None], (levels - np.array(MEAN)) / np.array(DEVIATION)


@pytest.mark.parametrize(("order", "name"), [("bisenet", "input"), ("celebamask", "pixel_values")])
def test_each_class_goes_to_its_channel(tmp_path: Path, order: str, name: str) -> None:
    portrait, colours = painted(order)
    source = load_parts(fakes.colour_parser(tmp_path / "f", colours, name=name, size=(190, 190)))
    assert isinstance(source, FaceParsingParts) and source.order == order
    parts = source(portrait)
    assert parts.shape == (1, 9, 190, 190)
    assert torch.allclose(parts.sum(1), torch.ones(1, 190, 190), atol=1e-4)
    for number, label in enumerate(ORDERS[order]):
        assert channel(parts, CHANNEL[label])[0, 50, 10 * number + 5] > 0.99, (number, label)


def test_parsing_runs_at_its_own_size_for_portraits_of_any(tmp_path: Path) -> None:
    portrait, colours = painted("bisenet")
    source = FaceParsingParts(fakes.colour_parser(tmp_path / "f", colours, size=("h", "w")))
    assert (source.height, source.width) == (512, 512)
    parts = source(portrait.expand(2, -1, -1, -1))
    assert parts.shape == (2, 9, 190, 190) and torch.equal(parts[0], parts[1])


def test_orders_name_the_same_19_classes() -> None:
    assert set(ORDERS["bisenet"]) == set(ORDERS["celebamask"]) == set(CHANNEL)
    assert set(CHANNEL.values()) == set(MASK_CHANNELS)


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    path = fakes.colour_parser(tmp_path / "f", np.eye(11, 3))
    with pytest.raises(WeightsError, match="19 classes of CelebAMask-HQ, this network gives 11"):
        load_parts(path)


def test_sources_are_loaded_by_content(tmp_path: Path) -> None:
    save_module(tmp_path / "own", PartSegmenter())
    assert isinstance(load_parts(tmp_path / "own"), PartSegmenter)
    with pytest.raises(WeightsError, match=r"Load Face Parts needs .*; this is a face detector \(YuNet\)"):
        load_parts(fakes.constant(tmp_path / "f", fakes.yunet_outputs(64)), "Load Face Parts")


# --- painted masks


def test_painted_masks_are_parts() -> None:
    hair, skin = torch.zeros(2, 100, 100), torch.zeros(2, 100, 100)
    hair[:, :60], skin[:, 40:] = 1, 1
    parts = parts_from_masks({"skin": skin, "hair": hair})
    assert parts.shape == (2, 9, 100, 100)
    assert torch.equal(parts.sum(1), torch.ones(2, 100, 100))
    assert torch.equal(channel(parts, "skin"), skin), "skin lies in front"
    assert channel(parts, "hair")[:, :40].min() == 1 and channel(parts, "hair")[:, 40:].max() == 0
    assert part_mask(parts, "hair", grow=0)[:, 0, 5:30].min() > 0.99
    assert parts_from_masks({"eyes": torch.ones(8, 8)}).shape == (1, 9, 8, 8)


def test_impossible_masks_are_refused() -> None:
    with pytest.raises(InputError, match="one or more of hair, .* these are none"):
        parts_from_masks({})
    with pytest.raises(InputError, match="these are background, beard"):
        parts_from_masks({"beard": torch.ones(4, 4), "background": torch.ones(4, 4)})
    with pytest.raises(InputError, match="one size"):
        parts_from_masks({"eyes": torch.ones(4, 4), "nose": torch.ones(5, 5)})


# --- back into the picture

PLACE = torch.tensor([[[1.7, -0.4, 60.0], [0.4, 1.7, 20.0]]])


def scene(people: Portrait) -> tuple[Tensor, Tensor]:
    """A picture (3, 300, 420) with a turned face in it, and the similarity to its portrait of 256 px."""
    picture = warp(people.image[:1], PLACE, (300, 420))[0]
    points = apply_matrix(PLACE, people.points[:1])
    return picture, similarity_from_points(points, canonical_points(256))


def test_a_mask_goes_back_to_where_it_was_seen(people: Portrait) -> None:
    picture, matrix = scene(people)
    mask = torch.zeros(1, 1, 256, 256)
    mask[..., 160:180, 100:156] = 1
    there = mask_to_picture(mask, matrix, (300, 420))
    assert there.shape == (1, 1, 300, 420) and 0 <= there.min() <= there.max() <= 1
    scale = float(matrix[0, :, 0].norm())
    assert float(there.sum()) == pytest.approx(20 * 56 / scale**2, rel=0.02)
    again = warp_antialiased(there, matrix, 256, padding="zeros")
    assert (again - mask).abs().mean() < 0.01


def test_pasting_the_portrait_back_changes_next_to_nothing(people: Portrait) -> None:
    picture, _ = scene(people)
    points = apply_matrix(PLACE, people.points[:1])
    portrait = align(picture[None], points, 512)[0]
    matrix = similarity_from_points(points, canonical_points(512))
    again = paste_back(picture, portrait, matrix)
    assert (again - picture).abs().mean() < 0.002
    other = paste_back(picture, 1 - portrait, matrix)
    outside = mask_to_picture(torch.ones(1, 1, 512, 512), matrix, (300, 420))[0] == 0
    assert bool(outside.any()) and torch.equal(other[:, outside[0]], picture[:, outside[0]])
    x, y = points[0, 2].round().long().tolist()
    assert (other[:, y, x] - (1 - picture[:, y, x])).abs().max() < 0.1


def test_a_mask_says_what_is_pasted(people: Portrait) -> None:
    picture, matrix = scene(people)
    mask = torch.zeros(64, 64)
    assert torch.equal(paste_back(picture, torch.ones(3, 256, 256), matrix, mask), picture)
    mask[40:48, 24:40] = 1
    changed = (paste_back(picture, torch.ones(3, 256, 256), matrix, mask) - picture).abs().amax(0) > 1e-6
    assert 0 < float(changed.float().mean()) < 0.1


def test_rim_is_soft_and_symmetric() -> None:
    weight = rim(100)[0]
    assert weight[50, 50] == 1 and weight[0].max() < 0.02
    assert torch.allclose(weight, weight.flip(0)) and torch.allclose(weight, weight.mT)
