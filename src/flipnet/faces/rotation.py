"""Find faces that are not upright by looking at the photo turned."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
from PIL import Image

from flipnet.faces.align import estimate_similarity, invert, transform_points
from flipnet.faces.detect import area, overlaps
from flipnet.images import resize
from flipnet.types import Face, FaceDetector, FlipnetError

Rotations = Literal["auto", "off", "quarter", "fine"]
"""Which turns are tried: "auto" those that bring tilted finds upright, or quarter turns if nothing is found, "off"
none, "quarter" 90, 180 and 270 degrees, "fine" every 30 degrees."""

_QUARTER_DEG = (90, 180, 270)
_FINE_DEG = tuple(range(30, 360, 30))
_TURNED_SIDE_PX = 2400
_SAME_FACE = 0.3
_TILTED_DEG = 50.0


class TurningDetector:
    """A `FaceDetector` that also finds lying, upside-down or strongly tilted faces.

    CenterFace sees many faces that lie or stand on their heads, and roughly how they are turned, but misplaces
    their landmarks: on a portrait turned as a whole by up to 0.5 eye distances, by 0.06 within 30 degrees of
    upright. So a find tilted by more than 50 degrees is looked for again in the photo turned until it is upright.
    Finds in turned photos count if they are upright there; of finds of the same face the one seen upright stays,
    among several the best-scored one. Landmarks keep the order they have in the upright face ("left eye" is the
    one on the left when the face is upright), so that aligning turns it. A turned face's box is the upright box
    around the ellipse that its own box holds.

    Our choices: a turned photo is looked at with its long side at 2400 pixels at most, and a find there needs
    `min_turned_score`, since four times as many looks find four times as many false faces.

    Args:
        detector: finds upright faces.
        rotations: see `Rotations`.
        min_turned_score: score in [0, 1] from which a face counts in a turned photo.

    Raises:
        FlipnetError: unknown `rotations`.
    """

    def __init__(
        self, detector: FaceDetector, rotations: Rotations = "auto", *, min_turned_score: float = 0.6
    ) -> None:
        if rotations not in ("auto", "off", "quarter", "fine"):
            raise FlipnetError(f"rotations {rotations!r} is not one of auto, off, quarter, fine")
        self.detector, self.rotations, self.min_turned_score = detector, rotations, min_turned_score

    def __call__(self, pixels: np.ndarray) -> list[Face]:
        """Return the faces of a uint8 (H, W, 3) RGB photo, largest first, none twice."""
        faces = self.detector(pixels)
        turns = self._turns(faces)
        if not turns:
            return faces
        seen_upright = [face for face in faces if _is_upright(face)]
        for degrees in turns:
            seen_upright += self._look(pixels, degrees)
        tilted = [face for face in faces if not _is_upright(face)]
        return sorted(_without_doubles(seen_upright, tilted), key=area, reverse=True)

    def _turns(self, faces: list[Face]) -> tuple[int, ...]:
        """Return the turns to try, in degrees clockwise."""
        if self.rotations == "auto":
            if not faces:
                return _QUARTER_DEG
            tilted = [face for face in faces if not _is_upright(face)]
            return tuple(sorted({30 * round(-roll_deg(face) / 30) % 360 for face in tilted}))
        return {"off": (), "quarter": _QUARTER_DEG, "fine": _FINE_DEG}[self.rotations]

    def _look(self, pixels: np.ndarray, degrees: float) -> list[Face]:
        """Return the sure, upright faces of the photo turned by `degrees`, in pixels of the photo."""
        height, width = pixels.shape[:2]
        factor = min(1.0, _TURNED_SIDE_PX / max(height, width))
        small = resize(pixels, (max(1, round(width * factor)), max(1, round(height * factor))))
        turned, to_turned = turn(small, degrees)
        back = invert(to_turned)
        found = (
            _turned_back(face, back, degrees)
            for face in self.detector(turned)
            if face.score >= self.min_turned_score and _is_upright(face)
        )
        scale = np.array([width / small.shape[1], height / small.shape[0]])
        return [_scaled(face, scale) for face in found]


def roll_deg(face: Face) -> float:
    """Return how far a face is turned clockwise, as seen in the picture, in degrees from -180 to 180."""
    matrix = estimate_similarity(face.landmarks_px, 512)
    return math.degrees(math.atan2(-matrix[1, 0], matrix[0, 0]))


def turn(pixels: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Turn a photo clockwise as a whole; the canvas grows to hold it, new corners are mid-gray.

    Args:
        pixels: uint8 (H, W, 3).
        degrees: clockwise, as seen in the picture.

    Returns:
        The turned photo and the (2, 3) transform from photo pixels to its pixels.
    """
    height, width = pixels.shape[:2]
    angle = math.radians(degrees)
    cos, sin = round(math.cos(angle), 12), round(math.sin(angle), 12)  # quarter turns are exact
    linear = np.array([[cos, -sin], [sin, cos]])  # y points down: this turns clockwise
    new_width, new_height = (math.ceil(side) for side in np.abs(linear) @ (width, height))
    middle, new_middle = np.array([width - 1, height - 1]) / 2, np.array([new_width - 1, new_height - 1]) / 2
    matrix = np.column_stack([linear, new_middle - linear @ middle])
    # Pillow maps new to old, in coordinates whose pixel centres lie on halves.
    back = invert(matrix)
    back[:, 2] += 0.5 - back[:, :2] @ (0.5, 0.5)
    turned = Image.fromarray(pixels).transform(
        (new_width, new_height),
        Image.Transform.AFFINE,
        tuple(back.ravel()),
        Image.Resampling.BILINEAR,
        fillcolor=(127, 127, 127),
    )
    return np.asarray(turned), matrix


def _turned_back(face: Face, back: np.ndarray, degrees: float) -> Face:
    """Bring a face of the turned photo back to the photo."""
    x0, y0, x1, y1 = face.box_px
    centre = transform_points(back, np.array([(x0 + x1) / 2, (y0 + y1) / 2]))
    half = np.hypot(*(back[:, :2] * ((x1 - x0) / 2, (y1 - y0) / 2)).T)
    low, high = centre - half, centre + half
    return Face(
        (float(low[0]), float(low[1]), float(high[0]), float(high[1])),
        transform_points(back, face.landmarks_px).astype(np.float32),
        face.score,
        (*face.notes, f"found with the photo turned by {degrees:g} degrees"),
    )


def _scaled(face: Face, scale: np.ndarray) -> Face:
    box = (np.array(face.box_px) + 0.5) * np.tile(scale, 2) - 0.5
    landmarks = (face.landmarks_px + 0.5) * scale - 0.5
    box_px = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
    return replace(face, box_px=box_px, landmarks_px=landmarks.astype(np.float32))


def _is_upright(face: Face) -> bool:
    return abs(roll_deg(face)) <= _TILTED_DEG


def _without_doubles(better: list[Face], worse: list[Face]) -> list[Face]:
    """Return every face once: from `better` if it is there, best score first; at equal scores the earlier."""
    kept: list[Face] = []
    for face in (*sorted(better, key=_score, reverse=True), *sorted(worse, key=_score, reverse=True)):
        union, inside = overlaps(
            np.array(face.box_px), np.array([other.box_px for other in kept]).reshape(-1, 4)
        )
        if not ((union > _SAME_FACE) | (inside > 0.6)).any():
            kept.append(face)
    return kept


def _score(face: Face) -> float:
    # Rounded: a turned look that is hardly surer than the upright one says nothing new.
    return round(face.score, 1)
