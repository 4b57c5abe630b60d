"""The faces that a recipe's [data] table names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flipnet.config import DataConfig
from flipnet.data.cache import DecodedFaces, decoded_faces
from flipnet.data.datasets import FaceDataset, balanced_weights


def load_faces(data: DataConfig) -> tuple[DecodedFaces, DecodedFaces, np.ndarray]:
    """Return training faces, validation faces, and the training faces' sampling weights, float64 (N,)."""
    train, val = (
        decoded_faces(FaceDataset(locations, size_px=data.size_px), Path(data.cache))
        for locations in (data.train, data.val)
    )
    return train, val, balanced_weights(train.keys, data.source_weights, data.group_power)
