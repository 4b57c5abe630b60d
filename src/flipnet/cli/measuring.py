"""`flipnet benchmark` and `flipnet evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from flipnet.cli.exit_codes import fail_unless
from flipnet.cli.options import BatchSize, Device, Metrics, MetricWeights, Model, Phi, Seed, known_device


def benchmark(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="FACES|RECIPE", help="Shard or folder of aligned HQ faces, or a recipe (.toml)."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the numbers to this JSON file.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for report.json and report.html.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet to this image file.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use N faces, spread over the set.")] = None,
    phi: Phi = 1.0,
    steps: Annotated[
        list[int] | None,
        typer.Option(
            min=1, max=1000, show_default="the model's own", help="Denoising steps; repeat for more columns."
        ),
    ] = None,
    seed: Seed = 0,
    model: Model = "compact",
    device: Device = "auto",
    batch_size: BatchSize = 1,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=WHERE]",
            help="A column beside ours: classical, realesrgan, or NAME=model folder, network file, or outputs.",
        ),
    ] = None,
    metric: Metrics = None,
    weights: MetricWeights = None,
    real: Annotated[
        Path | None,
        typer.Option(
            show_default="the true faces", help="Real faces for Fréchet distances, or FID statistics."
        ),
    ] = None,
    uncertainty: Annotated[
        int | None,
        typer.Option(min=2, metavar="K", help="Also draw K restorations per face and check their spread."),
    ] = None,
    time: Annotated[bool, typer.Option("--time", help="Also measure seconds and memory.")] = False,
    inputs: Annotated[
        Path | None, typer.Option(help="Also write the degraded faces here, for other methods.")
    ] = None,
    pictures: Annotated[int, typer.Option(min=0, help="Most pictures per part of the page.")] = 100,
) -> None:
    """Restore degraded HQ faces, or a recipe's test set, with several methods, and measure them all."""
    from flipnet.commands.benchmark import BenchmarkSettings
    from flipnet.commands.benchmark import benchmark as run_benchmark

    settings = BenchmarkSettings(
        limit=limit,
        phi=phi,
        steps=tuple(steps or ()),
        seed=seed,
        batch_size=batch_size,
        model=model,
        device=device,
        method=tuple(method or ()),
        metric=tuple(metric or ()),
        weights=tuple(weights or ()),
        real=real,
        uncertainty=uncertainty,
        time=time,
        inputs=inputs,
        report=report,
        pictures=pictures,
    )
    found = run_benchmark(what, output, sheet, settings)
    fail_unless(not any(problem["left_out"] for problem in found["problems"]))


class _DefaultsToRestoration(typer.core.TyperGroup):
    """A group whose first command is meant when none is named: `flipnet evaluate RESTORED ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["restoration", *args]
        return super().parse_args(ctx, args)


evaluate = typer.Typer(cls=_DefaultsToRestoration, no_args_is_help=True)


@evaluate.callback()
def evaluate_group() -> None:
    """Judge what the models make; `evaluate RESTORED ...` is short for `evaluate restoration RESTORED ...`."""


@evaluate.command("restoration")
def evaluate_restoration_command(
    restored: Annotated[
        Path | None, typer.Argument(help="Folder or shard of restored pictures.", show_default=False)
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="The true pictures, by the same names.")] = None,
    input: Annotated[
        Path | None, typer.Option("--input", help="The bad pictures that were restored, by the same names.")
    ] = None,
    real: Annotated[
        Path | None,
        typer.Option(
            show_default="the reference",
            help="Real pictures for Fréchet distances; for FID also a .npz of statistics.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for report.json and report.html.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FOLDER", help="Another method's outputs as a column; repeatable."),
    ] = None,
    metric: Metrics = None,
    weights: MetricWeights = None,
    size: Annotated[
        int | None, typer.Option(min=16, max=4096, help="Resize every picture to this side first (Lanczos).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use N pictures, evenly spread.")] = None,
    pictures: Annotated[int, typer.Option(min=0, help="Most pictures on the page.")] = 100,
    device: Annotated[str, typer.Option(callback=known_device, help="Where metrics' networks run.")] = "cpu",
    seed: Seed = 0,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="A B", help="Compare two reports picture by picture, B minus A.", show_default=False
        ),
    ] = None,
) -> None:
    """Measure restored pictures, or compare two reports (--compare A B)."""
    if compare is not None:
        if restored is not None:
            raise typer.BadParameter("give two reports and no pictures", param_hint="'--compare'")
        from flipnet.commands.evaluate import compare_runs

        compare_runs(*compare, None if output is None else output / "comparison.json")
        return
    if restored is None or output is None:
        raise typer.BadParameter("needed: the folder of restored pictures, and --output for the report")

    from flipnet.commands.evaluate import EvaluateSettings, evaluate_restored

    settings = EvaluateSettings(
        restored=restored,
        output=output,
        reference=reference,
        input=input,
        real=real,
        method=tuple(method or ()),
        metric=tuple(metric or ()),
        weights=tuple(weights or ()),
        size=size,
        limit=limit,
        pictures=pictures,
        device="cpu" if device == "auto" else device,
        seed=seed,
    )
    fail_unless(evaluate_restored(settings))


@evaluate.command("degradation")
def evaluate_degradation_command(
    real: Annotated[Path, typer.Option(help="Folder or shard of real bad photographs.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for degradation.json and embedding.png.")
    ],
    method: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=FOLDER",
            help="A method's degraded faces: folder, tar shard or folder of shards; repeatable.",
        ),
    ],
    union: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=A+B", help="Extra row of several methods together; repeatable."),
    ] = None,
    hq: Annotated[Path | None, typer.Option(help="The clean faces the methods started from.")] = None,
    detect: Annotated[
        bool,
        typer.Option(
            "--detect/--aligned",
            help="Find and align the largest face of each real photo, or take them as aligned 512 x 512 faces.",
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use N images of every set, evenly spread.")
    ] = None,
    content_limit: Annotated[
        int, typer.Option(min=1, help="Images per method for identity, landmarks and diversity.")
    ] = 200,
    repetitions: Annotated[int, typer.Option(min=1, help="Random splits and draws averaged.")] = 20,
    colour: Annotated[bool, typer.Option("--colour", help="Let chroma noise count as well.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps features between runs.")] = None,
    seed: Seed = 0,
) -> None:
    """Compare degraded faces with real bad photographs."""
    from flipnet.commands.evaluate_degradation import EvaluationSettings, evaluate_degradation

    evaluate_degradation(
        EvaluationSettings(
            real=real,
            methods=tuple(method),
            output=output,
            unions=tuple(union or ()),
            hq=hq,
            detect=detect,
            limit=limit,
            content_limit=content_limit,
            repetitions=repetitions,
            colour=colour,
            seed=seed,
            cache=cache,
        )
    )
