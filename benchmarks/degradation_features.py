"""Do the degradation features see the degradation and not the person?

    python benchmarks/degradation_features.py FACES [--faces 12] [-o features.json]

FACES is a tar shard or folder of clean aligned 512-pixel faces. Each face is degraded at four known levels of blur,
noise, JPEG and downsampling, at 512 pixels ("large") and as small pictures enlarged again ("small"). Per axis:

* rank: mean over faces of Spearman's |rho| between the level and the place along the axis's first principal
  component in the feature space;
* nearer: share of triples in which another person at the same level lies nearer than the same person at another
  level of the axis: 0 for features that see the person only, 1 for those that see the degradation only;
* extremes: the same for the axis's first and last level only, the others being hard to tell apart by eye as well;
* between axes: the same share for the last levels of two axes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage, stats

from flipnet.data.datasets import FaceDataset
from flipnet.data.degradation import DegradationParameters, degrade
from flipnet.data.filters import jpeg_round_trip
from flipnet.evaluation.feature_space import fit_space
from flipnet.evaluation.scene_statistics import scene_statistics

LARGE_LEVELS = {"blur": (1, 2, 4, 8), "noise": (3, 6, 12, 24), "jpeg": (80, 50, 25, 10)}
SMALL_LEVELS = {
    "blur": (1.0, 3.0, 6.0, 12.0),
    "noise": (0.0, 4.0, 9.0, 20.0),
    "jpeg": (90, 60, 30, 10),
    "downsample": (1.5, 2.7, 5.3, 11.0),
}
Change = Callable[[np.ndarray, float, int], np.ndarray]


def large(axis: str) -> Change:
    """Degrade at full size by one thing only; the arguments are face, level and seed."""

    def blur(face: np.ndarray, level: float, seed: int) -> np.ndarray:
        return np.rint(ndimage.gaussian_filter(face.astype(np.float32), (level, level, 0))).astype(np.uint8)

    def noise(face: np.ndarray, level: float, seed: int) -> np.ndarray:
        added = np.random.default_rng(seed).normal(0, level, face.shape)
        return np.rint(face + added).clip(0, 255).astype(np.uint8)

    def jpeg(face: np.ndarray, level: float, seed: int) -> np.ndarray:
        return jpeg_round_trip(face, int(level))

    return {"blur": blur, "noise": noise, "jpeg": jpeg}[axis]


def small(axis: str) -> Change:
    """Degrade by the naive recipe with all but one parameter fixed."""

    def change(face: np.ndarray, level: float, seed: int) -> np.ndarray:
        blur = level if axis == "blur" else 2.0
        parameters = DegradationParameters(
            blur_sigma_x_px=blur,
            blur_sigma_y_px=blur,
            blur_angle_rad=0.0,
            kernel_size_px=41,
            downsample=level if axis == "downsample" else 2.7,
            noise_std_levels=level if axis == "noise" else 2.0,
            noise_seed=seed,
            jpeg_quality=int(level) if axis == "jpeg" else 90,
        )
        return degrade(face, parameters)

    return change


def measure(
    faces: list[np.ndarray], axes: Mapping[str, Sequence[float]], kind: Callable[[str], Change]
) -> dict:
    """Return the numbers of the module's docstring by axis, and "between axes"."""
    features = {
        axis: np.array(
            [[scene_statistics(kind(axis)(f, level, i)) for i, f in enumerate(faces)] for level in levels]
        )
        for axis, levels in axes.items()
    }
    space = fit_space([table.reshape(-1, table.shape[-1]) for table in features.values()])
    points = {axis: space.project(table) for axis, table in features.items()}
    result: dict = {}
    for axis, table in points.items():
        pairs = itertools.permutations(range(len(table)), 2)
        shares = {pair: nearer(table[pair[0]], table[pair[1]]) for pair in pairs}
        last = len(table) - 1
        extremes = (shares[0, last] + shares[last, 0]) / 2
        mean = float(np.mean(list(shares.values())))
        result[axis] = {"rank": rank_correlation(table), "nearer": mean, "extremes": extremes}
    strongest = itertools.permutations([table[-1] for table in points.values()], 2)
    result["between axes"] = {"nearer": float(np.mean([nearer(*pair) for pair in strongest]))}
    return result


def nearer(same_level: np.ndarray, other_level: np.ndarray) -> float:
    """Share of (person, other person) with the other person nearer than the same person at the other level.

    Both are (P, d), person by person.
    """
    between_people = np.linalg.norm(same_level[:, None] - same_level[None], axis=-1)
    between_levels = np.linalg.norm(same_level - other_level, axis=-1)
    others = ~np.eye(len(same_level), dtype=bool)
    return float((between_people < between_levels[:, None])[others].mean())


def rank_correlation(points: np.ndarray) -> float:
    """Mean over people of |Spearman's rho| along the first principal component of (L, P, d) points."""
    flat = points.reshape(-1, points.shape[-1])
    direction = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][0]
    along = points @ direction
    rhos = [
        stats.spearmanr(range(len(along)), along[:, person]).statistic for person in range(along.shape[1])
    ]
    return float(abs(np.mean(rhos)))


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, metavar="FACES")
    parser.add_argument("--faces", type=int, default=12)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    dataset = FaceDataset(options.images)
    faces = [dataset.read(i * len(dataset) // options.faces) for i in range(options.faces)]
    started = time.perf_counter()
    for face in faces:
        scene_statistics(face)
    result: dict = {"ms_per_face": 1000 * (time.perf_counter() - started) / len(faces)}
    for name, levels, kind in (("large", LARGE_LEVELS, large), ("small", SMALL_LEVELS, small)):
        result[name] = measure(faces, levels, kind)
        for axis, numbers in result[name].items():
            print(f"{name} {axis}: " + ", ".join(f"{key} {value:.3f}" for key, value in numbers.items()))  # noqa: T201
    print(f"{result['ms_per_face']:.1f} ms per face")  # noqa: T201
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
