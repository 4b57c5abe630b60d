"""Faces that the user points out in a JSON file, instead of or beside what a detector finds.

    {"photo.jpg": [{"box_px": [x0, y0, x1, y1]}, {"landmarks_px": [[x, y], [x, y], [x, y], [x, y], [x, y]]}]}

A photo is named by its path as given on the command line or by its file name. Each face has a box, five
landmarks in the order of `flipnet.types.Face`, or both, in pixels of the upright photo. Other keys are
ignored, so that what `flipnet faces --json` writes can be edited and given back. Faces keep the file's order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from flipnet.faces.align import estimate_similarity, invert, transform_points
from flipnet.faces.align import template as aligned_template
from flipnet.faces.detect import overlaps
from flipnet.types import Face, FaceDetector, FlipnetError

_TEMPLATE_BOX = np.array([(122.6, 99.7), (399.4, 454.9)])
"""CenterFace's box on a 512-pixel aligned face. Source: our measurement, median over 36 clean aligned faces
(standard deviations 10 to 16 px)."""

_SAME_FACE = 0.3  # intersection over union
_MAX_BYTES = 1 << 24

Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
Point = tuple[Number, Number]


class GivenFace(BaseModel):
    """One face of the file: a box, landmarks, or both, in photo pixels."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    box_px: tuple[Number, Number, Number, Number] | None = None
    landmarks_px: tuple[Point, Point, Point, Point, Point] | None = None

    @model_validator(mode="after")
    def _check(self) -> GivenFace:
        if self.box_px is None and self.landmarks_px is None:
            raise ValueError("give box_px or landmarks_px")
        if self.box_px is not None:
            x0, y0, x1, y1 = self.box_px
            if not (x0 < x1 and y0 < y1):
                raise ValueError("box_px is x0, y0, x1, y1 with x0 < x1 and y0 < y1")
        if self.landmarks_px is not None and np.ptp(self.landmarks_px, axis=0).max() < 1:
            raise ValueError("the five landmarks coincide")
        return self


class GivenBoxes:
    """The content of a boxes file: faces by photo."""

    def __init__(self, path: Path, photos: dict[str, tuple[GivenFace, ...]]) -> None:
        self.path, self.photos = path, photos

    def for_photo(self, source: Path) -> tuple[GivenFace, ...]:
        """Return the faces given for a photo, found by its path, else by its file name.

        Raises:
            FlipnetError: the file does not name the photo.
        """
        for key in (str(source), source.name):
            if key in self.photos:
                return self.photos[key]
        raise FlipnetError(f"{self.path} has no entry named {source.name!r}")


def read_boxes(path: Path) -> GivenBoxes:
    """Read a boxes file, see this module for its schema.

    Raises:
        FlipnetError: it cannot be read, is larger than 16 MiB, or is not such a file; the message says where.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise FlipnetError(f"{path}: larger than {_MAX_BYTES >> 20} MiB, this is no file of boxes")
        content = path.read_bytes()
    except OSError as error:
        raise FlipnetError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        photos = TypeAdapter(dict[str, tuple[GivenFace, ...]]).validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = " > ".join(str(part) for part in first["loc"])
        cause = first["msg"].removeprefix("Value error, ")
        raise FlipnetError(f"{path}: {place + ': ' if place else ''}{cause}") from error
    return GivenBoxes(path, photos)


class GivenFaces:
    """A `FaceDetector` that returns the faces given for one photo, in their order, with score 1.

    Landmarks without a box get the box that a detector would draw around them. A box without landmarks gets
    those that `detector` finds in and around it; finding none, it is taken for an upright face seen from the
    front, and the face's notes say so.
    """

    def __init__(self, faces: tuple[GivenFace, ...], detector: FaceDetector) -> None:
        self.faces, self.detector = faces, detector

    def __call__(self, pixels: np.ndarray) -> list[Face]:
        """Return the given faces of a uint8 (H, W, 3) RGB photo."""
        return [self._face(given, pixels) for given in self.faces]

    def _face(self, given: GivenFace, pixels: np.ndarray) -> Face:
        if given.landmarks_px is not None:
            landmarks = np.array(given.landmarks_px, np.float32)
            return Face(given.box_px or _box_around(landmarks), landmarks, 1.0)
        assert given.box_px is not None  # checked when it was read
        found = self._landmarks_in(given.box_px, pixels)
        if found is not None:
            return Face(given.box_px, found, 1.0)
        note = "no landmarks were found in its box: taken for an upright face seen from the front"
        return Face(given.box_px, _upright_landmarks(given.box_px), 1.0, (note,))

    def _landmarks_in(self, box: tuple[float, float, float, float], pixels: np.ndarray) -> np.ndarray | None:
        """Landmarks of the face found around a box that overlaps it best, if any does."""
        low, high = np.array(box[:2]), np.array(box[2:])
        margin = high - low  # a face alone in its box is hard to see
        x0, y0 = np.maximum(np.floor(low - margin), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(high + margin) + 1, pixels.shape[1::-1]).astype(int)
        if x0 >= x1 or y0 >= y1:
            return None
        faces = self.detector(np.ascontiguousarray(pixels[y0:y1, x0:x1]))
        if not faces:
            return None
        corner = np.array([x0, y0])
        union, _ = overlaps(np.array(box), np.array([face.box_px for face in faces]) + np.tile(corner, 2))
        best = int(np.argmax(union))
        if union[best] < _SAME_FACE:
            return None
        return (faces[best].landmarks_px + corner).astype(np.float32)


def _box_around(landmarks_px: np.ndarray) -> tuple[float, float, float, float]:
    """Return the upright box around the template's box on a face with these landmarks."""
    to_photo = invert(estimate_similarity(landmarks_px, 512))
    (x0, y0), (x1, y1) = _TEMPLATE_BOX
    corners = transform_points(to_photo, np.array([(x0, y0), (x1, y0), (x0, y1), (x1, y1)]))
    low, high = corners.min(0), corners.max(0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _upright_landmarks(box: tuple[float, float, float, float]) -> np.ndarray:
    """Return the template's landmarks scaled to the box's height and centred in it."""
    low, high = np.array(box[:2]), np.array(box[2:])
    scale = (high[1] - low[1]) / (_TEMPLATE_BOX[1, 1] - _TEMPLATE_BOX[0, 1])
    placed = (aligned_template(512) - _TEMPLATE_BOX.mean(0)) * scale + (low + high) / 2
    return placed.astype(np.float32)
