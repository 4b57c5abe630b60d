"""Distances between degradations: features standardised, weighted by group, and projected to few dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flipnet.evaluation.scene_statistics import FEATURE_NAMES, GROUP_WEIGHTS
from flipnet.types import FlipnetError

KEPT_VARIANCE = 0.98
"""Share of the pooled variance the projection keeps. Our choice."""

MAX_DIMENSIONS = 12
"""Most dimensions kept, so that covariances of a few hundred samples are sound. Our choice."""

_LEAST_DEVIATION = 0.05
"""Below this (log10 units) the grid-blocking feature is noise: sets without a JPEG grid differ by less."""


@dataclass(frozen=True)
class FeatureSpace:
    """A linear map from the D features to d coordinates in which Euclidean distances are meant.

    Attributes:
        mean: (D,) pooled mean.
        matrix: (D, d) standardisation, group weights and projection in one.
        kept_variance: share of the pooled variance in the d coordinates.
    """

    mean: np.ndarray
    matrix: np.ndarray
    kept_variance: float

    @property
    def dimensions(self) -> int:
        """Number of coordinates d."""
        return int(self.matrix.shape[1])

    def project(self, features: np.ndarray) -> np.ndarray:
        """Map float (N, D) features to float64 (N, d) coordinates."""
        return (features - self.mean) @ self.matrix


def fit_space(sets: Sequence[np.ndarray], *, colour: bool = False) -> FeatureSpace:
    """Fit the space to the pooled sets, every set counting the same however many images it has.

    Each feature is divided by its pooled standard deviation, each group (`GROUP_WEIGHTS`) shares its weight
    equally among its features, and principal components keep `KEPT_VARIANCE` in at most `MAX_DIMENSIONS`.
    So numbers compare within one run, whose sets define the scale, not between runs with other sets.

    Args:
        sets: float (N_i, D) features, as `scene_statistics` gives them.
        colour: let the chroma feature count. Our choice is not to: where the real photographs are partly gray
            and the clean faces are not, it measures that and little else.

    Raises FlipnetError when all images are alike. Source: our choice.
    """
    mean = np.mean([features.mean(0) for features in sets], axis=0)
    second = [(features - mean).T @ (features - mean) / len(features) for features in sets]
    covariance = np.mean(second, axis=0)
    scale = _weights(colour) / np.maximum(np.sqrt(np.diag(covariance)), _least_deviations())
    values, vectors = np.linalg.eigh(covariance * scale[:, None] * scale)
    values, vectors = values[::-1].clip(0), vectors[:, ::-1]
    if not values.sum() > 1e-9:
        raise FlipnetError("all images of all sets have the same degradation features: nothing to compare")
    shares = np.cumsum(values) / values.sum()
    count = min(int(np.searchsorted(shares, KEPT_VARIANCE)) + 1, MAX_DIMENSIONS)
    return FeatureSpace(mean, scale[:, None] * vectors[:, :count], float(shares[count - 1]))


def _groups() -> list[str]:
    return [name.split(".")[0] for name in FEATURE_NAMES]


def _weights(colour: bool) -> np.ndarray:
    groups = _groups()
    weights = GROUP_WEIGHTS if colour else GROUP_WEIGHTS | {"chroma": 0.0}
    return np.sqrt([weights[group] / groups.count(group) for group in groups])


def _least_deviations() -> np.ndarray:
    return np.array([_LEAST_DEVIATION if group == "blocking" else 1e-6 for group in _groups()])
