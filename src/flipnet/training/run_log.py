"""Where a run says what it does: log.jsonl, contact sheets, the tracker, the progress bar. Main process alone."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flipnet import images
from flipnet.config import Recipe, save_recipe
from flipnet.evaluation.contact_sheet import contact_sheet
from flipnet.types import FlipnetError


@dataclass(frozen=True)
class Pictures:
    """Validation pictures. Attributes: columns: captions; rows: uint8 (S, S, 3) RGB, one per column each."""

    columns: Sequence[str]
    rows: Sequence[Sequence[np.ndarray]]


def require_tracker(name: str | None) -> None:
    """Raise FlipnetError when the recipe's tracker is not installed."""
    if name is not None and importlib.util.find_spec(name) is None:
        raise FlipnetError(f'run.tracker: {name} is not installed: pip install {name}, or set "none".')


class RunLog:
    """Opened for the length of a run; in other processes than the main one its methods do nothing.

    Args:
        accelerator: of the run, its trackers not started yet.
        recipe: written to `output` as recipe.json.
        first_step: finished steps at the start.
    """

    def __init__(self, accelerator: Accelerator, recipe: Recipe, output: Path, first_step: int) -> None:
        self.accelerator, self.recipe, self.output = accelerator, recipe, output
        self.first_step = first_step
        self._open = ExitStack()

    def __enter__(self) -> RunLog:
        if not self.accelerator.is_main_process:
            return self
        save_recipe(self.recipe, self.output / "recipe.json")
        self._file = self._open.enter_context((self.output / "log.jsonl").open("a", encoding="utf-8"))
        self._progress = self._open.enter_context(_progress())
        self._bar = self._progress.add_task(
            self.recipe.stage, total=self.recipe.optim.steps, completed=self.first_step, losses=""
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def losses(self, step: int, numbers: dict[str, float]) -> None:
        """Record a step's losses and speed; what is not a number was not in this batch and is left out."""
        if not self.accelerator.is_main_process:
            return
        numbers = {name: value for name, value in numbers.items() if not math.isnan(value)}
        self._write({"step": step, **numbers})
        self.accelerator.log(numbers, step=step)
        text = " ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        self._progress.update(self._bar, completed=step, losses=text)

    def validation(self, step: int, numbers: dict[str, float], pictures: Pictures | None) -> None:
        """Record validation numbers, and pictures as `validation/step-<step>.png` and in the tracker."""
        if not self.accelerator.is_main_process:
            return
        self._write({"step": step, "validation": numbers})
        self.accelerator.log(numbers, step=step)
        if pictures is None:
            return
        path = self.output / "validation" / f"step-{step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        contact_sheet(pictures.rows, path, columns=pictures.columns)
        sheet = images.read_photo(path).pixels
        for tracker in self.accelerator.trackers:
            if hasattr(tracker, "log_images"):
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({"validation": sheet[None]}, step=step, **layout)

    def _write(self, line: dict[str, object]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
        console=Console(stderr=True),
    )
