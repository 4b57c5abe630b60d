"""A photo in memory: pixels, and what its file says about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Photo:
    """One picture, upright, at its file's own bit depth.

    Attributes:
        pixels: uint8 or uint16 (H, W, 3), RGB in the colour space `icc_profile` names (sRGB if None).
        alpha: (H, W), the pixels' dtype, 0 = transparent, not premultiplied; None if the file has none.
        grayscale: the three channels are equal at every pixel.
        exif: Exif block starting with b"Exif\\0\\0", orientation 1, no thumbnail; None if absent.
        icc_profile: ICC profile of `pixels`, "GRAY" or "RGB " space; None if absent.
        format: the file's format: "png", "jpeg", "webp", "tiff", "bmp", "gif", ...
        xmp: XMP packet without orientation and thumbnails (UTF-8); None if absent.
        text: (key, value) of a PNG's text chunks, XMP and packed profiles left out.
        dpi: horizontal and vertical resolution in pixels per inch; None if the file states none.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grayscale: bool = False
    exif: bytes | None = None
    icc_profile: bytes | None = None
    format: str = "png"
    xmp: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()
    dpi: tuple[float, float] | None = None
