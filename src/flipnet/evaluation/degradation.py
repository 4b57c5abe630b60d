"""Do a method's degraded faces look like real bad photographs? Comparison of feature sets, row by row.

All rows of one table are on one footing: the real set is split at random into a reference half and another half;
the other half is a row of its own, "real", and says how good "as good as real" looks at this size; every method
and every union is drawn down to one number of images. This is repeated and averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flipnet.evaluation.distributions import density_coverage, frechet_distance, precision_recall
from flipnet.evaluation.feature_space import FeatureSpace, fit_space
from flipnet.types import FlipnetError

PROTOCOL = "degradation-evaluation-1"
"""Name of this protocol; any change that moves a number changes it."""

REAL = "real"
"""Name of the row that compares real images with real images."""

MIN_IMAGES = 20
"""Fewest images a set needs, twice as many for the real one. Our choice: below, neighbours say nothing."""

REPETITIONS = 20
"""Random splits and draws averaged by default."""


@dataclass(frozen=True)
class Estimate:
    """Mean and standard deviation of a number over the repetitions."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Likeness:
    """How alike one set and the real one are; definitions in `distributions`.

    Attributes:
        name: the method, the union, or `REAL`.
        members: the methods of a union, else empty.
        images: images the draws were made from.
        frechet: squared Fréchet distance, lower is better.
        precision: share of the set's images that look real, higher is better.
        recall: share of the real images the set can produce, higher is better.
        density: like precision, may pass 1.
        coverage: like recall, robust to stray images.
        recall_all: recall with all images of the set against all real ones, not drawn down to equal counts: what
            a training set of this size holds. None for `REAL`.
        coverage_all: the same for coverage.
    """

    name: str
    members: tuple[str, ...]
    images: int
    frechet: Estimate
    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate
    recall_all: float | None
    coverage_all: float | None


@dataclass(frozen=True)
class Comparison:
    """All rows of one run.

    Attributes:
        rows: `REAL` first, then the methods, then the unions.
        reference_images: real images in the reference half.
        drawn_images: images drawn from every row.
        repetitions: number of splits and draws.
        seed: of the splits and draws.
        space: the coordinates everything was measured in.
    """

    rows: tuple[Likeness, ...]
    reference_images: int
    drawn_images: int
    repetitions: int
    seed: int
    space: FeatureSpace


def compare_with_real(
    real: np.ndarray,
    methods: Mapping[str, np.ndarray],
    unions: Mapping[str, Sequence[str]] | None = None,
    *,
    seed: int = 0,
    repetitions: int = REPETITIONS,
    colour: bool = False,
) -> Comparison:
    """Compare sets of features, float (N_i, D), with the real set's.

    Args:
        real: features of real images.
        methods: features of each method's images, by name.
        unions: names of the methods that are joined to an extra row each, in equal shares.
        seed: of the random splits and draws.
        repetitions: how many of them are averaged.
        colour: see `fit_space`; the space is fitted to the real set and every method, unions not counted again.

    Raises FlipnetError naming a set that is too small, has values that are not finite or all equal, and a union
    of unknown methods. Source: our choice; the measures are those of `distributions`.
    """
    unions = unions or {}
    check_names(tuple(methods), unions)
    if repetitions < 1:
        raise FlipnetError(f"repetitions must be at least 1, got {repetitions}")
    for name, features in {REAL: real, **methods}.items():
        _check_features(name, features, 2 * MIN_IMAGES if name == REAL else MIN_IMAGES)
    space = fit_space([real, *methods.values()], colour=colour)
    points = {name: space.project(features) for name, features in methods.items()}
    real_points = space.project(real)
    half = len(real) // 2
    count = min(half, *(len(features) for features in methods.values()))
    names = (REAL, *methods, *unions)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for repetition in range(repetitions):
        rng = np.random.default_rng((seed, repetition))
        order = rng.permutation(len(real))
        reference, rest = real_points[order[:half]], real_points[order[half:]]
        for name in names:
            members = unions.get(name, (name,))
            drawn = rest[:count] if name == REAL else _draw([points[m] for m in members], count, rng)
            measured[name].append(_measure(reference, drawn))
    rows = tuple(_row(name, measured[name], real_points, points, unions) for name in names)
    return Comparison(rows, half, count, repetitions, seed, space)


def check_names(methods: Sequence[str], unions: Mapping[str, Sequence[str]]) -> None:
    """Raise FlipnetError for no method, a name taken twice or reserved, and a union of unknown methods."""
    if not methods:
        raise FlipnetError("at least one method is needed")
    for name in (*methods, *unions):
        if name == REAL or [*methods, *unions].count(name) > 1:
            raise FlipnetError(f"the name '{name}' is taken; choose another for this method or union")
    for name, members in unions.items():
        unknown = [member for member in members if member not in methods]
        if unknown or len(set(members)) < len(members) or len(members) < 2:
            cause = f"'{unknown[0]}' is none" if unknown else "it needs two or more different ones"
            raise FlipnetError(f"union '{name}': its members are methods, {', '.join(methods)}; {cause}")


def _check_features(name: str, features: np.ndarray, fewest: int) -> None:
    if len(features) < fewest:
        raise FlipnetError(f"set '{name}' has {len(features)} faces, but at least {fewest} are needed")
    if not np.isfinite(features).all():
        raise FlipnetError(f"set '{name}' has features that are not finite")
    if np.allclose(features, features[0], rtol=0, atol=1e-9):
        raise FlipnetError(f"set '{name}' holds the same image again and again: all features are equal")


def _draw(sets: Sequence[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` points without replacement, in equal shares; the first sets give what is left over."""
    shares = [count // len(sets) + (index < count % len(sets)) for index in range(len(sets))]
    drawn = [points[rng.permutation(len(points))[:share]] for points, share in zip(sets, shares, strict=True)]
    return np.concatenate(drawn)


def _measure(reference: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
    precision, recall = precision_recall(reference, drawn)
    density, coverage = density_coverage(reference, drawn)
    distance = frechet_distance(reference, drawn)
    return dict(frechet=distance, precision=precision, recall=recall, density=density, coverage=coverage)


def _row(
    name: str,
    measured: Sequence[dict[str, float]],
    real: np.ndarray,
    points: Mapping[str, np.ndarray],
    unions: Mapping[str, Sequence[str]],
) -> Likeness:
    joined = None
    if name != REAL:
        joined = np.concatenate([points[member] for member in unions.get(name, (name,))])
    return Likeness(
        name=name,
        members=tuple(unions.get(name, ())),
        images=len(real) if joined is None else len(joined),
        frechet=_estimate(measured, "frechet"),
        precision=_estimate(measured, "precision"),
        recall=_estimate(measured, "recall"),
        density=_estimate(measured, "density"),
        coverage=_estimate(measured, "coverage"),
        recall_all=None if joined is None else precision_recall(real, joined)[1],
        coverage_all=None if joined is None else density_coverage(real, joined)[1],
    )


def _estimate(measured: Sequence[dict[str, float]], what: str) -> Estimate:
    values = [numbers[what] for numbers in measured]
    return Estimate(float(np.mean(values)), float(np.std(values)))
