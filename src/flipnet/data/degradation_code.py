"""A few numbers that say how the degraded picture of a pair differs from the clean one.

The clean picture does not tell which kind of bad picture was made of it, and a network that has to guess answers
with the mean of all kinds. Measured on the pair and given to the network, these numbers take the guess away; at
sampling time they are drawn from those of real pairs. Source: our choice.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from flipnet.data.colour import luma
from flipnet.data.filters import halve
from flipnet.types import FlipnetError

OCTAVES = 4
"""Bands that sharpness is measured in, the finest first."""

NAMES = (
    *(f"band.{octave}" for octave in range(OCTAVES)),
    *("noise.0", "noise.1", "noise.chroma", "blocking"),
    *("contrast", "luma", "tint.blue", "tint.red", "saturation"),
)
"""What the K = 13 numbers of a code are:

band         log10 of the deviation that one octave of the degraded picture's luma has, relative to the clean one's
noise        log10 of the deviation, in levels, of the two finest octaves where there is least, and of fine colour
blocking     log10 of the luma's strongest period of 8 to 40 pixels across rows or columns, relative to the median
contrast     log10 of the deviation of luma, relative to the clean picture's
luma, tint   mean of degraded minus clean luma, and of blue and red minus luma, in units of white
saturation   deviation of the colours relative to the clean picture's, 1 where neither has any
"""

SMALLEST_PX = 16
"""Smallest side that a code can be measured on: noise is averaged over 8 pixels of the second octave."""

_ROUNDING = 0.3  # deviation in levels that rounding to 8 bits makes; less is no property of a picture
_MUTED = 2.0  # levels of colour below which a picture counts as gray
_LONGEST_LOG = 2.0
_BLOCKS_PX = (7.5, 40.0)


def degradation_code(hq: np.ndarray, lq: np.ndarray) -> np.ndarray:
    """Measure how `lq` differs from `hq`.

    Args:
        hq, lq: uint8 (S, S, 3) RGB, aligned, S at least `SMALLEST_PX`.

    Returns:
        float32 (K,) in the order of `NAMES`, finite for flat pictures too: logarithms stay within ±2.

    Raises FlipnetError for other types and shapes.
    """
    side = lq.shape[0]
    if not hq.dtype == lq.dtype == np.uint8 or not hq.shape == lq.shape == (side, side, 3):
        raise FlipnetError(
            f"a degradation code needs two uint8 RGB squares, got {hq.dtype} {hq.shape} and {lq.dtype} {lq.shape}"
        )
    if side < SMALLEST_PX:
        raise FlipnetError(f"a degradation code needs at least {SMALLEST_PX} pixels a side, got {side}")
    clean, bad = luma(hq), luma(lq)
    clean_octaves, bad_octaves = _octaves(clean), _octaves(bad)
    # Colour at half size: JPEG keeps no finer, and it is a quarter of the work.
    clean_colours, bad_colours = _colours(hq, clean), _colours(lq, bad)
    ratios = [_log(_deviation(b) / _deviation(c)) for b, c in zip(bad_octaves, clean_octaves, strict=True)]
    noise = [_log(_quiet_deviation(octave)) for octave in bad_octaves[:2]]
    chroma_noise = _log(float(np.mean([_quiet_deviation(_fine(plane)) for plane in bad_colours])))
    tints = [float(b.mean() - c.mean()) / 255 for b, c in zip(bad_colours, clean_colours, strict=True)]
    return np.array(
        [
            *(*ratios, *noise, chroma_noise, _blocking(bad)),
            _log(_deviation(bad) / _deviation(clean)),
            float(bad.mean() - clean.mean()) / 255,
            *tints,
            min((_spread(bad_colours) + _MUTED) / (_spread(clean_colours) + _MUTED), 3.0),
        ],
        np.float32,
    )


def _octaves(plane: np.ndarray) -> list[np.ndarray]:
    """Gaussian differences, each at half the size of the one before."""
    octaves = []
    for _ in range(OCTAVES):
        octaves.append(_fine(plane))
        plane = halve(plane)
    return octaves


def _fine(plane: np.ndarray) -> np.ndarray:
    return plane - ndimage.gaussian_filter(plane, 1.0, radius=3)


def _colours(rgb: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """B - Y and R - Y, halved."""
    return [halve(rgb[..., channel].astype(np.float32) - y) for channel in (2, 0)]


def _deviation(plane: np.ndarray) -> float:
    return float(np.hypot(plane.std(), _ROUNDING))


def _quiet_deviation(band: np.ndarray) -> float:
    """Deviation where there is least of it: noise is there too, edges are not."""
    energy = halve(halve(halve(band * band)))
    return float(np.hypot(np.sqrt(np.percentile(energy, 10)), _ROUNDING))


def _spread(planes: list[np.ndarray]) -> float:
    return float(np.sqrt(sum(plane.var() for plane in planes)))


def _log(ratio: float) -> float:
    return float(np.clip(np.log10(ratio), -_LONGEST_LOG, _LONGEST_LOG))


def _blocking(y: np.ndarray) -> float:
    """The block grid of a JPEG, also of one that was enlarged afterwards, wherever it starts."""
    peaks = []
    for axis in (0, 1):
        # Third differences: a slope or a curve crosses block borders as well, a step does not.
        steps = np.abs(np.diff(y, 3, axis=axis)).mean(axis=1 - axis)
        steps = steps - ndimage.uniform_filter1d(steps, 2 * round(_BLOCKS_PX[1]) + 1)
        spectrum = np.abs(np.fft.rfft(steps * np.hanning(len(steps))))
        frequency = np.fft.rfftfreq(len(steps))
        periods = (frequency >= 1 / _BLOCKS_PX[1]) & (frequency <= 1 / _BLOCKS_PX[0])
        peaks.append((spectrum[periods].max() + 1e-1) / (np.median(spectrum) + 1e-1))
    return _log(float(np.mean(peaks)))
