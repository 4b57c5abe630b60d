"""`flipnet benchmark`: the metrics as a table on stdout, as JSON, and as a contact sheet to look at."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from flipnet import __version__
from flipnet.commands.outputs import make_folder
from flipnet.commands.report import write_json
from flipnet.data.datasets import index_images
from flipnet.evaluation.benchmark import SEVERITIES, BenchmarkBatch, BenchmarkResult, Scores, run_benchmark
from flipnet.evaluation.contact_sheet import contact_sheet
from flipnet.pipelines.restore import FaceRestorer

SHEET_FACES = 8
COLUMNS = (
    "severity",
    "images",
    "PSNR dB ↑",
    "SSIM ↑",
    "gradient energy → 1",
    "identity distance ↓",
    "s/face",
)


@dataclass(frozen=True)
class BenchmarkSettings:
    """What `flipnet benchmark` was asked to do; each field is the option of the same name."""

    limit: int | None = None
    phi: float = 1.0
    steps: int | None = None
    seed: int = 0
    batch_size: int = 1
    model: str = "compact"
    device: str = "auto"


def benchmark_faces(
    images: Path, output: Path | None, sheet: Path | None, settings: BenchmarkSettings
) -> BenchmarkResult:
    """Measure a model on clean aligned faces, print the table, and write JSON and contact sheet where asked.

    Raises:
        FlipnetError: no images, unknown model, or a file that cannot be written.
    """
    for path in (output, sheet):
        if path is not None:
            make_folder(path.parent)
    found = len(index_images(images))
    restorer = FaceRestorer.from_checkpoint(
        settings.model, phi=settings.phi, steps=settings.steps, device=settings.device
    )
    sheet_rows = SheetRows()
    limit, seed, batch_size = settings.limit, settings.seed, settings.batch_size
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("faces", total=min(limit or found, found) * len(SEVERITIES))

        def on_batch(batch: BenchmarkBatch) -> None:
            sheet_rows.add(batch)
            progress.update(task, advance=len(batch.keys), description=batch.severity)

        result = run_benchmark(
            restorer, images, seed=seed, limit=limit, batch_size=batch_size, on_batch=on_batch
        )
    Console().print(table_of(result))
    if result.identity_missing is not None:
        Console().print(f"no identity distance: {result.identity_missing}", markup=False)
    if output is not None:
        about: dict[str, Any] = {"flipnet": __version__, "model": restorer.model_name, "images": str(images)}
        about |= {"phi": restorer.phi, "steps": restorer.steps, "device": str(restorer.device)}
        write_json(output, about | json.loads(result.to_json()))
    if sheet is not None:
        sheet_rows.write(sheet)
    return result


def table_of(result: BenchmarkResult) -> Table:
    """Return one row for the input and one for the restored faces of every severity."""
    table = Table(*COLUMNS, title=f"{result.severities[0].faces} faces, seed {result.seed}")
    for row in result.severities:
        table.add_row(row.severity, "input", *_cells(row.degraded), "")
        if row.restored is not None:
            table.add_row("", "restored", *_cells(row.restored), f"{row.seconds_per_face:.2f}")
    return table


def _cells(scores: Scores) -> tuple[str, str, str, str]:
    identity = "–" if scores.identity_distance is None else f"{scores.identity_distance:.3f}"
    return f"{scores.psnr_db:.2f}", f"{scores.ssim:.3f}", f"{scores.gradient_energy_ratio:.2f}", identity


class SheetRows:
    """The first faces of the run: one row per face, input and restored of every severity, the truth last."""

    def __init__(self) -> None:
        self._rows: dict[str, list[np.ndarray]] = {}
        self._truths: dict[str, np.ndarray] = {}

    def add(self, batch: BenchmarkBatch) -> None:
        """Keep the batch's faces as long as the sheet has room for their rows."""
        for index, key in enumerate(batch.keys):
            if key not in self._rows and len(self._rows) == SHEET_FACES:
                continue
            row = self._rows.setdefault(key, [])
            row += [images[index] for images in (batch.degraded, batch.restored) if images is not None]
            self._truths[key] = batch.truth[index]

    def write(self, path: Path) -> None:
        """Write the sheet; see `contact_sheet` for the errors."""
        columns = [f"{severity}{what}" for severity in SEVERITIES for what in ("", " restored")]
        rows = [[*row, self._truths[key]] for key, row in self._rows.items()]
        contact_sheet(rows, path, columns=[*columns, "truth"])
