"""Contact sheet of the degradation mode: clean faces, their variants, and real bad photographs beside them.

    flipnet degrade faces/ -o lq/ --variants 5
    python benchmarks/degradation_sheet.py faces/ lq/ -o sheet.png [--real scans/] [--rows 8] [--variants 5]

Without arguments but `-o` it shows scikit-image's astronaut, degraded by the bundled model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import skimage.data

from flipnet.evaluation.contact_sheet import contact_sheet
from flipnet.faces.align import align, estimate_similarity
from flipnet.faces.detect import CenterFaceDetector
from flipnet.images import faces_to_tensor, find_images, read_photo, resize, tensor_to_uint8, to_8_bit
from flipnet.pipelines.degrade import FaceDegrader

CELL_PX = 256


def main() -> None:
    """Lay the pictures out and write the sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("hq", type=Path, nargs="?")
    parser.add_argument("lq", type=Path, nargs="?")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--variants", type=int, default=5)
    options = parser.parse_args()
    if options.hq is None or options.lq is None:
        rows = [_astronaut(options.variants)]
    else:
        rows = _from_folders(options.hq, options.lq, options.rows, options.variants)
    columns = ["clean", *(f"variant {number}" for number in range(options.variants))]
    if options.real is not None:
        scans = _spread(find_images(options.real), len(rows))
        rows = [
            [*row, _aligned(to_8_bit(read_photo(path).pixels))] for row, path in zip(rows, scans, strict=True)
        ]
        columns.append("real scan")
    cells = [[resize(pixels, (CELL_PX, CELL_PX)) for pixels in row] for row in rows]
    contact_sheet(cells, options.output, columns=columns, cell_px=CELL_PX)


def _from_folders(hq: Path, lq: Path, rows: int, variants: int) -> list[list[np.ndarray]]:
    return [
        [
            to_8_bit(read_photo(path).pixels),
            *(
                to_8_bit(read_photo(lq / f"{path.stem}_{number:02d}.png").pixels)
                for number in range(variants)
            ),
        ]
        for path in _spread(find_images(hq), rows)
    ]


def _astronaut(variants: int) -> list[np.ndarray]:
    face = _aligned(skimage.data.astronaut())
    batch = faces_to_tensor(np.stack([face] * variants))
    return [face, *tensor_to_uint8(FaceDegrader.from_checkpoint()(batch, range(variants)))]


def _aligned(pixels: np.ndarray) -> np.ndarray:
    face = CenterFaceDetector()(pixels)[0]
    return np.rint(align(pixels, estimate_similarity(face.landmarks_px, 512), 512) * 255).astype(np.uint8)


def _spread(paths: list[Path], count: int) -> list[Path]:
    return [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]


if __name__ == "__main__":
    main()
