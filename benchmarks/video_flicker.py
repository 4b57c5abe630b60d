"""Flicker of restored clips: frame-to-frame change of a face that does not change itself.

    python benchmarks/video_flicker.py [--moving] [--frames 16] [--face-px 96] [--noise 8] [--sheet sheet.png]

scikit-image's astronaut over a background, still or (`--moving`) gliding along a known path at parts of a
pixel; every frame gets blur, noise of its own and H.264 at CRF 18. Each frame is aligned by the true path, not
by detected landmarks, so that what is left in the face is flicker: mean absolute change from frame to frame, in
8-bit levels. Beside it the distance to the clean face, and how sharp the face is (gradient energy of its mean
over time, clean = 1), as a picture that does not change at all does not flicker either.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import skimage.data
from PIL import Image
from scipy import ndimage

from flipnet.evaluation.contact_sheet import contact_sheet
from flipnet.faces.align import align, estimate_similarity, scale_of
from flipnet.faces.detect import CenterFaceDetector
from flipnet.faces.photo import restore_photo
from flipnet.images import Photo
from flipnet.pipelines.restore import FaceRestorer
from flipnet.types import Restorer
from flipnet.video.reading import VideoReader, upright
from flipnet.video.restore import restore_video
from flipnet.video.results import VideoOptions

SIZE_PX = (320, 240)
RATE = 25
CROP_PX = 256
INNER = np.s_[48:208, 48:208]  # eyes to mouth, well inside the mask


def path_of_face(number: int, moving: bool) -> tuple[float, float]:
    """Where the face's centre is, in pixels: a slow swing."""
    number *= moving
    return 160 + 40 * np.sin(number / 14), 118 + 8 * np.sin(number / 9 + 1)


def make_clip(path: Path, frames: int, face_px: int, noise: float, moving: bool) -> list[np.ndarray]:
    """Write the bad clip; return the clean frames."""
    portrait = skimage.data.astronaut()[:300, 60:360]
    backdrop = np.asarray(Image.fromarray(skimage.data.coffee()).resize(SIZE_PX), np.float32)
    (face,) = CenterFaceDetector()(portrait)
    box = np.reshape(face.box_px, (2, 2))
    zoom = face_px / (box[1] - box[0]).max()
    rng = np.random.default_rng(0)
    clean = [_compose(portrait, backdrop, box.mean(0), zoom, path_of_face(i, moving)) for i in range(frames)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = *SIZE_PX, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE)
        for number, pixels in enumerate(clean):
            bad = ndimage.gaussian_filter(pixels.astype(np.float32), (1.0, 1.0, 0))
            bad += rng.normal(0, noise, bad.shape)
            frame = av.VideoFrame.from_ndarray(np.rint(bad).clip(0, 255).astype(np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return clean


def _compose(
    portrait: np.ndarray, backdrop: np.ndarray, centre: np.ndarray, zoom: float, place: Sequence[float]
) -> np.ndarray:
    """Draw the portrait so that its face's centre lies at `place`, soft-edged, at parts of a pixel."""
    rows, columns = np.mgrid[: SIZE_PX[1], : SIZE_PX[0]].astype(np.float64)
    x, y = (columns - place[0]) / zoom + centre[0], (rows - place[1]) / zoom + centre[1]
    smooth = ndimage.gaussian_filter(portrait.astype(np.float32), (0.7 / zoom, 0.7 / zoom, 0))
    drawn = np.stack(
        [ndimage.map_coordinates(smooth[..., c], (y, x), order=3, mode="nearest") for c in range(3)], axis=2
    )
    inside = np.minimum.reduce([x, y, portrait.shape[1] - 1 - x, portrait.shape[0] - 1 - y]).clip(0, 12) / 12
    mixed = drawn * inside[..., None] + backdrop * (1 - inside[..., None])
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def true_matrices(clean: np.ndarray, frames: int, moving: bool) -> list[np.ndarray]:
    """Photo-to-crop transforms from the landmarks in the first clean frame, carried along the known path."""
    (face,) = CenterFaceDetector()(clean)
    start = np.array(path_of_face(0, moving))
    return [
        estimate_similarity(face.landmarks_px + (np.array(path_of_face(i, moving)) - start), CROP_PX)
        for i in range(frames)
    ]


def crops(frames: Sequence[np.ndarray], matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Inner faces, float32 (N, h, w, 3) in 8-bit levels."""
    pairs = zip(frames, matrices, strict=True)
    return np.stack([align(pixels, matrix, CROP_PX)[INNER] * 255 for pixels, matrix in pairs])


def flicker(faces: np.ndarray) -> float:
    """Mean absolute frame-to-frame change, 8-bit levels."""
    return float(np.abs(np.diff(faces, axis=0)).mean())


def sharpness(faces: np.ndarray) -> float:
    """Mean squared gradient of the mean over time, so that noise does not pass for detail."""
    still = faces.mean(0)
    return float(sum((np.gradient(still, axis=axis) ** 2).mean() for axis in (0, 1)))


def read_upright(path: Path) -> list[np.ndarray]:
    """All frames of a clip."""
    with VideoReader(path) as reader:
        return [upright(frame) for frame in reader.frames(lambda packet: None)]


def main() -> None:
    """Make the clip, restore it in several ways, print one line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moving", action="store_true")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--face-px", type=int, default=96)
    parser.add_argument("--noise", type=float, default=8.0)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--model", default="compact")
    options = parser.parse_args()
    restorer = FaceRestorer.from_checkpoint(options.model)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options, restorer)
    if options.sheet is not None:
        columns = [str(number) for number in range(6)]
        contact_sheet(rows, options.sheet, columns=columns, cell_px=INNER[0].stop - INNER[0].start)


def measure(folder: Path, options: argparse.Namespace, restorer: Restorer) -> list[list[np.ndarray]]:
    """Print the table; return a few neighbouring frames of every way."""
    clip = folder / "bad.mp4"
    clean = make_clip(clip, options.frames, options.face_px, options.noise, options.moving)
    matrices = true_matrices(clean[0], options.frames, options.moving)
    truth, bad = crops(clean, matrices), read_upright(clip)
    rows = []
    header = f"{'':<34}{'flicker':>9}{'distance':>10}{'sharpness':>11}{'s/frame':>9}"
    sys.stdout.write(f"{header}\n")

    def show(name: str, frames: Sequence[np.ndarray], seconds: float | None = None) -> None:
        faces = crops(frames, matrices)
        numbers = flicker(faces), float(np.abs(faces - truth).mean()), sharpness(faces) / sharpness(truth)
        spent = "" if seconds is None else f"{seconds / len(frames):9.2f}"
        sys.stdout.write(f"{name:<34}{numbers[0]:9.2f}{numbers[1]:10.2f}{numbers[2]:11.2f}{spent}\n")
        sys.stdout.flush()
        rows.append([face.clip(0, 255).astype(np.uint8) for face in faces[4:10]])

    show("clean", clean)
    show("input", bad)
    started = time.perf_counter()
    alone = [restore_photo(Photo(pixels), restorer, CenterFaceDetector()).photo.pixels for pixels in bad]
    show("frame by frame, as photos", alone, time.perf_counter() - started)
    ways = {
        "nothing over time": {"smoothing_s": 0.0, "blending_s": 0.0},
        "landmarks smoothed only": {"blending_s": 0.0},
        "blended only": {"smoothing_s": 0.0},
        "both (the default)": {},
        "both, faces looked for every 2nd": {"detect_every": 2},
        "both, faces looked for every 4th": {"detect_every": 4},
    }
    for number, (name, changes) in enumerate(ways.items()):
        out = folder / f"{number}.mkv"
        started = time.perf_counter()
        settings = VideoOptions(quality=100, **changes)
        restore_video(clip, out, restorer, CenterFaceDetector(fine_size_px=0), settings)
        show(name, read_upright(out), time.perf_counter() - started)
    scale = 1 / scale_of(matrices[0]) * CROP_PX / 512
    sys.stdout.write(f"face: {options.face_px} px, {scale:.2f} photo pixels per pixel of a 512 crop\n")
    return rows


if __name__ == "__main__":
    main()
