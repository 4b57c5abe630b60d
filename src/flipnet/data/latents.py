"""Latents of a set of faces, computed once: HQ and mirrored HQ, and degraded variants with their embeddings.

Files lie in the cache folder under names that change with the faces, the models and the recipe; each is written
under a temporary name and renamed, so an interrupted run goes on with the files that are complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flipnet.data.degradation import degrade_with, preset

Encode = Callable[[Tensor], dict[str, Tensor]]
ENCODE_BATCH = 4


def cached_encoding(
    pictures: Callable[[int], Tensor], count: int, encode: Encode, cache: Path, name: str
) -> dict[str, np.ndarray]:
    """Encode `count` pictures in small batches into float16 memory maps, one per output of `encode`.

    Args:
        pictures: index -> (1, 3, S, S) in [-1, 1].
        encode: (B, 3, S, S) -> named tensors (B, ...).
        name: of the files, unique for what is stored.
    """
    cache.mkdir(parents=True, exist_ok=True)
    done = cache / f"{name}.done"
    if not done.exists():
        arrays: dict[str, np.memmap] = {}
        for first in range(0, count, ENCODE_BATCH):
            batch = range(first, min(first + ENCODE_BATCH, count))
            for key, value in encode(torch.cat([pictures(index) for index in batch])).items():
                if key not in arrays:
                    arrays[key] = np.lib.format.open_memmap(
                        cache / f"{name}-{key}.npy",
                        mode="w+",
                        dtype=np.float16,
                        shape=(count, *value.shape[1:]),
                    )
                arrays[key][first : batch.stop] = value.float().numpy()
        for array in arrays.values():
            array.flush()
        partial = done.with_name(f".{done.name}.{os.getpid()}")
        partial.write_text("\n".join(sorted(arrays)))
        os.replace(partial, done)
    return {key: np.load(cache / f"{name}-{key}.npy", mmap_mode="r") for key in done.read_text().split()}


def degraded_face(
    faces: np.ndarray, presets: Sequence[str], variant: int, index: int, seed: int
) -> np.ndarray:
    """Degrade face `index` of uint8 (N, S, S, 3); odd variants are mirrored, each has seeds of its own."""
    rng = np.random.default_rng((seed, variant, index))
    face = faces[index][:, ::-1] if is_mirrored(variant) else faces[index]
    recipe = preset(str(rng.choice(list(presets))))
    return degrade_with(recipe, np.array(face), int(rng.integers(2**31)))[0]


def cached_degraded_faces(
    faces: np.ndarray, presets: Sequence[str], variant: int, seed: int, path: Path
) -> np.ndarray:
    """Return one degraded variant of uint8 (N, S, S, 3) faces as a memory map of that shape, kept in `path`."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=faces.shape)
        for index in range(len(faces)):
            array[index] = degraded_face(faces, presets, variant, index, seed)
        array.flush()
        os.replace(partial, path)
    return np.load(path, mmap_mode="r")


def is_mirrored(variant: int) -> bool:
    """Whether a degraded variant shows the faces mirrored."""
    return variant % 2 == 1
