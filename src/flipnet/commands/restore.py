"""`flipnet restore`: run over many photos, go on past the bad ones, and say at the end what happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from flipnet.commands.comparison import side_by_side
from flipnet.commands.finding import USUAL_MIN_SCORE, FindingSettings, face_finder
from flipnet.commands.inputs import read_input
from flipnet.commands.loading import without_collecting
from flipnet.commands.outputs import (
    Existing,
    Job,
    OutputNaming,
    make_folder,
    plan_outputs,
    refuse_report_over_image,
)
from flipnet.commands.packed_inputs import PackedImages, packed_images
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
from flipnet.commands.terminal import shown
from flipnet.images import Photo, write_photo
from flipnet.provenance import NOT_EVIDENCE, mark_as_restored, without_metadata
from flipnet.types import Face, FaceDetector, FlipnetError, Restorer, SamplingRestorer

if TYPE_CHECKING:
    import numpy as np

    from flipnet.faces.photo import FaceResult, PhotoResult
    from flipnet.pipelines.invention import Choice
    from flipnet.pipelines.likeness import LikenessCheck
    from flipnet.pipelines.onnx_restorer import OnnxRestorer
    from flipnet.pipelines.restore import FaceRestorer

UNFORESEEN = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, OSError)
"""What a library may raise over one photo; it costs that photo, not the batch."""

OnFace = Callable[["FaceResult"], None]


@dataclass(frozen=True)
class RestoreSettings:
    """What `flipnet restore` was asked to do; each field is the option of the same name."""

    naming: OutputNaming
    existing: Existing = Existing.FAIL
    aligned: bool = False
    faces: str = "all"
    exclude_faces: str | None = None
    min_face_size: float | None = None
    min_score: float = USUAL_MIN_SCORE
    boxes: Path | None = None
    rotations: str = "auto"
    phi: float = 1.0
    samples: int = 1
    choose: str = "mean"
    uncertainty: bool = False
    steps: int | None = None
    seed: int = 0
    blend: float = 1.0
    save_faces: bool = False
    compare: bool = False
    upscale: int = 1
    quality: int = 95
    strip_metadata: bool = False
    report: Path | None = None
    model: str = "compact"
    device: str = "auto"
    batch_size: int = 4

    @property
    def finding(self) -> FindingSettings:
        """The options that say which faces are found and chosen."""
        return FindingSettings(
            self.faces, self.exclude_faces, self.min_face_size, self.min_score, self.boxes, self.rotations
        )


def restore_inputs(
    inputs: Sequence[Path], settings: RestoreSettings, engine: RestoreEngine | None = None
) -> bool:
    """Restore every photo below `inputs`, write results and report, and print a summary.

    Args:
        engine: who restores the photos, which may then be packed in files; None is this process.

    Returns:
        Whether every input was restored or skipped as asked.

    Raises:
        FlipnetError: the run cannot start (clashing outputs, unknown model, unwritable output folder).
    """
    side_files = settings.save_faces or settings.compare or settings.uncertainty
    packed = packed_images(inputs) if engine else {}
    names = {path: tuple(images) for path, images in packed.items()}
    plan = plan_outputs(inputs, settings.naming, settings.existing, side_files, names)
    refuse_report_over_image(plan, settings.report)
    records = [PhotoRecord(path, PhotoStatus.FAILED, cause=cause) for path, cause in plan.failures]
    records += [PhotoRecord(job.source, PhotoStatus.SKIPPED, output=job.target) for job in plan.skipped]
    if plan.jobs:
        # Before the model, so that a folder that cannot be made costs no waiting.
        make_folder(plan.jobs[0].target.parent)
    loaded = JobRestorer(settings) if plan.jobs and engine is None else None
    used = None if loaded is None else loaded.used
    try:
        if loaded is not None:
            _restore_jobs(plan.jobs, loaded, records)
        elif plan.jobs and engine is not None:
            for record, model in engine(plan.jobs, settings, packed):
                records.append(record)
                used = model or used
        # Before the report, which may find the disk full.
        _print_summary(records, settings.naming.output)
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted; {sum(r.output is not None for r in records)} results are in place", err=True
        )
        raise
    finally:
        # Also after Ctrl-C: the report then covers the photos that were finished.
        if settings.report is not None:
            write_json(settings.report, run_as_json(_settings_as_json(settings, used), records))
    return not any(record.is_failure for record in records)


@dataclass(frozen=True)
class UsedModel:
    """What the settings' model, "auto" and defaults came to; see `FaceRestorer`."""

    model: str
    steps: int
    device: str


RestoreEngine = Callable[
    [Sequence[Job], RestoreSettings, PackedImages], Iterator[tuple[PhotoRecord, UsedModel | None]]
]
"""Restores jobs elsewhere and tells in order what happened to each, and with what model where that is known."""


class JobRestorer:
    """`restore_job` with all that it needs loaded once.

    Attributes:
        used: what was loaded.

    Raises FlipnetError when the model cannot be had or an option makes no sense with it.
    """

    @without_collecting()
    def __init__(self, settings: RestoreSettings) -> None:
        from flipnet.pipelines.likeness import LikenessCheck

        self._settings = settings
        # Before the model, as it reads --boxes.
        self._finder = None if settings.aligned else face_finder(settings.finding)
        faces: FaceRestorer | OnnxRestorer
        self._restorer: Restorer | SamplingRestorer
        if settings.model.endswith(".onnx"):
            faces = self._restorer = _load_onnx(settings)
            self._likeness = LikenessCheck(None)
        else:
            faces = _load(settings)
            self._restorer = with_samples(faces, settings)
            self._likeness = LikenessCheck(faces.pipeline.face_encoder)
        self.used = UsedModel(faces.model_name, faces.steps, str(faces.device))

    def __call__(self, job: Job, name: Path, progress: RestoreProgress | None = None) -> PhotoRecord:
        """Restore one photo, which --boxes knows as `name`; see `restore_job`."""
        detector = None if self._finder is None else self._finder(name)
        if detector is not None and progress is not None:
            detector = _announced(detector, progress)
        on_face = None if progress is None else progress.face_done
        return restore_job(job, self._settings, self._restorer, detector, on_face, self._likeness)


def _load(settings: RestoreSettings) -> FaceRestorer:
    from flipnet.pipelines.photo_restorer import load_faces

    return load_faces(
        settings.model,
        phi=settings.phi,
        steps=settings.steps,
        device=settings.device,
        samples=settings.samples,
        # Choosing among several may need the degradation mode.
        own_mode_only=settings.samples == 1,
    )


def _load_onnx(settings: RestoreSettings) -> OnnxRestorer:
    from flipnet.pipelines.onnx_restorer import OnnxRestorer

    faces = OnnxRestorer(settings.model)
    if settings.phi != faces.phi or settings.steps not in (None, faces.steps) or settings.samples != 1:
        raise FlipnetError(
            f"{settings.model}: was exported for one sample, phi {faces.phi:g} and steps {faces.steps}, give these."
        )
    if settings.device not in ("auto", "cpu"):
        raise FlipnetError(f"{settings.model}: runs on the CPU, not on {settings.device}.")
    return faces


def _restore_jobs(jobs: Sequence[Job], restore: JobRestorer, records: list[PhotoRecord]) -> None:
    with restore_progress(len(jobs)) as progress:
        for job in jobs:
            records.append(restore(job, job.source, progress))
            progress.photo_done()


def with_samples(faces: FaceRestorer, settings: RestoreSettings) -> Restorer | SamplingRestorer:
    """Return a restorer that draws as many samples per face as asked for.

    Raises:
        FlipnetError: the model lacks the degradation mode that `choose` "faithful" needs.
    """
    if settings.samples == 1:
        return faces
    from flipnet.pipelines.invention import several

    return several(faces, settings.samples, cast("Choice", settings.choose))


def _announced(detector: FaceDetector, progress: RestoreProgress) -> FaceDetector:
    """The face detector, telling the progress bar how many faces it found."""

    def detect(pixels: np.ndarray) -> list[Face]:
        faces = detector(pixels)
        progress.faces_found(len(faces))
        return faces

    return detect


def restore_job(
    job: Job,
    settings: RestoreSettings,
    restorer: Restorer | SamplingRestorer,
    detector: FaceDetector | None,
    on_face: OnFace | None = None,
    likeness: LikenessCheck | None = None,
) -> PhotoRecord:
    """Restore one photo, write what was asked for, and return what happened; the photo's errors are in there.

    Without a detector the photo is an aligned crop, without a likeness check faces are not compared. Nothing is
    written unless at least one face was restored.
    """
    started = time.perf_counter()
    record = PhotoRecord(job.source, PhotoStatus.FAILED)
    try:
        photo, record.warnings = read_input(job.source)
        result = _restored(photo, settings, restorer, detector, on_face)
        if likeness is not None:
            result = likeness.examine(result)
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
    except UNFORESEEN as error:
        record.cause = f"stopped by {type(error).__name__}: {one_line(str(error))}"
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
        which = f"face{'s' * (len(failed) > 1)} {', '.join(str(face.index) for face in failed)}"
        cause = f"{which} of {len(faces)} could not be restored, left as in the input: {_reasons(failed)}"
        return PhotoStatus.PARTIAL, cause
    return PhotoStatus.RESTORED, None


def _reasons(faces: Sequence[FaceResult]) -> str:
    return "; ".join(dict.fromkeys(str(face.reason) for face in faces))


def _restored(
    photo: Photo,
    settings: RestoreSettings,
    restorer: Restorer | SamplingRestorer,
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
        select=settings.finding.selection(),
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
        companions[job.compare_path] = _signed(side_by_side(before, result.photo), settings)
    if settings.uncertainty:
        from flipnet.faces.overlay import uncertainty_overlay

        overlay = uncertainty_overlay(result.photo, result.faces, upscale=settings.upscale)
        companions[job.uncertainty_path] = _signed(overlay, settings)
    for face in result.faces if settings.save_faces else ():
        for what, pixels in (("before", face.crop), ("restored", face.restored)):
            if face.status == "restored" and pixels is not None:
                photo = Photo(pixels, grayscale=result.photo.grayscale, icc_profile=result.photo.icc_profile)
                companions[job.face_path(face.index, what)] = (
                    _signed(photo, settings) if what == "restored" else photo
                )
    try:
        for path, companion in companions.items():
            write_photo(path, companion, quality=settings.quality)
        write_photo(job.target, _signed(result.photo, settings), quality=settings.quality)
    except BaseException:
        for path in companions:
            path.unlink(missing_ok=True)
        raise


def _signed(photo: Photo, settings: RestoreSettings) -> Photo:
    """The photo with metadata that say what was done to it, or without any if they are not wanted."""
    return (
        without_metadata(photo) if settings.strip_metadata else mark_as_restored(photo, model=settings.model)
    )


def _settings_as_json(settings: RestoreSettings, used: UsedModel | None) -> dict[str, Any]:
    names = (
        "aligned",
        "faces",
        "exclude_faces",
        "min_face_size",
        "min_score",
        "rotations",
        "phi",
        "steps",
        "samples",
        "choose",
        "seed",
        "blend",
        "upscale",
        "batch_size",
        "model",
        "device",
    )
    asked: dict[str, Any] = {name: getattr(settings, name) for name in names}
    asked["boxes"] = None if settings.boxes is None else str(settings.boxes)
    if used is None:
        return asked
    return asked | asdict(used)


def _print_summary(records: Sequence[PhotoRecord], output: Path) -> None:
    """Print warnings, then the totals, then the failures, one line each: last, so that they stay in sight."""
    for record in records:
        for line in notes(record):
            typer.echo(shown(f"{record.source}: {line}"), err=True)
    written = [record for record in records if record.status in (PhotoStatus.RESTORED, PhotoStatus.PARTIAL)]
    faces = sum(face.status == "restored" for record in written for face in record.faces)
    done = sum(record.status is PhotoStatus.RESTORED for record in records)
    skipped = sum(record.status is PhotoStatus.SKIPPED for record in records)
    failures = [record for record in records if record.is_failure]
    typer.echo(
        f"{done} of {count(len(records), 'photo')} restored ({count(faces, 'face')}), {skipped} skipped, "
        f"{len(failures)} failed; results in {shown(output)}"
    )
    if faces:
        typer.echo(NOT_EVIDENCE)
    for record in failures:
        typer.echo(shown(f"{record.source}: {one_line(record.cause)}"), err=True)


def notes(record: PhotoRecord) -> Iterator[str]:
    """What the user should know about a photo that is no failure: warnings, and faces left alone."""
    yield from record.warnings
    for face in record.faces:
        yield from (f"face {face.index}: {warning}" for warning in face.warnings if face.status == "restored")
        if face.status == "skipped" and record.output is not None and face.reason is not None:
            yield f"face {face.index} left as it was: {face.reason}"
