"""flipnet: the open implementation of FLIPNET, blind face restoration with one two-way diffusion network.

The names below are loaded when they are first used, so that `import flipnet` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flipnet.faces.detect import CenterFaceDetector
    from flipnet.faces.photo import restore_aligned, restore_photo
    from flipnet.images import Photo, read_photo, write_photo
    from flipnet.pipelines.degrade import FaceDegrader
    from flipnet.pipelines.pipeline import FlipnetPipeline
    from flipnet.pipelines.restore import FaceRestorer
    from flipnet.types import FlipnetError, Mode

__version__ = "0.1.0"

__all__ = [
    "CenterFaceDetector",
    "FaceDegrader",
    "FaceRestorer",
    "FlipnetError",
    "FlipnetPipeline",
    "Mode",
    "Photo",
    "read_photo",
    "restore_aligned",
    "restore_photo",
    "write_photo",
]

_HOMES = {
    "CenterFaceDetector": "flipnet.faces.detect",
    "FaceDegrader": "flipnet.pipelines.degrade",
    "FaceRestorer": "flipnet.pipelines.restore",
    "FlipnetError": "flipnet.types",
    "FlipnetPipeline": "flipnet.pipelines.pipeline",
    "Mode": "flipnet.types",
    "Photo": "flipnet.images",
    "read_photo": "flipnet.images",
    "restore_aligned": "flipnet.faces.photo",
    "restore_photo": "flipnet.faces.photo",
    "write_photo": "flipnet.images",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flipnet' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
