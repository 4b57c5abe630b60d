"""Full-reference image metrics on uint8 (H, W, 3) RGB arrays, one face at a time.

Protocol shared by all: RGB, no border cropped, no colour matching before measuring. Some published tables
match the mean and standard deviation of each channel to the truth first and are not comparable to these.
"""

from __future__ import annotations

import numpy as np
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


def ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity. Higher is better; unitless, at most 1 (equal images), can be negative.

    Protocol: Gaussian window of sigma 1.5 cut to 11x11, K1 0.01, K2 0.03, data range 255, population
    covariance, mean over the three RGB channels and over windows that lie fully inside the image.
    Source: Wang et al. 2004, as scikit-image's `structural_similarity`. Raises FlipnetError below 11 px.
    """
    _check_alike(image, reference)
    if min(image.shape[:2]) < 11:
        raise FlipnetError(f"SSIM needs sides of at least 11 px, got {image.shape[1]}x{image.shape[0]}.")
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
