"""How commands find faces: detector, turned photos, and boxes given by the user, as the options say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from flipnet.types import Face, FaceDetector

if TYPE_CHECKING:
    import numpy as np

    from flipnet.faces.rotation import Rotations
    from flipnet.faces.selection import FaceSelection

USUAL_MIN_SCORE = 0.5
"""The detector's own lowest score, `flipnet.faces.detect.DEFAULT_MIN_SCORE`."""


@dataclass(frozen=True)
class FindingSettings:
    """Which faces are found and chosen; each field is the option of the same name.

    Attributes:
        faces: "all", "largest", "center" or indices such as "0,2".
        exclude_faces: indices such as "1,3"; None excludes none.
        min_face_size: pixels; None is the usual smallest, which named or given faces may fall below.
        min_score: in [0, 1]; below the detector's usual score it looks for fainter faces, too.
        boxes: JSON file of faces, see `flipnet.faces.given`; no face is searched then.
        rotations: see `flipnet.faces.rotation.Rotations`.
    """

    faces: str = "all"
    exclude_faces: str | None = None
    min_face_size: float | None = None
    min_score: float = USUAL_MIN_SCORE
    boxes: Path | None = None
    rotations: str = "auto"

    def selection(self) -> FaceSelection:
        """Return what was asked for as a `FaceSelection`.

        Raises:
            FlipnetError: faces or exclude_faces that cannot be read.
        """
        from flipnet.faces.selection import FaceSelection, parse_indices, parse_which

        # Whoever draws a box round a face means it, however small it is.
        least = 0.0 if self.min_face_size is None and self.boxes is not None else self.min_face_size
        exclude = () if self.exclude_faces is None else parse_indices(self.exclude_faces)
        return FaceSelection(parse_which(self.faces), exclude, least, self.min_score)


def face_finder(settings: FindingSettings) -> Callable[[Path], FaceDetector]:
    """Return what makes the detector for a photo, given its path.

    Raises:
        FlipnetError: a boxes file that cannot be read, or unknown rotations. A photo that the boxes file does
            not name is an error when its faces are asked for.
    """
    from flipnet.faces.detect import DEFAULT_MIN_SCORE, CenterFaceDetector
    from flipnet.faces.given import GivenFaces, read_boxes
    from flipnet.faces.rotation import TurningDetector

    upright = CenterFaceDetector(min_score=max(min(DEFAULT_MIN_SCORE, settings.min_score), 0.01))
    turning = TurningDetector(upright, cast("Rotations", settings.rotations))
    if settings.boxes is None:
        return lambda source: turning
    boxes = read_boxes(settings.boxes)

    def for_photo(source: Path) -> FaceDetector:
        def detect(pixels: np.ndarray) -> list[Face]:
            return GivenFaces(boxes.for_photo(source), turning)(pixels)

        return detect

    return for_photo
