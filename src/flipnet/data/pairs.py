"""Real clean/degraded pairs as training data for the degradation mode: sources, crops, flips, weights."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from flipnet.config import StorageConfig
from flipnet.data.datasets import ImageEntry, read_image
from flipnet.data.degradation_code import SMALLEST_PX, degradation_code
from flipnet.data.pair_layouts import Pair, index_pairs
from flipnet.data.storage import store
from flipnet.images import resize
from flipnet.types import FlipnetError


@dataclass(frozen=True)
class PairSource:
    """One set of pairs and how often it is drawn.

    Attributes:
        layout: how the files lie, a name in `pair_layouts.LAYOUTS`.
        path: the set's folder, list file, tar shard or glob of shards, as the layout has it.
        weight: factor on how often each of its pairs is drawn; a set of n pairs gets n * weight shares.
        key_weights: further factors by key prefix ("sots" covers "sots-indoor-7"); the longest one counts.
    """

    layout: str
    path: str | Path
    weight: float = 1.0
    key_weights: Mapping[str, float] = field(default_factory=dict)


class TrainingPairs(Dataset[dict[str, Tensor]]):
    """Crops of real pairs, indexed by (pair index, item seed).

    Items are {"hq", "lq", "code"}: uint8 (3, S, S) RGB with S = crop_px, cut at the same place and flipped alike,
    and float32 (K,), the `degradation_code` of the two; everything drawn comes from the item seed alone. The window
    cut out is a square of crop_px times a factor drawn from `window`, but never wider than the picture's shorter
    side; where it is not crop_px wide it is scaled to that, both pictures alike, by Lanczos (our choice: sets of
    16-megapixel photos need more than 512 px to show anything, and pictures smaller than the crop are enlarged
    rather than padded).

    Args:
        sources: where the pairs come from.
        crop_px: side S of the crops.
        window: range of the factor on the window's side; (1, 1) always cuts at the pictures' own scale.
        flip_horizontal, flip_vertical: mirror half of the items.
        storage: what becomes of the LQ crops beyond what the pairs show; None: nothing.

    Raises:
        FlipnetError: no sources, a source without pairs or of another layout, two pictures of a pair that differ
            in size (all are checked here, by their headers), and contradictory arguments.
    """

    def __init__(
        self,
        sources: Sequence[PairSource],
        crop_px: int,
        *,
        window: tuple[float, float] = (1.0, 1.0),
        flip_horizontal: bool = True,
        flip_vertical: bool = False,
        storage: StorageConfig | None = None,
    ) -> None:
        if not sources:
            raise FlipnetError("At least one source of pairs is needed.")
        if crop_px < SMALLEST_PX or not 0 < window[0] <= window[1]:
            raise FlipnetError(
                f"crop_px must be at least {SMALLEST_PX} and 0 < low <= high in window, got {crop_px}, {window}."
            )
        self.crop_px, self.window = crop_px, window
        self.flip_horizontal, self.flip_vertical = flip_horizontal, flip_vertical
        self.storage = storage
        indexed = [(source, index_pairs(source.layout, source.path)) for source in sources]
        self.pairs: list[Pair] = [pair for _, pairs in indexed for pair in pairs]
        self.keys = tuple(pair.key for pair in self.pairs)
        self._weights = np.concatenate([_source_weights(source, pairs) for source, pairs in indexed])
        if not self._weights.sum() > 0:
            raise FlipnetError("All weights of the pair sources are zero.")
        for pair in self.pairs:
            _check_sizes(pair, _header_size(pair.hq), _header_size(pair.lq))

    def __len__(self) -> int:
        return len(self.pairs)

    def weights(self) -> np.ndarray:
        """Sampling weights per pair, float64 (N,), sum 1, for `sampling.SeededBatches`."""
        return self._weights / self._weights.sum()

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        index, seed = item
        pair = self.pairs[index]
        hq, lq = read_image(pair.hq), read_image(pair.lq)
        _check_sizes(pair, hq.shape[1::-1], lq.shape[1::-1])
        rng = np.random.default_rng(seed)
        height, width = hq.shape[:2]
        side = min(max(1, round(self.crop_px * rng.uniform(*self.window))), height, width)
        top, left = (int(rng.integers(length - side + 1)) for length in (height, width))
        mirrored, upended = rng.random(2) < 0.5
        crops = {"hq": hq, "lq": lq}
        for role, pixels in crops.items():
            crop = resize(pixels[top : top + side, left : left + side], (self.crop_px, self.crop_px))
            crop = crop[:, ::-1] if mirrored and self.flip_horizontal else crop
            crop = crop[::-1] if upended and self.flip_vertical else crop
            crops[role] = crop
        if self.storage is not None:
            crops["lq"] = store(crops["lq"], self.storage, rng)
        code = torch.from_numpy(degradation_code(crops["hq"], crops["lq"]))
        return {**{role: _to_tensor(crop) for role, crop in crops.items()}, "code": code}


def _source_weights(source: PairSource, pairs: Sequence[Pair]) -> np.ndarray:
    if source.weight < 0 or any(factor < 0 for factor in source.key_weights.values()):
        raise FlipnetError(f"{source.path}: weights of pairs must not be negative.")
    weights = np.full(len(pairs), float(source.weight))
    longest_last = sorted(source.key_weights, key=len)
    for prefix in longest_last:
        members = np.array([pair.key == prefix or pair.key.startswith(f"{prefix}-") for pair in pairs])
        if not members.any():
            known = sorted({pair.key.split("-")[0] for pair in pairs})
            raise FlipnetError(
                f"{source.path}: no pair's key starts with '{prefix}', which has a weight; "
                f"keys start with {', '.join(known[:12])}."
            )
        weights[members] = source.weight * source.key_weights[prefix]
    return weights


def _check_sizes(pair: Pair, hq: tuple[int, ...], lq: tuple[int, ...]) -> None:
    if hq != lq:
        raise FlipnetError(
            f"{pair.hq} is {hq[0]}x{hq[1]} but {pair.lq} is {lq[0]}x{lq[1]}; a pair must be of one size."
        )


def _header_size(entry: ImageEntry) -> tuple[int, int]:
    """Width and height from the file's header, without decoding."""
    try:
        with entry.path.open("rb") as file:
            file.seek(entry.offset or 0)
            # Files of their own are read as far as needed only; a photo of SIDD has 25 MB.
            source = file if entry.offset is None else io.BytesIO(file.read(entry.length))
            with Image.open(source) as image:
                return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FlipnetError(f"{entry}: cannot be read as an image: {error}.") from error


def _to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
