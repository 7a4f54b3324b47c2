"""The released code's text cleaning: what the original gives, and what it is for."""

from __future__ import annotations

import random

import pytest

from identiface_core.evidence.cleaning import clean_caption

ORIGINAL = {
    "A YOUNG Woman with Narrow brown eyes.": "a young woman with narrow brown eyes.",
    "A man. ['hair'] Long, BLACK hair (curly).": "a man. 'hair' long, black hair curly .",
    "See https://example.com/a-b and www.face.ru/x for more: a man.": "see and for more: a man.",
    "<b>Blue</b> eyes &amp; a “wide” nose — it’s bent": 'blue eyes a "wide" nose - it\'s bent',
    "grey-blue eyes, well-kept beard": "grey-blue eyes, well-kept beard",
    "a_b_c_d_e f-g": "a b c d e f g",
    "white\\nhair...and a scar": "white hair and a scar",
    "id 12345678, #12 and #123456, jc6640 at 192.168.1.1": "id , and , at",
    "photo.png of @nick, page 3, free shipping worldwide shipping": "of ,",
    "50x20 picture, 12.5×3 cm": "picture, cm",
    "cafe\u0301 owner 中文 smile": "café owner smile",
    "'quoted face'": "quoted face",
    "A man+woman %28both%29": "a man woman both",
    "--- thin lips ---": "thin lips",
    "...": "",
    " hair : long": "hair: long",
    "about 30 . brown": "about 30 brown",
    "100% grey {hair} | beard": "100% grey hair beard",
    "5 < 6 teeth": "5 < 6 teeth",
    "a <person> in a <i>hat</i>": "a person in a hat",
    "": "",
}
"""What the original (with ftfy and Beautiful Soup) gives, cleaned twice."""


@pytest.mark.parametrize("text", ORIGINAL)
def test_texts_are_cleaned_as_the_original_does(text: str) -> None:
    assert clean_caption(text) == ORIGINAL[text]


def test_nothing_that_looks_like_a_caption_breaks_it() -> None:
    draw = random.Random(0)
    for _ in range(3000):
        text = "".join(
            draw.choice("aA1 .,:;'\"<>&#()[]{}|\\/*-_+%@\n中é½") for _ in range(draw.randint(0, 40))
        )
        cleaned = clean_caption(text)
        assert cleaned == cleaned.strip() == cleaned.lower()
        assert not set(cleaned) & set("()[]{}|\\/*~中"), (text, cleaned)
