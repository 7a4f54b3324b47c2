"""Pictures in (every kind of file) and out (atomic, with their origin inside)."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from identiface_core import imaging
from identiface_core.errors import InputError, OutputError
from identiface_core.provenance import Origin, read_data, read_origin


@pytest.fixture
def picture() -> Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, 24), torch.linspace(0, 1, 32), indexing="ij")
    return torch.stack([x, y, 1 - x])


def test_png_round_trip_within_half_a_grey_level(tmp_path: Path, picture: Tensor) -> None:
    imaging.write_png(tmp_path / "a.png", picture, origin="captured")
    assert (imaging.read_image(tmp_path / "a.png") - picture).abs().max() <= 0.5 / 255 + 1e-6
    grey = imaging.read_grey(tmp_path / "a.png")
    assert grey.shape == (1, 24, 32)
    assert (grey - imaging.luminance(picture)).abs().max() < 1.5 / 255


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LA", "RGBA"])
def test_modes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    Image.new("RGB", (9, 7), (255, 255, 255)).convert(mode).save(path)
    image = imaging.read_image(path)
    assert image.shape == (3, 7, 9)
    assert image.dtype == torch.float32
    assert image.min() > 0.98


def test_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK").save(tmp_path / "a.jpg")
    red, green, _ = imaging.read_image(tmp_path / "a.jpg").mean((1, 2)).tolist()
    assert red > 0.8 > 0.2 > green


@pytest.mark.parametrize("level", [0, 1000, 32768, 65535])
def test_sixteen_bit_grey_keeps_its_level(tmp_path: Path, level: int) -> None:
    Image.fromarray(np.full((5, 6), level, np.uint16)).save(tmp_path / "a.png")
    for image in (imaging.read_image(tmp_path / "a.png"), imaging.read_grey(tmp_path / "a.png")):
        assert torch.allclose(image, torch.full_like(image, level / 65535), atol=1e-6)


def test_sixteen_bit_rgb(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 2 1 65535\n" + bytes([255, 255, 0, 0, 128, 0] * 2))
    assert torch.allclose(
        imaging.read_image(tmp_path / "a.ppm")[:, 0, 0], torch.tensor([1, 0, 0.5]), atol=0.005
    )


def test_alpha_lies_over_white_also_in_palettes(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.save(tmp_path / "rgba.png")
    palette = Image.new("P", (4, 4), 3)
    palette.putpalette([0, 0, 0] * 8)
    palette.save(tmp_path / "p.png", transparency=3)
    for name in ("rgba.png", "p.png"):
        assert imaging.read_image(tmp_path / name).min() == 1.0
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "half.png")
    assert abs(float(imaging.read_image(tmp_path / "half.png").mean()) - 0.498) < 0.01


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    wide = Image.new("RGB", (20, 10), "white")
    wide.paste("black", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    wide.save(tmp_path / "a.jpg", exif=exif)
    image = imaging.read_image(tmp_path / "a.jpg")
    assert image.shape == (3, 20, 10)
    assert image[:, :8].mean() < 0.1 < 0.9 < image[:, 12:].mean()


def test_animation_gives_the_first_frame_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("white", "black", "red")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.WARNING):
        assert imaging.read_image(tmp_path / "a.gif").min() > 0.98
    assert "3 frames" in caplog.text


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), "white").save(tmp_path / "a.png")
    assert imaging.read_image(tmp_path / "a.png").shape == (3, 1, 1)


def test_resize_antialiases_and_keeps_the_mean() -> None:
    stripes = torch.zeros(1, 64, 64)
    stripes[..., ::2] = 1
    small = imaging.resize(stripes, 8, 8)
    assert small.shape == (1, 8, 8)
    assert (small - 0.5).abs().max() < 0.05
    assert imaging.resize(stripes[None], 64, 64).equal(stripes[None])


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(5, 9), (31, 9), (40, 17), (13, 17), (13, 60), (1, 1)])
def test_resampling_is_torch_s_own_and_so_is_its_gradient(mode: Any, size: tuple[int, int]) -> None:
    def torchs(images: Tensor) -> Tensor:
        return F.interpolate(images, size, mode=mode, antialias=True, align_corners=False)

    images = torch.rand(2, 3, 31, 17, generator=torch.Generator().manual_seed(1))
    assert imaging.resample(images, size, mode).equal(torchs(images))
    fine = images.double().requires_grad_()
    weights = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2))
    (wanted,) = torch.autograd.grad((torchs(fine) * weights).sum(), fine)
    (found,) = torch.autograd.grad((imaging.resample(fine, size, mode) * weights).sum(), fine)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    for dtype, near in ((torch.float32, 1e-5), (torch.bfloat16, 0.02)):
        rough = images.to(dtype).requires_grad_()
        (found,) = torch.autograd.grad((imaging.resample(rough, size, mode) * weights.to(dtype)).sum(), rough)
        assert found.dtype == dtype and (found - wanted).abs().max() < near * wanted.abs().max()


def test_the_gradient_of_resampling_has_a_gradient() -> None:
    images = torch.rand(1, 1, 7, 6, dtype=torch.float64, requires_grad=True)
    for mode in ("bilinear", "bicubic"):
        call = partial(imaging.resample, size=(3, 9), mode=mode)
        assert torch.autograd.gradcheck(call, images) and torch.autograd.gradgradcheck(call, images)


def test_uint8_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    assert imaging.to_uint8(imaging.from_uint8(levels)).equal(levels)
    assert imaging.to_uint8(torch.tensor([-1.0, 2.0])).tolist() == [0, 255]


def test_to_pil_wants_one_or_three_channels() -> None:
    with pytest.raises(InputError, match=r"\(4, 2, 2\)"):
        imaging.to_pil(torch.zeros(4, 2, 2))


@pytest.mark.parametrize(
    ("origin", "code"),
    [
        ("generated", "trainedAlgorithmicMedia"),
        ("edited", "compositeWithTrainedAlgorithmicMedia"),
        ("captured", "digitalCapture"),
    ],
)
def test_origin_is_in_the_file_and_read_back(tmp_path: Path, picture: Tensor, origin: str, code: str) -> None:
    path = tmp_path / "a.png"
    imaging.write_png(path, picture, origin=origin, data={"seed": 3})
    assert read_origin(path) is Origin(origin)
    assert read_data(path) == {"seed": 3, "origin": origin}
    content = path.read_bytes()
    assert (
        f">http://cv.iptc.org/newscodes/digitalsourcetype/{code}</Iptc4xmpExt:DigitalSourceType>".encode()
        in content
    )
    assert b"iTXtXML:com.adobe.xmp\x00" in content


def test_origin_survives_another_format_and_is_none_elsewhere(tmp_path: Path, picture: Tensor) -> None:
    from identiface_core.provenance import xmp_packet

    Image.new("RGB", (4, 4)).save(tmp_path / "a.webp", xmp=xmp_packet(Origin.GENERATED).encode())
    assert read_origin(tmp_path / "a.webp") is Origin.GENERATED
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    assert read_origin(tmp_path / "plain.png") is None
    assert read_data(tmp_path / "plain.png") == {}


def test_same_picture_same_bytes(picture: Tensor) -> None:
    first = imaging.png_bytes(picture, origin="generated", data={"b": 1, "a": 2})
    assert first == imaging.png_bytes(picture, origin=Origin.GENERATED, data={"a": 2, "b": 1})


def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, picture: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    imaging.write_png(path, picture, origin="generated")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match=r"a\.png"):
        imaging.write_png(path, 1 - picture, origin="generated")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_file_in_place_of_the_folder(tmp_path: Path, picture: Tensor) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file"):
        imaging.write_png(tmp_path / "file" / "a.png", picture, origin="generated")
