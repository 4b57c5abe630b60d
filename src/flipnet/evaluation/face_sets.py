"""Sets of degraded or real faces: where their images lie, how they become aligned faces, and their features."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flipnet.data.cache import fingerprint
from flipnet.data.datasets import ImageEntry, index_images, read_image
from flipnet.evaluation.scene_statistics import FACE_SIZE_PX, FEATURE_NAMES, PROTOCOL, scene_statistics
from flipnet.faces.align import align, estimate_similarity
from flipnet.types import FaceDetector, FlipnetError

VARIANT = re.compile(r"^(?P<face>.+)_(?P<number>\d{2})$")
"""Key of one of several variants of a face: the face's key, "_", two digits, as `flipnet degrade` names them."""


@dataclass(frozen=True)
class FaceSet:
    """One set of images, not yet read.

    Attributes:
        name: what the set is called in tables.
        location: the folder, tar shard or glob pattern it came from, for messages.
        entries: the images, keys as in `data.datasets.index_images`, for pairs the LQ images.
        paired_hq: HQ image by key, for shards of pairs; else empty.
    """

    name: str
    location: str
    entries: tuple[ImageEntry, ...]
    paired_hq: dict[str, ImageEntry] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """The images' keys."""
        return tuple(entry.key for entry in self.entries)


@dataclass(frozen=True)
class SetFeatures:
    """What was measured on one set.

    Attributes:
        entries: the images that have a face, in the set's order.
        features: float64 (N, D), see `scene_statistics`.
        without_face: keys of images in which no face was found; none where images are aligned already.
        milliseconds: wall-clock time per image for reading, finding, aligning and measuring; None from a cache.
    """

    entries: tuple[ImageEntry, ...]
    features: np.ndarray
    without_face: tuple[str, ...]
    milliseconds: float | None


def load_face_set(name: str, location: str | Path, limit: int | None = None) -> FaceSet:
    """List the images of a folder, a tar shard, a folder of shards, or a glob pattern.

    Shards and folders of pairs (`<key>.hq.<ext>`, `<key>.lq.<ext>`) give their LQ images, and the HQ ones in
    `paired_hq`. `limit` keeps that many images, spread evenly.

    Raises FlipnetError naming the location: it does not exist, holds no images, mixes pairs with other images,
    or holds a key twice.
    """
    shards = sorted(Path(location).glob("*.tar")) if Path(location).is_dir() else []
    entries = index_images(shards or location)
    pairs = [entry for entry in entries if entry.key.endswith((".hq", ".lq"))]
    if pairs and len(pairs) < len(entries):
        raise FlipnetError(f"{location}: holds both pairs (<key>.hq, <key>.lq) and other images")
    hq = {_face_key(entry): entry for entry in pairs if entry.key.endswith(".hq")}
    chosen = [entry for entry in entries if not entry.key.endswith(".hq")]
    if pairs:
        chosen = [ImageEntry(_face_key(e), e.path, e.offset, e.length) for e in chosen]
    if not chosen:
        raise FlipnetError(f"{location}: holds HQ images only; pairs are <key>.hq.<ext> and <key>.lq.<ext>")
    keys = [entry.key for entry in chosen]
    twice = next((key for key in keys if keys.count(key) > 1), None) if len(set(keys)) < len(keys) else None
    if twice is not None:
        raise FlipnetError(f"{location}: the name '{twice}' occurs twice")
    count = len(chosen) if limit is None else min(limit, len(chosen))
    kept = tuple(chosen[index * len(chosen) // count] for index in range(count))
    return FaceSet(name, str(location), kept, hq)


def _face_key(entry: ImageEntry) -> str:
    return entry.key[:-3]


def face_of_variant(key: str) -> str | None:
    """Return the key of the face of which `key` is a numbered variant, None if its name says nothing."""
    match = VARIANT.match(key)
    return None if match is None else match["face"]


def read_face(entry: ImageEntry, detector: FaceDetector | None = None) -> np.ndarray | None:
    """Read one aligned face, uint8 (512, 512, 3) RGB; with a detector, find and align it first.

    With a detector the largest face of the photo is taken, and None returned when there is none.
    Raises FlipnetError naming the image: unreadable, or without a detector of another size.
    """
    pixels = read_image(entry)
    if detector is None:
        if pixels.shape[:2] != (FACE_SIZE_PX, FACE_SIZE_PX):
            raise FlipnetError(
                f"{entry}: is {pixels.shape[1]}x{pixels.shape[0]}, but an aligned {FACE_SIZE_PX}x{FACE_SIZE_PX} "
                "face is needed; give --detect for photos that are not aligned"
            )
        return pixels
    faces = detector(pixels)
    if not faces:
        return None
    matrix = estimate_similarity(faces[0].landmarks_px, FACE_SIZE_PX)
    return np.rint(align(pixels, matrix, FACE_SIZE_PX) * 255).astype(np.uint8)


def measure_set(
    faces: FaceSet,
    *,
    detector: FaceDetector | None = None,
    cache: Path | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> SetFeatures:
    """Measure every face of a set; see `read_face` for the detector.

    Args:
        faces: the images.
        detector: finds the face of photos that are not aligned.
        cache: folder that keeps features by the images' paths, sizes and dates; None keeps nothing.
        on_image: called after every image, for progress.

    Raises FlipnetError naming the image that cannot be read or has no texture, or the set without any face.
    """
    path = None if cache is None else cache / f"features-{_fingerprint(faces, detector)}.npz"
    if path is not None and path.is_file():
        with np.load(path) as stored:
            return _from_table(faces, stored["features"], None)
    started = time.perf_counter()
    rows = []
    for entry in faces.entries:
        face = read_face(entry, detector)
        rows.append(np.full(len(FEATURE_NAMES), np.nan) if face is None else _features(face, entry))
        on_image()
    milliseconds = 1000 * (time.perf_counter() - started) / len(rows)
    if path is not None:
        _store(path, np.array(rows))
    return _from_table(faces, np.array(rows), milliseconds)


def _features(face: np.ndarray, entry: ImageEntry) -> np.ndarray:
    try:
        return scene_statistics(face)
    except FlipnetError as error:
        raise FlipnetError(f"{entry}: {error}") from error


def _from_table(faces: FaceSet, table: np.ndarray, milliseconds: float | None) -> SetFeatures:
    """Rows of NaN stand for images without a face."""
    found = np.isfinite(table).all(axis=1)
    if not found.any():
        raise FlipnetError(f"{faces.location}: no face was found in any of its {len(table)} images")
    with_face = tuple(entry for entry, ok in zip(faces.entries, found, strict=True) if ok)
    without = tuple(entry.key for entry, ok in zip(faces.entries, found, strict=True) if not ok)
    return SetFeatures(with_face, table[found], without, milliseconds)


def _fingerprint(faces: FaceSet, detector: FaceDetector | None) -> str:
    images: Sequence[object] = [
        (entry.key, entry.path, entry.offset, entry.path.stat().st_size, entry.path.stat().st_mtime_ns)
        for entry in faces.entries
    ]
    settings = {name: value for name, value in vars(detector).items() if name[0] != "_"} if detector else {}
    return fingerprint(PROTOCOL, type(detector).__name__, settings, *images)


def _store(path: Path, table: np.ndarray) -> None:
    partial = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(partial, features=table)
        os.replace(partial, path)
    except OSError as error:
        raise FlipnetError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
