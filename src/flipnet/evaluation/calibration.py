"""Does an uncertainty map say where a restoration is wrong? Its spread against the true error, pixel by pixel.

If the samples were draws from the true posterior, a sample's error would be sqrt(2) times the spread in every bin
(truth and sample are then two draws), and the samples' mean's just above 1 time. A larger ratio means that the
samples agree with each other more than with the truth: the model is too sure of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from flipnet.evaluation.weights import import_optional
from flipnet.types import FlipnetError

BINS = 10
"""Bins of equally many pixels, by rising spread."""

STRIDE = 4
"""Every how many-th pixel of each direction counts: neighbours say nearly the same, and memory is finite."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Pixels of about one spread; root mean squares over them, in 8-bit levels."""

    spread: float
    error: float
    count: int


@dataclass(frozen=True)
class Calibration:
    """How spread and true error go together.

    Attributes:
        faces: number of faces.
        spearman: rank correlation of spread and absolute error over a face's pixels, mean over faces; 1 is best,
            0 says nothing. NaN if no face has any spread.
        between_faces: rank correlation of the faces' mean spreads and root mean square errors; None below three.
        ratio: root mean square error over root mean square spread, all pixels; see the module for what is ideal.
        bins: reliability, by rising spread.
    """

    faces: int
    spearman: float
    between_faces: float | None
    ratio: float
    bins: tuple[ReliabilityBin, ...]


def calibrate(
    uncertainty: Sequence[np.ndarray], restored: Sequence[np.ndarray], reference: Sequence[np.ndarray]
) -> Calibration:
    """Compare uncertainty maps with the errors that were made.

    Args:
        uncertainty: N maps, float (S, S), standard deviation over samples in 8-bit levels, as
            `flipnet restore --samples K --uncertainty` makes them.
        restored: the N restored faces, uint8 (S, S, 3) RGB.
        reference: the N true ones.

    A pixel's error is the root mean square over its channels. Raises FlipnetError for no faces, shapes that do not
    fit, and maps that are negative or not finite. Source: our choice.
    """
    if not len(uncertainty) == len(restored) == len(reference) > 0:
        raise FlipnetError(
            "calibration needs as many uncertainty maps as restored and true faces, at least one"
        )
    spreads, errors = [], []
    for spread, face, truth in zip(uncertainty, restored, reference, strict=True):
        if not spread.shape == face.shape[:2] == truth.shape[:2]:
            raise FlipnetError(f"an uncertainty map of {spread.shape} does not fit faces of {face.shape}")
        if not np.isfinite(spread).all() or spread.min() < 0:
            raise FlipnetError("an uncertainty map holds values that are negative or not finite")
        difference = face[::STRIDE, ::STRIDE].astype(np.float64) - truth[::STRIDE, ::STRIDE]
        errors.append(np.sqrt((difference**2).mean(axis=2)).ravel())
        spreads.append(spread[::STRIDE, ::STRIDE].astype(np.float64).ravel())
    ranks = [_rank_correlation(*pair) for pair in zip(spreads, errors, strict=True)]
    between = None
    if len(spreads) > 2:
        between = _rank_correlation(
            np.array([s.mean() for s in spreads]), np.array([_rms(e) for e in errors])
        )
    every_spread, every_error = np.concatenate(spreads), np.concatenate(errors)
    spread_rms = _rms(every_spread)
    return Calibration(
        faces=len(spreads),
        spearman=float(np.nanmean(ranks)) if np.isfinite(ranks).any() else float("nan"),
        between_faces=between,
        ratio=_rms(every_error) / spread_rms if spread_rms > 0 else float("inf"),
        bins=_reliability(every_spread, every_error),
    )


def check_plotting() -> tuple[Any, Any]:
    """Return matplotlib's modules for drawing into memory; MetricUnavailableError names the extra without them."""
    remedy = "matplotlib, pip install 'flipnet[evaluation]'"
    agg = import_optional("matplotlib.backends.backend_agg", remedy)
    return agg, import_optional("matplotlib.figure", remedy)


def plot_reliability(found: Calibration) -> np.ndarray:
    """Draw the bins with the two ideals, uint8 (H, W, 3) RGB; needs matplotlib (extra `evaluation`)."""
    agg, figures = check_plotting()
    figure = figures.Figure(figsize=(6, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    spread = [one.spread for one in found.bins]
    top = max(*spread, *(one.error for one in found.bins))
    axes.plot([0, top], [0, top], color="0.6", label="mean of an ideal sampler")
    axes.plot(
        [0, top], [0, np.sqrt(2) * top], color="0.6", linestyle="--", label="sample of an ideal sampler"
    )
    axes.plot(spread, [one.error for one in found.bins], marker="o", color="tab:blue", label="measured")
    axes.set(xlabel="spread of samples (8-bit levels)", ylabel="true error, RMS (8-bit levels)")
    axes.set(xlim=(0, None), ylim=(0, top * 1.05), title=f"{found.faces} faces, tenths of their pixels")
    axes.legend()
    canvas = agg.FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()


def _reliability(spread: np.ndarray, error: np.ndarray) -> tuple[ReliabilityBin, ...]:
    order = np.argsort(spread, kind="stable")
    parts = np.array_split(order, min(BINS, len(order)))
    return tuple(ReliabilityBin(_rms(spread[part]), _rms(error[part]), len(part)) for part in parts)


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rho, NaN where either is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
