"""`flipnet train`: run a recipe, or say beforehand what it will cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from flipnet.training import run_recipe

if TYPE_CHECKING:
    from flipnet.config import Recipe
    from flipnet.training.budget import Budget

EXIT_DONE = 0


def train_recipe(recipe: Path, overrides: tuple[str, ...], output: Path | None, *, resume: bool) -> int:
    """Train the stage of a recipe, print its last validation numbers and return the exit code.

    The code is 128 plus the signal's number for a run that saved a checkpoint because of a signal, else 0.
    Of several processes the main one prints. Raises FlipnetError as `run_recipe` does.
    """
    from accelerate import PartialState

    from flipnet.training.stopping import TrainingStoppedError

    try:
        numbers = run_recipe(recipe, overrides, output, resume=resume)
    except TrainingStoppedError as stopped:
        if PartialState().is_main_process:
            typer.echo(f"flipnet: {stopped}", err=True)
        return stopped.exit_code
    if PartialState().is_main_process:
        for name, value in numbers.items():
            typer.echo(f"{name} {value:.4g}")
    return EXIT_DONE


def show_budget(recipe_path: Path, overrides: tuple[str, ...]) -> None:
    """Print what a recipe will cost: parameters, operations, memory and speed; nothing is trained or written.

    Raises FlipnetError for a bad recipe and for a stage that cannot be counted.
    """
    from flipnet.config import load_recipe
    from flipnet.training.budget import count_budget

    recipe = load_recipe(recipe_path, overrides)
    budget = count_budget(recipe)
    console = Console()
    for note in budget.notes:
        console.print(f"Assumed: {note}.", soft_wrap=True)
    for table in (
        _parameter_table(budget),
        _operation_table(budget),
        _memory_table(budget, recipe),
        _speed_table(budget, recipe),
    ):
        console.print(table)


def _parameter_table(budget: Budget) -> Table:
    table = _table("Parameters", "part", "trainable", "frozen")
    for part in budget.parts:
        table.add_row(part.name, f"{part.trainable:,}", f"{part.frozen:,}")
    table.add_section()
    trainable, frozen = (
        sum(getattr(part, kind) for part in budget.parts) for kind in ("trainable", "frozen")
    )
    table.add_row("all", f"{trainable:,}", f"{frozen:,}")
    return table


def _operation_table(budget: Budget) -> Table:
    table = _table("GFLOP per sample", "piece of a step", "GFLOP", "share")
    for name, count in budget.flops.items():
        table.add_row(name, f"{count / 1e9:,.1f}", f"{count / budget.step_flops:.0%}")
    table.add_section()
    table.add_row("step", f"{budget.step_flops / 1e9:,.1f}", "100%")
    return table


def _memory_table(budget: Budget, recipe: Recipe) -> Table:
    table = _table("GiB per process, estimated", "samples at a time", "bf16 or fp16", "float32")
    for batch in sorted({1, 4, recipe.optim.batch_size, 32}):
        sizes = (budget.memory_bytes(batch, autocast=half) / 2**30 for half in (True, False))
        mark = " (recipe)" if batch == recipe.optim.batch_size else ""
        table.add_row(f"{batch}{mark}", *(f"{size:.1f}" for size in sizes))
    state = budget.state_bytes / 2**30
    table.caption = f"{state:.1f} of it weights, gradients, optimiser, EMA; kernels' workspace comes on top"
    return table


def _speed_table(budget: Budget, recipe: Recipe) -> Table:
    from flipnet.training import speed

    optim = recipe.optim
    samples = optim.steps * optim.batch_size * optim.gradient_accumulation
    table = _table(
        f"Speed; {samples:,} samples per process in {optim.steps:,} steps", "processor", "samples/s", "hours"
    )

    def add(name: str, rate: float) -> None:
        table.add_row(name, f"{rate:,.3g}", f"{samples / rate / 3600:,.3g}")

    if budget.step_flops * optim.batch_size < speed.MEASURABLE_FLOPS:
        add(f"this machine ({speed.machine()}), measured", speed.measured_samples_per_second(recipe))
        table.caption = "data loading and validation are left out"
        return table
    rate = speed.product_rate(recipe) * speed.UTILISATION / budget.step_flops
    add(f"this machine ({speed.machine()}), from its matrix products", rate)
    for name, peak in speed.PEAK_FLOPS.items():
        add(f"one {name}, from its peak", peak * speed.UTILISATION / budget.step_flops)
    table.caption = f"{speed.UTILISATION:.0%} of the peak assumed; data loading and validation are left out"
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table
