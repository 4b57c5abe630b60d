"""Which of the faces found in a photo are restored, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from flipnet.faces.align import TEMPLATE_512, estimate_similarity, scale_of
from flipnet.types import Face, FlipnetError

Which = Literal["all", "largest", "center"] | tuple[int, ...]
"""All faces, the largest, the one nearest to the photo's centre, or those with these indices."""

WORDS = ("all", "largest", "center")

MIN_FACE_SIZE_PX = 24.0
"""Faces smaller than this are skipped unless asked for by index. Our choice: below, a dozen pixels across the
eyes no longer say whose face it is."""


@dataclass(frozen=True)
class FaceSelection:
    """Which faces to restore.

    Attributes:
        which: see `Which`; indices count from 0 in the detector's order, largest first.
        exclude: indices left alone whatever `which` says.
        min_size_px: smallest face restored, by the longer side of its box in photo pixels. None is
            `MIN_FACE_SIZE_PX`, which faces named by index may fall below.
        min_score: lowest detector confidence restored, in [0, 1].
    """

    which: Which = "all"
    exclude: tuple[int, ...] = ()
    min_size_px: float | None = None
    min_score: float = 0.0


def parse_which(text: str) -> Which:
    """Read "all", "largest", "center" or indices such as "0,2".

    Raises:
        FlipnetError: anything else.
    """
    if text in WORDS:
        return cast("Which", text)
    return parse_indices(text)


def parse_indices(text: str) -> tuple[int, ...]:
    """Read face indices such as "0,2", in any order; each counts once.

    Raises:
        FlipnetError: anything else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 7 for part in parts):
        raise FlipnetError(f"faces {text!r}: give {', '.join(WORDS)}, or numbers from 0 such as 0,2")
    return tuple(sorted({int(part) for part in parts}))


def size_px(face: Face) -> float:
    """Return the longer side of a face's box, in photo pixels."""
    x0, y0, x1, y1 = face.box_px
    return max(x1 - x0, y1 - y0)


def eye_distance_px(face: Face) -> float:
    """Return how far apart the eyes of the template fitted to a face lie, in photo pixels.

    From the fit, not from the eyes alone: in profile the eyes are near each other in a face of any size.
    """
    template_px = TEMPLATE_512[1, 0] - TEMPLATE_512[0, 0]
    return float(template_px / scale_of(estimate_similarity(face.landmarks_px, 512)))


def reasons_to_skip(
    faces: Sequence[Face], photo_shape: tuple[int, ...], selection: FaceSelection
) -> list[str | None]:
    """Say for each face why it is left alone; None means that it is restored.

    Largest and centre are chosen among the faces that nothing else rules out.

    Args:
        faces: the photo's faces, in the detector's order.
        photo_shape: (height, width, ...) of the photo they were found in.
        selection: what was asked for.

    Raises:
        FlipnetError: an option out of range, or an index that no face has.
    """
    _check(selection, len(faces))
    reasons = [_own_reason(index, face, selection) for index, face in enumerate(faces)]
    left = [index for index, reason in enumerate(reasons) if reason is None]
    if selection.which in ("largest", "center") and left:
        chosen = _best(selection.which, [faces[i] for i in left], photo_shape)
        for place, index in enumerate(left):
            if place != chosen:
                reasons[index] = f"not the {selection.which} face"
    return reasons


def _check(selection: FaceSelection, count: int) -> None:
    if isinstance(selection.which, str) and selection.which not in WORDS:
        raise FlipnetError(f"select {selection.which!r} is not one of {', '.join(WORDS)}, or indices")
    if not 0 <= selection.min_score <= 1:
        raise FlipnetError(f"min_score {selection.min_score} is outside 0 to 1")
    if selection.min_size_px is not None and not selection.min_size_px >= 0:
        raise FlipnetError(f"min_size_px {selection.min_size_px} is below 0")
    named = (*(selection.which if isinstance(selection.which, tuple) else ()), *selection.exclude)
    wrong = [index for index in named if not 0 <= index < count]
    if wrong:
        found = (
            "one face was found, number 0" if count == 1 else f"{count} faces were found, 0 to {count - 1}"
        )
        raise FlipnetError(f"there is no face {wrong[0]}: {found}")


def _own_reason(index: int, face: Face, selection: FaceSelection) -> str | None:
    named = isinstance(selection.which, tuple)
    if isinstance(selection.which, tuple) and index not in selection.which:
        return "not among the chosen faces"
    if index in selection.exclude:
        return "excluded"
    if face.score < selection.min_score:
        return f"score {face.score:.2f} is below {selection.min_score:g}"
    least = selection.min_size_px
    if least is None:
        least = 0.0 if named else MIN_FACE_SIZE_PX
    if size_px(face) < least:
        return f"too small: {size_px(face):.0f} pixels, at least {least:g} are asked for"
    return None


def _best(which: str, faces: Sequence[Face], photo_shape: tuple[int, ...]) -> int:
    boxes = np.array([face.box_px for face in faces])
    if which == "largest":
        return int(np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(1)))
    middle = (np.array(photo_shape[1::-1]) - 1) / 2
    return int(np.argmin(np.linalg.norm((boxes[:, :2] + boxes[:, 2:]) / 2 - middle, axis=1)))
