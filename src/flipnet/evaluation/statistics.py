"""From numbers per image to statements about a method: means with bootstrap intervals, and paired differences.

Images are resampled, not pixels; a paired difference resamples images with both methods' numbers together, so
that easy and hard images cancel. NaN marks an image on which a metric could not be measured; it is left out, and
counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flipnet.evaluation.catalogue import Better

RESAMPLES = 2000
"""Bootstrap resamples of every interval."""

LEVEL = 0.95
"""Coverage of every interval."""

_AT_ONCE = 200


@dataclass(frozen=True)
class Estimate:
    """A mean over images.

    Attributes:
        mean: the mean; NaN for no images.
        low, high: percentile bootstrap interval, None for fewer than two images.
        count: images it was measured on.
    """

    mean: float
    low: float | None
    high: float | None
    count: int


def estimate_mean(values: np.ndarray, seed: int = 0) -> Estimate:
    """Mean of float (N,) with its bootstrap interval. Source: Efron 1979, percentile method."""
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return Estimate(float(known.mean()) if len(known) else float("nan"), None, None, len(known))
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, RESAMPLES, _AT_ONCE):
        count = min(_AT_ONCE, RESAMPLES - start)
        means.append(known[rng.integers(len(known), size=(count, len(known)))].mean(axis=1))
    tail = 100 * (1 - LEVEL) / 2
    # Equal images have infinite PSNR; interpolating between two infinities would give NaN.
    low, high = np.percentile(np.concatenate(means), (tail, 100 - tail), method="nearest")
    return Estimate(float(known.mean()), float(low), float(high), len(known))


def paired_difference(
    values: np.ndarray, baseline: np.ndarray, better: Better, seed: int = 0
) -> tuple[Estimate, str]:
    """Mean of values - baseline over images that have both, float (N,) each, and the verdict.

    For a metric that is best at 1 the difference is that of the distances to 1. The verdict is "better" or
    "worse" where the interval lies on one side of 0, "equal" for no difference at all, else "undecided".
    """
    if better == "one":
        values, baseline, better = np.abs(values - 1), np.abs(baseline - 1), "lower"
    with np.errstate(invalid="ignore"):  # infinity minus infinity, both for equal pictures
        difference = np.where(values == baseline, 0.0, values - baseline)
    found = estimate_mean(difference, seed)
    if found.low is None or found.high is None:
        return found, "undecided"
    if found.low == found.high == 0:
        return found, "equal"
    if found.low <= 0 <= found.high:
        return found, "undecided"
    return found, "better" if (found.low > 0) == (better == "higher") else "worse"
