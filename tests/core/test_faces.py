"""Alignment (differentiable), finder (values, choices, targets) and segmenter (masks of the parts)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from identiface_core.errors import InputError, NoFaceError, SeveralFacesError
from identiface_core.faces.alignment import (
    CANONICAL_POINTS,
    align,
    apply_matrix,
    invert_similarity,
    similarity_from_points,
    warp,
)
from identiface_core.faces.base import Face, box_of, overlap, points_of
from identiface_core.faces.choice import choose_face, portrait_in_box
from identiface_core.faces.finder import UNIT_SIDE, FaceFinder, decode
from identiface_core.faces.segmenter import PartSegmenter, latent_mask, part_mask, part_template
from identiface_core.parts import MASK_CHANNELS, PARTS
from identiface_core.synthesis.identity import canonical_nuisance, sample_identities, sample_nuisance
from identiface_core.synthesis.portrait import Portrait, render


@pytest.fixture(scope="module")
def people() -> Portrait:
    return render(sample_identities(6, 79), canonical_nuisance(6))


@pytest.fixture(scope="module")
def world(people: Portrait) -> Any:
    """As much of a training world as the stages read: six people, one view each."""
    views = render(sample_identities(6, 79), sample_nuisance(6, 80))

    def arrays(p: Portrait, *lead: int) -> tuple[Any, Any, Any]:
        image, label = (p.image * 255).to(torch.uint8), p.masks.argmax(1).to(torch.uint8)
        return tuple(t.reshape(*lead, *t.shape[1:]).numpy() for t in (image, label, p.points))

    front, side = arrays(people, 6), arrays(views, 6, 1)
    return SimpleNamespace(
        people=6, info=SimpleNamespace(views=1),
        canonical=front[0], canonical_labels=front[1], canonical_points=front[2],
        views=side[0], view_labels=side[1], view_points=side[2],
    )  # fmt: skip


# --- alignment


def test_canonical_points_are_the_mean_of_the_drawn_people(people: Portrait) -> None:
    # Six people: the standard error of the lowest points is 1.4 px.
    assert (people.points.mean(0) - CANONICAL_POINTS).abs().max() < 4


def test_similarity_recovers_a_known_one() -> None:
    angle, scale, shift = torch.tensor(0.3), 1.7, torch.tensor([5.0, -2.0])
    turn = scale * torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    matrix = similarity_from_points(CANONICAL_POINTS, CANONICAL_POINTS @ turn.T + shift)
    assert torch.allclose(matrix[0], torch.cat([turn, shift[:, None]], 1), atol=1e-4)
    back = apply_matrix(invert_similarity(matrix), apply_matrix(matrix, CANONICAL_POINTS[None]))
    assert torch.allclose(back[0], CANONICAL_POINTS, atol=1e-4)


def test_similarity_is_the_least_squares_one() -> None:
    generator = torch.Generator().manual_seed(0)
    points, target = torch.randn(2, 5, 2, generator=generator, dtype=torch.float64), CANONICAL_POINTS.double()
    matrix = similarity_from_points(points, target)

    def error(m: Tensor) -> Tensor:
        return (apply_matrix(m, points) - target).square().sum((1, 2))

    a, b = matrix[:, 0, 0], matrix[:, 1, 0]
    for da, db, dx in ((1e-3, 0, 0), (0, 1e-3, 0), (0, 0, 1e-3), (-1e-3, 1e-3, -1e-3)):
        other = torch.stack([a + da, -(b + db), b + db, a + da], -1).reshape(2, 2, 2)
        moved = torch.cat([other, matrix[:, :, 2:] + dx], -1)
        assert (error(moved) > error(matrix)).all()


def test_no_reflection_for_mirrored_points() -> None:
    mirrored = CANONICAL_POINTS * torch.tensor([-1.0, 1.0])
    assert torch.linalg.det(similarity_from_points(mirrored, CANONICAL_POINTS)[:, :, :2]) >= 0


def test_coinciding_points_stay_finite() -> None:
    assert similarity_from_points(torch.ones(1, 5, 2), CANONICAL_POINTS).isfinite().all()


@pytest.mark.parametrize("points", [torch.ones(1, 5, 2) * 40, torch.full((1, 5, 2), float("nan"))])
def test_points_that_show_no_face_are_refused(points: Tensor) -> None:
    with pytest.raises(InputError, match="coincide or are not finite"):
        align(torch.rand(1, 3, 90, 100), points)


def test_places_are_worked_out_finer_than_half_precision() -> None:
    points = CANONICAL_POINTS[None] * 6 + 1000
    fine, coarse = (similarity_from_points(one, CANONICAL_POINTS) for one in (points, points.half()))
    assert coarse.dtype == torch.float32 and torch.allclose(fine, coarse, atol=0.1, rtol=0.01)
    image = torch.rand(1, 3, 40, 300).half()
    matrix = torch.tensor([[[1.0, 0, -200.25], [0, 1, 0]]])
    assert warp(image, matrix.half(), 30).dtype == torch.float16
    assert (warp(image, matrix.half(), 30) - warp(image.float(), matrix, 30)).abs().max() < 2e-3


def test_gradients_in_double_precision() -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(2, 5, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 5, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(similarity_from_points, (points, target))
    image = torch.rand(1, 2, 7, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    matrix = torch.tensor([[[0.9, 0.1, 0.33], [-0.1, 0.9, 0.71]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda i, m: warp(i, m, 5), (image, matrix))


def test_warp_keeps_pixel_centres() -> None:
    image = torch.rand(1, 3, 10, 12)
    same = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    assert torch.allclose(warp(image, same, (10, 12)), image, atol=1e-5)
    right = torch.tensor([[[1.0, 0, 2], [0, 1, 0]]])
    assert torch.allclose(warp(image, right, (10, 12))[..., 2:], image[..., :-2], atol=1e-5)
    ramp = (torch.arange(12) + 0.5).expand(1, 1, 10, -1)
    double = torch.tensor([[[2.0, 0, 0], [0, 2, 0]]])
    wanted = (torch.arange(24) + 0.5) / 2
    assert torch.allclose(warp(ramp, double, (20, 24))[0, 0, 5, 2:-2], wanted[2:-2], atol=1e-5)


def test_align_brings_points_home(people: Portrait) -> None:
    turned = torch.tensor([[[1.4, -0.3, 30.0], [0.3, 1.4, -10.0]]]).expand(6, -1, -1)
    scene = warp(people.image, turned, 260)
    again = align(scene, apply_matrix(turned, people.points))
    direct = align(people.image, people.points)
    assert (again - direct)[:, :, 20:110, 20:110].abs().mean() < 0.01


def test_align_to_few_pixels_does_not_alias() -> None:
    stripes = torch.zeros(1, 3, 256, 256)
    stripes[..., ::2] = 1
    small = align(stripes, CANONICAL_POINTS[None] * 2, 16)
    assert (small[..., 2:-2, 2:-2] - 0.5).abs().max() < 0.1


# --- finder


def test_box_and_points_belong_together() -> None:
    box = (10.0, 20.0, 68.0, 84.0)
    assert torch.allclose(torch.tensor(box_of(points_of(box))), torch.tensor(box), atol=1e-3)
    assert overlap(box, box) == pytest.approx(1)
    assert overlap(box, (200, 200, 210, 210)) == 0


def test_choosing() -> None:
    faces = [
        Face((0, 0, 10, 10), points_of((0, 0, 10, 10)), 0.9),
        Face((50, 0, 60, 10), points_of((50, 0, 60, 10)), 0.8),
    ]
    assert choose_face(faces[:1]) is faces[0]
    assert choose_face(faces, 1) is faces[1]
    assert choose_face(faces, (48, 0, 62, 12)) is faces[1]
    with pytest.raises(SeveralFacesError, match=r"a\.png: 2 faces.*0: 0,0,10,10 .*1: 50,0,60,10"):
        choose_face(faces, name="a.png")
    with pytest.raises(NoFaceError, match="number 5"):
        choose_face(faces, 5)
    with pytest.raises(NoFaceError, match="in the box"):
        choose_face(faces, (100, 100, 120, 120))
    with pytest.raises(NoFaceError, match="no face was found"):
        choose_face([])
    for bad in ((1, 2, 3), (0, 0, -1, 5), (0, 0, float("nan"), 5)):
        with pytest.raises(InputError, match="box"):
            choose_face(faces, bad)
    with pytest.raises(InputError, match="number"):
        choose_face(faces, "all")  # type: ignore[arg-type]


def test_portrait_in_box_is_the_canonical_framing(people: Portrait) -> None:
    portrait = portrait_in_box(people.image[0], box_of(CANONICAL_POINTS))
    assert (portrait - people.image[0]).abs().max() < 1e-3


@pytest.mark.parametrize("box", [(10, 10, 10, 10), (0, 0, 0.1, 0.1), (0, 0, float("nan"), 9), (9, 9, 3, 3)])
def test_a_box_without_room_for_a_face_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="box"):
        portrait_in_box(torch.rand(3, 50, 60), box)


def test_finder_takes_any_size_and_finds_nothing_untrained() -> None:
    finder = FaceFinder().eval()
    assert sum(p.numel() for p in finder.parameters()) < 400_000
    for size in ((1, 1), (5, 300), (130, 67)):
        assert finder.find_faces(torch.rand(3, *size)) == []


def test_training_scenes_decode_to_their_own_faces(world: Any) -> None:
    """Maps made from the targets give back the faces: the two conventions agree."""
    from identiface_core.training.faces import WANTED, draw_scenes, finder_targets

    images, points, state = draw_scenes(world, 8, torch.Generator().manual_seed(0))
    cells = images.shape[-1] // 8
    heat, values, known = finder_targets(points, state, cells)
    assert 0 <= images.min() <= images.max() <= 1
    assert (state == WANTED).sum() > 2
    assert known.min() >= 0
    maps = torch.cat([torch.logit(heat.clamp(1e-4, 1 - 1e-4))[:, None], values], 1)
    for b in range(8):
        faces = decode(maps[b], threshold=0.99)
        for truth in points[b][state[b] == WANTED]:
            box = box_of(truth)
            best = max(faces, key=lambda f: overlap(f.box, box))
            assert overlap(best.box, box) > 0.5  # two faces may share a cell; then the other one is found
        for face in faces:
            assert min(float((face.points - p).abs().max()) for p in points[b]) < 1e-2


def test_size_channel_is_log_side() -> None:
    maps = torch.zeros(12, 4, 4)
    maps[0] = -9
    maps[0, 1, 2] = 9
    maps[2:, 1, 2] = ((CANONICAL_POINTS - CANONICAL_POINTS.mean(0)) / 64).flatten()
    (face,) = decode(maps)
    assert face.points.mean(0).tolist() == pytest.approx([20, 12], abs=1e-3)
    assert float(face.points[1, 0] - face.points[0, 0]) == pytest.approx(25.2 * UNIT_SIDE / 64, abs=1e-3)


def test_stages_train_and_repeat(world: Any) -> None:
    from identiface_core.training.faces import finder_stage, segmenter_stage

    for make in (finder_stage, segmenter_stage):
        losses = []
        for _ in range(2):
            stage = make(world, steps=4, batch=4)
            optimiser = torch.optim.Adam(stage.modules.parameters(), 3e-3)
            for _ in range(2):
                values = stage.loss(0, torch.Generator().manual_seed(3))
                optimiser.zero_grad()
                values["loss"].backward()
                optimiser.step()
                losses.append(values["loss"].item())
        assert losses[:2] == losses[2:]
        assert losses[1] < losses[0]


# --- segmenter


def test_segmenter_gives_probabilities() -> None:
    net = PartSegmenter().eval()
    assert sum(p.numel() for p in net.parameters()) < 500_000
    with torch.no_grad():
        probabilities = net(torch.rand(2, 3, 128, 128))
    assert probabilities.shape == (2, len(MASK_CHANNELS), 128, 128)
    assert torch.allclose(probabilities.sum(1), torch.ones(2, 128, 128), atol=1e-5)


def seen(people: Portrait, part: str) -> Tensor:
    return people.masks[:, MASK_CHANNELS.index(part)][:, None]


@pytest.mark.parametrize("part", [p for p in PARTS if p not in ("overview", "beard")])
def test_mask_covers_its_part_and_stays_near(people: Portrait, part: str) -> None:
    mask = part_mask(people.masks, part)
    assert mask.shape == (6, 1, 128, 128)
    assert 0 <= mask.min() <= mask.max() <= 1
    truth = (seen(people, part) > 0.5).float()
    for m, t in zip(mask, truth, strict=True):
        if t.mean() < 0.0008:
            assert m.max() == 0
        else:
            assert (m * t).sum() > 0.95 * t.sum()
            assert part in ("skin", "hair", "glasses") or m.mean() < 0.2
    assert part_mask(people.masks, part, grow=0).sum() < mask.sum()


def test_beard_is_the_lower_face(people: Portrait) -> None:
    mask = part_mask(people.masks, "beard")
    mouth, eyes = seen(people, "mouth") > 0.5, seen(people, "eyes") > 0.5
    assert mask[mouth].mean() > 0.95
    assert mask[eyes].mean() < 0.02
    assert 0.03 < mask.mean() < 0.2


def test_a_part_that_is_not_there_is_empty(people: Portrait) -> None:
    nothing = torch.zeros_like(people.masks)
    nothing[:, MASK_CHANNELS.index("background")] = 1
    for part in PARTS:
        assert part_mask(nothing, part).max() == (1 if part == "overview" else 0)


def test_unknown_part() -> None:
    for call in (lambda: part_mask(torch.zeros(1, 9, 128, 128), "horn"), lambda: part_template("horn")):
        with pytest.raises(InputError, match="horn"):
            call()


@pytest.mark.parametrize("part", PARTS)
def test_templates_hold_the_part_of_most_people(people: Portrait, part: str) -> None:
    template = part_template(part)
    assert template.shape == (1, 1, 128, 128)
    assert 0 <= template.min() <= template.max() <= 1
    if part in MASK_CHANNELS and part not in ("hair", "skin"):
        truth = (seen(people, part) > 0.5).float()
        assert (template * truth).sum() > 0.85 * truth.sum()
    assert part == "overview" or template.mean() < 0.5


def test_latent_mask_is_the_mean_per_cell() -> None:
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 8:16, 16:20] = 1
    small = latent_mask(mask)
    assert small.shape == (1, 1, 16, 16)
    assert small[0, 0, 1, 2] == 0.5
    assert small.sum() == 0.5
