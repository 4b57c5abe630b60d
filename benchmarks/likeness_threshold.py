"""How the likeness of faces before and after restoration is spread, and what its thresholds tell apart.

    python benchmarks/likeness_threshold.py FACES.tar [--limit 36]

Clean aligned faces are degraded at the benchmark's three severities and restored with the shipped weights. For
each method of `flipnet.pipelines.likeness` it prints the similarity of a degraded face to its own restoration and
to those of other people, and how many of each fall below the method's threshold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flipnet.data.datasets import FaceDataset
from flipnet.data.degradation import degrade_with, preset
from flipnet.images import faces_to_tensor, tensor_to_uint8
from flipnet.pipelines.likeness import DLIB, FACE_ENCODER, THRESHOLDS, LikenessCheck, encoder_similarity
from flipnet.pipelines.restore import FaceRestorer

SEVERITIES = ("mild", "medium", "severe")
STRANGERS = 4
"""Other people that each face is compared with."""


def report(name: str, compare: Callable[[int, int], float], count: int, threshold: float) -> None:
    """Print one line for `compare(i, j)`, the similarity of input i and restoration j."""
    same = np.array([compare(i, i) for i in range(count)])
    shifts = range(1, min(STRANGERS, count - 1) + 1)
    others = np.array([compare(i, (i + shift) % count) for i in range(count) for shift in shifts])
    low, middle = np.percentile(same, (1, 50))
    own = f"own: 1 % {low:.3f}  median {middle:.3f}  below: {np.mean(same < threshold):.0%}"
    rest = f"median {np.median(others):.3f}  95 % {np.percentile(others, 95):.3f}"
    sys.stdout.write(
        f"{name:<22} threshold {threshold:g} | {own} | other people: {rest}"
        f"  below: {np.mean(others < threshold):.0%}\n"
    )
    sys.stdout.flush()


def main() -> None:
    """Degrade, restore, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--limit", type=int, default=36)
    arguments = parser.parse_args()
    restorer = FaceRestorer.from_checkpoint("compact")
    encoder, check = restorer.pipeline.face_encoder, LikenessCheck(None)
    data = FaceDataset(arguments.faces, restorer.native_size_px)
    chosen = np.linspace(0, len(data) - 1, min(arguments.limit, len(data))).round().astype(int)
    clean = [data.read(int(i)) for i in chosen]
    for severity in SEVERITIES:
        before = [degrade_with(preset(severity), face, i)[0] for i, face in enumerate(clean)]
        after = [tensor_to_uint8(restorer(faces_to_tensor(face), [i]))[0] for i, face in enumerate(before)]
        if check.method == DLIB:
            report(
                f"{severity} {DLIB}",
                lambda i, j, a=before, b=after: check.compare(a[i], b[j]).similarity,
                len(clean),
                THRESHOLDS[DLIB],
            )
        report(
            f"{severity} {FACE_ENCODER}",
            lambda i, j, a=before, b=after: encoder_similarity(encoder, a[i], b[j]),
            len(clean),
            THRESHOLDS[FACE_ENCODER],
        )


if __name__ == "__main__":
    main()
