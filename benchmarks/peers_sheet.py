"""Contact sheet of real LQ faces: the input, our restoration, and other methods' outputs where there are any.

    python benchmarks/peers_sheet.py FOLDER -o sheet.png [--model compact] [--limit 10]

FOLDER holds aligned faces, either directly or in `lq/` beside folders `peer_<name>/` with the same file names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from flipnet.evaluation.contact_sheet import contact_sheet
from flipnet.faces.photo import restore_aligned
from flipnet.images import find_images, read_photo, resize
from flipnet.pipelines.restore import FaceRestorer

CELL_PX = 256


def main() -> None:
    """Restore the faces and write the sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--phi", type=float, default=1.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--limit", type=int, default=12)
    options = parser.parse_args()
    inputs = options.folder / "lq" if (options.folder / "lq").is_dir() else options.folder
    peers = sorted(path for path in options.folder.glob("peer_*") if path.is_dir())
    restorer = FaceRestorer.from_checkpoint(options.model, phi=options.phi, steps=options.steps)
    rows = []
    for path in find_images(inputs)[: options.limit]:
        photo = read_photo(path)
        restored = restore_aligned(photo, restorer).photo.pixels
        others = [_beside(peer, path.stem) for peer in peers]
        rows.append([resize(pixels, (CELL_PX, CELL_PX)) for pixels in (photo.pixels, restored, *others)])
    columns = ["input", "flipnet", *(peer.name.removeprefix("peer_") for peer in peers)]
    contact_sheet(rows, options.output, columns=columns, cell_px=CELL_PX)


def _beside(folder: Path, stem: str) -> np.ndarray:
    found = sorted(folder.glob(f"{stem}*"))
    if not found:
        return np.full((CELL_PX, CELL_PX, 3), 128, np.uint8)
    with Image.open(found[0]) as image:
        return np.asarray(image.convert("RGB"))


if __name__ == "__main__":
    main()
