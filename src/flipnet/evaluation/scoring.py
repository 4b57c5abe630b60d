"""Measuring columns of images with the metrics of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flipnet.checkpoints import file_sha256
from flipnet.data.datasets import Locations, index_images, read_image
from flipnet.evaluation.catalogue import Features, Measure, Metric, SetMetric
from flipnet.evaluation.inception import read_statistics
from flipnet.evaluation.weights import MetricUnavailableError, MetricWeights
from flipnet.types import FlipnetError

MIN_SET_IMAGES = 10
"""Fewest images a set needs for a set metric. Our choice: below, a covariance says nothing at all."""


@dataclass
class LoadedMetrics:
    """Metrics ready to measure, and why others are not.

    Attributes:
        single: (metric, its measuring function), one number per image.
        of_sets: (metric, its features), one number per set.
        missing: reason by name of the metrics asked for that cannot be measured here.
        digests: SHA-256 of the networks' files by their name in `weights.WEIGHT_FILES`.
    """

    single: list[tuple[Metric, Measure]] = field(default_factory=list)
    of_sets: list[tuple[SetMetric, Features]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


def load_metrics(
    single: Sequence[Metric],
    of_sets: Sequence[SetMetric],
    weights: MetricWeights,
    *,
    has_reference: bool,
    has_real: bool,
) -> LoadedMetrics:
    """Load metrics; one that cannot be had goes to `missing` with its reason.

    Raises FlipnetError for a weights file that is given but cannot be used.
    """
    loaded = LoadedMetrics()
    for metric in single:
        if metric.needs_reference and not has_reference:
            loaded.missing[metric.name] = "needs --reference"
            continue
        try:
            loaded.single.append((metric, metric.load(weights)))
        except MetricUnavailableError as error:
            loaded.missing[metric.name] = str(error)
    for of_set in of_sets:
        if not has_real:
            loaded.missing[of_set.name] = "needs --real or --reference"
            continue
        try:
            loaded.of_sets.append((of_set, of_set.load(weights)))
        except MetricUnavailableError as error:
            loaded.missing[of_set.name] = str(error)
    loaded.digests = {name: file_sha256(path) for name, path in weights.used.items()}
    return loaded


@dataclass(frozen=True)
class RealSet:
    """What sets are compared with.

    Attributes:
        location: where it came from, for the report.
        count: images in it, None for saved moments.
        features: (N, d) by set metric.
        moments: mean (d,) and covariance (d, d) read from a file, None for images.
    """

    location: str
    count: int | None
    features: Mapping[str, np.ndarray]
    moments: tuple[np.ndarray, np.ndarray] | None = None


def read_real_set(location: Locations, loaded: LoadedMetrics) -> RealSet:
    """Measure a folder or shard of real images, or read FID statistics (.npz), which only FID can use.

    Raises FlipnetError for images that cannot be read.
    """
    if isinstance(location, str | Path) and Path(location).suffix == ".npz":
        return RealSet(str(location), None, {}, read_statistics(Path(location)))
    entries = index_images(location)
    rows: dict[str, list[np.ndarray]] = {metric.name: [] for metric, _ in loaded.of_sets}
    for entry in entries if loaded.of_sets else ():
        pixels = read_image(entry)
        for metric, features in loaded.of_sets:
            rows[metric.name].append(features(pixels))
    return RealSet(str(location), len(entries), {name: np.array(found) for name, found in rows.items()})


@dataclass(frozen=True)
class Part:
    """The finished numbers of one set of pictures (one test set, or one severity).

    Attributes:
        name: of the part.
        keys: N pictures.
        scores: float (N,) by column and metric; NaN where a metric could not be measured.
        set_scores: by column and set metric; NaN where the sets are too small.
        seconds: per picture by column, for columns that were made during the run.
        real: what sets were compared with, None for no set metrics.
    """

    name: str
    keys: tuple[str, ...]
    scores: Mapping[str, Mapping[str, np.ndarray]]
    set_scores: Mapping[str, Mapping[str, float]]
    seconds: Mapping[str, float]
    real: RealSet | None


class Scorer:
    """Collects one part's numbers, picture by picture.

    Args:
        name: of the part.
        loaded: the metrics.
        real: features of the real set; None compares with the references themselves.
    """

    def __init__(self, name: str, loaded: LoadedMetrics, real: RealSet | None = None) -> None:
        self._name, self._loaded, self._real = name, loaded, real
        self._keys: list[str] = []
        self._scores: dict[str, dict[str, list[float]]] = {}
        self._features: dict[str, dict[str, list[np.ndarray]]] = {}
        self._truths: dict[str, list[np.ndarray]] = {metric.name: [] for metric, _ in loaded.of_sets}
        self._seconds: dict[str, float] = {}
        self.remarks: dict[str, str] = {}

    def add(
        self,
        key: str,
        images: Mapping[str, np.ndarray],
        reference: np.ndarray | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> dict[str, dict[str, float]]:
        """Measure one picture of every column, uint8 (H, W, 3) RGB, and return its numbers.

        A metric that refuses a picture (too small, flat) gives NaN, and its reason goes to `remarks`.
        """
        self._keys.append(key)
        found = {column: self._measure(pixels, reference) for column, pixels in images.items()}
        for column, numbers in found.items():
            kept = self._scores.setdefault(column, {name: [] for name in numbers})
            for name, value in numbers.items():
                kept[name].append(value)
        for metric, features in self._loaded.of_sets:
            for column, pixels in images.items():
                rows = self._features.setdefault(column, {}).setdefault(metric.name, [])
                rows.append(features(pixels))
            if self._real is None and reference is not None:
                self._truths[metric.name].append(features(reference))
        for column, value in (seconds or {}).items():
            self._seconds[column] = self._seconds.get(column, 0.0) + value
        return found

    def result(self) -> Part:
        """Return the part's numbers."""
        scores = {
            column: {name: np.array(values) for name, values in numbers.items()}
            for column, numbers in self._scores.items()
        }
        real = self._real
        if real is None and self._loaded.of_sets:
            rows = {name: np.array(found) for name, found in self._truths.items()}
            real = RealSet("the references", len(self._keys), rows)
        set_scores = {
            column: {
                metric.name: _set_distance(metric, real, np.array(self._features[column][metric.name]))
                for metric, _ in self._loaded.of_sets
                if real is not None
            }
            for column in self._scores
        }
        seconds = {column: total / len(self._keys) for column, total in self._seconds.items()}
        return Part(self._name, tuple(self._keys), scores, set_scores, seconds, real)

    def _measure(self, pixels: np.ndarray, reference: np.ndarray | None) -> dict[str, float]:
        numbers = {}
        for metric, measure in self._loaded.single:
            try:
                numbers[metric.name] = measure(pixels, reference)
            except FlipnetError as error:
                numbers[metric.name] = float("nan")
                self.remarks.setdefault(metric.name, str(error))
        return numbers


def _set_distance(metric: SetMetric, real: RealSet, features: np.ndarray) -> float:
    """Distance to the real set; NaN for sets of too few images, or moments that this metric cannot use."""
    if real.moments is not None:
        if metric.of_moments is None or len(features) < MIN_SET_IMAGES:
            return float("nan")
        return metric.of_moments(*real.moments, features.mean(0), np.cov(features, rowvar=False))
    points = real.features[metric.name]
    if min(len(points), len(features)) < MIN_SET_IMAGES:
        return float("nan")
    return metric.distance(points, features)
