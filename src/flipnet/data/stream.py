"""Faces read while training goes on, from any fsspec URL, with nothing decoded or copied beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path

import numpy as np

from flipnet.data.datasets import Locations, decode_image, fit_square
from flipnet.data.remote import index_remote_images
from flipnet.data.sampling import ShuffledEpochs


class StreamedFaces:
    """Faces of folders and shards behind URLs, with the reading interface of `FaceDataset`.

    Attributes:
        keys: one per face.
        size_px: side S of the square faces.

    Args:
        locations: see `remote`.
        size_px: see `datasets.fit_square`.
        crop: cut the central square out of images that are not square.
        cache: folder that keeps the lists of shards.

    Raises FlipnetError naming a location that cannot be listed; reading raises it for a face.
    """

    def __init__(
        self, locations: Locations, size_px: int = 512, *, crop: bool = False, cache: Path | None = None
    ) -> None:
        self.size_px, self._crop = size_px, crop
        self._entries = index_remote_images(locations, cache)
        self.keys = tuple(entry.key for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, index: int) -> np.ndarray:
        """Fetch and decode face `index` into uint8 (S, S, 3) RGB."""
        entry = self._entries[index]
        return fit_square(decode_image(entry.read(), str(entry)), self.size_px, str(entry), crop=self._crop)

    def subset(self, indices: Sequence[int]) -> StreamedFaces:
        """Return some of the faces, read from the same places."""
        chosen = copy(self)
        chosen._entries = [self._entries[index] for index in indices]
        chosen.keys = tuple(entry.key for entry in chosen._entries)
        return chosen

    def shuffled(self, buffer: int) -> ShuffledEpochs:
        """Return the order in which training sees the faces; `buffer` counts faces."""
        return ShuffledEpochs([entry.url for entry in self._entries], buffer)
