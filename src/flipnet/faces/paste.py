"""Put a restored face back by adding what it changed, inside a soft mask.

Adding the difference (restored minus crop) instead of replacing pixels keeps everything the crop could not
hold: a face larger than the crop keeps its own fine detail, a 16-bit photo its depth, and an unchanged face
is untouched to the bit. All geometry is analytic in crop coordinates, so nothing larger than the face's own
box is ever computed, and that in strips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from flipnet.faces.align import crop_box, scale_of, warp_back

# Our choices, in units of half a crop: a rounded square that leaves the crop's very edge out. Fine detail
# holds on until close to it, so hair does not turn soft half-way; colour fades over a broad band, where the
# eye sees no step.
_END = 0.96
_DETAIL_FULL = 0.72
_COLOUR_FULL = 0.45
_ROUNDNESS = 4.0
# Standard deviation of the Gaussian that parts colour from detail, as a share of the crop's side.
_COLOUR_SIGMA = 1 / 24
# How fast a pixel shared by two faces goes over to the one whose centre is nearer.
_OWNERSHIP = 12.0
# Crop pixels per photo pixel, beyond 1, from which all that the crop lost is taken out.
_LOST_FULL = 0.5
_STRIP_PIXELS = 1 << 20


def mask_radius(x: np.ndarray, y: np.ndarray, size_px: int) -> np.ndarray:
    """Return how far crop pixels (x, y) lie from the crop's centre: 0 there, 1 on the middle of its edges.

    Lines of equal radius are rounded squares; the mask ends at radius 0.96.
    """
    half = size_px / 2
    u, v = np.abs(x + 0.5 - half) / half, np.abs(y + 0.5 - half) / half
    return (u**_ROUNDNESS + v**_ROUNDNESS) ** (1 / _ROUNDNESS)


def _fade(radius: np.ndarray, full: float) -> np.ndarray:
    """1 up to radius `full`, 0 from `_END` on, a smooth cubic step between."""
    t = ((_END - radius) / (_END - full)).clip(0, 1)
    return t * t * (3 - 2 * t)


def feather(difference: np.ndarray) -> np.ndarray:
    """Fade a difference image out towards the crop's edge, colour over a broader band than detail.

    Args:
        difference: float32 (S, S, 3), restored minus crop.

    Returns:
        float32 (S, S, 3), 0 from radius 0.96 on. Our choice, after the idea of multi-band blending (Burt and
        Adelson 1983): the blurred part is weighted by a wide mask, the rest by a steeper one.
    """
    size_px = difference.shape[0]
    rows, columns = np.mgrid[:size_px, :size_px].astype(np.float32)
    radius = mask_radius(columns, rows, size_px)
    sigma = size_px * _COLOUR_SIGMA
    colour = ndimage.gaussian_filter(difference, (sigma, sigma, 0), mode="nearest", truncate=3)
    detail = difference - colour
    return colour * _fade(radius, _COLOUR_FULL)[..., None] + detail * _fade(radius, _DETAIL_FULL)[..., None]


def add_difference(
    canvas: np.ndarray,
    difference: np.ndarray,
    matrix: np.ndarray,
    others: Sequence[np.ndarray] = (),
    *,
    amount: float = 1.0,
    photo: np.ndarray | None = None,
    crop: np.ndarray | None = None,
) -> None:
    """Add a face's difference to the photo, in place.

    Pixels whose centre lies outside the mask keep every bit. Where masks overlap, each pixel is divided
    between the faces by how near it is to their centres, so the sum never exceeds one whole difference and
    does not depend on the order of the faces.

    A face smaller than the crop comes back from it without its finest noise and blocks, so a difference alone would
    leave these standing in the restored face. Given `photo` and `crop`, what did not come back is taken out as
    well, as far as the difference counts (our choice); from 1 crop pixel per photo pixel (none of it) to 1.5 (all).

    Args:
        canvas: uint8 or uint16 (H, W, 3), changed in place.
        difference: float32 (S, S, 3), restored minus crop, in units of white.
        matrix: (2, 3), canvas pixels to crop pixels.
        others: the matrices of the photo's other faces, whether they are restored or not.
        amount: factor on the change, in [0, 1].
        photo: the canvas before any face was added, same type and shape.
        crop: float32 (S, S, 3) in [0, 1], the face as it was cut out of the photo.
    """
    size_px = difference.shape[0]
    x0, y0, x1, y1 = crop_box(matrix, size_px, canvas.shape)
    if x0 >= x1 or y0 >= y1 or not difference.any():
        return
    soft = feather(difference)
    lost_share = float(np.clip((scale_of(matrix) - 1) / _LOST_FULL, 0, 1))
    rivals = [
        other for other in others if _boxes_meet((x0, y0, x1, y1), crop_box(other, size_px, canvas.shape))
    ]
    rows = max(1, _STRIP_PIXELS // (x1 - x0))
    white = np.float32(np.iinfo(canvas.dtype).max)
    for top in range(y0, y1, rows):
        box = (x0, top, x1, min(top + rows, y1))
        inside = (slice(box[1], box[3]), slice(x0, x1))
        addition = warp_back(soft, matrix, box)
        if photo is not None and crop is not None and lost_share > 0:
            lost = photo[inside] / white - warp_back(crop, matrix, box)
            mask = _fade(_radius(matrix, box, size_px), _DETAIL_FULL)
            addition -= lost_share * mask[..., None] * lost
        addition *= (_share(matrix, rivals, box, size_px) * np.float32(amount) * white)[..., None]
        canvas[inside] = np.rint(canvas[inside] + addition).clip(0, white)


def _share(
    matrix: np.ndarray, rivals: Sequence[np.ndarray], box: tuple[int, int, int, int], size_px: int
) -> np.ndarray:
    """Weight of one face at a box's pixels, (h, w): 0 outside its mask, 1 inside unless rivals share it."""
    own = _claim(matrix, box, size_px)
    total = own.copy()
    for rival in rivals:
        total += _claim(rival, box, size_px)
    return np.divide(own, total, out=np.zeros_like(own), where=own > 0)


def _claim(matrix: np.ndarray, box: tuple[int, int, int, int], size_px: int) -> np.ndarray:
    radius = _radius(matrix, box, size_px)
    return _fade(radius, _DETAIL_FULL) * np.exp(-_OWNERSHIP * np.minimum(radius, _END))


def _radius(matrix: np.ndarray, box: tuple[int, int, int, int], size_px: int) -> np.ndarray:
    """`mask_radius` of a box's pixels, (h, w)."""
    x0, y0, x1, y1 = box
    x, y = np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32)[:, None]
    (a, b, c), (d, e, f) = matrix.astype(np.float32)
    return mask_radius(a * x + b * y + c, d * x + e * y + f, size_px)


def _boxes_meet(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
