"""Whether spread and flip-consistency say something true: against clean faces that the restorer never saw.

    python benchmarks/invention.py FACES.tar [--limit 6] [--samples 4] [--severity medium]

Prints, for 2, 4 and 8 denoising steps (a single one knows no seed), the samples' spread and its rank correlation,
within each face, with how far the samples' mean is from the clean face; then what choosing a sample by each rule
gains, in dB of PSNR over taking the first, and the rank correlation of flip-consistency with the true error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from flipnet.data.datasets import FaceDataset
from flipnet.data.degradation import degrade_with, preset
from flipnet.images import faces_to_tensor
from flipnet.pipelines.degrade import FaceDegrader
from flipnet.pipelines.invention import (
    SAMPLING_STEPS,
    flip_consistency,
    nearest_to_mean,
    sample_seeds,
    spread_of,
)
from flipnet.pipelines.restore import FaceRestorer

POOL_PX = 8
"""Spread and error are averaged over squares of this side before they are ranked."""


def pooled(plane: Tensor) -> np.ndarray:
    """Average (S, S) over squares; flat."""
    return F.avg_pool2d(plane[None, None], POOL_PX).flatten().numpy()


def psnr(samples: Tensor, truth: Tensor) -> np.ndarray:
    """PSNR in dB of (K, 3, S, S) in [-1, 1] against (1, 3, S, S)."""
    return (-10 * ((samples - truth) / 2).square().mean((1, 2, 3)).log10()).numpy()


def main() -> None:
    """Degrade, sample, compare with the truth, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--limit", type=int, default=6)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--severity", default="medium")
    arguments = parser.parse_args()
    restorer = FaceRestorer.from_checkpoint("compact")
    degrader = FaceDegrader(restorer.pipeline, phi=1.0, steps=None, model_name="compact")
    data = FaceDataset(arguments.faces, restorer.native_size_px)
    gains: dict[str, list[float]] = {"mean": [], "faithful": [], "best possible": []}
    ranks, lines = [], {steps: [] for steps in (2, 8, SAMPLING_STEPS)}
    for number, index in enumerate(np.linspace(0, len(data) - 1, arguments.limit).round().astype(int)):
        clean = data.read(int(index))
        truth = faces_to_tensor(clean)
        face = faces_to_tensor(degrade_with(preset(arguments.severity), clean, number)[0])
        seeds = sample_seeds(number, arguments.samples)
        for steps in lines:
            restorer.steps = steps
            drawn = torch.cat([restorer(face, [seed]) for seed in seeds])
            spread = torch.from_numpy(spread_of(drawn))
            error = (drawn.mean(0) - truth[0]).abs().mean(0)
            lines[steps].append((float(spread.mean()), spearmanr(pooled(spread), pooled(error)).statistic))
        quality = psnr(drawn, truth)
        distances = flip_consistency(drawn, face[0], degrader, sample_seeds(number, 2))
        ranks.append(spearmanr(distances, -quality).statistic)
        gains["mean"].append(quality[nearest_to_mean(drawn)] - quality[0])
        gains["faithful"].append(quality[int(np.argmin(distances))] - quality[0])
        gains["best possible"].append(quality.max() - quality[0])
    for steps, rows in lines.items():
        spread, rank = np.mean(rows, axis=0)
        sys.stdout.write(
            f"{steps} steps: spread {spread:.2f} levels, rank correlation with the error {rank:.2f}\n"
        )
    for name, values in gains.items():
        sys.stdout.write(f"{name}: {np.mean(values):+.3f} dB over the first sample\n")
    sys.stdout.write(f"flip-consistency: rank correlation with the true error {np.mean(ranks):.2f}\n")


if __name__ == "__main__":
    main()
