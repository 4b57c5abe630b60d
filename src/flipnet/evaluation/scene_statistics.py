"""A feature space that sees how a face was degraded, and hardly whose face it is.

The core are the natural-scene statistics of NIQE (Mittal et al. 2013, "Making a completely blind image quality
analyzer"): luma is normalised by its local mean and contrast (MSCN), which takes most of the content away, and
the shape of what is left, and of the products of neighbours, tells blur, noise and compression apart. Around
them stand octave-band energies, noise in flat places, blocking and chroma noise: our choice. What was measured,
and what was left out because it tells people apart instead, is in docs/degradation-evaluation.md.

The face is halved to 256 pixels first. Small photos were enlarged to 512 by whoever aligned them, and at full size
the features saw the interpolation as much as the photograph: the same scans aligned with linear instead of cubic
interpolation covered 58 % of the first, halved all of them (80 old scans; docs/degradation-evaluation.md).

Everything is measured on the part of an aligned 512-pixel face between forehead, ears and chin, so that hair,
clothes and background, which say more about the person and the place, stay out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, special

from flipnet.data.colour import luma
from flipnet.data.filters import halve
from flipnet.types import FlipnetError

PROTOCOL = "face-degradation-statistics-1"
"""Name of this feature definition; any change that moves a number changes it."""

FACE_SIZE_PX = 512
"""Side of the aligned faces that the features are defined on."""

REGION_PX = (112, 152, 400, 440)
"""(x0, y0, x1, y1) of the measured region, end exclusive: eyebrows to chin, cheek to cheek on the FFHQ template.
Our choice, three by three patches of `PATCH_PX`."""

PATCH_PX = 96
"""Side of a patch of the 512-pixel face: 48 at the first measured scale, 24 at the second. NIQE's, which does not
halve."""

BAND_SIGMAS_PX = (0.0, 0.7, 1.4, 2.8)
"""Gaussian scales whose differences are the three bands, an octave apart, pixels of the halved face."""

_MARGIN_PX = 32  # what the widest filter needs around the region, in the 512-pixel face
_ROUNDING = (
    0.3  # deviation in levels that rounding to 8 bits makes; less than that is no property of a picture
)
_SHIFTS = {"across": (0, 1), "down": (1, 0), "diagonal": (1, 1), "antidiagonal": (1, -1)}
_ALPHAS = np.arange(0.2, 10.001, 0.001)
# E[|x|]² / E[x²] of a generalised Gaussian of shape alpha; rises with alpha.
_MOMENT_RATIO = np.exp(
    2 * special.gammaln(2 / _ALPHAS) - special.gammaln(1 / _ALPHAS) - special.gammaln(3 / _ALPHAS)
)


def _groups() -> dict[str, tuple[str, ...]]:
    fits = [f"{shift}.{what}" for shift in _SHIFTS for what in ("shape", "mean", "left", "right")]
    scales = {f"nss{scale}": ("shape", "width", *fits) for scale in (1, 2)}
    bands = tuple(str(index) for index in range(len(BAND_SIGMAS_PX) - 1))
    return scales | {"band": bands, "flat": ("1", "2"), "blocking": ("",), "chroma": ("",)}


FEATURE_NAMES = tuple(f"{group}.{name}".rstrip(".") for group, names in _groups().items() for name in names)
"""Names of the D = 43 features: group, dot, what it is; the groups are those of `GROUP_WEIGHTS`."""

GROUP_WEIGHTS = {"nss1": 1.0, "nss2": 1.0, "band": 0.25, "flat": 0.25, "blocking": 0.5, "chroma": 0.25}
"""Share of each group in squared distances, before correlations: 18 numbers that say nearly the same shall not
outvote one that says something else. Our choice, by measurement."""


@dataclass(frozen=True)
class AsymmetricFit:
    """Moment fit of an asymmetric generalised Gaussian, one value per sample set.

    The density is proportional to exp(-(|x| / left)^shape) below 0 and exp(-(x / right)^shape) above.

    Attributes:
        shape: 2 is Gaussian, 1 Laplacian; within 0.2 to 10.
        left: scale below zero.
        right: scale above zero.
    """

    shape: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean of the fitted distribution."""
        ratio = special.gammaln(2 / self.shape) - special.gammaln(1 / self.shape)
        return (self.right - self.left) * np.exp(ratio)


def fit_asymmetric(samples: np.ndarray) -> AsymmetricFit:
    """Fit float (P, n), one distribution per row, by matching moments.

    Source: Lasmar et al. 2009, as NIQE uses it. A side without samples has scale 0; a row of zeros is NaN.
    """
    square, negative, positive = samples**2, samples < 0, samples > 0
    left = np.sqrt((square * negative).sum(1) / np.maximum(negative.sum(1), 1))
    right = np.sqrt((square * positive).sum(1) / np.maximum(positive.sum(1), 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.abs(samples).mean(1) ** 2 / square.mean(1)
        # (g³ + 1)(g + 1) / (g² + 1)² with g = left / right, written so that neither may be the zero one.
        lop = (left**3 + right**3) * (left + right) / (left**2 + right**2) ** 2
        shape = np.interp(ratio * lop, _MOMENT_RATIO, _ALPHAS)
    width = np.exp((special.gammaln(1 / shape) - special.gammaln(3 / shape)) / 2)
    return AsymmetricFit(shape, left * width, right * width)


def mscn(y: np.ndarray) -> np.ndarray:
    """Mean-subtracted contrast-normalised coefficients of luma, float (H, W) in levels, same shape, unitless.

    (y - mean) / (deviation + 1), both in a Gaussian window of 7x7 and sigma 7/6. Source: NIQE.
    """
    mean, deviation = local_moments(y)
    return (y - mean) / (deviation + 1)


def local_moments(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of float (H, W) luma in a Gaussian window of 7x7 and sigma 7/6, same shapes."""
    blur = {"sigma": 7 / 6, "radius": 3, "mode": "nearest"}
    mean = ndimage.gaussian_filter(y, **blur)
    variance = ndimage.gaussian_filter(y * y, **blur) - mean * mean
    return mean, np.sqrt(np.maximum(variance, 0))


def scene_statistics(face: np.ndarray) -> np.ndarray:
    """Measure one face.

    Args:
        face: uint8 (512, 512, 3) RGB, aligned to the FFHQ template.

    Returns:
        float64 (D,), all finite, in the order of `FEATURE_NAMES`. Natural-scene statistics are means over the
        patches; scales and energies are logarithms to base 10 of levels.

    Raises FlipnetError for another dtype or size, and for a face without any texture (one flat colour).
    Source: NIQE for "nss1" and "nss2", the rest is our choice.
    """
    if face.dtype != np.uint8 or face.shape != (FACE_SIZE_PX, FACE_SIZE_PX, 3):
        raise FlipnetError(
            f"degradation features need a uint8 512x512 RGB face, got {face.dtype} {face.shape}"
        )
    x0, y0, x1, y1 = REGION_PX
    rgb = face[y0 - _MARGIN_PX : y1 + _MARGIN_PX, x0 - _MARGIN_PX : x1 + _MARGIN_PX].astype(np.float32)
    y = luma(rgb)
    half = halve(y)
    nss = [*_nss(half, 2), *_nss(halve(half), 4)]
    features = [*nss, *_bands(half), *_flat_noise(half), _blocking(y), _chroma_noise(halve(rgb), half)]
    values = np.array(features, np.float64)
    if not np.isfinite(values).all():
        raise FlipnetError("the face is flat: there is no texture to measure")
    return values


def _inner(plane: np.ndarray, scale: int = 2) -> np.ndarray:
    """The measured region of a plane shrunk by `scale`."""
    margin = _MARGIN_PX // scale
    return plane[margin:-margin, margin:-margin]


def _patches(plane: np.ndarray, side: int) -> np.ndarray:
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    return plane.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows * columns, side * side)


def _nss(y: np.ndarray, scale: int) -> Sequence[float]:
    side = PATCH_PX // scale
    coefficients = mscn(y)
    plain = _patches(_inner(coefficients, scale), side)
    textured = plain.std(1) > 1e-3
    if not textured.any():
        return [np.nan]
    fit = fit_asymmetric(plain[textured])
    features = [np.log10(fit.shape), np.log10((fit.left + fit.right) / 2)]
    for down, across in _SHIFTS.values():
        product = coefficients * np.roll(coefficients, (-down, -across), axis=(0, 1))
        fit = fit_asymmetric(_patches(_inner(product, scale), side)[textured])
        features += [np.log10(fit.shape), fit.mean, np.log10(fit.left + 1e-3), np.log10(fit.right + 1e-3)]
    return [float(feature.mean()) for feature in features]


def _log_deviation(plane: np.ndarray) -> float:
    return float(np.log10(np.hypot(plane.std(), _ROUNDING)))


def _bands(y: np.ndarray) -> Sequence[float]:
    blurred = [y if sigma == 0 else ndimage.gaussian_filter(y, sigma) for sigma in BAND_SIGMAS_PX]
    return [_log_deviation(_inner(fine - coarse)) for fine, coarse in itertools.pairwise(blurred)]


def _flat_noise(y: np.ndarray) -> Sequence[float]:
    """Energy of the two finest bands where there is least of it: noise is there too, edges are not."""
    values = []
    for fine, coarse in ((0.0, 1.0), (1.0, 2.0)):
        band = ndimage.gaussian_filter(y, fine) - ndimage.gaussian_filter(y, coarse)
        energy = _inner(ndimage.uniform_filter(band * band, 9))
        values.append(float(np.log10(np.hypot(np.sqrt(max(np.percentile(energy, 10), 0)), _ROUNDING))))
    return values


def _blocking(y: np.ndarray) -> float:
    """Steps across the 8-pixel grid of a JPEG stored at this very size, against steps elsewhere."""
    x0, y0 = REGION_PX[0] - _MARGIN_PX, REGION_PX[1] - _MARGIN_PX
    grid, rest = [], []
    for axis, start in ((0, y0), (1, x0)):
        # Third differences: a slope or a curve crosses block borders as well, a step does not.
        jump = np.abs(np.diff(y, 3, axis=axis)).mean(axis=1 - axis)
        border = (np.arange(len(jump)) + start + 2) % 8 == 0
        grid.append(jump[border].mean())
        rest.append(jump[~border].mean())
    return float(np.log10((np.mean(grid) + 0.1) / (np.mean(rest) + 0.1)))


def _chroma_noise(rgb: np.ndarray, y: np.ndarray) -> float:
    """Fine detail of B - Y and R - Y; a gray picture has none at all."""
    variance = 0.0
    for channel in (0, 2):
        plane = rgb[..., channel] - y
        variance += float(_inner(plane - ndimage.gaussian_filter(plane, 2.0)).var())
    return float(np.log10(np.hypot(np.sqrt(variance), _ROUNDING)))
