"""Which items make up which step: a pure function of (seed, step), so a run resumes exactly where it stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class ShuffledEpochs:
    """Draws every item once per epoch: shards in random order, their items through a shuffle buffer.

    The order of an epoch is a pure function of (seed, epoch), so the place in it is one number. Neither
    processes nor workers own shards; they take positions of the one order, and so share any number of items
    without leaving out or repeating any. The buffer keeps what is read at about the same time in few shards.
    Source: our choice; WebDataset's shuffle buffer, over positions in place of a running stream.

    Args:
        shards: which shard each item lies in, (N,); a file of its own is a shard of one item.
        buffer: items to draw the next one from; at N or more the order is a plain permutation.
    """

    def __init__(self, shards: Sequence[str], buffer: int) -> None:
        _, self._shard = np.unique(np.asarray(shards), return_inverse=True)
        self._buffer = buffer
        self._known: tuple[int, int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self._shard)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Return the item at each position of an epoch, int64 (N,), a permutation."""
        if self._known is None or self._known[:2] != (seed, epoch):
            rng = np.random.default_rng((seed, epoch, 0))
            shard_rank = rng.permutation(self._shard.max() + 1)
            by_shard = np.argsort(shard_rank[self._shard], kind="stable")
            self._known = seed, epoch, _through_buffer(by_shard, self._buffer, rng)
        return self._known[2]

    def take(self, seed: int, first: int, count: int) -> np.ndarray:
        """Return the items at positions first, ..., first + count - 1, which may run on into later epochs."""
        epochs, places = np.divmod(np.arange(first, first + count), len(self))
        return np.concatenate(
            [self.order(seed, int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)]
        )


def _through_buffer(items: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    buffer = items[:size].tolist()
    out = []
    for item, place in zip(
        items[size:].tolist(), rng.integers(size, size=max(0, len(items) - size)).tolist(), strict=True
    ):
        out.append(buffer[place])
        buffer[place] = item
    return np.concatenate([np.array(out, np.int64), rng.permutation(buffer)])


Draw = np.ndarray | ShuffledEpochs
"""How items are drawn: weights (N,) for drawing with replacement, or every item once per epoch."""


class SeededBatches(Sampler[list[tuple[int, int]]]):
    """Batch sampler yielding, per step, `batch_size` pairs (item index, item seed).

    Every random choice about an item comes from its own seed, so neither workers nor resuming change the data.
    With several processes each takes its slice of the step's global batch. Source: our choice.

    Args:
        draw: relative frequency per item, (N,), non-negative, not all zero, to draw with replacement; or
            `ShuffledEpochs`.
        batch_size: items per process and step.
        steps: total number of steps of the run.
        start: first step to yield, for resuming.
        seed: of the run.
        rank, world_size: this process and the number of processes.
    """

    def __init__(
        self,
        draw: Draw,
        batch_size: int,
        steps: int,
        *,
        start: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.draw = draw if isinstance(draw, ShuffledEpochs) else np.asarray(draw, np.float64) / np.sum(draw)
        self.batch_size, self.steps, self.start = batch_size, steps, start
        self.seed, self.rank, self.world_size = seed, rank, world_size

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        total = self.batch_size * self.world_size
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        for step in range(self.start, self.steps):
            rng = np.random.default_rng((self.seed, step))
            if isinstance(self.draw, ShuffledEpochs):
                indices = self.draw.take(self.seed, step * total, total)
            else:
                indices = rng.choice(len(self.draw), total, p=self.draw)
            seeds = rng.integers(0, 2**31, total)
            yield list(zip(indices[mine].tolist(), seeds[mine].tolist(), strict=True))
