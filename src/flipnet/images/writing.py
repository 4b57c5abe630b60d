"""Writing: a photo becomes a file, whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, PngImagePlugin

from flipnet.images.arrays import to_8_bit
from flipnet.images.deep import encode_png, encode_tiff
from flipnet.images.errors import CODEC_ERRORS, ImageError, one_line
from flipnet.images.formats import output_format
from flipnet.images.metadata import Header, header_of
from flipnet.images.photo import Photo


def write_photo(path: Path, photo: Photo, *, format: str | None = None, quality: int = 95) -> None:
    """Write a photo so that `path` holds either the whole new file or what it held before.

    The format is `output_format(photo, path, format)`. Gray photos are written with one channel unless their
    profile is an RGB one. Alpha, Exif and ICC profile are kept; Exif's pixel size is brought up to date.
    PNG and TIFF keep 16 bit; JPEG and WebP round to 8 bit. PNG and TIFF lose nothing, JPEG is written 4:4:4.
    Our choice: transparency is never composited over a made-up background, so JPEG refuses it.

    Args:
        path: file to write; its folder must exist.
        photo: what to write.
        format: "png", "jpeg", "webp" or "tiff".
        quality: JPEG and WebP quality, 1 to 100.

    Raises:
        ImageError: bad format or quality, a photo with transparent pixels as JPEG, or a failed write.
    """
    name = output_format(photo, path, format)
    if not 1 <= quality <= 100:
        raise ImageError(f"quality {quality} is outside 1 to 100")
    if name == "jpeg" and photo.alpha is not None and photo.alpha.min() < np.iinfo(photo.alpha.dtype).max:
        raise ImageError(f"{path}: JPEG cannot hold the photo's transparency; choose png, webp or tiff")
    deep = photo.pixels.dtype == np.uint16 and name in ("png", "tiff")
    samples = _samples_to_write(photo, name, deep=deep)
    header = header_of(photo)

    def encode(file: IO[bytes]) -> None:
        if name == "tiff":
            encode_tiff(file, samples, header)
        elif deep:
            encode_png(file, samples, header)
        else:
            _encode_8_bit(file, samples, name, quality, header)

    try:
        _replace_atomically(path, encode)
    except CODEC_ERRORS as error:  # encoders raise no less variously
        cause = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise ImageError(f"{path}: cannot be written ({cause})") from error


def _encode_8_bit(file: IO[bytes], samples: np.ndarray, name: str, quality: int, header: Header) -> None:
    options: dict[str, Any] = {}
    if name == "jpeg":
        options = {"quality": quality, "subsampling": 0, "xmp": header.xmp}
    elif name == "webp":
        options = {"quality": quality, "exact": True, "xmp": header.xmp}
    else:
        options = {"pnginfo": _png_text(header)}
    if header.exif:
        options["exif"] = header.exif
    if header.icc_profile:
        options["icc_profile"] = header.icc_profile
    if header.dpi is not None and name != "webp":  # WebP keeps it in Exif only
        options["dpi"] = header.dpi
    Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples).save(file, format=name, **options)


def _png_text(header: Header) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for key, value in header.text:
        chunks.add_text(key, value)
    if header.xmp:
        chunks.add_itxt("XML:com.adobe.xmp", header.xmp.decode())
    return chunks


def _replace_atomically(path: Path, encode: Callable[[IO[bytes]], None]) -> None:
    # Short, as the photo's own name may be as long as names can be; hidden, so that what a killed process
    # leaves behind is no picture to anyone.
    temporary = path.with_name(f".flipnet-{secrets.token_hex(8)}.part")
    with temporary.open("xb") as file:
        try:
            encode(file)
            file.close()  # a full disk may show only now
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _samples_to_write(photo: Photo, name: str, *, deep: bool) -> np.ndarray:
    profile_is_rgb = photo.icc_profile is not None and photo.icc_profile[16:20] == b"RGB "
    # Pillow, our reader, does not know TIFF with 16-bit gray and alpha.
    three = not photo.grayscale or profile_is_rgb or (deep and name == "tiff" and photo.alpha is not None)
    channels = photo.pixels if three else photo.pixels[..., :1]
    if photo.alpha is not None and name != "jpeg":
        channels = np.concatenate([channels, photo.alpha[..., None]], axis=2)
    return np.ascontiguousarray(channels if deep else to_8_bit(channels))
