"""The `flipnet` command: parse options, call one function per command, print.

Torch and diffusers are imported inside the commands, so that `flipnet --help` and mistyped options answer at
once. Exit codes: 0 all done, 1 some input failed, 2 usage (whatever stops the whole run before it starts).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flipnet import __version__
from flipnet.types import FlipnetError

EXIT_SOME_FAILED = 1
EXIT_USAGE = 2

app = typer.Typer(
    help="Restore faces in old, small and blurred photos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class FaceChoice(StrEnum):
    """Which of a photo's faces to restore."""

    ALL = "all"
    LARGEST = "largest"
    CENTER = "center"


class OutputFormat(StrEnum):
    """File formats results can be written in."""

    PNG = "png"
    JPG = "jpg"
    WEBP = "webp"
    TIFF = "tiff"


# Options that several commands share.
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
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Same seed, same result.")]


def _known_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise typer.BadParameter(f"'{value}' is not auto, cpu, cuda, cuda:N or mps")
    return value


BatchSize = Annotated[int, typer.Option(min=1, max=1024, help="Faces of a photo restored at once.")]
Device = Annotated[str, typer.Option(callback=_known_device, help="auto, cpu, cuda, cuda:N or mps.")]


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"flipnet {__version__}")
        raise typer.Exit


@app.callback()
def flipnet(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Restore faces in old, small and blurred photos."""


@app.command()
def restore(
    inputs: Annotated[list[Path], typer.Argument(help="Photos, or folders searched for photos recursively.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Output folder; for one photo also a file name.")
    ],
    aligned: Annotated[
        bool, typer.Option("--aligned", help="Inputs are aligned face crops, not photos.")
    ] = False,
    faces: Annotated[FaceChoice, typer.Option(help="Which faces to restore.")] = FaceChoice.ALL,
    phi: Phi = 1.0,
    steps: Steps = None,
    seed: Seed = 0,
    blend: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How much of the restored face: 0 input, 1 restored.")
    ] = 1.0,
    save_faces: Annotated[
        bool, typer.Option("--save-faces", help="Also write each face before and after.")
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Also write a side-by-side picture.")] = False,
    upscale: Annotated[int, typer.Option(min=1, max=8, help="Enlarge the photo; background by Lanczos.")] = 1,
    format: Annotated[
        OutputFormat | None, typer.Option("--format", show_default="the input's", help="Output format.")
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG and WebP quality.")] = 95,
    suffix: Annotated[str, typer.Option(help="Text added to every output's name.")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that exist already.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out inputs whose output exists already.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write what was done to each face to this JSON file.")
    ] = None,
    model: Model = "compact",
    device: Device = "auto",
    batch_size: BatchSize = 4,
) -> None:
    """Restore the faces in photos and write the results to a folder.

    An output that exists already counts as a failure of that photo unless --overwrite or --skip-existing says
    otherwise; inputs are never overwritten. A photo without faces fails, and nothing is written for it.
    """
    if overwrite and skip_existing:
        raise typer.BadParameter("give --overwrite or --skip-existing, not both")
    if "/" in suffix or "\\" in suffix or "\0" in suffix:
        raise typer.BadParameter(f"'{suffix}' holds a path separator", param_hint="'--suffix'")
    if aligned and (faces is not FaceChoice.ALL or upscale != 1):
        raise typer.BadParameter("--faces and --upscale are for whole photos, leave them out with --aligned")

    from flipnet.commands.outputs import Existing, OutputNaming
    from flipnet.commands.restore import RestoreSettings, restore_inputs

    existing = Existing.OVERWRITE if overwrite else Existing.SKIP if skip_existing else Existing.FAIL
    settings = RestoreSettings(
        naming=OutputNaming(output, suffix, None if format is None else format.value),
        existing=existing,
        aligned=aligned,
        faces=faces.value,
        phi=phi,
        steps=steps,
        seed=seed,
        blend=blend,
        save_faces=save_faces,
        compare=compare,
        upscale=upscale,
        quality=quality,
        report=report,
        model=model,
        device=device,
        batch_size=batch_size,
    )
    if not restore_inputs(inputs, settings):
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
def degrade(
    inputs: Annotated[list[Path], typer.Argument(help="Aligned clean faces, or folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder.")],
    variants: Annotated[int, typer.Option(min=1, help="Different results per face.")] = 1,
    method: Annotated[
        str,
        typer.Option(
            help="flipnet (the network), or a naive recipe: real-esrgan, gfpgan, codeformer, difface, ..."
        ),
    ] = "flipnet",
    seed: Seed = 0,
    phi: Phi = 1.0,
    steps: Steps = None,
    model: Model = "compact",
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Results made at once.")] = 1,
    shards: Annotated[
        int | None,
        typer.Option(min=1, show_default="PNG files", help="Write tar shards of N (clean, bad) pairs each."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Put identity distance and landmark shift in the report.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that exist already.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out results that exist already.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write seeds and what was done to this JSON file.")
    ] = None,
) -> None:
    """Make realistic bad versions of clean, aligned faces: NAME_00.png, NAME_01.png, ...

    How bad a result is varies with its seed, which follows from --seed and the face's name. The naive recipes
    need no model and ignore --phi, --steps, --model and --device.
    """
    if overwrite and skip_existing:
        raise typer.BadParameter("give --overwrite or --skip-existing, not both")
    if overwrite and shards is not None:
        raise typer.BadParameter("shards are only added to, delete them or give another folder")
    if measure and report is None:
        raise typer.BadParameter("its numbers go to the report, give --report", param_hint="'--measure'")

    from flipnet.commands.degrade import DegradeSettings, degrade_inputs
    from flipnet.commands.outputs import Existing

    settings = DegradeSettings(
        output=output,
        variants=variants,
        method=method,
        existing=Existing.OVERWRITE if overwrite else Existing.SKIP if skip_existing else Existing.FAIL,
        seed=seed,
        phi=phi,
        steps=steps,
        model=model,
        device=device,
        batch_size=batch_size,
        shards=shards,
        measure=measure,
        report=report,
    )
    if not degrade_inputs(inputs, settings):
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the three pictures.")] = Path(
        "out/demo"
    ),
    model: Model = "compact",
    device: Device = "auto",
) -> None:
    """Degrade a sample photo, restore it, and write before, after and both side by side."""
    from flipnet.commands.demo import run_demo

    run_demo(output, model=model, device=device)


@app.command()
def benchmark(
    images: Annotated[Path, typer.Argument(help="Tar shard or folder of aligned HQ faces.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the numbers to this JSON file.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet to this image file.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use N faces, spread over the set.")] = None,
    phi: Phi = 1.0,
    steps: Steps = None,
    seed: Seed = 0,
    model: Model = "compact",
    device: Device = "auto",
    batch_size: BatchSize = 1,
) -> None:
    """Degrade HQ faces at three severities, restore them, and print the metrics."""
    from flipnet.commands.benchmark import BenchmarkSettings, benchmark_faces

    settings = BenchmarkSettings(limit, phi, steps, seed, batch_size, model, device)
    benchmark_faces(images, output, sheet, settings)


@app.command()
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
) -> None:
    """Train one stage as its recipe says."""
    for assignment in overrides or []:
        if "=" not in assignment:
            raise typer.BadParameter(f"'{assignment}' is not KEY=VALUE", param_hint="'--set'")

    from flipnet.training import run_recipe

    numbers = run_recipe(recipe, tuple(overrides or ()), output or Path("runs") / recipe.stem, resume=resume)
    for name, value in numbers.items():
        typer.echo(f"{name} {value:.4g}")


evaluate = typer.Typer(no_args_is_help=True, help="Judge what the models make.")
app.add_typer(evaluate, name="evaluate")


@evaluate.callback()
def evaluate_group() -> None:
    """Judge what the models make."""


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


class WeightType(StrEnum):
    """Number formats weights can be stored in."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Model folder (a run's final/), bundled name, or hub id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint folder to write.")],
    vae: Annotated[
        Path | None, typer.Option(help="Folder of a VAE whose decoder was finished later.")
    ] = None,
    dtype: Annotated[WeightType, typer.Option(help="Number format of the weights.")] = WeightType.FLOAT16,
    steps: Annotated[
        list[str] | None,
        typer.Option(metavar="MODE=N", help="Denoising steps a mode takes by default; repeatable."),
    ] = None,
) -> None:
    """Write a trained model as a checkpoint to ship."""
    defaults = {}
    for text in steps or []:
        mode, _, number = text.partition("=")
        if not number.isdecimal() or int(number) < 1:
            raise typer.BadParameter(f"'{text}' is not MODE=N with N at least 1", param_hint="'--steps'")
        defaults[mode] = int(number)

    from flipnet.commands.export import export_model

    export_model(model, output, vae=vae, dtype=dtype.value, steps=defaults)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code; `arguments` defaults to those of the process.

    Raises:
        SystemExit: always; an error meant for the user is printed as one line on stderr first.
    """
    try:
        app(arguments, prog_name="flipnet")
    except FlipnetError as error:
        typer.echo(f"flipnet: {error}", err=True)
        sys.exit(EXIT_USAGE)
