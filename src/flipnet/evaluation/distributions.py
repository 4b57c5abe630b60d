"""How alike two sets of points are: Fréchet and kernel distance, precision and recall, density and coverage.

Points are float (N, d); the first argument is always the real set. All are biased for small sets and change with
the number of points, so compare numbers of equal counts only, and read them beside real against real.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from flipnet.types import FlipnetError

PRECISION_NEIGHBOURS = 3
"""k of precision and recall. Source: Kynkäänniemi et al. 2019."""

COVERAGE_NEIGHBOURS = 5
"""k of density and coverage. Source: Naeem et al. 2020."""

KERNEL_SUBSET, KERNEL_SUBSETS = 1000, 100
"""Points per subset and subsets averaged by `kernel_distance`. Source: torch-fidelity's defaults."""


def frechet_distance(real: np.ndarray, other: np.ndarray) -> float:
    """Squared Fréchet distance of the Gaussians fitted to two sets. Lower is better, 0 for equal moments.

    In squared units of the points. Raises FlipnetError for fewer than two points in a set.
    Source: Heusel et al. 2017 (FID), with covariances over N - 1.
    """
    _check(real, other, 1)
    moments = [(points.mean(0), np.atleast_2d(np.cov(points, rowvar=False))) for points in (real, other)]
    return frechet_of_gaussians(*moments[0], *moments[1])


def frechet_of_gaussians(
    mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray
) -> float:
    """|m1 - m2|² + tr(C1 + C2 - 2 (C1^½ C2 C1^½)^½) for means (d,) and covariances (d, d).

    Source: Dowson and Landau 1982. The symmetric form needs square roots of semi-definite matrices only, which
    eigenvalues give exactly, also for singular ones.
    """
    root = _square_root(covariance)
    cross = np.linalg.eigvalsh(root @ other_covariance @ root)
    trace = np.trace(covariance) + np.trace(other_covariance) - 2 * np.sqrt(cross.clip(0)).sum()
    return float(max(((mean - other_mean) ** 2).sum() + trace, 0.0))


def kernel_distance(real: np.ndarray, other: np.ndarray, seed: int = 0) -> float:
    """Unbiased squared maximum mean discrepancy under the kernel (x·y / d + 1)³ (KID). Lower is better.

    Unitless; its expectation does not change with the number of points, and it may be slightly below 0. Sets
    larger than `KERNEL_SUBSET` points are drawn down to it `KERNEL_SUBSETS` times, and the mean is returned.
    Raises FlipnetError for fewer than two points in a set. Source: Binkowski et al. 2018.
    """
    _check(real, other, 1)
    count = min(len(real), len(other), KERNEL_SUBSET)
    if max(len(real), len(other)) <= KERNEL_SUBSET:
        return _kernel_discrepancy(real, other)
    rng = np.random.default_rng(seed)
    draws = [
        _kernel_discrepancy(
            real[rng.choice(len(real), count, replace=False)],
            other[rng.choice(len(other), count, replace=False)],
        )
        for _ in range(KERNEL_SUBSETS)
    ]
    return float(np.mean(draws))


def _kernel_discrepancy(real: np.ndarray, other: np.ndarray) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def off_diagonal_mean(matrix: np.ndarray) -> float:
        count = len(matrix)
        return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))

    within = off_diagonal_mean(kernel(real, real)) + off_diagonal_mean(kernel(other, other))
    return within - 2 * float(kernel(real, other).mean())


def precision_recall(
    real: np.ndarray, other: np.ndarray, neighbours: int = PRECISION_NEIGHBOURS
) -> tuple[float, float]:
    """Share of the other points inside the real manifold, and of the real points inside the other's.

    Both in 0..1, higher is better: precision falls for unreal points, recall for missing kinds. A manifold is
    the union of balls around its points, each reaching to the point's k-th nearest neighbour, edge included.
    Raises FlipnetError for sets of k points or fewer. Source: Kynkäänniemi et al. 2019.
    """
    _check(real, other, neighbours)
    between = cdist(real, other)
    precision = (between <= _radii(real, neighbours)[:, None]).any(0).mean()
    recall = (between <= _radii(other, neighbours)).any(1).mean()
    return float(precision), float(recall)


def density_coverage(
    real: np.ndarray, other: np.ndarray, neighbours: int = COVERAGE_NEIGHBOURS
) -> tuple[float, float]:
    """In how many real balls a point of the other set lies (over k), and the share of real balls with one inside.

    Density is from 0 and may pass 1, coverage is in 0..1; higher is better. Coverage asks for the same as recall
    but builds balls around real points only, so stray points of the other set cannot inflate it.
    Raises FlipnetError for sets of k points or fewer. Source: Naeem et al. 2020.
    """
    _check(real, other, neighbours)
    inside = cdist(real, other) <= _radii(real, neighbours)[:, None]
    return float(inside.sum(0).mean() / neighbours), float(inside.any(1).mean())


def _radii(points: np.ndarray, neighbours: int) -> np.ndarray:
    """Distance of each point to its k-th nearest other point; column 0 is the point itself."""
    return np.partition(cdist(points, points), neighbours, axis=1)[:, neighbours]


def _square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def _check(real: np.ndarray, other: np.ndarray, neighbours: int) -> None:
    for points in (real, other):
        if points.ndim != 2 or len(points) <= neighbours:
            raise FlipnetError(f"a set needs more than {neighbours} points (N, d), got shape {points.shape}")
        if not np.isfinite(points).all():
            raise FlipnetError("a set holds points that are not finite")
    if real.shape[1] != other.shape[1]:
        raise FlipnetError(f"sets of {real.shape[1]} and {other.shape[1]} dimensions cannot be compared")
