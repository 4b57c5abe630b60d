"""What a picture file says beside its pixels: Exif, XMP, text, resolution; as read, and as written again."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

from flipnet.images import xmp
from flipnet.images.errors import CODEC_ERRORS
from flipnet.images.photo import Photo

# TIFF tags that describe how the file's pixels are stored (or hold layers); untrue of any other file.
_STORAGE_TAGS = frozenset(
    (*range(254, 269), 273, *range(277, 282), 284, *range(288, 294), 317, *range(320, 348), *range(512, 533))
) | {34377, 34675, 37724}
# XMP and IPTC blocks that a TIFF keeps among its tags.
_BLOCK_TAGS = frozenset({700, 33723})
_PIXEL_X, _PIXEL_Y = 0xA002, 0xA003  # Exif PixelXDimension and PixelYDimension


@dataclass(frozen=True)
class Header:
    """What is written beside the samples; empty parts are left out.

    Attributes:
        exif: Exif block starting with b"Exif\\0\\0".
        icc_profile: ICC profile.
        xmp: XMP packet, UTF-8.
        text: (key, value) pairs, for PNG only.
        dpi: pixels per inch across and down; None = unknown.
    """

    exif: bytes = b""
    icc_profile: bytes = b""
    xmp: bytes = b""
    text: tuple[tuple[str, str], ...] = ()
    dpi: tuple[float, float] | None = None


def read_exif(image: Image.Image, path: Path) -> tuple[bytes | None, int]:
    """Return (Exif block or None, orientation); a damaged block costs the photo no more than the block."""
    orientation = 1
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        for tag in (_STORAGE_TAGS | _BLOCK_TAGS).intersection(exif):
            del exif[tag]
        exif.pop(ExifTags.Base.InterColorProfile, None)
        if not exif:
            return None, 1
        if ExifTags.Base.Orientation in exif:
            exif[ExifTags.Base.Orientation] = 1
        exif.bigtiff = False  # whatever the TIFF around it was, Exif is not
        block = exif.tobytes()
        # Whoever gets the block may rely on it.
        again = Image.Exif()
        again.load(block)
        again.tobytes()
        return block, orientation
    except CODEC_ERRORS as error:
        warnings.warn(f"{path}: damaged Exif data are left out ({error})", stacklevel=2)
        return None, orientation


def read_xmp(image: Image.Image, path: Path) -> bytes | None:
    """Return the XMP packet as `xmp.clean` leaves it, or None; a damaged packet is left out with a warning."""
    packet = image.info.get("xmp")
    if not packet:
        return None
    try:
        return xmp.clean(packet if isinstance(packet, bytes) else str(packet).encode())
    except xmp.XmpError as error:
        warnings.warn(f"{path}: damaged XMP data are left out ({error})", stacklevel=2)
        return None


def read_text(image: Image.Image) -> tuple[tuple[str, str], ...]:
    """Return (key, value) of a PNG's text chunks, XMP and packed profiles left out."""
    if image.format != "PNG":
        return ()
    return tuple(
        (key, str(value))  # str() also of Pillow's iTXt type, which carries a language
        for key, value in image.info.items()
        if isinstance(key, str) and isinstance(value, str)
        if key != "XML:com.adobe.xmp" and not key.startswith("Raw profile type ")
    )


def read_dpi(image: Image.Image) -> tuple[float, float] | None:
    """Return pixels per inch across and down, or None where the file does not know them."""
    found = image.info.get("dpi")
    if not isinstance(found, tuple) or len(found) != 2:
        return None
    x, y = float(found[0]), float(found[1])
    # 1 is what files hold that do not know; 65535 is the most that JPEG can say.
    return (x, y) if all(math.isfinite(v) and 1 < v <= 65535 for v in (x, y)) else None


def header_of(photo: Photo) -> Header:
    """Return what is written beside the photo's samples; Exif's pixel size is brought up to date."""
    return Header(_exif_for(photo), photo.icc_profile or b"", photo.xmp or b"", photo.text, photo.dpi)


def _exif_for(photo: Photo) -> bytes:
    if photo.exif is None:
        return b""
    exif = Image.Exif()
    exif.load(photo.exif)
    sizes = exif.get_ifd(ExifTags.IFD.Exif)
    height, width = photo.pixels.shape[:2]
    for tag, size in ((_PIXEL_X, width), (_PIXEL_Y, height)):
        if tag in sizes:
            sizes[tag] = size
    return exif.tobytes()
