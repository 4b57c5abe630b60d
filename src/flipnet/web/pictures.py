"""Pictures for looking at on the page; results themselves are never taken from here."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flipnet.faces.align import align, estimate_similarity
from flipnet.images import Photo, resize, to_8_bit, write_photo
from flipnet.types import Face

PREVIEW_PX = 2048
"""Longest side, so that a 60-megapixel photo does not stall a telephone. Our choice."""

THUMBNAIL_PX = 160


def preview(photo: Photo, path: Path) -> Path:
    """Write a photo as 8-bit PNG, at most `PREVIEW_PX` long, without metadata, and return `path`."""
    height, width = photo.pixels.shape[:2]
    factor = min(1.0, PREVIEW_PX / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    alpha = None if photo.alpha is None else resize(to_8_bit(photo.alpha), size)
    pixels = resize(to_8_bit(photo.pixels), size)
    write_photo(path, Photo(pixels, alpha, photo.grayscale, icc_profile=photo.icc_profile), format="png")
    return path


def thumbnail(photo: Photo, face: Face, path: Path) -> Path:
    """Write a face, upright and filling the picture, as a small PNG, and return `path`."""
    matrix = estimate_similarity(face.landmarks_px, THUMBNAIL_PX)
    crop = np.rint(align(photo.pixels, matrix, THUMBNAIL_PX) * 255).astype(np.uint8)
    write_photo(path, Photo(crop, grayscale=photo.grayscale, icc_profile=photo.icc_profile), format="png")
    return path
