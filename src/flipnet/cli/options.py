"""Options that several commands share, each declared once, and the checks they have in common."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flipnet.commands.outputs import Existing


class RotationChoice(StrEnum):
    """Which turns of a photo are searched for faces."""

    AUTO = "auto"
    OFF = "off"
    QUARTER = "quarter"
    FINE = "fine"


def known_device(value: str) -> str:
    """The value, if it names a device; for options whose help is not that of Device."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise typer.BadParameter(f"'{value}' is not auto, cpu, cuda, cuda:N or mps")
    return value


def _known_faces(value: str) -> str:
    if not re.fullmatch(r"all|largest|center|[0-9]{1,6}(,[0-9]{1,6})*", value):
        raise typer.BadParameter(f"'{value}' is not all, largest, center, or numbers such as 0,2")
    return value


def _known_numbers(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[0-9]{1,6}(,[0-9]{1,6})*", value):
        raise typer.BadParameter(f"'{value}' is not a list of numbers such as 1,3")
    return value


# The model and its run.
Model = Annotated[str, typer.Option(help="Bundled model name, model folder, or hub id.")]
Phi = Annotated[
    float,
    typer.Option(
        min=0.0, max=2.0, help="Boosting weight: 0 invents freely, 1 is balanced, 2 keeps to the photo."
    ),
]
Steps = Annotated[
    int | None, typer.Option(min=1, max=1000, show_default="the model's own", help="Denoising steps.")
]
Seed = Annotated[
    int,
    typer.Option(
        min=0, max=2**32 - 1, help="Same seed, same result; a single step of restoration knows no seed."
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, max=1024, help="Faces of a photo restored at once.")]
Device = Annotated[str, typer.Option(callback=known_device, help="auto, cpu, cuda, cuda:N or mps.")]

# Which faces of a photo.
Faces = Annotated[
    str,
    typer.Option(
        callback=_known_faces,
        help="Which faces to restore: all, largest, center, or numbers as `flipnet faces` lists them, such as 0,2.",
    ),
]
ExcludeFaces = Annotated[
    str | None, typer.Option(callback=_known_numbers, help="Faces to leave alone, by number.")
]
MinFaceSize = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        show_default="24, none for faces named by number",
        help="Smallest face restored: the longer side of its box, in pixels.",
    ),
]
MinScore = Annotated[float, typer.Option(min=0.0, max=1.0, help="Lowest detector score restored.")]
Boxes = Annotated[
    Path | None,
    typer.Option(help="Take the faces from this JSON file, as `flipnet faces --json` writes it."),
]
Rotations = Annotated[
    RotationChoice,
    typer.Option(
        help="Look for turned faces: auto (tilted finds once more upright, quarter turns if nothing is found), "
        "off, quarter, fine (every 30 degrees)."
    ),
]

# What pictures are measured by.
Metrics = Annotated[
    list[str] | None,
    typer.Option(show_default="the standard ones", help="Measure these only; repeatable."),
]
MetricWeights = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=FILE", help="Network of a metric, see docs/metrics.md; repeatable."),
]


def existing_outputs(overwrite: bool, skip_existing: bool) -> Existing:
    """What to do about outputs that exist already.

    Raises:
        typer.BadParameter: for both at once.
    """
    if overwrite and skip_existing:
        raise typer.BadParameter("give --overwrite or --skip-existing, not both")
    from flipnet.commands.outputs import Existing

    return Existing.OVERWRITE if overwrite else Existing.SKIP if skip_existing else Existing.FAIL
