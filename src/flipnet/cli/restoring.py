"""`flipnet restore`, `faces` and `demo`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flipnet.cli.engine import Address, Engine, EngineChoice, Workers, chosen_cluster
from flipnet.cli.exit_codes import fail_unless
from flipnet.cli.options import (
    BatchSize,
    Boxes,
    Device,
    ExcludeFaces,
    Faces,
    MinFaceSize,
    MinScore,
    Model,
    Phi,
    RotationChoice,
    Rotations,
    Seed,
    Steps,
    existing_outputs,
)

if TYPE_CHECKING:
    from flipnet.commands.restore import RestoreSettings
    from flipnet.distributed import Cluster


class SampleChoice(StrEnum):
    """Which of several restorations of a face is taken."""

    MEAN = "mean"
    FAITHFUL = "faithful"


class OutputFormat(StrEnum):
    """File formats results can be written in."""

    PNG = "png"
    JPG = "jpg"
    WEBP = "webp"
    TIFF = "tiff"


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
    existing = existing_outputs(overwrite, skip_existing)
    if "/" in suffix or "\\" in suffix or "\0" in suffix:
        raise typer.BadParameter(f"'{suffix}' holds a path separator", param_hint="'--suffix'")
    if samples == 1 and (uncertainty or choose is not SampleChoice.MEAN):
        raise typer.BadParameter(
            "--uncertainty and --choose are about several samples, give --samples 2 or more"
        )

    from flipnet.commands.finding import FindingSettings
    from flipnet.commands.outputs import OutputNaming
    from flipnet.commands.restore import RestoreSettings
    from flipnet.commands.video import has_clips

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
    restored = _restore_clips if has_clips(inputs) else _restore_photos
    fail_unless(restored(inputs, settings, detect_every, chosen_cluster(engine, address, workers, device)))


def _restore_clips(
    inputs: list[Path], settings: RestoreSettings, detect_every: int, cluster: Cluster | None
) -> bool:
    if cluster is not None:
        raise typer.BadParameter("--engine ray is for photos, restore videos without it")
    from flipnet.commands.video import restore_clips

    return restore_clips(inputs, settings, detect_every)


def _restore_photos(
    inputs: list[Path], settings: RestoreSettings, detect_every: int, cluster: Cluster | None
) -> bool:
    from flipnet.commands.restore import restore_inputs

    on_cluster = None
    if cluster is not None:
        from flipnet.commands.ray_engine import restore_on_cluster

        on_cluster = partial(restore_on_cluster, cluster)
    if detect_every != 1:
        raise typer.BadParameter("it is for clips, leave it out for photos", param_hint="'--detect-every'")
    return restore_inputs(inputs, settings, on_cluster)


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
    fail_unless(list_faces(inputs, FacesSettings(output, json, overwrite, finding)))


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
