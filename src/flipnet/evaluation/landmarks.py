"""Landmarks of aligned faces for the landmark distance LMD: five by our detector, 68 or 98 by a given model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from flipnet.evaluation.weights import MetricWeights, import_optional
from flipnet.faces.align import template
from flipnet.faces.detect import CenterFaceDetector
from flipnet.images import resize
from flipnet.types import FaceDetector, FlipnetError

SIZE_PX = 512
"""Landmarks are given in pixels of an aligned face of this side."""

FindLandmarks = Callable[[np.ndarray], np.ndarray | None]
"""Maps a uint8 (S, S, 3) RGB aligned face to (L, 2) points (x, y) on the 512-pixel face, None for no face found."""

_FACE_BOX_PX = (98, 120, 414, 436)  # where dlib's detector puts its square on the FFHQ template


class FivePoints:
    """The detector's five landmarks of the face that is where an aligned face should be."""

    def __init__(self, detector: FaceDetector | None = None) -> None:
        self._detector: FaceDetector = CenterFaceDetector() if detector is None else detector

    def __call__(self, face: np.ndarray) -> np.ndarray | None:
        """See `FindLandmarks`."""
        found = self._detector(resize(face, (SIZE_PX, SIZE_PX)))
        expected = template(SIZE_PX)
        landmarks = [candidate.landmarks_px for candidate in found]
        return min(landmarks, key=lambda points: float(np.abs(points - expected).sum()), default=None)


class DlibPoints:
    """dlib's shape predictor (68 points) in a fixed box of the aligned face, so that no detection can fail."""

    def __init__(self, path: Path) -> None:
        self._dlib = import_optional("dlib", "dlib-bin, pip install 'flipnet[evaluation]'")
        try:
            self._predictor = self._dlib.shape_predictor(str(path))
        except RuntimeError as error:
            raise FlipnetError(f"{path}: cannot be read as a dlib shape predictor ({error})") from error
        self._box = self._dlib.rectangle(*_FACE_BOX_PX)

    def __call__(self, face: np.ndarray) -> np.ndarray:
        """See `FindLandmarks`."""
        shape = self._predictor(resize(face, (SIZE_PX, SIZE_PX)), self._box)
        return np.array([(point.x, point.y) for point in shape.parts()], np.float64)


class HeatMapPoints:
    """An .onnx network from (1, 3, S, S) RGB in 0..1 to (1, L, h, w) heat maps, such as AWing's 98 points.

    A landmark is where its map peaks. Some networks add a map of the face's outline last; with 99 maps it is
    left out.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        except RuntimeError as error:  # onnxruntime's own errors are all of this kind
            raise FlipnetError(f"{path}: cannot be read as an ONNX network ({error})") from error
        side = self._session.get_inputs()[0].shape[-1]
        self._side = side if isinstance(side, int) else 256

    def __call__(self, face: np.ndarray) -> np.ndarray:
        """See `FindLandmarks`."""
        planes = resize(face, (self._side, self._side)).transpose(2, 0, 1)[None].astype(np.float32) / 255
        outputs = self._session.run(None, {self._session.get_inputs()[0].name: planes})
        maps = np.asarray(outputs[-1])[0]
        maps = maps[:98] if len(maps) == 99 else maps
        rows, columns = np.unravel_index(maps.reshape(len(maps), -1).argmax(1), maps.shape[1:])
        scale = SIZE_PX / np.array([maps.shape[2], maps.shape[1]])
        return (np.stack([columns, rows], axis=1) + 0.5) * scale - 0.5


def load_landmarks(weights: MetricWeights) -> FindLandmarks:
    """Load the model given as `--weights landmarks=FILE` by its suffix, .dat or .onnx.

    Raises MetricUnavailableError when none is given, FlipnetError for another suffix or a damaged file.
    """
    path = weights.find("landmarks")
    if path.suffix == ".dat":
        return DlibPoints(path)
    if path.suffix == ".onnx":
        return HeatMapPoints(path)
    raise FlipnetError(f"{path}: landmark models are dlib's .dat or an .onnx of heat maps")


def landmark_distance(points: np.ndarray | None, reference: np.ndarray | None) -> float:
    """Mean Euclidean distance of (L, 2) landmarks, pixels of a 512-pixel face; NaN where either is missing."""
    if points is None or reference is None:
        return float("nan")
    return float(np.linalg.norm(points - reference, axis=1).mean())
