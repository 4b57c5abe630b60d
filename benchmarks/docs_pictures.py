"""Make the pictures of the documentation with the shipped weights; run again whenever the weights change.

    python benchmarks/docs_pictures.py [-o docs/images/site] [--model compact]

All of them come from scikit-image's astronaut: NASA's portrait of Eileen Collins, public domain. WebP files of
at most 150 kB each.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import skimage.data

from flipnet.commands.demo import sample_photo
from flipnet.faces.align import align, estimate_similarity
from flipnet.faces.detect import CenterFaceDetector
from flipnet.faces.overlay import annotate_faces
from flipnet.faces.photo import restore_photo
from flipnet.faces.selection import FaceSelection, reasons_to_skip
from flipnet.images import Photo, faces_to_tensor, resize, tensor_to_uint8, write_photo
from flipnet.pipelines.degrade import FaceDegrader
from flipnet.pipelines.restore import FaceRestorer
from flipnet.types import FlipnetError

GAP_PX = 8
MAX_BYTES = 150_000
PORTRAIT = np.s_[0:320, 64:384]  # head and shoulders


def main() -> None:
    """Write every picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images/site"))
    parser.add_argument("--model", default="compact")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name, pictures in (
        ("restore", restored(options.model)),
        ("phi", by_phi(options.model)),
        ("faces", [numbered_faces()]),
        ("degrade", degraded(options.model)),
    ):
        save(options.output / f"{name}.webp", pictures)


def restored(model: str) -> list[np.ndarray]:
    """Before and after."""
    before = sample_photo()
    after = restore_photo(before, FaceRestorer.from_checkpoint(model), CenterFaceDetector())
    return [resize(photo.pixels[PORTRAIT], (480, 480)) for photo in (before, after.photo)]


def by_phi(model: str) -> list[np.ndarray]:
    """The bad photo, and restorations at φ 0.5, 1 and 2."""
    before = sample_photo()
    pictures = [before]
    for phi in (0.5, 1.0, 2.0):
        restorer = FaceRestorer.from_checkpoint(model, phi=phi)
        pictures.append(restore_photo(before, restorer, CenterFaceDetector()).photo)
    return [resize(photo.pixels[PORTRAIT], (240, 240)) for photo in pictures]


def numbered_faces() -> np.ndarray:
    """A group of one person in several sizes, with the boxes of `flipnet faces`."""
    head = skimage.data.astronaut()[0:256, 96:352]
    canvas = np.full((260, 720, 3), 150, np.uint8)
    for side, x, y in ((220, 20, 20), (170, 270, 60), (110, 470, 100), (44, 620, 150)):
        canvas[y : y + side, x : x + side] = resize(head, (side, side))
    faces = CenterFaceDetector()(canvas)
    return annotate_faces(Photo(canvas), faces, reasons_to_skip(faces, canvas.shape, FaceSelection())).pixels


def degraded(model: str) -> list[np.ndarray]:
    """The clean aligned face and five variants."""
    photo = skimage.data.astronaut()
    degrader = FaceDegrader.from_checkpoint(model)
    size_px = degrader.native_size_px
    matrix = estimate_similarity(CenterFaceDetector()(photo)[0].landmarks_px, size_px)
    clean = np.rint(align(photo, matrix, size_px) * 255).astype(np.uint8)
    bad = [tensor_to_uint8(degrader(faces_to_tensor(clean), [seed]))[0] for seed in range(5)]
    return [resize(face, (200, 200)) for face in (clean, *bad)]


def save(path: Path, pictures: Sequence[np.ndarray]) -> None:
    """Put pictures of one height side by side and write them, small enough for a page."""
    gap = np.full((pictures[0].shape[0], GAP_PX, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)][1:]
    for quality in (90, 80, 65):
        write_photo(path, Photo(np.concatenate(parts, axis=1)), quality=quality)
        if path.stat().st_size <= MAX_BYTES:
            return
    raise FlipnetError(f"{path}: more than {MAX_BYTES} bytes even at low quality")


if __name__ == "__main__":
    main()
