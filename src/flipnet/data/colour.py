"""Luma, gray and colour jitter on float32 (..., 3) RGB images on the 0..255 scale ("levels")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ColourJitter:
    """Drawn colour changes.

    Attributes:
        brightness: factor on all levels.
        contrast: factor on the distance from the mean luma.
        saturation: factor on the distance from the pixel's own luma.
        hue_turns: hue rotation, fractions of a full turn.
        order: the four names above, in the order in which they are applied.
    """

    brightness: float
    contrast: float
    saturation: float
    hue_turns: float
    order: tuple[str, ...]


def luma(levels: np.ndarray) -> np.ndarray:
    """Return BT.601 luma, float32 (...), of uint8 or float (..., 3) RGB, on the same scale."""
    r, g, b = (levels[..., channel].astype(np.float32) for channel in range(3))
    return np.float32(0.299) * r + np.float32(0.587) * g + np.float32(0.114) * b


def to_grayscale(levels: np.ndarray) -> np.ndarray:
    """Replace the three channels of (..., 3) RGB by their luma; uint8 is rounded and stays uint8."""
    gray = np.repeat(luma(levels)[..., None], 3, axis=-1)
    return round_to_uint8(gray) if levels.dtype == np.uint8 else gray


def apply_jitter(levels: np.ndarray, jitter: ColourJitter) -> np.ndarray:
    """Apply the four changes in `jitter.order` to float32 (H, W, 3), clipping to 0..255 after each.

    Source: the jitter of GFPGAN v1 (gfpgan/data/ffhq_degradation_dataset.py), its steps as in torchvision.
    """
    for step in jitter.order:
        levels = _jitter_step(levels, step, getattr(jitter, step))
    return levels


def _jitter_step(levels: np.ndarray, step: str, amount: float) -> np.ndarray:
    factor = np.float32(amount)
    if step == "brightness":
        return np.clip(levels * factor, 0, 255)
    if step == "hue_turns":
        return rotate_hue(levels, amount)
    gray = to_grayscale(levels)
    anchor = gray if step == "saturation" else gray.mean(dtype=np.float64).astype(np.float32)
    return np.clip(anchor + factor * (levels - anchor), 0, 255)


def rotate_hue(levels: np.ndarray, turns: float) -> np.ndarray:
    """Turn the HSV hue of float32 (H, W, 3) RGB in 0..255 by a fraction of a full turn.

    Value and saturation stay. Source: the usual hexagonal HSV model.
    """
    value = levels.max(axis=2)
    chroma = value - levels.min(axis=2)
    r, g, b = (levels[..., channel] for channel in range(3))
    safe = np.where(chroma > 0, chroma, 1)
    sector = np.select([value == r, value == g], [(g - b) / safe, 2 + (b - r) / safe], 4 + (r - g) / safe)
    sector = sector + np.float32(6 * turns)
    # Each channel is value minus chroma times a trapezoid of the hue, shifted by 5, 3, 1 sectors for R, G, B.
    k = np.mod(np.stack([sector + 5, sector + 3, sector + 1], axis=2), 6)
    return (value[..., None] - chroma[..., None] * np.clip(np.minimum(k, 4 - k), 0, 1)).astype(np.float32)


def round_to_uint8(levels: np.ndarray) -> np.ndarray:
    """Round to the nearest whole level and clip to 0..255."""
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
