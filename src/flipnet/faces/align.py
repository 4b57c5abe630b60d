"""From a photo to an aligned square crop and back.

A transform is a float64 (2, 3) matrix that maps photo pixels (x, y) to crop pixels: a rotation, one scale and
a shift. Both grids have the centre of their top-left pixel at (0, 0).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

TEMPLATE_512 = np.array(
    [
        (192.98138, 239.94708),
        (318.90277, 240.1936),
        (256.63416, 314.01935),
        (201.26117, 371.41043),
        (313.08905, 371.15118),
    ]
)
"""Where eyes, nose and mouth corners lie in an aligned 512x512 crop, (x, y) in pixels.

Source: the FFHQ five-point template as facexlib and its peers use it.
"""


def template(size_px: int) -> np.ndarray:
    """Return `TEMPLATE_512` for a crop of size_px x size_px pixels, float64 (5, 2).

    Source: facexlib scales the template by size/512, without moving pixel centres.
    """
    return TEMPLATE_512 * (size_px / 512)


def estimate_similarity(landmarks_px: np.ndarray, size_px: int) -> np.ndarray:
    """Fit the rotation, scale and shift that bring five landmarks nearest to the template.

    Least squares over all five points without reflection. Source: Umeyama 1991, "Least-squares estimation of
    transformation parameters between two point patterns". Our choice: no outlier rejection, since a profile's
    points are unusual rather than wrong, and dropping some makes its crop jump.

    Args:
        landmarks_px: (5, 2) landmarks in photo pixels, in the order of `flipnet.types.Face`.
        size_px: side of the crop.

    Returns:
        float64 (2, 3), photo pixels to crop pixels.

    Raises:
        ValueError: a wrong shape, values that are not finite, or landmarks that all coincide.
    """
    source = np.asarray(landmarks_px, dtype=np.float64)
    if source.shape != (5, 2) or not np.isfinite(source).all():
        raise ValueError(f"expected five finite landmarks (5, 2), got shape {source.shape}")
    target = template(size_px)
    source_mean, target_mean = source.mean(0), target.mean(0)
    centred = source - source_mean
    variance = (centred**2).sum()
    if variance < 1e-12:
        raise ValueError("the five landmarks coincide")
    u, singular, vt = np.linalg.svd((target - target_mean).T @ centred)
    signs = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    linear = (u * signs) @ vt * ((singular * signs).sum() / variance)
    return np.column_stack([linear, target_mean - linear @ source_mean])


def invert(matrix: np.ndarray) -> np.ndarray:
    """Invert a (2, 3) transform: crop pixels to photo pixels."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def scale_of(matrix: np.ndarray) -> float:
    """Return how many crop pixels one photo pixel spans (below 1: the face is larger than the crop)."""
    return math.sqrt(abs(np.linalg.det(matrix[:, :2])))


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a (2, 3) transform to (..., 2) points (x, y)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def for_upscaled(matrix: np.ndarray, factor: int) -> np.ndarray:
    """Turn a photo-to-crop transform into one from the photo enlarged `factor` times (edges stay edges)."""
    shift = (1 / factor - 1) / 2  # photo x = (x' + 0.5) / factor - 0.5
    return np.column_stack([matrix[:, :2] / factor, matrix[:, 2] + matrix[:, :2] @ (shift, shift)])


def crop_box(matrix: np.ndarray, size_px: int, photo_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the upright (x0, y0, x1, y1) box of photo pixels, end exclusive, that the crop covers.

    The box is cut to the photo; it is empty (x0 >= x1 or y0 >= y1) for a crop outside the photo.
    """
    low, high = -0.5, size_px - 0.5
    corners = transform_points(invert(matrix), np.array([(low, low), (high, low), (low, high), (high, high)]))
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, photo_shape[1::-1])
    return int(x0), int(y0), int(x1), int(y1)


def align(pixels: np.ndarray, matrix: np.ndarray, size_px: int) -> np.ndarray:
    """Cut an aligned face out of a photo.

    Shrinking averages first (antialiasing), enlarging interpolates with a cubic spline. Beyond the photo its
    edge pixels are repeated. Our choice: a flat gray border, as peers use, draws an edge across the face's
    hair that the network then continues; what lies outside is never pasted back.

    Args:
        pixels: uint8 or uint16 (H, W, 3) photo.
        matrix: (2, 3), photo pixels to crop pixels.
        size_px: side S of the crop.

    Returns:
        float32 (S, S, 3) in [0, 1].
    """
    x0, y0, x1, y1 = crop_box(matrix, size_px, pixels.shape)
    margin = math.ceil(4 / scale_of(matrix)) + 4  # filters reach past the crop
    x0, y0 = min(max(x0 - margin, 0), pixels.shape[1] - 1), min(max(y0 - margin, 0), pixels.shape[0] - 1)
    region = pixels[y0 : max(y1 + margin, y0 + 1), x0 : max(x1 + margin, x0 + 1)]
    moved = np.column_stack([matrix[:, :2], transform_points(matrix, np.array([x0, y0], dtype=np.float64))])
    crop = _resample(region, moved, (size_px, size_px))
    return (crop / np.float32(np.iinfo(pixels.dtype).max)).clip(0, 1)


def warp_back(
    values: np.ndarray, matrix: np.ndarray, box: tuple[int, int, int, int], *, order: int = 3
) -> np.ndarray:
    """Bring crop-sized values back to the photo's grid, inside a box only.

    Args:
        values: float32 (S, S, C) on the crop's grid.
        matrix: (2, 3), photo pixels to crop pixels.
        box: (x0, y0, x1, y1) photo pixels, end exclusive, as `crop_box` gives it.
        order: spline order; 3 keeps detail, 1 cannot overshoot.

    Returns:
        float32 (y1 - y0, x1 - x0, C); averaged first where the photo has fewer pixels than the crop.
    """
    x0, y0, x1, y1 = box
    inverse = invert(matrix)
    inverse[:, 2] -= (x0, y0)
    return _resample(values, inverse, (y1 - y0, x1 - x0), order=order)


def _resample(
    source: np.ndarray, matrix: np.ndarray, shape: tuple[int, int], *, order: int = 3
) -> np.ndarray:
    """Resample (H, W, C) with `matrix` from source to output pixels; edges repeat; returns float32."""
    shrink = 1 / scale_of(matrix)
    # Whole-number block means first, so that a face of many megapixels costs little; the rest by a Gaussian.
    block = max(1, min(math.floor(shrink / 1.5), *source.shape[:2]))
    reduced = _block_mean(source, block)
    to_source = invert(matrix)
    to_source[:, :2] /= block
    to_source[:, 2] = (to_source[:, 2] - (block - 1) / 2) / block
    sigma = 0.5 * math.sqrt(max((shrink / block) ** 2 - 1, 0))
    # scipy speaks (row, column): reverse both axes of the (x, y) matrix.
    linear, offset = to_source[::-1, 1::-1], to_source[::-1, 2]
    output = np.empty((*shape, source.shape[2]), np.float32)
    for channel in range(source.shape[2]):
        plane = reduced[..., channel]
        if sigma > 0:
            plane = ndimage.gaussian_filter(plane, sigma, mode="nearest")
        ndimage.affine_transform(
            plane,
            linear,
            offset,
            output=output[..., channel],
            output_shape=shape,
            order=order,
            mode="nearest",
        )
    return output


def _block_mean(source: np.ndarray, block: int) -> np.ndarray:
    """Average block x block pixels into one, float32; an incomplete last row or column repeats the edge."""
    if block == 1:
        return source.astype(np.float32)
    pad = [(0, -source.shape[0] % block), (0, -source.shape[1] % block), (0, 0)]
    padded = np.pad(source, pad, mode="edge")
    height, width, channels = padded.shape
    blocks = padded.reshape(height // block, block, width // block, block, channels)
    return blocks.mean(axis=(1, 3), dtype=np.float32)
