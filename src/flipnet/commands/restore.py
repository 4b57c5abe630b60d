"""`flipnet restore`: run over many photos, go on past the bad ones, and say at the end what happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from flipnet.commands.comparison import side_by_side
from flipnet.commands.inputs import read_input
from flipnet.commands.outputs import (
    Existing,
    Job,
    OutputNaming,
    make_folder,
    plan_outputs,
    refuse_report_over_image,
)
from flipnet.commands.progress import RestoreProgress, restore_progress
from flipnet.commands.report import (
    PhotoRecord,
    PhotoStatus,
    count,
    one_line,
    run_as_json,
    without_pixels,
    write_json,
)
from flipnet.images import Photo, write_photo
from flipnet.types import Face, FaceDetector, FlipnetError, Restorer

if TYPE_CHECKING:
    import numpy as np

    from flipnet.faces.photo import FaceResult, PhotoResult, Selection
    from flipnet.pipelines.restore import FaceRestorer

OnFace = Callable[["FaceResult"], None]


@dataclass(frozen=True)
class RestoreSettings:
    """What `flipnet restore` was asked to do; each field is the option of the same name."""

    naming: OutputNaming
    existing: Existing = Existing.FAIL
    aligned: bool = False
    faces: str = "all"
    phi: float = 1.0
    steps: int | None = None
    seed: int = 0
    blend: float = 1.0
    save_faces: bool = False
    compare: bool = False
    upscale: int = 1
    quality: int = 95
    report: Path | None = None
    model: str = "compact"
    device: str = "auto"
    batch_size: int = 4


def restore_inputs(inputs: Sequence[Path], settings: RestoreSettings) -> bool:
    """Restore every photo below `inputs`, write results and report, and print a summary.

    Returns:
        Whether every input was restored or skipped as asked.

    Raises:
        FlipnetError: the run cannot start (clashing outputs, unknown model, unwritable output folder).
    """
    side_files = settings.save_faces or settings.compare
    plan = plan_outputs(inputs, settings.naming, settings.existing, side_files)
    refuse_report_over_image(plan, settings.report)
    records = [PhotoRecord(path, PhotoStatus.FAILED, cause=cause) for path, cause in plan.failures]
    records += [PhotoRecord(job.source, PhotoStatus.SKIPPED, output=job.target) for job in plan.skipped]
    restorer = _load(settings, plan.jobs[0].target.parent) if plan.jobs else None
    try:
        if restorer is not None:
            _restore_jobs(plan.jobs, settings, restorer, records)
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted; {sum(r.output is not None for r in records)} results are in place", err=True
        )
        raise
    finally:
        # Also after Ctrl-C: the report then covers the photos that were finished.
        if settings.report is not None:
            write_json(settings.report, run_as_json(_settings_as_json(settings, restorer), records))
    _print_summary(records, settings.naming.output)
    return not any(record.is_failure for record in records)


def _load(settings: RestoreSettings, folder: Path) -> FaceRestorer:
    """Load the model once it is sure that results can be written."""
    make_folder(folder)
    from flipnet.pipelines.restore import FaceRestorer

    return FaceRestorer.from_checkpoint(
        settings.model,
        phi=settings.phi,
        steps=settings.steps,
        device=settings.device,
    )


def _restore_jobs(
    jobs: Sequence[Job], settings: RestoreSettings, restorer: Restorer, records: list[PhotoRecord]
) -> None:
    with restore_progress(len(jobs)) as progress:
        detector = None if settings.aligned else _announced(progress)
        for job in jobs:
            records.append(restore_job(job, settings, restorer, detector, progress.face_done))
            progress.photo_done()


def _announced(progress: RestoreProgress) -> FaceDetector:
    """The face detector, telling the progress bar how many faces it found."""
    from flipnet.faces.detect import CenterFaceDetector

    detector = CenterFaceDetector()

    def detect(pixels: np.ndarray) -> list[Face]:
        faces = detector(pixels)
        progress.faces_found(len(faces))
        return faces

    return detect


def restore_job(
    job: Job,
    settings: RestoreSettings,
    restorer: Restorer,
    detector: FaceDetector | None,
    on_face: OnFace | None = None,
) -> PhotoRecord:
    """Restore one photo, write what was asked for, and return what happened; the photo's errors are in there.

    Without a detector the photo is an aligned crop. Nothing is written unless at least one face was restored.
    """
    started = time.perf_counter()
    record = PhotoRecord(job.source, PhotoStatus.FAILED)
    try:
        photo, record.warnings = read_input(job.source)
        result = _restored(photo, settings, restorer, detector, on_face)
        record.faces = [without_pixels(face) for face in result.faces]
        status, record.cause = judge(result.faces)
        if status is not PhotoStatus.FAILED:
            _write_outputs(job, photo, result, settings)
            record.output = job.target
        record.status = status
    except FlipnetError as error:
        record.cause = str(error).removeprefix(f"{job.source}: ")
    except MemoryError:
        record.cause = "not enough memory for this photo"
    record.seconds = time.perf_counter() - started
    return record


def judge(faces: Sequence[FaceResult]) -> tuple[PhotoStatus, str | None]:
    """Say what a photo's faces make of it: (status, cause).

    Our choice: skipped faces (not chosen, too small) are no failure as long as some face was restored; a face
    that failed makes the photo a failure even though the other faces are written, because it is still the
    unrestored one.
    """
    failed = [face for face in faces if face.status == "failed"]
    if not any(face.status == "restored" for face in faces):
        return PhotoStatus.FAILED, f"no face was restored: {_reasons(failed or faces)}"
    if failed:
        which = f"face{'s' * (len(failed) > 1)} {', '.join(str(face.index + 1) for face in failed)}"
        cause = f"{which} of {len(faces)} could not be restored, left as in the input: {_reasons(failed)}"
        return PhotoStatus.PARTIAL, cause
    return PhotoStatus.RESTORED, None


def _reasons(faces: Sequence[FaceResult]) -> str:
    return "; ".join(dict.fromkeys(str(face.reason) for face in faces))


def _restored(
    photo: Photo,
    settings: RestoreSettings,
    restorer: Restorer,
    detector: FaceDetector | None,
    on_face: OnFace | None,
) -> PhotoResult:
    from flipnet.faces.photo import restore_aligned, restore_photo

    if detector is None:
        return restore_aligned(photo, restorer, blend=settings.blend, seed=settings.seed)
    return restore_photo(
        photo,
        restorer,
        detector,
        select=cast("Selection", settings.faces),
        blend=settings.blend,
        upscale=settings.upscale,
        batch_size=settings.batch_size,
        seed=settings.seed,
        on_face=on_face,
    )


def _write_outputs(job: Job, before: Photo, result: PhotoResult, settings: RestoreSettings) -> None:
    """Write companions first and the result last, so that a result on disk means that all of it is there."""
    make_folder(job.target.parent)
    companions = {}
    if settings.compare:
        companions[job.compare_path] = side_by_side(before, result.photo)
    for face in result.faces if settings.save_faces else ():
        for what, pixels in (("before", face.crop), ("restored", face.restored)):
            if face.status == "restored" and pixels is not None:
                photo = Photo(pixels, grayscale=result.photo.grayscale, icc_profile=result.photo.icc_profile)
                companions[job.face_path(face.index, what)] = photo
    try:
        for path, companion in companions.items():
            write_photo(path, companion, quality=settings.quality)
        write_photo(job.target, result.photo, quality=settings.quality)
    except (FlipnetError, KeyboardInterrupt):
        for path in companions:
            path.unlink(missing_ok=True)
        raise


def _settings_as_json(settings: RestoreSettings, restorer: FaceRestorer | None) -> dict[str, Any]:
    names = (
        "aligned",
        "faces",
        "phi",
        "steps",
        "seed",
        "blend",
        "upscale",
        "batch_size",
        "model",
        "device",
    )
    asked = {name: getattr(settings, name) for name in names}
    if restorer is None:
        return asked
    # What "auto" and the model's own default came to.
    used = {"model": restorer.model_name, "steps": restorer.steps, "device": str(restorer.device)}
    return asked | used


def _print_summary(records: Sequence[PhotoRecord], output: Path) -> None:
    """Print warnings, then the totals, then the failures, one line each: last, so that they stay in sight."""
    for record in records:
        for line in _notes(record):
            typer.echo(f"{record.source}: {line}", err=True)
    written = [record for record in records if record.status in (PhotoStatus.RESTORED, PhotoStatus.PARTIAL)]
    faces = sum(face.status == "restored" for record in written for face in record.faces)
    done = sum(record.status is PhotoStatus.RESTORED for record in records)
    skipped = sum(record.status is PhotoStatus.SKIPPED for record in records)
    failures = [record for record in records if record.is_failure]
    typer.echo(
        f"{done} of {count(len(records), 'photo')} restored ({count(faces, 'face')}), {skipped} skipped, "
        f"{len(failures)} failed; results in {output}"
    )
    for record in failures:
        typer.echo(f"{record.source}: {one_line(record.cause)}", err=True)


def _notes(record: PhotoRecord) -> Iterator[str]:
    """What the user should know about a photo that is no failure: warnings, and faces left alone."""
    yield from record.warnings
    for face in record.faces:
        yield from (
            f"face {face.index + 1}: {warning}" for warning in face.warnings if face.status == "restored"
        )
        if face.status == "skipped" and record.output is not None and face.reason is not None:
            yield f"face {face.index + 1} left as it was: {face.reason}"
