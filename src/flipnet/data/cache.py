"""Decoded faces kept on disk, so that no training step waits for an image decoder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flipnet.data.datasets import FaceDataset


class DecodedFaces:
    """Faces in memory or memory-mapped, with the reading interface of `FaceDataset`.

    Attributes:
        pixels: uint8 (N, S, S, 3) RGB.
        keys: one per face.
    """

    def __init__(self, pixels: np.ndarray, keys: Sequence[str]) -> None:
        self.pixels, self.keys = pixels, tuple(keys)

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> np.ndarray:
        """Return a copy of face `index`, uint8 (S, S, 3) RGB."""
        return np.array(self.pixels[index])

    def subset(self, indices: Sequence[int]) -> DecodedFaces:
        """Return copies of some of the faces."""
        return DecodedFaces(np.stack([self.read(i) for i in indices]), [self.keys[i] for i in indices])


def fingerprint(*parts: object) -> str:
    """Return 16 hex digits that change when any part's text changes."""
    return hashlib.sha256("\n".join(str(part) for part in parts).encode()).hexdigest()[:16]


def decoded_faces(faces: FaceDataset, cache: Path) -> DecodedFaces:
    """Return all faces as a read-only memory map, decoding them at the first call.

    The file is named after the faces' keys and size; it is written under a temporary name and renamed.
    """
    path = cache / f"faces-{fingerprint(faces.size_px, *faces.keys)}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        shape = (len(faces), faces.size_px, faces.size_px, 3)
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        for index in range(len(faces)):
            array[index] = faces.read(index)
        array.flush()
        os.replace(partial, path)
    return DecodedFaces(np.load(path, mmap_mode="r"), faces.keys)
