"""Rows of faces side by side in one picture, for the eye's verdict beside the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flipnet.images import Photo, resize, write_photo
from flipnet.types import FlipnetError

_HEADER_PX = 28


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    path: Path,
    *,
    columns: Sequence[str] = (),
    cell_px: int = 256,
) -> None:
    """Write rows of equally sized faces as one picture, whole or not at all.

    Args:
        rows: each row the same number of uint8 (S, S, 3) RGB faces, for instance input, restored, truth.
        path: picture to write, its format told by its suffix; its folder must exist.
        columns: a caption over each column, none for no captions.
        cell_px: side of a face on the sheet, by Lanczos.

    Raises FlipnetError for no rows, rows or captions of unequal number, and a file that cannot be written.
    """
    width = len(rows[0]) if rows else 0
    if width == 0 or any(len(row) != width for row in rows):
        raise FlipnetError("A contact sheet needs at least one face, and equally many in every row.")
    if columns and len(columns) != width:
        raise FlipnetError(f"A contact sheet of {width} columns got {len(columns)} captions.")
    cells = [[resize(face, (cell_px, cell_px)) for face in row] for row in rows]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in cells], axis=0)
    if columns:
        sheet = np.concatenate([_captions(columns, cell_px), sheet], axis=0)
    write_photo(path, Photo(sheet))


def _captions(columns: Sequence[str], cell_px: int) -> np.ndarray:
    band = Image.new("RGB", (cell_px * len(columns), _HEADER_PX), "white")
    draw = ImageDraw.Draw(band)
    for index, caption in enumerate(columns):
        centre = (cell_px * index + cell_px / 2, _HEADER_PX / 2)
        draw.text(centre, caption, fill="black", anchor="mm", font=ImageFont.load_default(_HEADER_PX // 2))
    return np.array(band)
