"""What a person looks at: the contact sheets and the report page."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL.ImageDraw import ImageDraw

from identiface_core.diffusion.guidance.check import Check
from identiface_core.evidence.sketch import extract_sketch
from identiface_core.gallery import Gallery
from identiface_core.imaging import read_image, resize, write_png
from identiface_core.rounds.case import BY_BOTH, LISTS, Case
from identiface_core.rounds.case_input import read_case
from identiface_core.rounds.prepare import Prepared, prepare
from identiface_core.rounds.report import report
from identiface_core.rounds.runner import run_case
from identiface_core.rounds.sheet import candidate_sheet
from tests.core.case_fakes import faces, fake_gallery, fake_model

TOML = """
gallery = "people.safetensors"
[evidence]
lq = "lq.png"
sketch = "sketch.png"
[description]
overview = "<script>alert('x')</script> A man & his \\"hat\\""
eyes = "blue eyes"
ears = "large ears"
[run]
seeds = 2
steps = 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("case")
    gallery = fake_gallery(12)
    names = ("<b>Ann</b>", *gallery.people[1:])
    origins = ("captured", "generated", *gallery.origins[2:])
    Gallery(names, gallery.templates, gallery.thumbnails, origins, gallery.matchers).save(
        folder / "people.safetensors"
    )
    write_png(folder / "lq.png", resize(faces(12, 7)[0], 8, 8), origin="captured")
    write_png(folder / "sketch.png", extract_sketch(faces(12, 7)[0]), origin="captured")
    (folder / "CASE.toml").write_text(TOML)
    run_case(read_case(folder / "CASE.toml"), fake_model(faces(12, 7)[0]), folder / "out")
    return folder / "out"


class Page(HTMLParser):
    """Tags with their attributes, ids, and whether everything was closed in order."""

    EMPTY = ("meta", "img", "br", "link", "hr", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_needs_nothing_else(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"script", "link", "iframe", "object", "form"}
    for _, attributes in parsed.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value is not None and value.startswith("data:image/")
    assert "url(" not in page and "@import" not in page and "http://" not in page and "https://" not in page


def test_the_page_can_be_read_aloud(page: str) -> None:
    parsed = Page(page)
    assert ("html", {"lang": "en"}) in parsed.tags
    assert all(attributes.get("alt") for tag, attributes in parsed.tags if tag == "img")
    assert all(attributes.get("scope") for tag, attributes in parsed.tags if tag == "th")
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))


def test_what_users_wrote_is_escaped(page: str) -> None:
    assert "<script" not in page and "<b>Ann" not in page
    assert "&lt;script&gt;" in page and "&lt;b&gt;Ann&lt;/b&gt;" in page


def test_the_page_says_what_it_must(folder: Path, page: str) -> None:
    case = Case.load(folder)
    for text in (
        "not an identification",
        "In a gallery of 12 people without the person sought, a score this high",
        "By evidence query",
        "By generated consensus",
        "By both",
        "How to replay",
        "identiface run",
        "no ears visible",
        "A second matcher",
        "hardly recognisable",
        "Agreement between seeds",
        "0" * 64,
    ):
        assert text in page, text
    assert "led the drawing" not in page, "this case was not guided"
    for name in LISTS:
        for one in case.lists[name]:
            assert f"{one.score:.3f}" in page
    assert page.count("Notice.") == 1
    assert page.count(">generated</span>") == 1, "the final face"
    assert page.count(">drawn person</span>") == 3, "who was enrolled from a generated picture, on each list"
    assert "the generated faces count 5 %" in page
    assert "Redrawn: eyes, where seen." in page and "accepted" not in page
    assert "Not redrawn: ears (skipped: no ears visible" in page


def test_generated_faces_in_the_page_carry_their_origin(page: str) -> None:
    import base64

    pictures = [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    marked = [b"trainedAlgorithmicMedia" in data for data in pictures]
    assert (
        len(pictures) == 6 and sum(marked) == 4
    )  # LQ photo and sketch are not; final, round 0, before and after are


def of_rate(folder: Path, fpir: float, **settings: float) -> tuple[Case, Prepared]:
    """The case as if its first candidate's score had that FPIR."""
    case = Case.load(folder)
    first, *others = case.candidates
    lists = {**case.lists, BY_BOTH: (replace(first, fpir=fpir), *others)}
    prepared = prepare(read_case(folder.parent / "CASE.toml"), fake_model(faces(12, 7)[0]))
    return replace(case, lists=lists, settings={**case.settings, **settings}), prepared


def blue_beside_the_cards(case: Case, prepared: Prepared) -> int:
    """Pixels of the sheet in the colour of the first card's frame, where its left side is."""
    portraits = {one.index: faces(1)[0] for one in case.rounds if not one.skipped}
    column = np.asarray(candidate_sheet(case, prepared, portraits))[:1000, 388]
    return int((column == (0x2F, 0x5D, 0x8A)).all(1).sum())


def test_a_list_that_singles_nobody_out_says_so_first_and_marks_nobody(folder: Path) -> None:
    portraits = {one.index: faces(1)[0] for one in Case.load(folder).rounds if not one.skipped}
    case, prepared = of_rate(folder, 1.0)
    page = report(case, prepared, portraits)
    assert (
        "<strong>This evidence does not single anybody out:" in page and "The first candidate is" not in page
    )
    assert blue_beside_the_cards(case, prepared) < 50
    case, prepared = of_rate(folder, 0.03)
    page = report(case, prepared, portraits)
    assert "single anybody out" not in page and "The first candidate is <strong>" in page
    assert blue_beside_the_cards(case, prepared) > 150


def test_the_sheet_of_a_guided_case_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    draw = ImageDraw.text

    def noted(pen: ImageDraw, at: tuple[int, int], text: str, **options: Any) -> None:
        written.append(text)
        draw(pen, at, text, **options)

    monkeypatch.setattr(ImageDraw, "text", noted)
    for guidance in (0.0, 0.4):
        written.clear()
        case, prepared = of_rate(folder, 0.03, identity_guidance=guidance)
        candidate_sheet(case, prepared, {one.index: faces(1)[0] for one in case.rounds if not one.skipped})
        assert ("identity guidance 0.4" in " ".join(written)) == bool(guidance)
    said = " ".join(written)
    assert "overview: " in said and "drawn person" in said and "2 rounds drawn. Finished: " in said


@pytest.mark.parametrize(
    ("led", "says", "never"),
    [
        (Check(0.6, 0.4, 0.5, 0.3), "cosines are higher by construction", "away"),
        (Check(0.2, 0.1, 0.5, 0.3), "and led it away from the evidence", "higher by construction"),
    ],
)
def test_the_report_says_whether_guidance_helped(folder: Path, led: Check, says: str, never: str) -> None:
    case, prepared = of_rate(folder, 0.03, identity_guidance=0.4)
    first, *others = case.rounds
    case = replace(case, rounds=(replace(first, led=led), *others), warnings=())
    page = report(case, prepared, {one.index: faces(1)[0] for one in case.rounds if not one.skipped})
    assert says in page and never not in page
    assert f"went from {led.a_unguided:.2f} to {led.a:.2f}" in page


def test_the_sheets_show_evidence_face_and_candidates(folder: Path) -> None:
    sheet = read_image(folder / "candidates.png")
    assert sheet.shape[2] == 1480 and 700 < sheet.shape[1] < 2000
    paper = sheet[:, 0, 0]
    inked = ((sheet - paper[:, None, None]).abs().sum(0) > 0.1).float()
    assert inked.mean() > 0.3
    assert inked[-120:].mean() > 0.01  # the notice
    strip = read_image(folder / "rounds.png")
    assert strip.shape[2] > 2 * 192
    assert strip.shape != sheet.shape
