"""`flipnet demo`: one sample photo, made bad with a fixed seed and restored."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import skimage.data
import typer

from flipnet.commands.comparison import side_by_side
from flipnet.commands.outputs import make_folder
from flipnet.commands.report import PhotoStatus
from flipnet.commands.restore import judge
from flipnet.data.degradation import DegradationRanges, degrade_with
from flipnet.faces.detect import CenterFaceDetector
from flipnet.faces.photo import restore_photo
from flipnet.images import Photo, write_photo
from flipnet.pipelines.restore import FaceRestorer
from flipnet.provenance import mark_as_restored
from flipnet.types import FlipnetError

SEED = 0
UPSCALE = 2
SAMPLE_RANGES = DegradationRanges("demo", (1.5, 2.0), (2.0, 2.5), (4.0, 8.0), (50, 70))
"""Our choice: the middle of the "medium" preset, whose lengths are those of a 512-pixel face crop, divided by
three, because the sample's face is about three times smaller."""


def sample_photo() -> Photo:
    """Return the degraded sample, uint8 (512, 512, 3): NASA's portrait of Eileen Collins (public domain)."""
    degraded, _ = degrade_with(SAMPLE_RANGES, skimage.data.astronaut(), SEED)
    return Photo(degraded)


def run_demo(output: Path, *, model: str = "compact", device: str = "auto") -> None:
    """Restore the sample, write before.png, after.png and compare.png to `output`, and print where they are.

    Raises:
        FlipnetError: unknown model, unwritable folder, or the face could not be restored.
    """
    make_folder(output)
    before = sample_photo()
    restorer = FaceRestorer.from_checkpoint(model, device=device)
    started = time.perf_counter()
    result = restore_photo(before, restorer, CenterFaceDetector(), upscale=UPSCALE, seed=SEED)
    seconds = time.perf_counter() - started
    status, cause = judge(result.faces)
    if status is not PhotoStatus.RESTORED:
        raise FlipnetError(f"the sample photo was not restored: {cause}")
    after = mark_as_restored(result.photo, model=model)
    compared = mark_as_restored(side_by_side(before, after), model=model)
    pictures = {"before": before, "after": after, "compare": compared}
    for name, photo in pictures.items():
        path = output / f"{name}.png"
        write_photo(path, replace(photo, format="png"))
        typer.echo(f"{name:<8}{path}")
    typer.echo(f"{len(result.faces)} face restored in {seconds:.1f} s on {restorer.device}")
