"""The columns of a benchmark: our model at one or more numbers of steps, and what it is measured beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flipnet.evaluation.baselines import find_method
from flipnet.evaluation.image_sets import INPUT, REFERENCE
from flipnet.evaluation.weights import MetricUnavailableError
from flipnet.pipelines.restore import FaceRestorer
from flipnet.types import FlipnetError, Restorer

MAIN = "flipnet"
"""Column of the model that is benchmarked."""


@dataclass
class Columns:
    """What is compared.

    Attributes:
        restorers: run on every face, by column; `MAIN` first.
        outputs: finished outputs of other methods, by column.
        remarks: sentences on methods that cannot be had here.
    """

    restorers: dict[str, Restorer]
    outputs: dict[str, Path] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def split_methods(values: Sequence[str]) -> dict[str, str]:
    """Split NAME and NAME=WHERE options, "" for no WHERE; FlipnetError for a name given twice or none."""
    found: dict[str, str] = {}
    for value in values:
        name, _, where = value.partition("=")
        if not name or name in found:
            raise FlipnetError(f"--method {value}: expected NAME or NAME=WHERE, every name once")
        found[name] = where
    return found


def make_columns(main: FaceRestorer, further_steps: Sequence[int], methods: Mapping[str, str]) -> Columns:
    """Make a column of the model, one more for every further number of steps, and one for every method.

    Args:
        main: the model.
        further_steps: numbers of denoising steps.
        methods: where each is, see `baselines.find_method`; one whose package is missing becomes a remark.

    Raises FlipnetError for a name that is taken, and what `find_method` raises it for.
    """
    columns = Columns({MAIN: main})
    for count in further_steps:
        columns.restorers[f"{MAIN} {count} steps"] = FaceRestorer(
            main.pipeline, phi=main.phi, steps=count, model_name=main.model_name
        )
    for name, where in methods.items():
        if name in (INPUT, REFERENCE, *columns.restorers):
            raise FlipnetError(f"--method {name}: the name is taken, choose another")
        try:
            method = find_method(name, where, main.native_size_px, main.device)
        except MetricUnavailableError as error:
            columns.remarks.append(f"method {name} left out: {error}")
            continue
        if isinstance(method, Path):
            columns.outputs[name] = method
        else:
            columns.restorers[name] = method
    return columns
