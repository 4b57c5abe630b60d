"""Full-reference image metrics on uint8 (H, W, 3) RGB arrays, one face at a time.

Protocol shared by all: no border cropped, and, where the name does not say otherwise, RGB and no colour matching
before measuring. Each metric's protocol id is in `catalogue`, the traps are in docs/metrics.md.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.metrics import structural_similarity

from flipnet.data.colour import luma
from flipnet.types import FlipnetError


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio. Higher is better; dB, from 0, infinite for equal images.

    Protocol: 10 log10(255² / mean squared difference over all pixels and the three RGB channels).
    Source: the usual definition; with these choices it equals BasicSR's `calculate_psnr` at crop_border 0.
    """
    _check_alike(image, reference)
    error = np.mean((image.astype(np.float64) - reference) ** 2)
    return float(10 * np.log10(255.0**2 / error)) if error > 0 else float("inf")


def psnr_luma(image: np.ndarray, reference: np.ndarray) -> float:
    """PSNR of the Y channel alone, dB; higher is better, infinite for equal luma.

    Protocol: `studio_luma` unrounded, peak 255. Usually 1 to 2 dB above the RGB number; never mix the two.
    Source: super-resolution's custom, BasicSR's `calculate_psnr` with `test_y_channel`.
    """
    _check_alike(image, reference)
    error = np.mean((studio_luma(image) - studio_luma(reference)) ** 2)
    return float(10 * np.log10(255.0**2 / error)) if error > 0 else float("inf")


def psnr_matched(image: np.ndarray, reference: np.ndarray) -> float:
    """PSNR after each channel of the image was given the mean and deviation of the reference's, dB.

    Higher is better. It forgives colour shifts and lost contrast, so it is never below what it would be
    compared with: for reproducing published tables only. A flat channel gets the mean alone.
    Source: VQFR's metric script, whose `--correct_mean_var` cannot be switched off.
    """
    _check_alike(image, reference)
    x, y = image.astype(np.float64), reference.astype(np.float64)
    spread = x.std((0, 1))
    scale = np.where(spread > 0, y.std((0, 1)) / np.where(spread > 0, spread, 1), 0)
    error = np.mean(((x - x.mean((0, 1))) * scale + y.mean((0, 1)) - y) ** 2)
    return float(10 * np.log10(255.0**2 / error)) if error > 0 else float("inf")


def studio_luma(image: np.ndarray) -> np.ndarray:
    """BT.601 luma in studio range, float64 (H, W) from 16 to 235, of uint8 (H, W, 3) RGB; not rounded.

    Source: MATLAB's `rgb2ycbcr`, the Y of super-resolution metrics.
    """
    return image.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255 + 16


def ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity. Higher is better; unitless, at most 1 (equal images), can be negative.

    Protocol: Gaussian window of sigma 1.5 cut to 11x11, K1 0.01, K2 0.03, data range 255, population
    covariance, mean over the three RGB channels and over windows that lie fully inside the image.
    Source: Wang et al. 2004, as scikit-image's `structural_similarity`. Raises FlipnetError below 11 px.
    """
    _check_alike(image, reference)
    _check_side(image, 11, "SSIM")
    return float(
        structural_similarity(
            image,
            reference,
            data_range=255,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def ssim_luma(image: np.ndarray, reference: np.ndarray) -> float:
    """SSIM of the Y channel alone: `ssim` on `studio_luma`. Higher is better, at most 1.

    Source: super-resolution's custom, BasicSR's `calculate_ssim` with `test_y_channel`.
    """
    _check_alike(image, reference)
    _check_side(image, 11, "SSIM")
    index, _ = _ssim_maps(studio_luma(image), studio_luma(reference))
    return float(index.mean())


MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first. Source: Wang et al. 2003."""


def ms_ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """Multi-scale SSIM. Higher is better; unitless, 0 to 1 (equal images).

    Protocol: RGB, the window and constants of `ssim`, five scales by 2x2 averages, contrast-structure terms of
    the four fine scales and the whole index of the coarsest, means over channels and inner windows, negative
    means count as 0. Raises FlipnetError below 176 px, where the coarsest scale no longer holds a window.
    Source: Wang et al. 2003; equals torchmetrics' `multiscale_structural_similarity_index_measure`.
    """
    _check_alike(image, reference)
    _check_side(image, 11 * 2 ** (len(MS_SSIM_WEIGHTS) - 1), "MS-SSIM")
    x, y = image.astype(np.float64), reference.astype(np.float64)
    terms = []
    for scale in range(len(MS_SSIM_WEIGHTS)):
        index, contrast = _ssim_maps(x, y)
        is_last = scale == len(MS_SSIM_WEIGHTS) - 1
        terms.append(max(float((index if is_last else contrast).mean()), 0.0))
        x, y = _halve(x), _halve(y)
    return float(np.prod(np.power(terms, MS_SSIM_WEIGHTS)))


def _ssim_maps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SSIM and its contrast-structure term at the inner windows of float64 (H, W) or (H, W, C) levels."""

    def window(values: np.ndarray) -> np.ndarray:
        blurred = ndimage.gaussian_filter(values, 1.5, radius=5, axes=(0, 1))
        return blurred[5:-5, 5:-5]

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = window(x), window(y)
    variances = window(x * x) - mean_x**2 + window(y * y) - mean_y**2
    contrast = (2 * (window(x * y) - mean_x * mean_y) + c2) / (variances + c2)
    return contrast * (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1), contrast


def _halve(levels: np.ndarray) -> np.ndarray:
    """Average 2x2 pixels; an odd last row or column is left out."""
    height, width = (side // 2 * 2 for side in levels.shape[:2])
    even = levels[:height, :width]
    return even.reshape(height // 2, 2, width // 2, 2, *levels.shape[2:]).mean(axis=(1, 3))


def gradient_energy(image: np.ndarray) -> float:
    """Mean squared luma difference between neighbours, levels² of 255, from 0; higher is sharper or noisier.

    Protocol: BT.601 luma, mean of squared differences to the right neighbour plus the same downwards.
    Source: our choice.
    """
    y = luma(image)
    across, down = np.diff(y, axis=1), np.diff(y, axis=0)
    return float(np.mean(across**2, dtype=np.float64) + np.mean(down**2, dtype=np.float64))


def gradient_energy_ratio(image: np.ndarray, reference: np.ndarray) -> float:
    """`gradient_energy` of the image over that of the reference. Best at 1: as sharp as the truth.

    Unitless, from 0. Below 1 detail is missing, above 1 there is noise or over-sharpening; it says how much
    detail there is, not whether it is the right one, so read it beside PSNR. Raises FlipnetError for a
    reference of one flat colour. Source: our choice, as the sharpness end of the PSNR trade.
    """
    _check_alike(image, reference)
    energy = gradient_energy(reference)
    if energy == 0:
        raise FlipnetError("The gradient-energy ratio needs a reference that is not flat.")
    return gradient_energy(image) / energy


def _check_alike(image: np.ndarray, reference: np.ndarray) -> None:
    for array in (image, reference):
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise FlipnetError(f"Metrics need uint8 (H, W, 3) images, got {array.dtype} {array.shape}.")
    if image.shape != reference.shape:
        raise FlipnetError(f"Metrics need images of one size, got {image.shape} and {reference.shape}.")


def _check_side(image: np.ndarray, least_px: int, what: str) -> None:
    if min(image.shape[:2]) < least_px:
        width, height = image.shape[1], image.shape[0]
        raise FlipnetError(f"{what} needs sides of at least {least_px} px, got {width}x{height}.")
