"""The portrait renderer: same numbers, same picture; masks and points lie where the face is."""

from __future__ import annotations

import pytest
import torch

from identiface_core.parts import MASK_CHANNELS
from identiface_core.synthesis.identity import (
    NUISANCE,
    PARAMETERS,
    RENDERER_VERSION,
    canonical_nuisance,
    index,
    sample_identities,
    sample_nuisance,
)
from identiface_core.synthesis.portrait import Portrait, draw_sketch, render


@pytest.fixture(scope="module")
def people() -> torch.Tensor:
    return sample_identities(6, 11)


@pytest.fixture(scope="module")
def canonical(people: torch.Tensor) -> Portrait:
    return render(people, canonical_nuisance(6))


def test_person_k_does_not_depend_on_how_many_are_drawn() -> None:
    assert torch.equal(sample_identities(3, 5), sample_identities(40, 5)[:3])
    assert torch.equal(sample_nuisance(3, 5), sample_nuisance(40, 5)[:3])
    assert not torch.equal(sample_identities(3, 5), sample_identities(3, 6))
    assert sample_identities(2, 0).shape == (2, len(PARAMETERS)) and sample_nuisance(2, 0).shape == (
        2,
        len(NUISANCE),
    )


def test_drawing_people_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    render(sample_identities(1, 0), sample_nuisance(1, 0), 32)
    assert torch.equal(state, torch.random.get_rng_state())


def test_shapes_ranges_and_finiteness(canonical: Portrait) -> None:
    assert canonical.image.shape == (6, 3, 128, 128) and canonical.points.shape == (6, 5, 2)
    assert canonical.masks.shape == (6, len(MASK_CHANNELS), 128, 128)
    for values in (canonical.image, canonical.masks):
        assert torch.isfinite(values).all() and values.min() >= 0 and values.max() <= 1


def test_a_picture_does_not_depend_on_its_batch(people: torch.Tensor) -> None:
    views = sample_nuisance(6, 3)
    together = render(people, views)
    for k in (0, 5):
        alone = render(people[k : k + 1], views[k : k + 1])
        assert (alone.image[0] - together.image[k]).abs().max() < 1e-5
        assert (alone.masks[0] - together.masks[k]).abs().max() < 1e-5
        assert (alone.points[0] - together.points[k]).abs().max() < 1e-3


def test_masks_share_each_pixel(canonical: Portrait) -> None:
    assert (canonical.masks.sum(1) - 1).abs().max() < 1e-4
    share = dict(zip(MASK_CHANNELS, canonical.masks.mean((0, 2, 3)).tolist(), strict=True))
    assert 0.12 < share["skin"] < 0.45 and 0.3 < share["background"] < 0.75 and 0.03 < share["hair"] < 0.35
    assert all(0.001 < share[part] < 0.06 for part in ("eyes", "brows", "nose", "mouth"))


@pytest.mark.parametrize("size", [64, 128])
def test_points_lie_in_their_masks(size: int) -> None:
    identity = sample_identities(16, 4)
    for name in ("glasses", "fringe"):  # frames and fringes may cover an eye, and should
        identity[:, index(name)] = -1.0
    identity[:, index("hair_length")] = 0.1
    for nuisance in (canonical_nuisance(16), sample_nuisance(16, 2)):
        nuisance[:, [p.name for p in NUISANCE].index("blink")] = -1.0
        portrait = render(identity, nuisance, size)
        for point, part in ((0, "eyes"), (1, "eyes"), (2, "nose"), (3, "mouth"), (4, "mouth")):
            near = torch.nn.functional.max_pool2d(
                portrait.masks[:, MASK_CHANNELS.index(part)][:, None], 3, 1, 1
            )[:, 0]
            x, y = portrait.points[:, point].long().unbind(-1)
            inside = near[torch.arange(16), y, x] > 0.3
            # A far mouth corner can be hidden behind the cheek at the largest yaw.
            assert inside.float().mean() >= (0.99 if point < 3 else 0.85), (part, point, inside)


def test_points_keep_their_left_and_right(people: torch.Tensor) -> None:
    points = render(people, sample_nuisance(6, 8)).points
    assert (points[:, 0, 0] < points[:, 1, 0]).all() and (points[:, 3, 0] < points[:, 4, 0]).all()
    assert (points[:, 2, 1] > points[:, :2, 1].mean(1)).all() and (
        points[:, 3:, 1].mean(1) > points[:, 2, 1]
    ).all()


def test_two_people_differ_more_than_two_views_of_noise(canonical: Portrait) -> None:
    apart = (canonical.image[:, None] - canonical.image[None]).abs().mean((2, 3, 4))
    assert apart[~torch.eye(6, dtype=torch.bool)].min() > 0.01


def test_canonical_view_is_nearly_symmetric(canonical: Portrait) -> None:
    assert (canonical.image - canonical.image.flip(-1)).abs().mean() < 0.05
    middle = canonical.points[:, :2, 0].mean(1)
    assert (middle - 64).abs().max() < 0.5


def test_sketch_is_dark_lines_on_paper(people: torch.Tensor) -> None:
    sketch = draw_sketch(people)
    assert sketch.shape == (6, 1, 128, 128) and sketch.min() >= 0 and sketch.max() <= 1
    assert sketch[:, :, :4].mean() > 0.95 and 0.01 < (sketch < 0.4).float().mean() < 0.25


def test_pictures_of_a_seed_are_frozen() -> None:
    """Every network is trained on these pictures: a change needs a new RENDERER_VERSION and weights."""
    identity = sample_identities(4, 2605)
    image = render(identity, sample_nuisance(4, 502)).image.mean((2, 3))
    stored = torch.tensor(
        [
            [0.4520, 0.4223, 0.3859],
            [0.6022, 0.5508, 0.5513],
            [0.2387, 0.2223, 0.1950],
            [0.5838, 0.5735, 0.5738],
        ]
    )
    assert RENDERER_VERSION == 1
    assert (image - stored).abs().max() < 2e-3
    sketch = draw_sketch(identity).mean((1, 2, 3))
    assert (sketch - torch.tensor([0.9506, 0.9314, 0.8281, 0.8453])).abs().max() < 2e-3


def test_wrong_widths_are_refused(people: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=str(len(PARAMETERS))):
        render(people[:, :-1], canonical_nuisance(6))
    with pytest.raises(ValueError, match="one view per person"):
        render(people, canonical_nuisance(2))
