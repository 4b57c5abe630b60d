"""Decoded faces kept on disk, so that no training step waits for an image decoder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flipnet.data.datasets import FaceDataset


def fingerprint(*parts: object) -> str:
    """Return 16 hex digits that change when any part's text changes."""
    return hashlib.sha256("\n".join(str(part) for part in parts).encode()).hexdigest()[:16]


def decoded_faces(faces: FaceDataset, cache: Path) -> np.ndarray:
    """Return all faces as a read-only uint8 (N, S, S, 3) RGB memory map, decoding them at the first call.

    The file is named after the faces' keys and size; it is written under a temporary name and renamed.
    """
    path = cache / f"faces-{fingerprint(faces.size_px, *faces.keys)}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        shape = (len(faces), faces.size_px, faces.size_px, 3)
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        for index in range(len(faces)):
            array[index] = faces[index]["hq"].permute(1, 2, 0).numpy()
        array.flush()
        os.replace(partial, path)
    return np.load(path, mmap_mode="r")


def key_weights(keys: Sequence[str], source_weights: dict[str, float], group_power: float) -> np.ndarray:
    """Sampling weights per key, float64 (N,): see `datasets.balanced_weights`."""
    from flipnet.data.datasets import balanced_weights

    return np.asarray(balanced_weights(keys, source_weights, group_power), np.float64)
