"""Whole photos with many faces, before and after, to be looked at: groups, profiles, glasses, hands.

    python benchmarks/group_sheet.py PHOTOS -o sheets/ [--faces val.tar] [--count 30] [--model compact]

PHOTOS is a folder of whole photos. Per photo, NAME.jpg shows it before and after, and NAME_faces.jpg every face
aligned: before, after as it stands in the photo, and the network's own output. With `--faces` (shard or folder
of aligned faces) a group of `--count` faces from 20 to 110 pixels is put together, blurred, given noise and JPEG,
and treated the same. Prints a line per photo: faces found, restored and left alone, and seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from flipnet.data.datasets import read_image
from flipnet.evaluation.contact_sheet import contact_sheet
from flipnet.evaluation.face_sets import load_face_set
from flipnet.faces.align import align, estimate_similarity
from flipnet.faces.detect import CenterFaceDetector
from flipnet.faces.photo import PhotoResult, restore_photo
from flipnet.faces.rotation import TurningDetector
from flipnet.images import Photo, find_images, read_photo, resize, to_8_bit, write_photo
from flipnet.pipelines.restore import FaceRestorer
from flipnet.types import FlipnetError

CELL_PX = 192
LONG_SIDE_PX = 900
GROUP_PX = (1600, 1000)


def main() -> None:
    """Restore every photo and write its sheets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--faces", type=Path)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--model", default="compact")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    photos = {f"{path.parent.name}_{path.stem}": read_photo(path) for path in find_images(options.photos)}
    if options.faces is not None:
        photos["composed"] = Photo(compose(options.faces, options.count), format="jpeg")
    restorer, detector = FaceRestorer.from_checkpoint(options.model), TurningDetector(CenterFaceDetector())
    for name, photo in photos.items():
        started = time.perf_counter()
        try:
            result = restore_photo(photo, restorer, detector)
        except FlipnetError as error:
            sys.stdout.write(f"{name}: {error}\n")
            continue
        write_sheets(options.output / name, photo, result)
        outcomes = Counter(face.reason or face.status for face in result.faces)
        told = ", ".join(f"{number} {what}" for what, number in outcomes.items())
        sys.stdout.write(f"{name}: {told}; {time.perf_counter() - started:.1f} s\n")
        sys.stdout.flush()


def write_sheets(stem: Path, before: Photo, result: PhotoResult) -> None:
    """Write the two pictures of one photo."""
    height, width = before.pixels.shape[:2]
    factor = LONG_SIDE_PX / max(height, width)
    size = (round(width * factor), round(height * factor))
    pair = [resize(to_8_bit(photo.pixels), size) for photo in (before, result.photo)]
    write_photo(stem.with_name(f"{stem.name}.jpg"), Photo(np.concatenate(pair, axis=1)))
    rows = []
    for face in result.faces:
        matrix = estimate_similarity(face.face.landmarks_px, CELL_PX)
        shown = [align(photo.pixels, matrix, CELL_PX) for photo in (before, result.photo)]
        cells = [np.rint(cell * 255).astype(np.uint8) for cell in shown]
        own = face.crop if face.restored is None else face.restored
        rows.append([*cells, resize(own, (CELL_PX, CELL_PX))])
    columns = ["before", "after", "network"]
    contact_sheet(rows, stem.with_name(f"{stem.name}_faces.jpg"), columns=columns, cell_px=CELL_PX)


def compose(source: Path, count: int) -> np.ndarray:
    """Put aligned faces of many sizes on a plain ground and make the whole a bad photo, (H, W, 3) uint8."""
    rng = np.random.default_rng(0)
    width, height = GROUP_PX
    canvas = np.full((height, width, 3), (120, 128, 136), np.uint8)
    columns = -(-count // 5)
    for number, entry in enumerate(load_face_set("faces", source, count).entries):
        face = read_image(entry)
        side = int(rng.uniform(40, 190))  # of the crop; the face itself is about half as wide
        x = int((number % columns + 0.5) * width / columns) - side // 2
        y = int((number // columns + 0.5) * height / 5) - side // 2
        canvas[y : y + side, x : x + side] = resize(face, (side, side))
    bad = ndimage.gaussian_filter(canvas.astype(np.float32), (0.8, 0.8, 0))
    bad += rng.normal(0, 5, bad.shape)
    file = BytesIO()
    Image.fromarray(np.rint(bad).clip(0, 255).astype(np.uint8)).save(file, "jpeg", quality=60)
    return np.asarray(Image.open(file))


if __name__ == "__main__":
    main()
