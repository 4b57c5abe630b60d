"""Which files are pictures, and which format a photo is written in."""

from __future__ import annotations

import os
from pathlib import Path

from flipnet.images.errors import ImageError
from flipnet.images.photo import Photo

WRITABLE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})
"""Suffixes, lower case, of what `write_photo` writes."""

SUPPORTED_SUFFIXES = WRITABLE_SUFFIXES | {".bmp", ".gif", ".avif", ".heic", ".heif"}
"""Suffixes, lower case, that `find_images` collects from a folder."""

WRITABLE_FORMATS = ("png", "jpeg", "webp", "tiff")
"""Formats `write_photo` writes. Our choice: GIF (256 colours), BMP (no metadata), AVIF and HEIC (slow to
encode well) are read only."""


def find_images(path: Path) -> list[Path]:
    """List the picture files of a folder, recursively, sorted; a file is returned as it is.

    Only names in `SUPPORTED_SUFFIXES` (any case) that do not start with a dot are listed.

    Raises:
        ImageError: `path` does not exist.
    """
    # Unlike Path's methods, these two answer "no" to every path that cannot be followed.
    if os.path.isfile(path):
        return [path]
    if not os.path.isdir(path):
        raise ImageError(f"{path}: no such file or folder")
    found = (
        p for p in path.rglob("*") if p.suffix.lower() in SUPPORTED_SUFFIXES and not p.name.startswith(".")
    )
    return sorted(p for p in found if os.path.isfile(p))


def output_format(photo: Photo, path: Path | None = None, format: str | None = None) -> str:
    """Choose the format to write: `format`, else the path's suffix, else the photo's own, else "png".

    Raises:
        ImageError: `format`, or a picture suffix of `path`, is not in `WRITABLE_FORMATS` ("jpg" and "tif" are
            understood).
    """
    if format is None and path is not None and path.suffix.lower() in SUPPORTED_SUFFIXES:
        format = path.suffix[1:]
    if format is None:
        return photo.format if photo.format in WRITABLE_FORMATS else "png"
    name = {"jpg": "jpeg", "tif": "tiff"}.get(format.lower(), format.lower())
    if name not in WRITABLE_FORMATS:
        raise ImageError(f"format {format!r} cannot be written; choose one of {', '.join(WRITABLE_FORMATS)}")
    return name
