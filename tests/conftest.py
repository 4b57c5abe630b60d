from __future__ import annotations

from pathlib import Path

import pytest

from flipnet.pipelines.pipeline import FlipnetPipeline
from tiny import tiny_pipeline


@pytest.fixture
def pipeline() -> FlipnetPipeline:
    """A fresh tiny pipeline."""
    return tiny_pipeline()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random FlipnetPipeline with native size 64."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder
