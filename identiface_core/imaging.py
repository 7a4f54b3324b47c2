"""Pictures in and out: any file to a float tensor, a tensor to a PNG that says where it comes from.

Images are float32 `(C, H, W)` or `(B, C, H, W)` in [0, 1], RGB or grey. Reading is bounded before anything is
decoded; writing is atomic. Errors name the file and what to do.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F

from identiface_core.errors import InputError
from identiface_core.provenance import JSON_KEYWORD, XMP_KEYWORD, Origin, json_text, xmp_packet
from identiface_core.weights.files import write_atomic

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor

MAX_SIDE = 8192
"""Longest side of a picture file that is decoded, in pixels."""

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "ICO")
"""Pillow's names of the formats we open. Vector formats are left out: Pillow hands them to outside
programs.
"""

Filter = Literal["bilinear", "bicubic"]

log = logging.getLogger(__name__)


def open_bounded(path: str | Path) -> Picture:
    """Open a picture file without decoding its pixels.

    Raises InputError for a missing file, a folder, something that is no picture, or one with a side above
    MAX_SIDE.
    """
    from PIL import Image, UnidentifiedImageError

    where = Path(path)
    if where.is_dir():
        raise InputError(f"{where}: a picture file is wanted, this is a folder; name one file in it")
    if not where.exists():
        raise InputError(
            f"{where}: there is no such file; check the path (in a case file it counts from that file's folder)"
        )
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound below is stricter
            picture = Image.open(where, formats=[name for name in FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError:
        raise InputError(
            f"{where}: the picture is too large; at most {MAX_SIDE} px a side, shrink it first"
        ) from None
    except UnidentifiedImageError:
        raise InputError(f"{where}: not a picture we can read; save it as PNG, JPEG or WebP") from None
    except Exception as error:  # decoders raise many kinds of errors on damaged headers
        raise InputError(
            f"{where}: cannot be opened ({error}); save it again as PNG, JPEG or WebP"
        ) from error
    if max(picture.size) > MAX_SIDE:
        size = "{} x {}".format(*picture.size)
        picture.close()
        raise InputError(f"{where}: the picture has {size} px; at most {MAX_SIDE} px a side, shrink it first")
    return picture


def read_image(path: str | Path) -> Tensor:
    """Read a picture file: `(3, H, W)` float32 in [0, 1], RGB.

    CMYK, palettes, 1 to 16 bits, alpha (laid over white) and EXIF orientation are taken care of; of an
    animation the first frame is used, with a log line that says so. Raises InputError (`open_bounded`, or a
    damaged file).
    """
    return _decode(path, "RGB")


def read_grey(path: str | Path) -> Tensor:
    """Read a picture file as luminance (Rec. 601): `(1, H, W)` float32 in [0, 1]. Otherwise as
    `read_image`.
    """
    return _decode(path, "L")


def _decode(path: str | Path, mode: str) -> Tensor:
    from PIL import ImageOps

    with open_bounded(path) as picture:
        frames = getattr(picture, "n_frames", 1) if picture.format in ("GIF", "WEBP", "PNG", "AVIF") else 1
        if frames > 1:
            log.warning("%s holds %d frames; the first one is used", path, frames)
        try:
            picture.load()
            return _to_tensor(ImageOps.exif_transpose(picture), mode, path)
        except InputError:
            raise
        except Exception as error:  # decoders raise many kinds of errors on damaged data
            reason = str(error) or type(error).__name__
            raise InputError(f"{path}: the picture is damaged ({reason}); save or copy it again") from error


def _to_tensor(picture: Picture, mode: str, path: str | Path) -> Tensor:
    import numpy as np
    from PIL import Image

    if picture.mode == "F" or picture.mode.startswith("I"):  # Pillow's own conversion clips these to 255
        values = torch.from_numpy(np.asarray(picture).astype(np.float32))
        if picture.mode != "F":
            values = values / 65535
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise InputError(
                f"{path}: its {picture.mode} values leave the range we know; save it with 8 or 16 bits"
            )
        return values.expand(3 if mode == "RGB" else 1, -1, -1).contiguous()
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "La", "PA", "RGBa"):
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (255, 255, 255, 255)), picture)
    pixels = np.array(picture.convert("RGB").convert(mode))
    return from_uint8(torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1))


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Bicubic resize of `(C, H, W)` or `(B, C, H, W)` to `height` x `width`, antialiased when shrinking,
    clamped to [0, 1].

    Pixel centres at integer + 0.5 (corners are not aligned). Differentiable.
    """
    batch = image if image.dim() == 4 else image[None]
    if batch.shape[-2:] != (height, width):
        batch = resample(batch, (height, width), "bicubic").clamp(0, 1)
    return batch if image.dim() == 4 else batch[0]


def resample(images: Tensor, size: tuple[int, int], mode: Filter) -> Tensor:
    """`(B, C, H, W)` -> `(B, C, *size)`, antialiased when shrinking; to the bit `F.interpolate` with `antialias`, but with a
    gradient on every device.

    Pixel centres at integer + 0.5 (corners are not aligned). Not clamped: "bicubic" may overshoot. Works in float32 at least.
    """
    if images.shape[-2:] == size:
        return images
    fine = images.to(torch.promote_types(images.dtype, torch.float32))
    return _Resample.apply(fine, size, mode).to(images.dtype)


class _Resample(torch.autograd.Function):
    """Sums of pixels, so the gradient is two matrix products. torch has kernels of its own for CPUs and CUDA only."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, size: tuple[int, int], mode: Filter) -> Tensor:
        ctx.sides, ctx.mode = tuple(zip(images.shape[-2:], size, strict=True)), mode
        return F.interpolate(images, size, mode=mode, align_corners=False, antialias=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rows, columns = (_shares(before, after, ctx.mode, gradient) for before, after in ctx.sides)
        return rows.mT @ gradient @ columns, None, None


def _shares(before: int, after: int, mode: Filter, like: Tensor) -> Tensor:
    """`(after, before)`: how far each pixel before counts in each one after; rows sum to 1. The tent, or Keys' cubic of -1/2."""
    scale = before / after
    at = torch.arange(before, dtype=like.dtype, device=like.device) + 0.5
    centres = scale * (torch.arange(after, dtype=like.dtype, device=like.device) + 0.5)
    x = ((at - centres[:, None]) / max(scale, 1.0)).abs()
    if mode == "bilinear":
        found = (1 - x).clamp(min=0)
    else:
        found = torch.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2) * (x < 2)
    return found / found.sum(1, keepdim=True)


def luminance(image: Tensor) -> Tensor:
    """Rec. 601 luminance: `(..., 3, H, W)` -> `(..., 1, H, W)`; a grey image passes unchanged."""
    if image.shape[-3] == 1:
        return image
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=image.dtype, device=image.device)
    return (image * weights[:, None, None]).sum(-3, keepdim=True)


def to_uint8(image: Tensor) -> Tensor:
    """[0, 1] float to uint8 of the same shape, rounded to the nearest grey level; values outside are
    clamped.
    """
    return (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)


def from_uint8(image: Tensor) -> Tensor:
    """uint8 to contiguous float32 in [0, 1] of the same shape."""
    return image.to(torch.float32).contiguous() / 255


def to_pil(image: Tensor) -> Picture:
    """`(3, H, W)` or `(1, H, W)` in [0, 1] to a Pillow picture (RGB or L). Raises InputError for other
    shapes.
    """
    from PIL import Image

    if image.dim() != 3 or image.shape[0] not in (1, 3):
        raise InputError(
            f"an image of shape (3, H, W) or (1, H, W) is wanted, this one is {tuple(image.shape)}"
        )
    pixels = to_uint8(image).cpu()
    return Image.fromarray(
        pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous().numpy()
    )


def png_bytes(image: Tensor, *, origin: Origin | str, data: Mapping[str, Any] | None = None) -> bytes:
    """PNG of `(3, H, W)` or `(1, H, W)` with its origin inside (XMP and JSON): the same bytes for the same
    input.
    """
    from PIL.PngImagePlugin import PngInfo

    origin, info, buffer = Origin(origin), PngInfo(), io.BytesIO()
    info.add_itxt(XMP_KEYWORD, xmp_packet(origin))
    info.add_text(JSON_KEYWORD, json_text(origin, data))
    to_pil(image).save(buffer, "PNG", pnginfo=info, compress_level=6)
    return buffer.getvalue()


def write_png(
    path: str | Path, image: Tensor, *, origin: Origin | str, data: Mapping[str, Any] | None = None
) -> None:
    """Write `png_bytes` atomically. Raises OutputError when the disk is full or the place cannot be
    written.
    """
    write_atomic(path, png_bytes(image, origin=origin, data=data))
