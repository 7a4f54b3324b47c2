"""The gallery: enrolment, exact search, add and remove, the file."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.cli import main
from identiface_core.errors import GalleryError, InputError
from identiface_core.faces.alignment import CANONICAL_POINTS
from identiface_core.faces.base import Face
from identiface_core.gallery import Gallery, enrol, enrol_folder, search
from identiface_core.gallery.enrolment import Enroller, fingerprint
from identiface_core.imaging import write_png
from identiface_core.matchers.aligned import AlignedMatcher
from identiface_core.matchers.base import Embedding as _Embedding
from identiface_core.matchers.probe import embed_face, portrait_in
from identiface_core.matchers.quality import fuse_references


def embedding(vector: Tensor, matcher: str) -> _Embedding:
    return _Embedding(vector, matcher, synthetic=False)


class Colour:
    """A matcher that sees nothing but nine mean colours."""

    def __init__(self, name: str = "a", dimension: int = 27) -> None:
        self.name, self.dimension = name, dimension

    def embed(self, portraits: Tensor) -> Tensor:
        cells = F.adaptive_avg_pool2d(portraits, 3).flatten(1) - 0.5
        return F.normalize(cells[:, : self.dimension], dim=1)


class Steps:
    """A calibration whose FPIR falls with the score and grows with the gallery."""

    def fpir(self, score: float, gallery_size: int) -> float:
        return min(1.0, gallery_size * max(0.0, 1 - score) / 1000)


def faces(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.interpolate(torch.rand(n, 3, 3, 3, generator=generator), (128, 128), mode="bilinear")


def gallery_of(n: int, **kinds: str) -> Gallery:
    pairs = [(f"person {i}", face) for i, face in enumerate(faces(n))]
    return enrol(pairs, (Colour("a"), Colour("b", 12)), origins=kinds)


def random_gallery(n: int, dimension: int = 128) -> Gallery:
    rows = F.normalize(torch.randn(n, dimension, generator=torch.Generator().manual_seed(1)), dim=1)
    return Gallery(tuple(f"p{i}" for i in range(n)), {"a": rows}, (b"",) * n, ("captured",) * n, {"a": "x"})


def test_everyone_finds_themselves_first() -> None:
    gallery = gallery_of(40)
    for i, face in enumerate(faces(40)):
        found = search(gallery, embedding(Colour("a").embed(face[None])[0], "a"), 5, calibration=Steps())
        assert found.people(1) == (f"person {i}",)
        assert [entry.rank for entry in found.entries] == [1, 2, 3, 4, 5]
        assert found.entries[0].score == pytest.approx(1, abs=1e-5)
        assert found.entries[0].fpir == pytest.approx(0, abs=1e-5)
        assert found.gallery_size == 40


def test_search_is_exact_on_ten_thousand() -> None:
    gallery = random_gallery(10_000)
    query = torch.randn(128, generator=torch.Generator().manual_seed(2))
    found = search(gallery, embedding(query, "a"), 50)
    cosines = (gallery.templates["a"] @ F.normalize(query, dim=0)).numpy()
    expected = np.argsort(-cosines, kind="stable")[:50]
    assert found.people() == tuple(f"p{i}" for i in expected)
    np.testing.assert_allclose([e.score for e in found.entries], cosines[expected], atol=1e-5)


def test_equal_scores_keep_the_order_of_enrolment() -> None:
    row = F.normalize(torch.ones(8), dim=0)
    gallery = Gallery(
        tuple(f"p{i}" for i in range(100)),
        {"a": row.repeat(100, 1)},
        (b"",) * 100,
        ("captured",) * 100,
        {"a": "x"},
    )
    assert search(gallery, embedding(row, "a"), 7).people() == tuple(f"p{i}" for i in range(7))


def test_excluded_people_do_not_take_part() -> None:
    gallery = gallery_of(10)
    query = embedding(gallery.templates["a"][3], "a")
    found = search(gallery, query, 10, exclude=["person 3"])
    assert "person 3" not in found.people()
    assert found.gallery_size == 9 == len(found.entries)
    with pytest.raises(GalleryError, match="nobody of that name"):
        search(gallery, query, 3, exclude=["person 99"])
    with pytest.raises(GalleryError, match="nobody to search"):
        search(gallery, query, 3, exclude=gallery.people)


def test_several_pictures_become_the_normalised_mean() -> None:
    pictures = faces(3)
    matcher = Colour("a")
    gallery = enrol([("x", pictures[0]), ("y", pictures[1]), ("x", pictures[2])], [matcher])
    rows = matcher.embed(pictures)
    expected = F.normalize(rows[0] + rows[2], dim=0)
    assert gallery.people == ("x", "y")
    torch.testing.assert_close(gallery.templates["a"][0], expected)


def test_save_and_load_give_the_same_gallery_and_the_same_bytes(tmp_path) -> None:
    gallery = gallery_of(5, **{"person 2": "generated"})
    gallery.save(tmp_path / "g.safetensors")
    loaded = Gallery.load(tmp_path / "g.safetensors")
    assert loaded.people == gallery.people and loaded.thumbnails == gallery.thumbnails
    assert loaded.origins == ("captured", "captured", "generated", "captured", "captured")
    assert loaded.matchers == gallery.matchers
    for name in ("a", "b"):
        assert torch.equal(loaded.templates[name], gallery.templates[name])
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "g.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    assert loaded.thumbnail("person 1").shape == (3, 128, 128)
    assert (loaded.thumbnail("person 1") - faces(5)[1]).abs().mean() < 0.02
    found = search(loaded, embedding(loaded.templates["a"][2], "a"), 1)
    assert found.entries[0].generated


def test_add_and_remove() -> None:
    gallery = gallery_of(6)
    rest, some = gallery.remove(["person 1", "person 4"]), gallery.take([1, 4])
    assert rest.people == ("person 0", "person 2", "person 3", "person 5")
    assert rest.add(some).people == (*rest.people, "person 1", "person 4")
    with pytest.raises(GalleryError, match="twice"):
        gallery.add(some)
    with pytest.raises(GalleryError, match="nobody of that name"):
        gallery.remove(["person 77"])
    other = enrol([("z", faces(1)[0])], [Colour("c")])
    with pytest.raises(GalleryError, match="cannot join"):
        gallery.add(other)


def test_another_matcher_or_other_weights_are_refused() -> None:
    gallery = gallery_of(3)
    with pytest.raises(GalleryError, match="enrol again with `identiface gallery enrol"):
        search(gallery, embedding(torch.ones(27), "c"), 3)
    with pytest.raises(GalleryError, match=r"12-d embeddings.*27-d"):
        search(gallery, embedding(torch.ones(12), "a"), 3)
    with pytest.raises(GalleryError, match="other weights"):
        gallery.templates_of("a", fingerprint="0" * 64)
    gallery.templates_of("a", fingerprint=fingerprint(Colour("a")))


def test_fingerprint_follows_the_weights() -> None:
    net = torch.nn.Linear(3, 2)
    net.name = "n"
    before = fingerprint(net)
    assert before == fingerprint(net)
    with torch.no_grad():
        net.weight[0, 0] += 1
    assert before != fingerprint(net)


@pytest.mark.parametrize("vector", [torch.zeros(27), torch.full((27,), float("nan")), torch.ones(1, 27)])
def test_a_query_must_be_a_vector(vector: Tensor) -> None:
    with pytest.raises(InputError, match="query embedding"):
        search(gallery_of(3), embedding(vector, "a"), 3)


def test_empty_gallery_and_bad_k() -> None:
    with pytest.raises(GalleryError, match="is empty"):
        search(random_gallery(0), embedding(torch.ones(128), "a"), 3)
    with pytest.raises(GalleryError, match="nobody to enrol"):
        enrol([], [Colour()])
    with pytest.raises(InputError, match="k = 0"):
        search(gallery_of(2), embedding(torch.ones(27), "a"), 0)


def test_missing_faiss_is_said(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(GalleryError, match="pip install faiss-cpu"):
        search(gallery_of(2), embedding(torch.ones(27), "a"), 1)


class Finder:
    """Finds a face everywhere but in white pictures, in dark ones with the nose where an eye is."""

    def find_faces(self, image: Tensor, *, threshold: float = 0.5) -> list[Face]:
        if float(image.mean()) > 0.99:
            return []
        points = CANONICAL_POINTS * image.shape[-1] / 128
        if float(image.mean()) < 0.25:
            points[2] = points[0]
        return [Face((0.0, 0.0, 1.0, 1.0), points, 0.9)]


class Model:
    finder = Finder()
    matcher_a, matcher_b = Colour("a"), Colour("b", 12)


def test_enrol_folder(tmp_path) -> None:
    pictures = faces(4)
    write_png(tmp_path / "ann.png", pictures[0], origin="captured")
    write_png(tmp_path / "bob" / "1.png", pictures[1], origin="captured")
    write_png(tmp_path / "bob" / "2.png", pictures[2], origin="generated")
    write_png(tmp_path / "white.png", torch.ones(3, 128, 128), origin="captured")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("not a picture")
    seen: list[tuple[int, int, str]] = []
    made = enrol_folder(tmp_path, Model(), lambda done, total, name: seen.append((done, total, name)))
    assert made.gallery.people == ("ann", "bob")
    assert made.gallery.origins == ("captured", "generated")
    rows = Colour("a").embed(pictures)
    torch.testing.assert_close(
        made.gallery.templates["a"][1], F.normalize(rows[1] + rows[2], dim=0), atol=0.01, rtol=0
    )
    assert {s.path.name for s in made.skipped} == {"white.png", "broken.png"}
    assert any("no face" in s.reason for s in made.skipped)
    assert [(done, total) for done, total, _ in seen] == [(i, 5) for i in range(1, 6)]
    assert str(Path("bob") / "1.png") in [name for _, _, name in seen], "a file's name alone does not say who"


class Grain(torch.nn.Module):
    """Sees fine detail and where it is: the longer the vector, the sharper the picture."""

    def forward(self, crops: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d((crops - F.avg_pool2d(crops, 3, 1, 1)).abs(), 4).flatten(1)


class Photographs(Model):
    """A matcher of photographs beside an embedded one."""

    def __init__(self) -> None:
        self.matcher_a = AlignedMatcher(  # type: ignore[assignment]
            Grain(), name="photos", dimension=48, fingerprint="x", typical=3.0
        )


def blurred(picture: Tensor, cells: int = 4) -> Tensor:
    return F.interpolate(F.adaptive_avg_pool2d(picture[None], cells), picture.shape[-2:], mode="bilinear")[0]


def test_a_photograph_is_enrolled_as_it_is_searched_for(tmp_path) -> None:
    """From the picture and its points, whatever its size; a portrait whole; not through a portrait of fewer pixels."""
    model, photo = Photographs(), torch.rand(3, 300, 200, generator=torch.Generator().manual_seed(4))
    write_png(tmp_path / "ann.png", photo, origin="captured")
    write_png(tmp_path / "bob.png", photo[:, :200], origin="captured")
    photo = (photo * 255).round() / 255
    points = model.finder.find_faces(photo)[0].points
    found = enrol_folder(tmp_path, model).gallery.templates["photos"]
    torch.testing.assert_close(found[:1], model.matcher_a.embed(photo[None], points[None]))
    torch.testing.assert_close(found[0], embed_face(model.matcher_a, photo, points).vectors[0])
    whole = enrol_folder(tmp_path, model, choice="whole")
    torch.testing.assert_close(whole.gallery.templates["photos"], model.matcher_a.embed(photo[None, :, :200]))
    assert whole.gallery.people == ("bob",) and "200 x 300 px" in whole.skipped[0].reason
    assert whole.gallery.thumbnail("bob").shape == (3, 128, 128)


def test_a_bad_photograph_counts_less(tmp_path) -> None:
    model, good = Photographs(), torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(4)) ** 2
    good[:, :128] = good[:, :128].sqrt()
    for bad in (
        good.flip(1).lerp(blurred(good.flip(1)), 0.8),
        0.5 * good.flip(1),
    ):  # blurred; dark: misplaced points
        folder = tmp_path / f"{bad.mean():.3f}"
        pictures = [(one * 255).round() / 255 for one in (good, bad)]
        for i, picture in enumerate(pictures):
            write_png(folder / "ann" / f"{i}.png", picture, origin="captured")
        points = [model.finder.find_faces(picture)[0].points for picture in pictures]
        seen = [embed_face(model.matcher_a, *pair) for pair in zip(pictures, points, strict=True)]
        vectors, quality = torch.cat([one.vectors for one in seen]), torch.cat([one.quality for one in seen])
        assert quality[0] > 2 * quality[1]
        found = enrol_folder(folder, model).gallery.templates
        torch.testing.assert_close(found["photos"][0], fuse_references(vectors, quality))
        assert found["photos"][0] @ vectors[0] > fuse_references(vectors) @ vectors[0] + 0.001
        plain = enrol(
            [("ann", portrait_in(*pair)) for pair in zip(pictures, points, strict=True)], [model.matcher_b]
        )
        assert torch.equal(found["b"], plain.templates["b"])


def test_a_refused_picture_leaves_no_trace() -> None:
    enroller = Enroller([Photographs().matcher_a])
    enroller.add("ann", faces(1)[0])
    with pytest.raises(InputError, match="coincide"):
        enroller.add("bob", faces(1)[0], torch.ones(5, 2))
    assert enroller.gallery().people == ("ann",)


def test_a_photograph_that_is_enrolled_finds_itself(tmp_path, monkeypatch, capsys) -> None:
    model, file = Photographs(), tmp_path / "g.safetensors"
    model.calibrations = {}  # type: ignore[attr-defined]
    for i, name in enumerate(("ann", "bob")):
        photo = torch.rand(3, 400, 300, generator=torch.Generator().manual_seed(i))
        write_png(tmp_path / "people" / f"{name}.png", photo, origin="captured")
    enrol_folder(tmp_path / "people", model).gallery.save(file)
    monkeypatch.setattr("identiface_core.cli.gallery.matchers_from", lambda *_: [model.matcher_a])
    monkeypatch.setattr("identiface_core.cli.gallery._networks", lambda *_: model)
    options = ["--matcher", "a.onnx", "--detector", "b.onnx"]
    assert main(["gallery", "search", str(file), str(tmp_path / "people" / "ann.png"), *options]) == 0
    assert re.search(r"ann\W+1\.000", capsys.readouterr().out)


def test_what_is_odd_about_a_folder_is_said(tmp_path) -> None:
    one, two, three = faces(3)
    write_png(tmp_path / "ann" / "1.png", one, origin="captured")
    write_png(tmp_path / "ann.png", two, origin="captured")
    write_png(tmp_path / "bob" / "deep" / "1.png", three, origin="captured")
    (tmp_path / "cid.png").write_bytes((tmp_path / "ann" / "1.png").read_bytes())
    (tmp_path / "ann" / "2.png").write_bytes((tmp_path / "ann" / "1.png").read_bytes())
    (tmp_path / "dan").mkdir()
    made = enrol_folder(tmp_path, Model())
    assert set(made.gallery.people) == {"ann", "bob", "cid"}
    merged, copied, empty = made.oddities
    assert merged == "ann/ and ann.png count as one person, ann: rename one if they are two"
    assert "ann/1.png" in Path(copied).as_posix() and "cid.png are the same picture under two names" in copied
    assert empty == "dan/ holds no picture"


def test_enrol_folder_without_anyone(tmp_path) -> None:
    with pytest.raises(GalleryError, match="no such folder"):
        enrol_folder(tmp_path / "nowhere", Model())
    with pytest.raises(GalleryError, match="no pictures"):
        enrol_folder(tmp_path, Model())
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(GalleryError, match=r"none of 1 pictures.*broken\.png"):
        enrol_folder(tmp_path, Model())
