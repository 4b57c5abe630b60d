"""The before-and-after picture."""

from __future__ import annotations

import numpy as np

from flipnet.images import Photo, resize, to_8_bit

GAP_PX = 8
WHITE = 255


def side_by_side(before: Photo, after: Photo) -> Photo:
    """Put two photos next to each other, before on the left, with a white gap.

    `before` is enlarged (Lanczos) to the size of `after`. The result has 8 bits and no alpha, keeps `after`'s
    ICC profile and format, and leaves out its Exif, which describes another picture.
    """
    height, width = after.pixels.shape[:2]
    left = resize(to_8_bit(before.pixels), (width, height))
    gap = np.full((height, GAP_PX, 3), WHITE, np.uint8)
    pixels = np.concatenate([left, gap, to_8_bit(after.pixels)], axis=1)
    return Photo(pixels, None, before.grayscale and after.grayscale, None, after.icc_profile, after.format)
