"""One ComfyUI server for all tests of this folder; without it, or the weights, tests are skipped by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.server import PACK, Server, why_not

HASHES = PACK / "identiface_core" / "embedded" / "hashes.json"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with Server({"values": Path(__file__).parent / "packs" / "values"}) as running:
        yield running


@pytest.fixture
def embedded(server: Server) -> Server:
    """The server, with the embedded model's files at hand."""
    if not HASHES.is_file():
        pytest.skip(f"the embedded model is not trained yet: {HASHES.relative_to(PACK)} is missing")
    return server


@pytest.fixture
def put_picture(server: Server) -> object:
    """Writes a picture into the server's input folder."""

    def put(name: str, picture: object) -> str:
        from PIL import Image

        assert isinstance(picture, Image.Image)
        picture.save(Path(server.base) / "input" / name)
        return name

    return put
