"""Picture files that are damaged, huge, or no pictures: each must give InputError that names the file, and
cost little.
"""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from PIL import Image

from identiface_core.errors import InputError
from identiface_core.imaging import MAX_SIDE, read_grey, read_image
from identiface_core.provenance import read_data, read_origin


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    out = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        out += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return out


def header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


def good_png() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 60).save(buffer, "PNG")
    return buffer.getvalue()


def good_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 60).save(buffer, "JPEG")
    return buffer.getvalue()


HOSTILE: dict[str, bytes] = {
    "empty.png": b"",
    "text.png": b"this is no picture",
    "signature_only.png": b"\x89PNG\r\n\x1a\n",
    # IHDR says 20,000 x 20,000: 1.2 GB when decoded. Refused before decoding.
    "huge.png": png([header(20_000, 20_000), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]),
    # One side only: few pixels, still over the bound.
    "long.png": png([header(20_000, 1), (b"IDAT", zlib.compress(b"\0" * 60_001)), (b"IEND", b"")]),
    # Larger than Pillow's own bomb limit, which raises another error.
    "bomb.png": png([header(2**31 - 1, 2**31 - 1), (b"IDAT", b""), (b"IEND", b"")]),
    "zero.png": png([header(0, 0), (b"IDAT", b""), (b"IEND", b"")]),
    "no_data.png": png([header(64, 64), (b"IEND", b"")]),
    "bad_zlib.png": png([header(64, 64), (b"IDAT", b"\xff" * 64), (b"IEND", b"")]),
    # A compressed text chunk that unpacks to 200 MB.
    "text_bomb.png": png(
        [header(8, 8), (b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 200_000_000)), (b"IEND", b"")]
    ),
    "truncated.png": good_png()[:-600],
    "flipped_crc.png": good_png()[:40] + b"\x00\xff\x00" + good_png()[43:],
    "truncated.jpg": good_jpeg()[: len(good_jpeg()) // 2],
    "header.jpg": b"\xff\xd8\xff\xe0" + b"\0" * 20,
    "huge.bmp": b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 20_000, 20_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "broken.gif": b"GIF89a\xff\xff\xff\xff\x00\x00\x00,",
    # PostScript, which Pillow would hand to an outside program.
    "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_by_name_and_cheaply(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        for read in (read_image, read_grey):
            with pytest.raises(InputError) as caught:
                read(path)
            assert str(path) in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["huge.png", "long.png", "huge.bmp"])
def test_too_large_says_the_bound(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(HOSTILE[name])
    with pytest.raises(InputError, match=f"at most {MAX_SIDE} px"):
        read_image(tmp_path / name)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(InputError, match="folder"):
        read_image(tmp_path)


def test_every_truncation_is_read_or_refused(tmp_path: Path) -> None:
    content, path = good_png(), tmp_path / "cut.png"
    for end in range(0, len(content), 97):
        path.write_bytes(content[:end])
        try:
            read_image(path)
        except InputError:
            continue


def test_hostile_metadata_claims_nothing(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    # Entity expansion: the packet is searched, never parsed.
    info.add_itxt("XML:com.adobe.xmp", '<!DOCTYPE a [<!ENTITY b "c">]>' + "&b;" * 1000)
    info.add_text("identiface", "[" * 100_000)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    assert read_origin(tmp_path / "a.png") is None
    assert read_data(tmp_path / "a.png") == {}
