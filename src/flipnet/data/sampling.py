"""Which items make up which step: a pure function of (seed, step), so a run resumes exactly where it stopped."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class SeededBatches(Sampler[list[tuple[int, int]]]):
    """Batch sampler yielding, per step, `batch_size` pairs (item index, item seed).

    Items are drawn with replacement by `weights`; every random choice about an item comes from its own seed,
    so neither workers nor resuming change the data. With several processes each takes its slice of the
    step's global batch. Source: our choice.

    Args:
        weights: relative frequency per item, (N,), non-negative, not all zero.
        batch_size: items per process and step.
        steps: total number of steps of the run.
        start: first step to yield, for resuming.
        seed: of the run.
        rank, world_size: this process and the number of processes.
    """

    def __init__(
        self,
        weights: np.ndarray,
        batch_size: int,
        steps: int,
        *,
        start: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.probabilities = np.asarray(weights, np.float64) / np.sum(weights)
        self.batch_size, self.steps, self.start = batch_size, steps, start
        self.seed, self.rank, self.world_size = seed, rank, world_size

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        total = self.batch_size * self.world_size
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        for step in range(self.start, self.steps):
            rng = np.random.default_rng((self.seed, step))
            indices = rng.choice(len(self.probabilities), total, p=self.probabilities)
            seeds = rng.integers(0, 2**31, total)
            yield list(zip(indices[mine].tolist(), seeds[mine].tolist(), strict=True))
