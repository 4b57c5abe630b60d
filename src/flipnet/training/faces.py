"""The faces that a recipe's [data] table names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flipnet.config import DataConfig
from flipnet.data.cache import DecodedFaces, decoded_faces
from flipnet.data.datasets import FaceDataset, FaceSource, balanced_weights
from flipnet.data.sampling import Draw
from flipnet.data.stream import StreamedFaces


def load_faces(data: DataConfig) -> tuple[DecodedFaces, DecodedFaces, np.ndarray]:
    """Return training faces, validation faces, and the training faces' sampling weights, float64 (N,)."""
    train, val = (
        decoded_faces(FaceDataset(locations, data.size_px, crop=data.crop_to_square), Path(data.cache))
        for locations in (data.train, data.val)
    )
    return train, val, balanced_weights(train.keys, data.source_weights, data.group_power)


def load_or_stream_faces(data: DataConfig) -> tuple[FaceSource, FaceSource, Draw]:
    """Return training faces, validation faces, and how training faces are drawn, decoded or streamed as set."""
    if not data.streaming:
        return load_faces(data)
    train, val = (
        StreamedFaces(locations, data.size_px, crop=data.crop_to_square, cache=Path(data.cache))
        for locations in (data.train, data.val)
    )
    return train, val, train.shuffled(data.shuffle_buffer)
