"""Matchers of real photographs: the template, the trust in a picture, networks under their public names."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.errors import InputError
from identiface_core.faces.alignment import CANONICAL_POINTS, canonical_points
from identiface_core.matchers import edgeface, residual
from identiface_core.matchers.agreement import agreement
from identiface_core.matchers.aligned import AlignedMatcher
from identiface_core.matchers.base import EmbeddedMatcher, Matcher
from identiface_core.matchers.calibration import calibrate
from identiface_core.matchers.network import FaceNet, shrink
from identiface_core.matchers.quality import fuse_references, quality_of
from identiface_core.matchers.template import ARCFACE_POINTS, cut, template
from identiface_core.matchers.template import residual as off_template

from .matcher_files import (
    DATA,
    drawn_pictures,
    drawn_weights,
    faces,
    published,
    tiny_edgeface,
    tiny_residual,
)


def matcher(**more: Any) -> AlignedMatcher:
    net = tiny_residual()
    return AlignedMatcher(net, name="tiny", dimension=64, fingerprint="0", typical=net.typical, **more)


def tilted(side: int = 160, scale: float = 2.0, angle: float = 0.2) -> Tensor:
    """Five points of a face that is turned in the plane, (1, 5, 2)."""
    turn = torch.tensor(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=torch.float32
    )
    middle = ARCFACE_POINTS.mean(0)
    return ((ARCFACE_POINTS - middle) @ turn.T * scale / 2 + side / 2)[None]


# The template


@pytest.mark.parametrize("side", [112, 128, 224])
def test_crops_are_those_of_insightface(side: int) -> None:
    align = pytest.importorskip("insightface.utils.face_align")
    picture = (faces(1, 300)[0] * 255).round()
    points = tilted(300, scale=2.2) + torch.tensor([[3.0, -8.0], [0, 0], [2, 1], [0, 0], [0, 4]])
    wanted = align.norm_crop(picture.movedim(0, -1).byte().numpy(), points[0].numpy() - 0.5, side)
    found = cut(picture[None] / 255, points, side)[0].movedim(0, -1).numpy() * 255
    assert np.abs(found - wanted.astype(np.float32)).max() < 2.5, (
        "8-bit rounding and OpenCV's 1/32 px are less"
    )
    outside = points + 200  # half of the crop lies outside of the picture: black there, as InsightFace has it
    wanted = align.norm_crop(picture.movedim(0, -1).byte().numpy(), outside[0].numpy() - 0.5, side)
    assert (wanted == 0).mean() > 0.3
    found = cut(picture[None] / 255, outside, side)[0].movedim(0, -1).numpy() * 255
    assert np.abs(found - wanted.astype(np.float32)).mean() < 0.5


def test_template_is_known_for_multiples_of_112_and_128() -> None:
    assert torch.equal(template(112), ARCFACE_POINTS)
    assert torch.allclose(template(128)[:, 0] - ARCFACE_POINTS[:, 0], torch.tensor(8.0))
    with pytest.raises(InputError, match="100 px"):
        template(100)


def test_a_portrait_and_its_points_give_one_crop() -> None:
    for side in (128, 200):
        picture = faces(2, side)
        points = canonical_points(side).expand(2, 5, 2)
        assert torch.equal(cut(picture, None), cut(picture, points))


@pytest.mark.parametrize(("side", "scale"), [(48, 0.6), (300, 2.2)], ids=["enlarged", "shrunk"])
def test_crops_carry_gradients_of_picture_and_points(side: int, scale: float) -> None:
    drawn = torch.Generator().manual_seed(1)
    picture = F.avg_pool2d(faces(1, side).double(), 9, 1, 4)
    points = tilted(side, scale=scale).double()
    probe = torch.randn(1, 3, 112, 112, generator=drawn).double()
    towards = (
        torch.randn(picture.shape, generator=drawn).double(),
        torch.randn(1, 5, 2, generator=drawn).double(),
    )

    def along(t: Tensor, u: Tensor) -> Tensor:
        # A sum over all pixels smooths the kinks that each bilinear one has.
        return (cut(picture + t * towards[0], points + u * towards[1]) * probe).sum() / 1e3

    start = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: along(s[0], s[1]), (start,), eps=1e-7, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("pictures", "points", "said"),
    [
        (torch.rand(3, 128, 128), None, "align the face first"),
        (torch.rand(1, 3, 100, 128), None, "a portrait is square"),
        (torch.rand(2, 3, 99, 128), tilted(), "five points for each of 2 pictures"),
        (torch.rand(1, 3, 99, 128), torch.full((1, 5, 2), 3.0), "coincide"),
        (torch.rand(1, 3, 99, 128), torch.full((1, 5, 2), float("nan")), "coincide"),
        (torch.rand(1, 3, 99, 128), tilted() + 5000, "outside of its picture of 128 x 99 px"),
        (torch.rand(1, 1, 128, 128), None, "1, 128, 128"),
        (torch.rand(1, 3, 0, 0), None, "0 x 0 px"),
        (torch.rand(1, 3, 99, 0), tilted(), "0 x 99 px"),
        (torch.zeros(1, 3, 128, 128, dtype=torch.uint8), None, "uint8"),
        (torch.rand(1, 3, 128, 128) * 255, None, r"in \[0, 1\], these go from"),
        (torch.rand(1, 3, 128, 128) * 2 - 1, None, "these go from -"),
        (torch.rand(1, 3, 128, 128) * float("nan"), None, "from nan to nan"),
        (torch.full((1, 3, 99, 128), float("inf")), tilted(), "to inf"),
    ],
)
def test_matchers_refuse_what_is_no_face(pictures: Tensor, points: Tensor | None, said: str) -> None:
    for one in (matcher(), EmbeddedMatcher(FaceNet(dimension=8, widths=(4, 4), blocks=(1, 1)), "e")):
        with pytest.raises(InputError, match=said):
            one.embed(pictures, points)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
def test_pictures_of_any_precision_are_read(precision: torch.dtype) -> None:
    """Half precision holds neither places of a large picture nor an inverse matrix: points stay as fine as they came."""
    picture, points = faces(1, 400), tilted(400, scale=2.5)
    coarse = picture.to(precision)
    for one in (matcher(), EmbeddedMatcher(FaceNet(dimension=8, widths=(4, 4), blocks=(1, 1)), "e")):
        for at in (points, None):
            found = one.embed(coarse, at)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, one.embed(coarse.float(), at), atol=1e-4, rtol=1e-3)
    assert matcher().embed_with_quality(coarse, points.to(precision)).quality.isfinite().all()


def test_decoders_may_overshoot_a_little() -> None:
    picture = faces(1).clamp(-0.02, 1) * 1.04 - 0.02
    assert matcher().embed(picture.requires_grad_()).requires_grad


def test_a_picture_goes_to_where_the_network_is() -> None:
    """Double precision stands for another device: nothing moves there by itself."""
    net = FaceNet(dimension=8, widths=(4, 4), blocks=(1, 1))
    far = EmbeddedMatcher(copy.deepcopy(net).double(), "far")
    near = EmbeddedMatcher(net, "near")
    for pictures, points in ((faces(2), None), (faces(2, 200), tilted(200).expand(2, 5, 2))):
        found = far.embed_with_quality(pictures, points)
        assert found.vectors.dtype == torch.float32
        torch.testing.assert_close(found.vectors, near.embed(pictures, points), atol=1e-4, rtol=1e-3)
    assert far.embed(faces(0, 200), torch.zeros(0, 5, 2)).shape == (0, 8)


# Trust


def test_alignment_residual_grows_with_a_turned_head() -> None:
    turned = ARCFACE_POINTS.clone()
    turned[2, 0] += 14  # the nose moves over the cheek, the eyes come closer
    turned[1, 0] -= 10
    both = torch.stack([ARCFACE_POINTS * 3 + 7, turned])
    near, far = off_template(both).tolist()
    assert near < 1e-5 < 0.05 < far
    trust = quality_of(torch.full((2,), 8.0), None, torch.tensor([near, far]))
    assert trust[0] > 0.999 > trust[1] > 0.5
    assert float(off_template(CANONICAL_POINTS[None])) < 0.1, (
        "the canonical frontal face is near the template"
    )


def test_short_features_are_trusted_less() -> None:
    assert quality_of(torch.tensor([0.0, 5.0, 10.0, 30.0]), 10.0, None).tolist() == [0, 0.5, 1, 1]
    assert quality_of(torch.tensor([0.1]), None, None).tolist() == [1]
    net = tiny_residual(affine=True)
    with torch.no_grad():
        net.output_layer[4].weight.fill_(3.0)
        net.output_layer[4].bias.fill_(4.0)
    assert net.typical == pytest.approx(5 * 64**0.5)
    assert tiny_residual().typical == pytest.approx(64**0.5)


def test_quality_comes_with_the_same_vectors() -> None:
    one = matcher()
    found = one.embed_with_quality(faces(3, 160), tilted().expand(3, 5, 2))
    assert torch.equal(found.vectors, one.embed(faces(3, 160), tilted().expand(3, 5, 2)))
    assert found.residuals is not None and float(found.residuals.max()) < 1e-4
    torch.testing.assert_close(found.quality, (found.norms / 8).clamp(max=1), atol=1e-4, rtol=1e-4)
    assert one.embed_with_quality(faces(2)).residuals is None
    assert one.embed(faces(0)).shape == (0, 64)


def test_references_are_fused_by_quality() -> None:
    vectors = torch.tensor([[2.0, 0, 0], [0, 5.0, 0]])
    assert torch.allclose(fuse_references(vectors), torch.tensor([0.5**0.5, 0.5**0.5, 0]))
    assert torch.allclose(fuse_references(vectors, torch.tensor([1.0, 0.0])), torch.tensor([1.0, 0, 0]))
    leaning = fuse_references(vectors, torch.tensor([0.9, 0.3]))
    assert torch.allclose(leaning, F.normalize(torch.tensor([3.0, 1.0, 0]), dim=0))
    for bad, weights, said in (
        (torch.zeros(0, 3), None, "at least one picture"),
        (vectors, torch.tensor([1.0]), "as many weights"),
        (vectors, torch.tensor([0.0, 0.0]), "not all 0"),
        (vectors, torch.tensor([float("nan"), 1.0]), "not all 0"),
        (torch.tensor([[1.0, 0], [-1, 0]]), None, "cancel out"),
        (torch.tensor([[float("nan"), 0]]), None, "not finite"),
    ):
        with pytest.raises(InputError, match=said):
            fuse_references(bad, weights)


# Networks


RESIDUAL = ("adaface-ir18", "adaface-ir50", "adaface-ir101", "iresnet18", "iresnet50")
EDGE = ("edgeface-xs", "edgeface-s", "edgeface-base")


def described(name: str, shapes: dict[str, tuple[int, ...]]) -> tuple[Any, dict[str, str]]:
    """A network without storage made of public names and shapes, and its names by theirs."""
    with torch.device("meta"):
        if name in EDGE:
            bare = {key: key.removeprefix("model.") for key in shapes}
            return edgeface.EdgeFace(**edgeface.config_of({bare[k]: s for k, s in shapes.items()})), bare
        renamed = (
            residual.insightface_names(shapes) if name.startswith("ires") else {key: key for key in shapes}
        )
        config = residual.config_of({renamed[key]: shape for key, shape in shapes.items()})
        return residual.ResidualFaceNet(**config), renamed


@pytest.mark.parametrize("name", RESIDUAL + EDGE)
def test_names_and_shapes_are_the_published_ones(name: str) -> None:
    shapes = published(name)
    net, renamed = described(name, shapes)
    ours = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    assert ours == {renamed[key]: shape for key, shape in shapes.items()}
    assert len(set(renamed.values())) == len(shapes)
    if not name.startswith("ires"):
        prefix = "model." if name in EDGE else ""
        assert {prefix + key for key in ours} == set(shapes), "under their own names"


def test_parameters_are_as_many_as_published() -> None:
    """EdgeFace's and AdaFace's own tables, in millions."""
    for name, millions in (
        ("edgeface-xs", 1.77),
        ("edgeface-s", 3.65),
        ("edgeface-base", 18.23),
        ("adaface-ir101", 65.15),
    ):
        net, _ = described(name, published(name))
        assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)


def test_cvlface_file_has_the_published_size() -> None:
    """Names, shapes and their prefix make the very number of bytes of CVLface's IR-101, header and all."""
    entries, end = {}, 0
    for key, shape in sorted(published("adaface-ir101").items()):
        counter = key.endswith("num_batches_tracked")
        size = 8 if counter else 4 * int(np.prod(shape))
        entries["model.net." + key] = (counter, shape, size)
    order = sorted(entries, key=lambda key: (not entries[key][0], key))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for key in order:
        counter, shape, size = entries[key]
        header[key] = {
            "dtype": "I64" if counter else "F32",
            "shape": shape,
            "data_offsets": [end, end + size],
        }
        end += size
    length = len(json.dumps(header, separators=(",", ":")))
    assert 8 + length + -length % 8 + end == 260_980_552


@pytest.mark.parametrize("name", RESIDUAL + EDGE)
def test_outputs_are_those_of_the_authors_network_as_onnx(name: str) -> None:
    """All 512 values of an export of the authors' own class, as onnxruntime answered them; see the README beside them."""
    shapes = published(name)
    net, renamed = described(name, shapes)
    net.load_state_dict({renamed[key]: value for key, value in drawn_weights(shapes).items()}, assign=True)
    with torch.no_grad():
        found = net.eval()(drawn_pictures()[:1])[0]
    wanted = json.loads((DATA / "outputs.json").read_text())[name]
    torch.testing.assert_close(
        F.normalize(found, dim=0), torch.tensor(wanted["unit"]) / 1e6, atol=1e-5, rtol=0
    )
    assert float(found.norm()) == pytest.approx(wanted["length"], rel=1e-4)


@pytest.mark.parametrize("make", [tiny_residual, tiny_edgeface], ids=["residual", "edgeface"])
def test_networks_do_not_depend_on_the_batch_and_carry_gradients(make: Any) -> None:
    one = AlignedMatcher(make(), name="n", dimension=64, fingerprint="0", colour="bgr")
    assert isinstance(one, Matcher)
    pictures = faces(3, 128).requires_grad_()
    vectors = one.embed(pictures)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(vectors[1:2], one.embed(pictures[1:2]), atol=1e-5, rtol=1e-4)
    vectors[0].sum().backward()
    assert pictures.grad is not None
    assert pictures.grad[0].abs().sum() > 0 and pictures.grad[1:].abs().sum() == 0
    assert all(p.grad is None for p in one.net.parameters())


def test_colour_decides_the_order_of_channels() -> None:
    rgb, bgr = matcher(), matcher(colour="bgr")
    pictures = faces(2)
    assert torch.equal(rgb.embed(pictures), bgr.embed(pictures.flip(1)))
    assert not torch.allclose(rgb.embed(pictures), bgr.embed(pictures), atol=1e-3)


# The embedded matchers, tables, agreement


def test_embedded_matchers_give_the_same_bits_as_ever() -> None:
    net = FaceNet(dimension=16, widths=(4, 8), blocks=(1, 1)).eval()
    one = EmbeddedMatcher(net, "e")
    for side in (64, 128, 256):
        pictures = faces(3, side)
        h = net.body((shrink(pictures) - 0.5) * 4.0)
        before = F.normalize(net.norm(net.head(h.flatten(1))).float(), dim=1)
        assert torch.equal(one.embed(pictures), before)
        assert torch.equal(one.embed_with_quality(pictures).vectors, before)
    points = canonical_points(256).expand(3, 5, 2)
    torch.testing.assert_close(one.embed(pictures, points), one.embed(pictures), atol=0.02, rtol=0.02)
    assert isinstance(one, Matcher)


def test_calibration_of_a_gallery_knows_its_own_strangers() -> None:
    one = matcher()
    people = F.normalize(torch.randn(400, 64, generator=torch.Generator().manual_seed(2)), dim=1)
    table = calibrate(one, people)
    assert table.impostors == 400 * 399 // 2
    scores = (people @ people.T)[torch.ones(400, 400, dtype=torch.bool).triu(1)]
    for score in (0.1, 0.25, 0.4):
        assert table.fmr(score) == pytest.approx(float((scores >= score).double().mean()), rel=0.1)
    with pytest.raises(InputError, match="at least 15"):
        calibrate(one, people[:14])
    with pytest.raises(InputError, match="64 values"):
        calibrate(one, people[:, :32])
    assert calibrate(one, people.repeat(9, 1)).impostors == 3000 * 2999 // 2


def test_agreement_shows_the_place_that_differs() -> None:
    one = matcher()
    first = faces(1, 224)[0]
    second = first.clone()
    second[:, 130:160, 90:134] = faces(1, 224, seed=9)[0, :, 130:160, 90:134]  # the mouth of a portrait
    same = agreement(one, first, first)
    assert same.how == "features" and same.similarity == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(same.map, torch.ones(7, 7), atol=1e-4, rtol=0)
    found = agreement(one, first, second)
    assert found.map.shape == (7, 7) and found.crops[0].shape == (3, 112, 112)
    row, column = divmod(int(found.map.argmin()), 7)
    assert row >= 4 and 2 <= column <= 4, found.map
    torch.testing.assert_close(
        agreement(one, first, first, occlude=True).map, torch.zeros(7, 7), atol=1e-4, rtol=0
    )
    points = canonical_points(224)
    again = agreement(one, first, second, (points, None))
    torch.testing.assert_close(again.map, found.map, atol=1e-5, rtol=0)


def test_portraits_of_two_sizes_are_asked_where_they_agree() -> None:
    one = EmbeddedMatcher(FaceNet(dimension=8, widths=(4, 4), blocks=(1, 1)), "e")
    found = agreement(one, faces(1, 128)[0], faces(1, 200)[0], occlude=True)
    assert found.map.shape == (7, 7) and [one.shape[-1] for one in found.crops] == [128, 200]


def test_a_black_box_is_asked_by_hiding_places() -> None:
    class Plain:
        """Sees the colours of four corners."""

        name, dimension, side = "plain", 12, 64

        def embed(self, pictures: Tensor, points: Tensor | None = None) -> Tensor:
            return F.normalize(F.adaptive_avg_pool2d(pictures - 0.5, 2).flatten(1), dim=1)

    first = torch.full((3, 140, 140), 0.9)
    second = first.clone()
    second[:, 100:120, 100:120] = 0.0
    found = agreement(Plain(), first, second)  # type: ignore[arg-type]
    assert found.how == "occlusion" and found.map.shape == (7, 7) and found.crops[0].shape == (3, 140, 140)
    assert int(found.map.argmin()) == 5 * 7 + 5, "hiding what differs makes the two more alike"
    assert float(found.map[5, 5]) < 0
