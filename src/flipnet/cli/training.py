"""`flipnet train` and `flipnet export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class WeightType(StrEnum):
    """Number formats weights can be stored in."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe (.toml); see recipes/.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", show_default="runs/RECIPE", help="Run folder.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one recipe value; repeatable."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run folder's last checkpoint.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print parameters, FLOPs, memory and speed; train nothing.")
    ] = False,
) -> None:
    """Train one stage as its recipe says.

    SIGTERM and Ctrl-C save a checkpoint first; --resume then goes on as if nothing had happened. For several
    processes: accelerate launch -m flipnet train RECIPE.
    """
    for assignment in overrides or []:
        if "=" not in assignment:
            raise typer.BadParameter(f"'{assignment}' is not KEY=VALUE", param_hint="'--set'")

    from flipnet.commands.train import show_budget, train_recipe

    if dry_run:
        show_budget(recipe, tuple(overrides or ()))
        return
    code = train_recipe(recipe, tuple(overrides or ()), output, resume=resume)
    if code:
        raise typer.Exit(code)


def export(
    model: Annotated[str, typer.Argument(help="Model folder (a run's final/), bundled name, or hub id.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Checkpoint folder to write.")] = None,
    onnx: Annotated[
        Path | None, typer.Option(help="Write the restorer as this ONNX file instead; see docs/onnx.md.")
    ] = None,
    vae: Annotated[
        Path | None, typer.Option(help="Folder of a VAE whose decoder was finished later.")
    ] = None,
    dtype: Annotated[WeightType, typer.Option(help="Number format of the weights.")] = WeightType.FLOAT16,
    steps: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[MODE=]N",
            help="Denoising steps a mode takes by default; repeatable; without MODE it is the restoration.",
        ),
    ] = None,
    lora_rank: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[MODE=]N",
            help="Narrow a mode's LoRA to this rank, for a smaller checkpoint; as --steps.",
        ),
    ] = None,
    average: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Average modes and decoders with this model's, a run from the same weights; repeatable.",
        ),
    ] = None,
    phi: Annotated[
        float | None,
        typer.Option(min=0.0, max=2.0, show_default="1", help="Boosting weight fixed in the ONNX file."),
    ] = None,
) -> None:
    """Write a trained model as a checkpoint to ship, or its restorer as one ONNX file (--onnx)."""
    defaults, ranks = (
        numbers_by_mode(given, option) for given, option in ((steps, "--steps"), (lora_rank, "--lora-rank"))
    )
    if (output is None) == (onnx is None):
        raise typer.BadParameter("give either --output or --onnx")

    from flipnet.commands.export import export_model, export_restorer

    if output is not None:
        if phi is not None:
            raise typer.BadParameter("a checkpoint works with any phi", param_hint="'--phi'")
        export_model(
            model,
            output,
            vae=vae,
            dtype=dtype.value,
            steps=defaults,
            lora_ranks=ranks,
            average=average or [],
        )
    elif onnx is not None:
        if ranks or average:
            raise typer.BadParameter("--lora-rank and --average are for checkpoints, export one first")
        if defaults.keys() - {"restoration"}:
            raise typer.BadParameter("the ONNX file restores only", param_hint="'--steps'")
        export_restorer(
            model,
            onnx,
            vae=vae,
            dtype=dtype.value,
            steps=defaults.get("restoration"),
            phi=1.0 if phi is None else phi,
        )


def numbers_by_mode(given: list[str] | None, option: str) -> dict[str, int]:
    """Read `[MODE=]N` values, N at least 1; without MODE it is the restoration."""
    numbers = {}
    for text in given or []:
        mode, _, number = text.rpartition("=")
        if not number.isdecimal() or int(number) < 1:
            raise typer.BadParameter(f"'{text}' is not [MODE=]N with N at least 1", param_hint=f"'{option}'")
        numbers[mode or "restoration"] = int(number)
    return numbers
