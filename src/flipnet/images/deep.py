"""What Pillow cannot do: 16-bit colour PNG and TIFF, and TIFF with Exif.

Samples here are (H, W) or (H, W, C) with C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha; alpha is not
premultiplied.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import IO, cast

import imagecodecs
import numpy as np
import tifffile
from PIL import ExifTags, Image, TiffImagePlugin

from flipnet.images.metadata import Header


def is_deep(image: Image.Image, path: Path) -> bool:
    """Tell whether a file that Pillow opened is a PNG or TIFF with 16 bits per sample."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24] == 16  # IHDR's bit depth
    return isinstance(image, TiffImagePlugin.TiffImageFile) and max(image.tag_v2.get(258, (1,))) == 16


def decode(path: Path) -> np.ndarray:
    """Decode a 16-bit PNG, or the first page of a 16-bit TIFF, to uint16 samples.

    Raises:
        ValueError: TIFF samples that are not unsigned, gray or RGB.
        One of `CODEC_ERRORS`: a damaged file.
    """
    with path.open("rb") as file:
        if file.read(4) == b"\x89PNG":
            return imagecodecs.png_decode(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        page = cast(tifffile.TiffPage, tiff.pages[0])
        samples = page.asarray()
    white_is_zero, black_is_zero, rgb = 0, 1, 2
    if samples.dtype != np.uint16 or page.photometric not in (white_is_zero, black_is_zero, rgb):
        raise ValueError(f"TIFF samples of type {samples.dtype}, {page.photometric!r} are not supported")
    if samples.ndim == 2:
        samples = samples[..., None]
    elif page.planarconfig == 2:
        samples = np.moveaxis(samples, 0, -1)
    if page.photometric == white_is_zero:
        samples[..., :1] = ~samples[..., :1]
    if page.extrasamples and page.extrasamples[0] == 1:  # associated alpha: colours are premultiplied
        alpha = samples[..., -1:].astype(np.float64) / 65535
        colours = np.divide(samples[..., :-1], alpha, out=np.zeros(samples[..., :-1].shape), where=alpha > 0)
        samples[..., :-1] = np.rint(colours.clip(0, 65535))
    return samples


def encode_png(file: IO[bytes], samples: np.ndarray, header: Header) -> None:
    """Write uint16 (H, W, C) samples as PNG with what `header` holds."""
    encoded = imagecodecs.png_encode(samples if samples.shape[2] > 1 else samples[..., 0])
    header_end = 8 + 25  # signature, then IHDR; both extra chunks belong between IHDR and IDAT
    file.write(encoded[:header_end])
    if header.icc_profile:
        file.write(_png_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(header.icc_profile)))
    if header.dpi is not None:
        per_metre = (round(value / 0.0254) for value in header.dpi)
        file.write(_png_chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if header.exif:
        file.write(_png_chunk(b"eXIf", header.exif.removeprefix(b"Exif\0\0")))
    for key, value in (*header.text, *((("XML:com.adobe.xmp", header.xmp.decode()),) if header.xmp else ())):
        # iTXt: key, uncompressed, no language, no translated key, UTF-8 (PNG 1.2, 4.2.3.3).
        file.write(_png_chunk(b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + value.encode()))
    file.write(encoded[header_end:])


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def encode_tiff(file: IO[bytes], samples: np.ndarray, header: Header) -> None:
    """Write uint8 or uint16 (H, W, C) samples as TIFF with what `header` holds, its text left out.

    Pillow writes neither 16-bit colour nor compressed TIFF with Exif, tifffile no Exif, so the one strip is
    packed here (TIFF 6.0: deflate, horizontal predictor) and Pillow's directory writer adds the tags with
    their nested Exif directory.
    """
    height, width, channels = samples.shape
    rows = samples.astype(samples.dtype.newbyteorder("<"), copy=True)
    rows[:, 1:] -= samples[:, :-1]
    strip = zlib.compress(rows.data, 6)
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    if header.exif:
        stored = Image.Exif()
        stored.load(header.exif)
        for tag in stored:
            nested = tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
            tags[tag] = stored.get_ifd(tag) if nested else stored[tag]
    for tag, value in ((256, width), (257, height), (259, 8), (277, channels), (278, height), (317, 2)):
        tags[tag] = value
    tags[258] = (8 * samples.itemsize,) * channels
    tags[262] = 2 if channels > 2 else 1
    tags[273], tags[279] = 0, len(strip)  # Pillow moves strip offsets past the directory
    if channels in (2, 4):
        tags[338] = 2  # one extra sample: alpha, not premultiplied
    if header.dpi is not None:
        tags[282], tags[283], tags[296] = *header.dpi, 2  # inches
    for tag, kind, block in ((34675, 7, header.icc_profile), (700, 1, header.xmp)):  # 7 UNDEFINED, 1 BYTE
        if block:
            tags.tagtype[tag] = kind
            tags[tag] = block
    tags.save(file)
    file.write(strip)
