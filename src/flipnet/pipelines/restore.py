"""Restoration as a `Restorer`: what the photo path, the CLI and the benchmark call."""

from __future__ import annotations

from flipnet.pipelines.face_mapping import FaceMapping
from flipnet.types import Mode


class FaceRestorer(FaceMapping):
    """LQ faces in, restored faces out; follows `flipnet.types.Restorer`. See `FaceMapping` for the rest."""

    mode = Mode.RESTORATION
