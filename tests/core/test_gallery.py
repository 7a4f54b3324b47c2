"""The gallery: enrolment, exact search, add and remove, the file."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from identiface_core.errors import GalleryError, InputError, NoFaceError
from identiface_core.gallery import Gallery, enrol, enrol_folder, search
from identiface_core.gallery.enrolment import fingerprint, portrait_side
from identiface_core.imaging import write_png
from identiface_core.matchers.base import Embedding as _Embedding


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


class Model:
    finder = None
    matcher_a, matcher_b = Colour("a"), Colour("b", 12)


def test_enrol_folder(tmp_path, monkeypatch) -> None:
    finder = pytest.importorskip("identiface_core.faces.choice")
    from identiface_core.imaging import write_png

    def portrait_of(
        image: Tensor, _finder: object, _choice: object = None, *, size: int, name: str
    ) -> Tensor:
        if float(image.mean()) > 0.99:
            raise NoFaceError(f"{name}: no face was found")
        return image

    monkeypatch.setattr(finder, "portrait_of", portrait_of)
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


def test_portraits_are_as_fine_as_the_matchers_can_use(tmp_path) -> None:
    class Fine(Colour):
        side = 112

        def embed(self, portraits: Tensor) -> Tensor:
            seen.append(tuple(portraits.shape[-2:]))
            return super().embed(portraits)

    class Model:
        finder, matcher_a, matcher_b = None, Fine("a"), Colour("b")

    seen: list[tuple[int, ...]] = []
    write_png(tmp_path / "Ann.png", torch.rand(3, 300, 300), origin="captured")
    enrol_folder(tmp_path, Model(), choice="whole")
    assert seen == [(256, 256)] and portrait_side((Colour("a"), Colour("b"))) == 128


def test_enrol_folder_without_anyone(tmp_path, monkeypatch) -> None:
    with pytest.raises(GalleryError, match="no such folder"):
        enrol_folder(tmp_path / "nowhere", Model())
    with pytest.raises(GalleryError, match="no pictures"):
        enrol_folder(tmp_path, Model())
    pytest.importorskip("identiface_core.faces.choice")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(GalleryError, match=r"none of 1 pictures.*broken\.png"):
        enrol_folder(tmp_path, Model())
