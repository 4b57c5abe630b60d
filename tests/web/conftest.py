from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flipnet.web.engine import Engine
from web.serving import save, tiny_engine, two_faces


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = tiny_engine()
    yield engine
    engine.workspace.close()


@pytest.fixture
def upload(engine):
    """Put pixels where gradio would have put an upload, and return the path."""

    def put(pixels: np.ndarray, name: str = "photo.png") -> Path:
        return save(pixels, engine.workspace.root / f"sha-{name}" / name)

    return put


@pytest.fixture(scope="session")
def pair() -> np.ndarray:
    return two_faces()
