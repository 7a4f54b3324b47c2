"""Where a weight file is fetched from: the one place that writes the names of hosts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from identiface_core.catalogue.manifest import Entry
from identiface_core.errors import InputError

BASES: Mapping[str, str] = {
    "huggingface": "https://huggingface.co",
    "github": "https://github.com",
    "github-release": "https://github.com",
}
LAYOUTS: Mapping[str, str] = {
    "huggingface": "{repository}/resolve/{revision}/{path}",
    "github": "{repository}/raw/{revision}/{path}",
    "github-release": "{repository}/releases/download/{revision}/{path}",
}
MIRROR = "IDENTIFACE_MIRROR"
ENDPOINT = "HF_ENDPOINT"
TOKEN = "HF_TOKEN"


def address(entry: Entry, mirror: str | None = None) -> str:
    """The URL of a file that is not shipped.

    `mirror`, or else the environment's IDENTIFACE_MIRROR, stands for every host, with the paths behind it as
    they are there; HF_ENDPOINT stands for Hugging Face alone. InputError for a mirror that is no URL.
    """
    place = LAYOUTS[entry.host].format(
        repository=quote(entry.repository), revision=quote(entry.revision), path=quote(entry.path)
    )
    return f"{_base(entry, mirror)}/{place}"


def page(entry: Entry) -> str:
    """Where a person reads about the file and its terms."""
    return f"{BASES[entry.host]}/{quote(entry.repository)}"


def token(entry: Entry, mirror: str | None = None) -> str | None:
    """The user's HF_TOKEN for files of Hugging Face; no mirror is ever told it."""
    if entry.host != "huggingface" or mirror or os.environ.get(MIRROR) or os.environ.get(ENDPOINT):
        return None
    return os.environ.get(TOKEN) or None


def _base(entry: Entry, mirror: str | None) -> str:
    given = mirror or os.environ.get(MIRROR)
    if not given and entry.host == "huggingface":
        given = os.environ.get(ENDPOINT)
    base = (given or BASES[entry.host]).rstrip("/")
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(f"a mirror must be a URL such as https://mirror.example/files, got {given!r}")
    return base
