"""Random bytes as a file of face boxes: faces or a `FlipnetError`, nothing else. See README.md."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["flipnet.faces.given", "flipnet.faces.align"]):
    from flipnet.faces.given import GivenFaces, read_boxes

import numpy as np

from flipnet.types import FlipnetError

PATH = Path(tempfile.mkdtemp(prefix="flipnet-fuzz-")) / "boxes.json"
PIXELS = np.zeros((16, 16, 3), np.uint8)


def one_input(data: bytes) -> None:
    """Read the bytes as boxes, and place every face that they name."""
    PATH.write_bytes(data)
    try:
        boxes = read_boxes(PATH)
        for given in boxes.photos.values():
            GivenFaces(given, lambda pixels: [])(PIXELS)
    except FlipnetError:
        pass


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
