"""Which of a frame's faces to restore, without changing one's mind at every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from flipnet.faces.selection import FaceSelection, reasons_to_skip
from flipnet.faces.tracking import PlacedFace
from flipnet.types import FlipnetError

_CLEARLY = 1.3


class FaceChooser:
    """Chooses all faces, the largest, or the one nearest to the centre, as `flipnet.faces.selection` does.

    Our choice: of two faces alike in size or place, the one that was chosen stays so until the other is 1.3 times
    as large, or as near; else the restoration would jump from one to the other.

    Args:
        selection: which; not by number, as numbers say nothing across frames.

    Raises:
        FlipnetError: faces are named by number.
    """

    def __init__(self, selection: FaceSelection) -> None:
        if not isinstance(selection.which, str) or selection.exclude:
            raise FlipnetError("faces have no lasting numbers in a clip: choose all, largest or center")
        self.which = selection.which
        self._sizes = replace(selection, which="all")
        self._chosen: int | None = None

    def __call__(self, faces: Sequence[PlacedFace], shape: tuple[int, ...]) -> list[str | None]:
        """Return for each face why it is left as it is, None = to be restored.

        Args:
            faces: the frame's faces.
            shape: (height, width, ...) of the frame in pixels.
        """
        reasons = reasons_to_skip([placed.face for placed in faces], shape, self._sizes)
        merits = {i: self._merit(faces[i], shape) for i, reason in enumerate(reasons) if reason is None}
        if self.which == "all" or not merits:
            return reasons
        best = max(merits, key=lambda i: merits[i])
        for i in merits:
            if faces[i].track == self._chosen and merits[best] < _CLEARLY * merits[i]:
                best = i
        self._chosen = faces[best].track
        return [
            reason if i == best else reason or f"not the {self.which} face"
            for i, reason in enumerate(reasons)
        ]

    def _merit(self, placed: PlacedFace, shape: tuple[int, ...]) -> float:
        x0, y0, x1, y1 = placed.face.box_px
        if self.which == "largest":
            return (x1 - x0) * (y1 - y0)
        height, width = shape[:2]
        return 1 / (1 + float(np.hypot((x0 + x1 - width + 1) / 2, (y0 + y1 - height + 1) / 2)))
