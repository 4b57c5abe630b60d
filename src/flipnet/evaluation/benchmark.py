"""The benchmark: clean aligned faces, degraded with a fixed seed, measured before and after restoration.

A face's degraded version depends on the seed, its key and the severity alone, so every run measures the same
inputs.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from flipnet.data.datasets import FaceDataset, Locations
from flipnet.data.degradation import degrade_with, preset
from flipnet.evaluation.identity import IdentityNetwork, IdentityUnavailableError, identity_distance
from flipnet.evaluation.metrics import gradient_energy_ratio, psnr, ssim
from flipnet.images import faces_to_tensor, tensor_to_uint8
from flipnet.types import FlipnetError, Restorer

SEVERITIES = ("mild", "medium", "severe")
"""The benchmark's own degradation presets."""


@dataclass(frozen=True)
class Scores:
    """Means over faces; definitions and directions in `metrics` and `identity`.

    Attributes:
        psnr_db: mean of the faces' PSNR, higher is better.
        ssim: mean SSIM, higher is better.
        gradient_energy_ratio: mean ratio to the truth, best at 1.
        identity_distance: mean distance to the truth, lower is better; None when dlib is absent.
    """

    psnr_db: float
    ssim: float
    gradient_energy_ratio: float
    identity_distance: float | None


@dataclass(frozen=True)
class SeverityResult:
    """One severity.

    Attributes:
        severity: name of the degradation preset.
        faces: number of faces n.
        degraded: scores of the restorer's input.
        restored: scores of its output, None when no restorer was given.
        seconds_per_face: wall-clock seconds in the restorer over n, None without one.
    """

    severity: str
    faces: int
    degraded: Scores
    restored: Scores | None
    seconds_per_face: float | None


@dataclass(frozen=True)
class BenchmarkResult:
    """All severities of one run.

    Attributes:
        seed: what the degraded inputs and the restorer's seeds were derived from.
        batch_size: faces given to the restorer at once, which its speed depends on.
        severities: in the order asked for.
        identity_missing: why there is no identity distance, None when there is one.
    """

    seed: int
    batch_size: int
    severities: tuple[SeverityResult, ...]
    identity_missing: str | None

    def to_json(self) -> str:
        """Return indented JSON with the attributes' names; a number that is not finite becomes its name."""
        return json.dumps(_finite(asdict(self)), indent=2, allow_nan=False)


@dataclass(frozen=True)
class BenchmarkBatch:
    """What `run_benchmark` reports while it runs; images are uint8 (B, S, S, 3) RGB.

    Attributes:
        severity: name of the degradation preset.
        keys: the B faces' keys.
        degraded: the restorer's input.
        restored: its output, None when no restorer was given.
        truth: the clean faces.
    """

    severity: str
    keys: tuple[str, ...]
    degraded: np.ndarray
    restored: np.ndarray | None
    truth: np.ndarray


def benchmark_seed(seed: int, key: str) -> tuple[int, int]:
    """Return the seed of one face; severities share it, so a face sits at the same place of their ranges."""
    return seed, zlib.crc32(key.encode())


def benchmark_input(hq: np.ndarray, key: str, severity: str, seed: int = 0) -> np.ndarray:
    """Return the benchmark's degraded version of one face, uint8 (S, S, 3) RGB in and out."""
    return degrade_with(preset(severity), hq, benchmark_seed(seed, key))[0]


def run_benchmark(
    restorer: Restorer | None,
    locations: Locations,
    *,
    severities: Sequence[str] = SEVERITIES,
    seed: int = 0,
    limit: int | None = None,
    batch_size: int = 1,
    on_batch: Callable[[BenchmarkBatch], None] | None = None,
) -> BenchmarkResult:
    """Measure a restorer, or only its inputs when it is None.

    Args:
        restorer: its native size decides the size of the faces; without one it is 512 px.
        locations: clean aligned faces, see `data.datasets.index_images`.
        severities: names of degradation presets.
        seed: any integer from 0; published numbers use 0.
        limit: take that many faces, evenly spread over the set, None for all.
        batch_size: faces per call of the restorer.
        on_batch: called after every batch, for progress and contact sheets.

    Raises FlipnetError for unreadable or wrongly sized faces and options out of range.
    """
    for name, value in (("limit", 1 if limit is None else limit), ("batch size", batch_size)):
        if value < 1:
            raise FlipnetError(f"The {name} must be at least 1, got {value}.")
    faces = FaceDataset(locations, size_px=restorer.native_size_px if restorer else 512)
    count = len(faces) if limit is None else min(limit, len(faces))
    indices = [position * len(faces) // count for position in range(count)]
    identity, missing = _identity_of(faces)
    results = []
    for severity in severities:
        tally = _Tally(severity, identity)
        for start in range(0, count, batch_size):
            chosen = indices[start : start + batch_size]
            batch, seconds = _run_batch(restorer, faces, chosen, severity, seed)
            tally.add(batch, chosen, seconds)
            if on_batch is not None:
                on_batch(batch)
        results.append(tally.result())
    return BenchmarkResult(seed, batch_size, tuple(results), missing)


def _run_batch(
    restorer: Restorer | None, faces: FaceDataset, chosen: Sequence[int], severity: str, seed: int
) -> tuple[BenchmarkBatch, float]:
    """Degrade and restore the chosen faces; the seconds are those spent in the restorer."""
    keys = tuple(faces.keys[index] for index in chosen)
    truth = np.stack([faces.read(index) for index in chosen])
    degraded = np.stack(
        [benchmark_input(hq, key, severity, seed) for hq, key in zip(truth, keys, strict=True)]
    )
    if restorer is None:
        return BenchmarkBatch(severity, keys, degraded, None, truth), 0.0
    begin = time.perf_counter()
    output = restorer(faces_to_tensor(degraded), [sum(benchmark_seed(seed, key)) for key in keys])
    restored = tensor_to_uint8(output)
    seconds = time.perf_counter() - begin
    return BenchmarkBatch(severity, keys, degraded, restored, truth), seconds


class _TruthIdentity:
    """Distances to the clean faces, each of which is embedded once for all severities."""

    def __init__(self, network: IdentityNetwork, faces: FaceDataset) -> None:
        self._network, self._faces = network, faces
        self._embeddings: dict[int, np.ndarray] = {}

    def distance(self, image: np.ndarray, index: int) -> float:
        """Identity distance of an image to the clean face `index`."""
        if index not in self._embeddings:
            self._embeddings[index] = self._network.embed(self._faces.read(index))
        return identity_distance(self._network.embed(image), self._embeddings[index])


def _identity_of(faces: FaceDataset) -> tuple[_TruthIdentity | None, str | None]:
    try:
        return _TruthIdentity(IdentityNetwork(), faces), None
    except IdentityUnavailableError as error:
        return None, str(error)


class _Tally:
    """Collects the scores of one severity, face by face."""

    def __init__(self, severity: str, identity: _TruthIdentity | None) -> None:
        self.severity, self.identity = severity, identity
        self.degraded: list[Scores] = []
        self.restored: list[Scores] = []
        self.seconds = 0.0

    def add(self, batch: BenchmarkBatch, chosen: Sequence[int], seconds: float) -> None:
        self.seconds += seconds
        for position, index in enumerate(chosen):
            truth = batch.truth[position]
            self.degraded.append(self._scores(batch.degraded[position], truth, index))
            if batch.restored is not None:
                self.restored.append(self._scores(batch.restored[position], truth, index))

    def _scores(self, image: np.ndarray, truth: np.ndarray, index: int) -> Scores:
        return Scores(
            psnr_db=psnr(image, truth),
            ssim=ssim(image, truth),
            gradient_energy_ratio=gradient_energy_ratio(image, truth),
            identity_distance=None if self.identity is None else self.identity.distance(image, index),
        )

    def result(self) -> SeverityResult:
        count = len(self.degraded)
        restored = _mean(self.restored) if self.restored else None
        seconds = self.seconds / count if self.restored else None
        return SeverityResult(self.severity, count, _mean(self.degraded), restored, seconds)


def _mean(scores: Sequence[Scores]) -> Scores:
    distances = [score.identity_distance for score in scores if score.identity_distance is not None]
    return Scores(
        psnr_db=float(np.mean([score.psnr_db for score in scores])),
        ssim=float(np.mean([score.ssim for score in scores])),
        gradient_energy_ratio=float(np.mean([score.gradient_energy_ratio for score in scores])),
        identity_distance=float(np.mean(distances)) if distances else None,
    )


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
