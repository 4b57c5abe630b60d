"""The contact sheet of a benchmark: faces for the eye's verdict beside the numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flipnet.evaluation.benchmark import MeasuredCase
from flipnet.evaluation.contact_sheet import contact_sheet
from flipnet.evaluation.image_sets import INPUT

SHEET_FACES = 8


class SheetRows:
    """The first faces of the run: one row per face, all columns of every part, the truth last."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, np.ndarray]] = {}
        self._truths: dict[str, np.ndarray] = {}

    def add(self, measured: MeasuredCase) -> None:
        """Keep a case as long as the sheet has room for its row."""
        case = measured.case
        if case.key not in self._rows and len(self._rows) == SHEET_FACES:
            return
        row = self._rows.setdefault(case.key, {})
        for column, pixels in measured.images.items():
            row[f"{measured.part} {column}".replace(f" {INPUT}", "")] = pixels
        if case.truth is not None:
            self._truths[case.key] = case.truth

    def write(self, path: Path) -> None:
        """Write the sheet; see `contact_sheet` for the errors."""
        captions = [*next(iter(self._rows.values()), {}), *(["truth"] if self._truths else [])]
        truths = {key: [truth] for key, truth in self._truths.items()}
        rows = [[*row.values(), *truths.get(key, [])] for key, row in self._rows.items()]
        contact_sheet(rows, path, columns=captions)
