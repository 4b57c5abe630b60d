"""How much of a restored face was made up: several samples, their spread, and flip-consistency.

A photo that has lost detail fits many faces. Restoring it several times shows where they differ, and
degrading each candidate again, by the same network with its roles flipped, shows which still fit the photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flipnet.pipelines.degrade import FaceDegrader
from flipnet.pipelines.restore import FaceRestorer
from flipnet.types import Findings, FlipnetError, RestoredBatch, Restorer

Choice = Literal["mean", "faithful"]
"""Which sample is taken: the one nearest to the samples' mean, or the one with the best flip-consistency."""

SAMPLING_STEPS = 4
"""Fewest denoising steps for several samples. Our choice, measured with the shipped weights on six held-out faces
at medium severity (benchmarks/invention.py): the samples' mean spread is 2.1 8-bit levels with two steps, 3.0 with
four and 3.6 with eight. A single step answers with an average face whatever the seed."""

CONSISTENCY_SIZE_PX = 32
"""Side of the pictures that flip-consistency compares."""

_LEVELS = 127.5  # 8-bit levels per unit of [-1, 1]


def sample_seeds(seed: int, samples: int) -> tuple[int, ...]:
    """Return the seeds of a face's samples: its own first, then seeds that follow from it.

    Sample k > 0 gets the first 32-bit word of numpy's SeedSequence((seed, k)), so that sample k is the same
    however many are drawn, and neighbouring face seeds share no samples.
    """
    further = (int(np.random.SeedSequence((seed, k)).generate_state(1)[0]) for k in range(1, samples))
    return (seed, *further)


def spread_of(samples: Tensor) -> np.ndarray:
    """Return how much samples differ at each pixel, float32 (S, S), in 8-bit levels.

    Standard deviation over the samples (dividing by K - 1), averaged over the channels.

    Args:
        samples: float (K, 3, S, S) in [-1, 1], K at least 2.
    """
    return samples.std(0, correction=1).mean(0).mul(_LEVELS).float().numpy()


def nearest_to_mean(samples: Tensor) -> int:
    """Return which of (K, 3, S, S) samples lies nearest to their mean, by squared difference."""
    return int((samples - samples.mean(0)).square().flatten(1).mean(1).argmin())


def coarse_difference(degraded: Tensor, inputs: Tensor) -> Tensor:
    """Compare faces by what degradation leaves alone; (B,) in 8-bit levels, lower = nearer.

    Both (B, 3, S, S) in [-1, 1] are area-averaged to `CONSISTENCY_SIZE_PX`, where blur, noise and compression
    hardly show, and each channel's mean is taken out, as exposure and colour cast are the degradation's to
    choose; then root mean square. Fitting a gain per channel as well was measured to rank worse.
    """
    low = (
        F.interpolate(x, size=(CONSISTENCY_SIZE_PX,) * 2, mode="area").flatten(2) for x in (degraded, inputs)
    )
    a, b = (x - x.mean(2, keepdim=True) for x in low)
    return (a - b).square().mean((1, 2)).sqrt() * _LEVELS


def flip_consistency(
    candidates: Tensor, face: Tensor, degrade: Restorer, seeds: Sequence[int], *, batch_size: int = 4
) -> tuple[float, ...]:
    """Degrade restored candidates again and say how far each is from the photo's own face.

    Args:
        candidates: float32 (K, 3, S, S) in [-1, 1], restorations of one face.
        face: float32 (3, S, S), the face as it was.
        degrade: the degradation mode.
        seeds: each is one degradation of every candidate; the same for all, so that they compare.
        batch_size: candidates degraded at once.

    Returns:
        One distance per candidate, 8-bit levels, mean over the seeds; lower = more faithful. See
        `coarse_difference` for what is compared.

    Source: our choice; FLIPNET has both modes but does not use one to check the other. With earlier weights, on
    five held-out faces at medium severity, the mean rank correlation with the candidates' true error was 0.81 over
    seven candidates of different φ, where φ = 0 always came last; with the shipped ones it is 0.40 among four
    samples of equal settings (benchmarks/invention.py, six faces). So it finds a candidate that left the photo and
    hardly tells good samples apart.
    """
    total = torch.zeros(len(candidates))
    for seed in seeds:
        degraded = _mapped(degrade, candidates, [seed] * len(candidates), batch_size)
        total += coarse_difference(degraded, face.expand(len(candidates), -1, -1, -1))
    return tuple((total / len(seeds)).tolist())


class FaceSampler:
    """Draws several restorations of every face and takes one; follows `flipnet.types.SamplingRestorer`.

    Args:
        restorer: draws one restoration per seed.
        samples: K, at least 2.
        degrader: the degradation mode; with it the sample of best flip-consistency is taken, without it the
            one nearest to the samples' mean.
        degradations: how often each sample is degraded again.
        batch_size: samples drawn at once.

    Raises:
        FlipnetError: fewer than two samples.
    """

    def __init__(
        self,
        restorer: Restorer,
        samples: int,
        *,
        degrader: Restorer | None = None,
        degradations: int = 2,
        batch_size: int = 4,
    ) -> None:
        if samples < 2:
            raise FlipnetError(f"samples {samples}: several samples are at least 2")
        self.restorer, self.samples, self.degrader = restorer, samples, degrader
        self.degradations, self.batch_size = degradations, batch_size
        self.native_size_px = restorer.native_size_px

    def __call__(self, faces: Tensor, seeds: Sequence[int]) -> RestoredBatch:
        """Map float32 (B, 3, S, S) RGB in [-1, 1] to one chosen restoration per face, with its findings."""
        chosen, findings = [], []
        for face, seed in zip(faces, seeds, strict=True):
            own_seeds = sample_seeds(seed, self.samples)
            drawn = _mapped(self.restorer, face.expand(self.samples, -1, -1, -1), own_seeds, self.batch_size)
            consistency = self._consistency(drawn, face, seed)
            best = nearest_to_mean(drawn) if consistency is None else int(np.argmin(consistency))
            chosen.append(drawn[best])
            spread = spread_of(drawn)
            mean, p95 = float(spread.mean()), float(np.percentile(spread, 95))
            findings.append(Findings(own_seeds, best, spread, mean, p95, consistency))
        return RestoredBatch(torch.stack(chosen), tuple(findings))

    def _consistency(self, drawn: Tensor, face: Tensor, seed: int) -> tuple[float, ...] | None:
        if self.degrader is None:
            return None
        seeds = sample_seeds(seed, self.degradations)
        return flip_consistency(drawn, face, self.degrader, seeds, batch_size=self.batch_size)


def several(restorer: FaceRestorer, samples: int, choose: Choice) -> FaceSampler:
    """Make a restorer draw several samples; "faithful" needs the degradation mode in its checkpoint.

    Raises:
        FlipnetError: unknown choice, fewer than two samples, or no degradation mode.
    """
    if choose not in get_args(Choice):
        raise FlipnetError(f"choose {choose!r} is not one of {', '.join(get_args(Choice))}")
    degrader = None
    if choose == "faithful":
        degrader = FaceDegrader(restorer.pipeline, phi=1.0, steps=None, model_name=restorer.model_name)
    return FaceSampler(restorer, samples, degrader=degrader)


def _mapped(mapping: Restorer, faces: Tensor, seeds: Sequence[int], batch_size: int) -> Tensor:
    starts = range(0, len(faces), batch_size)
    return torch.cat([mapping(faces[i : i + batch_size], seeds[i : i + batch_size]) for i in starts])
