"""Reading what a command was given, with everything the user should be told about it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from flipnet.images import Photo, read_photo, resize, to_8_bit


def read_input(path: Path) -> tuple[Photo, list[str]]:
    """Read a photo; what reading it warns about (damaged metadata) is for the report, not for a log.

    Raises:
        ImageError: see `read_photo`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        photo = read_photo(path)
    return photo, [str(warning.message).removeprefix(f"{path}: ") for warning in caught]


def native_crop(photo: Photo, size_px: int) -> tuple[np.ndarray, list[str]]:
    """Return an aligned crop as uint8 (S, S, 3) RGB, S = `size_px`, and sentences on what that took.

    Another size is resized (Lanczos), transparency is left out.
    """
    height, width = photo.pixels.shape[:2]
    notes = []
    if (height, width) != (size_px, size_px):
        shape = "" if height == width else " and its proportions changed, as it is not square"
        notes.append(f"aligned crop of {width}x{height} pixels resized to {size_px}x{size_px}{shape}")
    if photo.alpha is not None and photo.alpha.min() < np.iinfo(photo.alpha.dtype).max:
        notes.append("its transparency is left out")
    return resize(to_8_bit(photo.pixels), (size_px, size_px)), notes
