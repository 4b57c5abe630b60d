"""The benchmark: bad faces restored by several methods, every method measured on the very same inputs.

The inputs are clean aligned faces degraded with a fixed seed, or the pictures of a test set. A face's degraded
version depends on the seed, its key and the severity alone, so every run measures the same inputs.
"""

from __future__ import annotations

import itertools
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from flipnet.data.datasets import FaceDataset, ImageEntry, read_image
from flipnet.data.degradation import degrade_with, preset
from flipnet.evaluation.image_sets import INPUT, REFERENCE, ImageSets
from flipnet.evaluation.scoring import LoadedMetrics, Part, RealSet, Scorer
from flipnet.images import faces_to_tensor, tensor_to_uint8
from flipnet.types import FlipnetError, Restorer

SEVERITIES = ("mild", "medium", "severe")
"""The benchmark's own degradation presets."""


@dataclass(frozen=True)
class Case:
    """One face to restore; images are uint8 (S, S, 3) RGB.

    Attributes:
        key: of the face.
        degraded: the restorers' input.
        truth: the clean face, None where there is none.
        others: finished outputs of other methods by column.
    """

    key: str
    degraded: np.ndarray
    truth: np.ndarray | None = None
    others: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class MeasuredCase:
    """A case after the restorers saw it.

    Attributes:
        part: name of the severity or test set.
        case: what they saw.
        images: all columns, uint8 (S, S, 3) RGB, the input first.
        scores: numbers by column and metric.
    """

    part: str
    case: Case
    images: Mapping[str, np.ndarray]
    scores: Mapping[str, Mapping[str, float]]


def benchmark_seed(seed: int, key: str) -> tuple[int, int]:
    """Return the seed of one face; severities share it, so a face sits at the same place of their ranges."""
    return seed, zlib.crc32(key.encode())


def benchmark_input(hq: np.ndarray, key: str, severity: str, seed: int = 0) -> np.ndarray:
    """Return the benchmark's degraded version of one face, uint8 (S, S, 3) RGB in and out."""
    return degrade_with(preset(severity), hq, benchmark_seed(seed, key))[0]


def spread_evenly(faces: FaceDataset, limit: int | None) -> list[int]:
    """Return the indices of `limit` faces spread over the set, all for None; FlipnetError below 1."""
    if limit is not None and limit < 1:
        raise FlipnetError(f"The limit must be at least 1, got {limit}.")
    count = len(faces) if limit is None else min(limit, len(faces))
    return [position * len(faces) // count for position in range(count)]


def degraded_cases(
    faces: FaceDataset,
    indices: Sequence[int],
    severity: str,
    seed: int,
    outputs: Mapping[str, Mapping[str, ImageEntry]] | None = None,
) -> Iterator[Case]:
    """Degrade clean faces at one severity; `outputs` are other methods' results by column and key.

    Raises FlipnetError for unreadable or wrongly sized faces, an unknown severity, and a face without output.
    """
    for index in indices:
        key, hq = faces.keys[index], faces.read(index)
        others = {name: _output(entries, key, name, hq.shape) for name, entries in (outputs or {}).items()}
        yield Case(key, benchmark_input(hq, key, severity, seed), hq, others)


def _output(entries: Mapping[str, ImageEntry], key: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if key not in entries:
        raise FlipnetError(f"method {name}: has no output named '{key}'")
    pixels = read_image(entries[key])
    if pixels.shape != shape:
        size, wanted = pixels.shape[1::-1], shape[1::-1]
        raise FlipnetError(f"{entries[key]}: is {size[0]}x{size[1]}, but {wanted[0]}x{wanted[1]} is needed")
    return pixels


def listed_cases(sets: ImageSets) -> Iterator[Case]:
    """Read the pictures of a test set; those that cannot be used become problems of `sets` and are left out."""
    for key in list(sets.keys):
        images = sets.read(key)
        if images is None:
            continue
        degraded, truth = images.pop(INPUT), images.pop(REFERENCE, None)
        yield Case(key, degraded, truth, images)


def run_part(
    name: str,
    cases: Iterable[Case],
    restorers: Mapping[str, Restorer],
    loaded: LoadedMetrics,
    *,
    real: RealSet | None = None,
    seed: int = 0,
    batch_size: int = 1,
    on_case: Callable[[MeasuredCase], None] = lambda measured: None,
    remarks: list[str] | None = None,
) -> Part:
    """Restore the cases with every restorer and measure all columns.

    Args:
        name: of the part.
        cases: what to restore, of the restorers' native size.
        restorers: by column; "input" and the cases' `others` are columns besides.
        loaded: the metrics.
        real: what sets are compared with, None for the cases' truths.
        seed: the restorers' seeds follow from it and the keys.
        batch_size: faces given to a restorer at once, which its speed depends on.
        on_case: called after every case.
        remarks: gets sentences about metrics that refused pictures.

    Raises FlipnetError for a batch size below 1, faces of another size than a restorer's, and no case at all.
    """
    if batch_size < 1:
        raise FlipnetError(f"The batch size must be at least 1, got {batch_size}.")
    scorer, pending = Scorer(name, loaded, real), iter(cases)
    count = 0
    while batch := list(itertools.islice(pending, batch_size)):
        columns, seconds = _restore(batch, restorers, seed)
        for position, case in enumerate(batch):
            images = {INPUT: case.degraded}
            images |= {column: restored[position] for column, restored in columns.items()}
            images |= case.others
            each = {column: total / len(batch) for column, total in seconds.items()}
            scores = scorer.add(case.key, images, case.truth, each)
            on_case(MeasuredCase(name, case, images, scores))
        count += len(batch)
    if not count:
        raise FlipnetError(f"{name}: there is no picture to measure")
    if remarks is not None:
        remarks += [f"{metric}: {reason}" for metric, reason in scorer.remarks.items()]
    return scorer.result()


def _restore(
    batch: Sequence[Case], restorers: Mapping[str, Restorer], seed: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return uint8 (B, S, S, 3) and wall-clock seconds by column."""
    columns, seconds = {}, {}
    for column, restorer in restorers.items():
        for case in batch:
            size = case.degraded.shape[1::-1]
            if size != (restorer.native_size_px,) * 2:
                raise FlipnetError(
                    f"{case.key}: is {size[0]}x{size[1]}, but {column} restores faces of "
                    f"{restorer.native_size_px}x{restorer.native_size_px}; give the size to resize to"
                )
        faces = faces_to_tensor(np.stack([case.degraded for case in batch]))
        begin = time.perf_counter()
        output = restorer(faces, [sum(benchmark_seed(seed, case.key)) for case in batch])
        columns[column] = tensor_to_uint8(output)
        seconds[column] = time.perf_counter() - begin
    return columns, seconds
