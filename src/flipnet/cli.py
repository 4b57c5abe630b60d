"""The `flipnet` command: parse options, call one function per command, print.

Torch and diffusers are imported inside the commands, so that `flipnet --help` and mistyped options answer at
once. Exit codes: 0 all done, 1 some input failed, 2 usage (whatever stops the whole run before it starts).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from flipnet import __version__
from flipnet.commands.terminal import shown
from flipnet.types import FlipnetError

if TYPE_CHECKING:
    from flipnet.distributed import Cluster

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


class SampleChoice(StrEnum):
    """Which of several restorations of a face is taken."""

    MEAN = "mean"
    FAITHFUL = "faithful"


class RotationChoice(StrEnum):
    """Which turns of a photo are searched for faces."""

    AUTO = "auto"
    OFF = "off"
    QUARTER = "quarter"
    FINE = "fine"


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


def _known_faces(value: str) -> str:
    if not re.fullmatch(r"all|largest|center|[0-9]{1,6}(,[0-9]{1,6})*", value):
        raise typer.BadParameter(f"'{value}' is not all, largest, center, or numbers such as 0,2")
    return value


def _known_numbers(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[0-9]{1,6}(,[0-9]{1,6})*", value):
        raise typer.BadParameter(f"'{value}' is not a list of numbers such as 1,3")
    return value


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

BatchSize = Annotated[int, typer.Option(min=1, max=1024, help="Faces of a photo restored at once.")]
Device = Annotated[str, typer.Option(callback=_known_device, help="auto, cpu, cuda, cuda:N or mps.")]


class EngineChoice(StrEnum):
    """What drives the work."""

    LOCAL = "local"
    RAY = "ray"


Engine = Annotated[
    EngineChoice,
    typer.Option(
        help="local is this process; ray is many, on many machines; then also tar shards and parquet."
    ),
]
Address = Annotated[
    str | None,
    typer.Option(show_default="a cluster of this machine alone", help="Ray cluster: auto or HOST:PORT."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, show_default="one per GPU, or per 4 cores", help="Worker processes of --engine ray."),
]


def _cluster(engine: EngineChoice, address: str | None, workers: int | None, device: str) -> Cluster | None:
    """Where to work; None is this process."""
    if engine is EngineChoice.LOCAL:
        if address is not None or workers is not None:
            raise typer.BadParameter("--address and --workers need --engine ray")
        return None
    from flipnet.distributed import Cluster

    return Cluster(address, workers, gpu=device != "cpu")


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
    inputs: Annotated[list[Path], typer.Argument(help="Photos, folders searched for photos, or clips.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Output folder; for one photo or clip also a file name.")
    ],
    aligned: Annotated[
        bool, typer.Option("--aligned", help="Inputs are aligned face crops, not photos.")
    ] = False,
    faces: Faces = "all",
    exclude_faces: ExcludeFaces = None,
    min_face_size: MinFaceSize = None,
    min_score: MinScore = 0.5,
    boxes: Boxes = None,
    rotations: Rotations = RotationChoice.AUTO,
    phi: Phi = 1.0,
    samples: Annotated[
        int, typer.Option(min=1, max=64, help="Restorations drawn per face, of which one is taken.")
    ] = 1,
    choose: Annotated[
        SampleChoice,
        typer.Option(
            help="Which sample is taken: nearest the mean, or most faithful (degraded again, it is nearest to the "
            "input)."
        ),
    ] = SampleChoice.MEAN,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write a picture of where the samples differ.")
    ] = False,
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
    strip_metadata: Annotated[
        bool,
        typer.Option("--strip-metadata", help="Write no metadata: neither the input's nor what was done."),
    ] = False,
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
    detect_every: Annotated[
        int, typer.Option(min=1, max=4, help="In clips, look for faces in every N-th frame only.")
    ] = 1,
    engine: Engine = EngineChoice.LOCAL,
    address: Address = None,
    workers: Workers = None,
) -> None:
    """Restore the faces in photos and write the results to a folder.

    An output that exists already counts as a failure of that photo unless --overwrite or --skip-existing says
    otherwise; inputs are never overwritten. A photo without faces fails, and nothing is written for it.
    """
    if overwrite and skip_existing:
        raise typer.BadParameter("give --overwrite or --skip-existing, not both")
    if "/" in suffix or "\\" in suffix or "\0" in suffix:
        raise typer.BadParameter(f"'{suffix}' holds a path separator", param_hint="'--suffix'")
    if samples == 1 and (uncertainty or choose is not SampleChoice.MEAN):
        raise typer.BadParameter(
            "--uncertainty and --choose are about several samples, give --samples 2 or more"
        )

    from flipnet.commands.finding import FindingSettings
    from flipnet.commands.outputs import Existing, OutputNaming
    from flipnet.commands.restore import RestoreSettings, restore_inputs
    from flipnet.commands.video import has_clips, restore_clips

    existing = Existing.OVERWRITE if overwrite else Existing.SKIP if skip_existing else Existing.FAIL
    settings = RestoreSettings(
        naming=OutputNaming(output, suffix, None if format is None else format.value),
        existing=existing,
        aligned=aligned,
        faces=faces,
        exclude_faces=exclude_faces,
        min_face_size=min_face_size,
        min_score=min_score,
        boxes=boxes,
        rotations=rotations.value,
        phi=phi,
        samples=samples,
        choose=choose.value,
        uncertainty=uncertainty,
        steps=steps,
        seed=seed,
        blend=blend,
        save_faces=save_faces,
        compare=compare,
        upscale=upscale,
        quality=quality,
        strip_metadata=strip_metadata,
        report=report,
        model=model,
        device=device,
        batch_size=batch_size,
    )
    if aligned and (settings.finding != FindingSettings() or upscale != 1):
        raise typer.BadParameter(
            "--upscale and the options that find and choose faces are for whole photos, leave them out with "
            "--aligned"
        )
    clips = has_clips(inputs)
    cluster = _cluster(engine, address, workers, device)
    on_cluster = None
    if cluster is not None:
        if clips:
            raise typer.BadParameter("--engine ray is for photos, restore videos without it")
        from flipnet.commands.ray_engine import restore_on_cluster

        on_cluster = partial(restore_on_cluster, cluster)
    if not clips and detect_every != 1:
        raise typer.BadParameter("it is for clips, leave it out for photos", param_hint="'--detect-every'")
    done = (
        restore_clips(inputs, settings, detect_every)
        if clips
        else restore_inputs(inputs, settings, on_cluster)
    )
    if not done:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command("faces")
def faces_command(
    inputs: Annotated[list[Path], typer.Argument(help="Photos, or folders searched for photos recursively.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write pictures with numbered boxes: a folder, or a file for one."
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the faces to this file, for `restore --boxes`.")
    ] = None,
    faces: Faces = "all",
    exclude_faces: ExcludeFaces = None,
    min_face_size: MinFaceSize = None,
    min_score: MinScore = 0.5,
    boxes: Boxes = None,
    rotations: Rotations = RotationChoice.AUTO,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace pictures that exist already.")
    ] = False,
) -> None:
    """List the faces of photos with their numbers, and say which would be restored and why others would not."""
    from flipnet.commands.faces import FacesSettings, list_faces
    from flipnet.commands.finding import FindingSettings

    finding = FindingSettings(faces, exclude_faces, min_face_size, min_score, boxes, rotations.value)
    if not list_faces(inputs, FacesSettings(output, json, overwrite, finding)):
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
    engine: Engine = EngineChoice.LOCAL,
    address: Address = None,
    workers: Workers = None,
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
    cluster = _cluster(engine, address, workers, device)
    on_cluster = None
    if cluster is not None:
        from flipnet.commands.ray_engine import degrade_on_cluster

        on_cluster = partial(degrade_on_cluster, cluster)
    if not degrade_inputs(inputs, settings, on_cluster):
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
def serve(
    host: Annotated[
        str, typer.Option(help="Address to serve on; 0.0.0.0 lets others on the network in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 7860,
    model: Model = "compact",
    device: Device = "auto",
    max_queue: Annotated[int, typer.Option(min=1, help="Jobs that may wait; more are refused.")] = 16,
    max_upload_mb: Annotated[float, typer.Option(min=0.001, help="Size of one uploaded file in MB.")] = 50,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Size of one photo in megapixels.")] = 60,
    time_limit_s: Annotated[float, typer.Option(min=1, help="Seconds until a job is stopped.")] = 600,
) -> None:
    """Serve the web app: restore photos in the browser or from programs."""
    from flipnet.commands.serve import ServeSettings
    from flipnet.commands.serve import serve as serve_app
    from flipnet.web.limits import Limits

    limits = Limits(
        queue=max_queue, upload_mb=max_upload_mb, megapixels=max_megapixels, job_seconds=time_limit_s
    )
    serve_app(ServeSettings(host, port, model, device, limits))


@app.command()
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
    metric: Annotated[
        list[str] | None,
        typer.Option(show_default="the standard ones", help="Measure these only; repeatable."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Network of a metric, see docs/metrics.md; repeatable."),
    ] = None,
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
    if any(problem["left_out"] for problem in found["problems"]):
        raise typer.Exit(EXIT_SOME_FAILED)


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


class _DefaultsToRestoration(typer.core.TyperGroup):
    """A group whose first command is meant when none is named: `flipnet evaluate RESTORED ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["restoration", *args]
        return super().parse_args(ctx, args)


evaluate = typer.Typer(cls=_DefaultsToRestoration, no_args_is_help=True)
app.add_typer(evaluate, name="evaluate")


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
    metric: Annotated[
        list[str] | None,
        typer.Option(show_default="the standard ones", help="Measure these only; repeatable."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Network of a metric, see docs/metrics.md; repeatable."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=16, max=4096, help="Resize every picture to this side first (Lanczos).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use N pictures, evenly spread.")] = None,
    pictures: Annotated[int, typer.Option(min=0, help="Most pictures on the page.")] = 100,
    device: Annotated[str, typer.Option(callback=_known_device, help="Where metrics' networks run.")] = "cpu",
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
    if not evaluate_restored(settings):
        raise typer.Exit(EXIT_SOME_FAILED)


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
    phi: Annotated[
        float | None,
        typer.Option(min=0.0, max=2.0, show_default="1", help="Boosting weight fixed in the ONNX file."),
    ] = None,
) -> None:
    """Write a trained model as a checkpoint to ship, or its restorer as one ONNX file (--onnx)."""
    defaults = {}
    for text in steps or []:
        mode, _, number = text.rpartition("=")
        if not number.isdecimal() or int(number) < 1:
            raise typer.BadParameter(f"'{text}' is not [MODE=]N with N at least 1", param_hint="'--steps'")
        defaults[mode or "restoration"] = int(number)
    if (output is None) == (onnx is None):
        raise typer.BadParameter("give either --output or --onnx")

    from flipnet.commands.export import export_model, export_restorer

    if output is not None:
        if phi is not None:
            raise typer.BadParameter("a checkpoint works with any phi", param_hint="'--phi'")
        export_model(model, output, vae=vae, dtype=dtype.value, steps=defaults)
    elif onnx is not None:
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code; `arguments` defaults to those of the process.

    Raises:
        SystemExit: always; an error meant for the user is printed as one line on stderr first.
    """
    try:
        app(arguments, prog_name="flipnet")
    except FlipnetError as error:
        typer.echo(f"flipnet: {shown(error)}", err=True)
        sys.exit(EXIT_USAGE)
