"""NIQE: how far a picture's local statistics lie from those of clean faces, without a reference picture.

Ours, from the paper: Mittal, Soundararajan and Bovik 2013, "Making a completely blind image quality analyzer". The
pristine model that ships with flipnet was fitted to HQ faces by `benchmarks/fit_niqe.py`; published tables use
BasicSR's model of natural scenes, which `load_model` reads from its file, and then the numbers agree with theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from PIL import Image

from flipnet.evaluation.metrics import studio_luma
from flipnet.evaluation.scene_statistics import fit_asymmetric, local_moments
from flipnet.types import FlipnetError

BLOCK_PX = 96
"""Side of a block at full size, half that at the second scale. Source: NIQE."""

SHARP_SHARE = 0.75
"""Blocks of a pristine picture count if their sharpness passes this share of its sharpest block's. Source: NIQE."""

BUNDLED = Path(__file__).parent / "niqe_faces.safetensors"
"""The pristine model of HQ faces; its metadata says what it was fitted on."""

_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))


@dataclass(frozen=True)
class NiqeModel:
    """The Gaussian of pristine blocks: mean (36,) and covariance (36, 36), float64."""

    mean: np.ndarray
    covariance: np.ndarray


def niqe_features(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the features, float64 (B, 36), and the sharpness, float64 (B,), of a picture's whole blocks.

    Args:
        image: uint8 (H, W, 3) RGB with sides of at least 192 px; what is over after whole blocks is cut off at
            the right and bottom.

    A flat block has NaN features. Raises FlipnetError for another dtype or shape, or a smaller picture.
    Source: NIQE; luma in studio range, rounded, as in BasicSR's `calculate_niqe` with convert_to="y".
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise FlipnetError(f"NIQE needs a uint8 (H, W, 3) image, got {image.dtype} {image.shape}.")
    height, width = (side // BLOCK_PX * BLOCK_PX for side in image.shape[:2])
    if min(height, width) < 2 * BLOCK_PX:
        raise FlipnetError(
            f"NIQE needs sides of at least {2 * BLOCK_PX} px, got {image.shape[1]}x{image.shape[0]}."
        )
    y = np.rint(studio_luma(image[:height, :width]))
    fine, sharpness = _block_features(y, BLOCK_PX)
    coarse, _ = _block_features(_halved(y), BLOCK_PX // 2)
    return np.concatenate([fine, coarse], axis=1), sharpness


def niqe(image: np.ndarray, model: NiqeModel) -> float:
    """Distance of a picture's blocks from the pristine ones. Lower is better; unitless, from 0.

    Protocol: sqrt(d' ((C_p + C) / 2)^-1 d), d the difference of the mean features, C the covariance over the
    picture's blocks, pseudo-inverse. Clean faces score 2 to 5 with BasicSR's model. It rewards texture, also
    invented or noisy texture, and knows nothing of the person: read it beside an identity measure.
    Raises FlipnetError as `niqe_features` does, and for a picture that is flat almost everywhere.
    """
    features, _ = niqe_features(image)
    known = features[np.isfinite(features).all(axis=1)]
    if len(known) < 2:
        raise FlipnetError("NIQE needs at least two blocks with texture; the picture is flat.")
    difference = model.mean - np.nanmean(features, axis=0)
    covariance = (model.covariance + np.cov(known, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(covariance) @ difference))


def fit_model(images: Iterable[np.ndarray]) -> NiqeModel:
    """Fit the pristine Gaussian to the sharp blocks of clean pictures, see `niqe_features`.

    Raises FlipnetError when there are too few sharp blocks for a covariance of 36 features.
    """
    kept = []
    for image in images:
        features, sharpness = niqe_features(image)
        sharp = (sharpness > SHARP_SHARE * sharpness.max()) & np.isfinite(features).all(axis=1)
        kept.append(features[sharp])
    blocks = np.concatenate(kept) if kept else np.empty((0, 36))
    if len(blocks) < 2 * 36:
        raise FlipnetError(f"A NIQE model needs at least 72 sharp blocks, the pictures have {len(blocks)}.")
    return NiqeModel(blocks.mean(0), np.cov(blocks, rowvar=False))


def load_model(path: Path = BUNDLED) -> NiqeModel:
    """Read a model: our .safetensors, or BasicSR's `niqe_pris_params.npz`.

    Raises FlipnetError naming a file that is missing or no such model.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                mean, covariance = stored["mu_pris_param"].reshape(-1), stored["cov_pris_param"]
        else:
            tensors = safetensors.numpy.load_file(path)
            mean, covariance = tensors["mean"], tensors["covariance"]
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise FlipnetError(f"{path}: cannot be read as a NIQE model ({error})") from error
    if mean.shape != (36,) or covariance.shape != (36, 36):
        raise FlipnetError(f"{path}: a NIQE model has a mean of 36 numbers, got {mean.shape}")
    return NiqeModel(mean.astype(np.float64), covariance.astype(np.float64))


def save_model(model: NiqeModel, path: Path, fitted_on: str) -> None:
    """Write a model as .safetensors with `fitted_on` in its metadata."""
    tensors = {"mean": model.mean, "covariance": model.covariance}
    safetensors.numpy.save_file(tensors, path, metadata={"fitted_on": fitted_on})


def _halved(y: np.ndarray) -> np.ndarray:
    # Antialiased bicubic with mirrored borders is what MATLAB's imresize, and so the published numbers, use.
    border = 8
    padded = np.pad(y, border, mode="symmetric")
    size = (padded.shape[1] // 2, padded.shape[0] // 2)
    picture = Image.fromarray(padded.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    inner = slice(border // 2, -border // 2)
    return np.asarray(picture, np.float64)[inner, inner]


def _block_features(y: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = local_moments(y)
    blocks = _blocks((y - mean) / (deviation + 1), side)
    fit = fit_asymmetric(blocks.reshape(len(blocks), -1))
    columns = [fit.shape, (fit.left + fit.right) / 2]
    for down, across in _SHIFTS:
        # Rolled inside each block, as the paper's own code does.
        product = blocks * np.roll(blocks, (down, across), axis=(1, 2))
        fit = fit_asymmetric(product.reshape(len(blocks), -1))
        columns += [fit.shape, fit.mean, fit.left, fit.right]
    return np.stack(columns, axis=1), _blocks(deviation, side).mean(axis=(1, 2))


def _blocks(plane: np.ndarray, side: int) -> np.ndarray:
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    return plane.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows * columns, side, side)
