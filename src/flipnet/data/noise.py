"""Gaussian and Poisson noise on float32 (H, W, 3) RGB images on the 0..255 scale ("levels")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from flipnet.data.colour import luma, round_to_uint8


@dataclass(frozen=True)
class Noise:
    """Drawn noise.

    Attributes:
        kind: "gaussian", the same everywhere, or "poisson", whose variance follows the brightness.
        strength: standard deviation in levels of 255, or the factor on the Poisson noise.
        gray: the same noise in all three channels.
        seed: seed of the noise itself.
    """

    kind: Literal["gaussian", "poisson"]
    strength: float
    gray: bool
    seed: int


def add_noise(levels: np.ndarray, noise: Noise) -> np.ndarray:
    """Return the noisy image, float32 (H, W, 3), clipped to 0..255, not rounded.

    Poisson noise is that of counting 2^n quanta at full white, 2^n being the smallest power of two that is no
    less than the number of distinct levels in the image; it is measured on the 8-bit image, then scaled and
    added. Source: the noise models of Real-ESRGAN (BasicSR's degradations, read for the conventions).
    """
    rng = np.random.default_rng(noise.seed)
    if noise.kind == "gaussian":
        shape = (*levels.shape[:2], 1 if noise.gray else 3)
        added = rng.standard_normal(shape, dtype=np.float32)
    else:
        base = round_to_uint8(luma(levels)[..., None] if noise.gray else levels)
        added = _poisson_noise(base, rng)
    added *= np.float32(noise.strength)
    added = added + levels
    return np.clip(added, 0, 255, out=added)


def _poisson_noise(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return counted minus expected levels, float32, for a uint8 image.

    Our choice: counts are λ + √λ z + (z² - 1)/6 with normal z, rounded and kept from going negative, the
    Cornish-Fisher form of the Poisson distribution. Mean, variance and skewness are those of the exact one,
    at a third of its time.
    """
    distinct = np.count_nonzero(np.bincount(pixels.ravel(), minlength=256))
    quanta = 2 ** int(np.ceil(np.log2(distinct)))
    expected = np.arange(256, dtype=np.float32) * np.float32(quanta / 255)
    # Every pixel's λ and √λ come from a table of the 256 levels.
    counts = rng.standard_normal(pixels.shape, dtype=np.float32)
    skew = (counts * counts - 1) * np.float32(1 / 6)
    counts *= np.sqrt(expected)[pixels]
    counts += skew
    counts += expected[pixels]
    np.rint(counts, out=counts)
    np.maximum(counts, 0, out=counts)
    counts *= np.float32(255 / quanta)
    counts -= pixels
    return counts
