"""flipnet: the open implementation of FLIPNET, blind face restoration with one two-way diffusion network.

The names below are loaded when they are first used, so that `import flipnet` stays light.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# From 1.29 on, onnxruntime's official builds number the user, keep the number in the home folder, and report to
# their maker, unless this is set before they are loaded; a photo tool has nothing to report.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from flipnet.faces.detect import CenterFaceDetector
    from flipnet.faces.photo import restore_aligned, restore_photo
    from flipnet.faces.selection import FaceSelection
    from flipnet.images import Photo, read_photo, write_photo
    from flipnet.pipelines.degrade import FaceDegrader
    from flipnet.pipelines.photo_restorer import PhotoRestorer, load
    from flipnet.pipelines.pipeline import FlipnetPipeline
    from flipnet.pipelines.restore import FaceRestorer
    from flipnet.provenance import mark_as_restored
    from flipnet.types import FlipnetError, Mode

__version__ = "0.1.0"

__all__ = [
    "CenterFaceDetector",
    "FaceDegrader",
    "FaceRestorer",
    "FaceSelection",
    "FlipnetError",
    "FlipnetPipeline",
    "Mode",
    "Photo",
    "PhotoRestorer",
    "load",
    "mark_as_restored",
    "read_photo",
    "restore_aligned",
    "restore_photo",
    "write_photo",
]

_HOMES = {
    "CenterFaceDetector": "flipnet.faces.detect",
    "FaceDegrader": "flipnet.pipelines.degrade",
    "FaceRestorer": "flipnet.pipelines.restore",
    "FaceSelection": "flipnet.faces.selection",
    "FlipnetError": "flipnet.types",
    "FlipnetPipeline": "flipnet.pipelines.pipeline",
    "Mode": "flipnet.types",
    "Photo": "flipnet.images",
    "PhotoRestorer": "flipnet.pipelines.photo_restorer",
    "load": "flipnet.pipelines.photo_restorer",
    "mark_as_restored": "flipnet.provenance",
    "read_photo": "flipnet.images",
    "restore_aligned": "flipnet.faces.photo",
    "restore_photo": "flipnet.faces.photo",
    "write_photo": "flipnet.images",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flipnet' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
