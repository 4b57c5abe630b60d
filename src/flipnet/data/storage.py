"""What became of most old pictures on the way to the web: printed gray, stored small, compressed, enlarged again.

Source: our choice; real pairs of a camera's own faults lack it, old scans and photographs of the web have it.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from flipnet.config import StorageConfig
from flipnet.data.colour import luma, round_to_uint8
from flipnet.data.filters import jpeg_round_trip

_ENLARGING = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def store(lq: np.ndarray, config: StorageConfig, rng: np.random.Generator) -> np.ndarray:
    """Return what is left of a picture, uint8 (H, W, 3) RGB, same size, pixel-aligned.

    Everything is drawn from `rng`; with all shares zero the picture stays as it is.
    """
    # Drawn at once, so that one share does not change what another one meets.
    gray, tinted, small, compressed = rng.random(4) < (
        config.gray_share,
        config.tint_share,
        config.small_share,
        config.jpeg_share,
    )
    if gray:
        lq = _print_gray(lq, rng.uniform(0, config.tint) if tinted else 0.0)
    if small:
        lq = _store_small(lq, config, rng, compressed=compressed)
    return lq


def _print_gray(lq: np.ndarray, tint: float) -> np.ndarray:
    """Gray, red above and blue below it by the share `tint`, as on paper that yellowed."""
    return round_to_uint8(luma(lq)[..., None] * np.array([1 + tint, 1, 1 - tint], np.float32))


def _store_small(
    lq: np.ndarray, config: StorageConfig, rng: np.random.Generator, *, compressed: bool
) -> np.ndarray:
    height, width = lq.shape[:2]
    factor = np.exp(rng.uniform(0, np.log(config.small_factor)))
    # Pillow's resizing keeps edges where they are, whatever the sizes, and its box filter averages areas.
    small = Image.fromarray(lq).resize(
        (max(1, round(width / factor)), max(1, round(height / factor))), Image.Resampling.BOX
    )
    quality = round(rng.uniform(*config.jpeg_quality))
    if compressed:
        small = Image.fromarray(jpeg_round_trip(np.asarray(small), quality))
    return np.asarray(small.resize((width, height), _ENLARGING[rng.integers(len(_ENLARGING))]))
