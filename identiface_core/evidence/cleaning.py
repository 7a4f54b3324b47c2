"""What the released code does to a text before its T5 reads it: the caption cleaning of DeepFloyd IF and PixArt-alpha.

It was made for captions from the web (addresses, file names, article numbers, advertisements), takes brackets and other
marks out and lower-cases what is left. PixArt-alpha was trained on texts cleaned so, twice over; a host that passes the
text on as it is gives other tokens, above all for capital letters and brackets.

Two steps of the original come from libraries. HTML tags are taken out by the standard library's parser here. Mending
mis-decoded characters (ftfy) is left out but for Unicode's composed form: texts that are typed need none.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from html.parser import HTMLParser
from urllib.parse import unquote_plus

PASSES = 2
"""So often the released code cleans a text."""

Rule = tuple[re.Pattern[str], str]


def clean_caption(text: str) -> str:
    """The text as the released code hands it to T5: cleaned twice. May become empty. Pure; for the prompt of one round.

    >>> clean_caption("A YOUNG woman (about 30). ['hair'] Black, well-kept.")
    "a young woman about 30 'hair' black, well-kept."
    """
    for _ in range(PASSES):
        text = _once(text)
    return text


def _once(text: str) -> str:
    text = _apply(_ADDRESSES, unquote_plus(text).strip().lower())
    text = _apply(_MARKS, _without_tags(text))
    # One or two hyphens belong to words; more of them stand for spaces.
    if len(_JOINERS.findall(text)) > 3:
        text = _JOINERS.sub(" ", text)
    text = html.unescape(html.unescape(unicodedata.normalize("NFC", text)))
    return _apply(_WEB_WORDS + _ENDS, text).strip()


def _apply(rules: Iterable[Rule], text: str) -> str:
    for pattern, instead in rules:
        text = pattern.sub(instead, text)
    return text


def _rules(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple((re.compile(pattern), instead) for pattern, instead in pairs)


_SITE = r"[a-zA-Z0-9.\-]+\.(?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
_FILE = "(?:png|jpe?g|bmp|webp|eps|pdf|apk|mp4)"
_DASHES = (
    "\u002d\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40"
    "\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"
)
_JOINERS = re.compile("[-_]")

_ADDRESSES = _rules(
    ("<person>", "person"),
    (rf"\b(?:https?:(?:/{{1,3}}|[a-zA-Z0-9%])|{_SITE})", ""),
    (rf"\b(?:www:(?:/{{1,3}}|[a-zA-Z0-9%])|{_SITE})", ""),
)
_MARKS = _rules(
    (r"@\w+\b", ""),  # names of users
    ("[\u31c0-\u4dff\u4e00-\u9fff]+", ""),  # Chinese characters and signs
    (f"[{_DASHES}]+", "-"),
    ("[`\u00b4\u00ab\u00bb\u201c\u201d\u00a8]", '"'),
    ("[\u2018\u2019]", "'"),
    ("&quot;?", ""),
    ("&amp", ""),
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),  # network addresses
    (r"\d:\d\d\s+$", ""),
    (r"\\n", " "),
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"\S+\.{_FILE}", ""),
    ("[\"']{2,}", '"'),
    (r"\.{2,}", " "),
    ("[#\u00ae\u2022\u00a9\u2122&@\u00b7\u00ba\u00bd\u00be\u00bf\u00a1\u00a7~()\\[\\]{}|\\\\/*]+", " "),
    (r"\s+\.\s+", " "),
)
_WEB_WORDS = _rules(
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),  # numbers of articles
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),
    (r"\b\d+[a-zA-Z]+\d+\b", ""),
    (r"(?:worldwide\s+)?(?:free\s+)?shipping", ""),
    (r"(?:free\s)?download(?:\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b{_FILE}(?:\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
    ("\\b\\d+\\.?\\d*[x\u0445\u00d7]\\d+\\.?\\d*\\b", ""),  # sizes, with any of three crosses
)
_ENDS = _rules(
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
    (r"^[\"']([\w\W]+)[\"']$", r"\1"),
    ("^['_,:;-]", ""),
    ("['_,:+-]$", ""),
    (r"^\.\S+$", ""),
)


class _Words(HTMLParser):
    """Gathers what stands between tags."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_data(self, data: str) -> None:
        self.found.append(data)


def _without_tags(text: str) -> str:
    reader = _Words()
    reader.feed(text)
    reader.close()
    return "".join(reader.found)
