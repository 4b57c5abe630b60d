"""`flipnet restore` for clips: where each result goes, progress in frames, and a report of what was followed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flipnet import __version__
from flipnet.commands.finding import USUAL_MIN_SCORE
from flipnet.commands.outputs import Existing, Job, OutputNaming, Plan, make_folder, refuse_report_over_image
from flipnet.commands.report import PhotoStatus, count, one_line, write_json
from flipnet.types import FaceDetector, FlipnetError, Restorer
from flipnet.video import VIDEO_SUFFIXES, WRITABLE_SUFFIXES

if TYPE_CHECKING:
    from flipnet.commands.restore import RestoreSettings
    from flipnet.pipelines.restore import FaceRestorer
    from flipnet.video.results import VideoOptions, VideoResult

_HONOURED = frozenset(
    {"naming", "existing", "faces",
        "exclude_faces", "min_face_size", "min_score", "phi", "steps", "seed", "blend", "upscale",
     "quality", "report", "strip_metadata", "model", "device", "batch_size"}
)  # fmt: skip
"""Fields of `RestoreSettings` that mean something for a clip; giving any other one is an error."""


@dataclass
class ClipRecord:
    """One clip's part of the report; `result` only where it was written."""

    source: Path
    status: PhotoStatus
    output: Path | None = None
    cause: str | None = None
    seconds: float = 0.0
    result: VideoResult | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON types; times in seconds of the clip's own clock."""
        found = None if self.result is None else asdict(self.result)
        return {
            "input": str(self.source),
            "output": None if self.output is None else str(self.output),
            "status": self.status.value,
            "cause": self.cause,
            **({} if found is None else found),
            "seconds": round(self.seconds, 3),
        }


def has_clips(inputs: Sequence[Path]) -> bool:
    """Whether any input is a clip by its suffix; folders are not looked into."""
    return any(is_clip(path) for path in inputs)


def is_clip(path: Path) -> bool:
    """Whether a path is a clip by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()


def restore_clips(inputs: Sequence[Path], settings: RestoreSettings, detect_every: int = 1) -> bool:
    """Restore every clip, write results and report, and print a summary.

    Returns:
        Whether every clip was restored or skipped as asked.

    Raises:
        FlipnetError: the run cannot start (photos among the clips, an option that is for photos only, clashing
            outputs, unknown model, PyAV missing).
    """
    _refuse_photo_options(settings)
    plan = plan_clips(inputs, settings.naming, settings.existing)
    refuse_report_over_image(plan, settings.report)
    records = [ClipRecord(path, PhotoStatus.FAILED, cause=cause) for path, cause in plan.failures]
    records += [ClipRecord(job.source, PhotoStatus.SKIPPED, job.target) for job in plan.skipped]
    options = _options(settings, detect_every)
    restorer = _load(settings, plan.jobs) if plan.jobs else None
    try:
        if restorer is not None:
            # One look at 960 pixels: the second, finer one would cost more than the restoration.
            from flipnet.faces.detect import CenterFaceDetector

            detector = CenterFaceDetector(
                min_score=max(min(USUAL_MIN_SCORE, settings.min_score), 0.01), fine_size_px=0
            )
            for job in plan.jobs:
                records.append(restore_clip(job, restorer, detector, options))
    finally:
        if settings.report is not None:
            write_json(settings.report, _run_as_json(settings, options, restorer, records))
    _print_summary(records)
    return not any(record.status is PhotoStatus.FAILED for record in records)


def plan_clips(inputs: Sequence[Path], naming: OutputNaming, existing: Existing) -> Plan:
    """Give each clip its output path: the one `-o` names, or its own name in the folder `-o`.

    Raises:
        FlipnetError: photos or folders among the clips, two clips with one output, or an output over an input.
    """
    others = [path for path in inputs if not is_clip(path)]
    if others:
        raise FlipnetError(f"{others[0]}: not a clip; restore photos and clips in separate runs")
    if naming.extension is not None:
        raise FlipnetError("--format is for photos; a clip's container follows from the name after -o")
    plan, taken = Plan(), {path.resolve() for path in inputs}
    for source in dict.fromkeys(inputs):
        target = _target(source, naming, alone=len(inputs) == 1)
        if target.resolve() in taken:
            raise FlipnetError(f"{source}: its result {target} would overwrite an input or another result")
        taken.add(target.resolve())
        if not source.exists():
            plan.failures.append((source, "no such file"))
        elif not os.path.lexists(target) or existing is Existing.OVERWRITE:
            plan.jobs.append(Job(source, target))
        elif existing is Existing.SKIP:
            plan.skipped.append(Job(source, target))
        else:
            plan.failures.append(
                (source, f"its output {target} exists already (--overwrite or --skip-existing)")
            )
    return plan


def _target(source: Path, naming: OutputNaming, *, alone: bool) -> Path:
    output = naming.output
    if output.suffix.lower() in VIDEO_SUFFIXES and not output.is_dir():
        if not alone:
            raise FlipnetError(f"-o {output}: it names one clip, but there are several inputs; give a folder")
        if naming.suffix:
            raise FlipnetError(f"-o {output}: it names the result itself, so leave out --suffix")
        if output.suffix.lower() not in WRITABLE_SUFFIXES:
            choices = ", ".join(suffix[1:] for suffix in WRITABLE_SUFFIXES)
            raise FlipnetError(
                f"-o {output}: {output.suffix} files cannot be written; choose one of {choices}"
            )
        return output
    suffix = source.suffix if source.suffix.lower() in WRITABLE_SUFFIXES else ".mp4"
    return output / f"{source.stem}{naming.suffix}{suffix}"


def restore_clip(job: Job, restorer: Restorer, detector: FaceDetector, options: VideoOptions) -> ClipRecord:
    """Restore one clip and return what happened; its errors are in there, and nothing is written then."""
    from flipnet.video.restore import restore_video

    started = time.perf_counter()
    record = ClipRecord(job.source, PhotoStatus.FAILED)
    try:
        make_folder(job.target.parent)
        with _frame_progress(job.source.name) as on_frame:
            record.result = restore_video(job.source, job.target, restorer, detector, options, on_frame)
        record.status, record.output = PhotoStatus.RESTORED, job.target
    except FlipnetError as error:
        record.cause = str(error).removeprefix(f"{job.source}: ")
    except MemoryError:
        record.cause = "not enough memory for this clip"
    record.seconds = time.perf_counter() - started
    return record


@contextmanager
def _frame_progress(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show frames done and frames per second on stderr; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TextColumn("{task.fields[speed]:.1f} frames/s"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None, speed=0.0)
        started = time.perf_counter()

        def show(done: int, total: int | None) -> None:
            speed = done / (time.perf_counter() - started)
            progress.update(task, completed=done, total=total, speed=speed)

        yield show


def _refuse_photo_options(settings: RestoreSettings) -> None:
    for entry in fields(settings):
        default = entry.default_factory() if entry.default_factory is not MISSING else entry.default
        if entry.name not in _HONOURED and getattr(settings, entry.name) != default:
            raise FlipnetError(f"--{entry.name.replace('_', '-')} is for photos, leave it out for clips")


def _options(settings: RestoreSettings, detect_every: int) -> VideoOptions:
    from flipnet.provenance import statement
    from flipnet.video.results import VideoOptions

    keep = not settings.strip_metadata
    return VideoOptions(
        select=settings.finding.selection(),
        blend=settings.blend,
        upscale=settings.upscale,
        batch_size=settings.batch_size,
        seed=settings.seed,
        quality=settings.quality,
        detect_every=detect_every,
        keep_metadata=keep,
        comment=statement(settings.model) if keep else "",
    )


def _load(settings: RestoreSettings, jobs: Sequence[Job]) -> FaceRestorer:
    for job in jobs:
        make_folder(job.target.parent)
    from flipnet.pipelines.restore import FaceRestorer

    return FaceRestorer.from_checkpoint(
        settings.model, phi=settings.phi, steps=settings.steps, device=settings.device
    )


def _run_as_json(
    settings: RestoreSettings, options: VideoOptions, restorer: FaceRestorer | None, records: list[ClipRecord]
) -> dict[str, Any]:
    from flipnet.provenance import NOT_EVIDENCE

    used: dict[str, Any] = {"model": settings.model, "device": settings.device, "steps": settings.steps}
    if restorer is not None:
        used = {"model": restorer.model_name, "device": str(restorer.device), "steps": restorer.steps}
    return {
        "flipnet": __version__,
        "note": NOT_EVIDENCE,
        "settings": {**asdict(options), "phi": settings.phi, **used},
        "totals": {status.value: sum(r.status is status for r in records) for status in PhotoStatus},
        "videos": [record.as_json() for record in records],
    }


def _print_summary(records: Sequence[ClipRecord]) -> None:
    for record in records:
        for warning in record.result.warnings if record.result else ():
            typer.echo(f"{record.source}: {warning}", err=True)
    for record in records:
        if record.result is not None:
            typer.echo(f"{record.output}: {_in_words(record.result)}")
    done = sum(record.status is PhotoStatus.RESTORED for record in records)
    skipped = sum(record.status is PhotoStatus.SKIPPED for record in records)
    failures = [record for record in records if record.status is PhotoStatus.FAILED]
    typer.echo(f"{done} of {count(len(records), 'clip')} restored, {skipped} skipped, {len(failures)} failed")
    for record in failures:
        typer.echo(f"{record.source}: {one_line(record.cause)}", err=True)


def _in_words(result: VideoResult) -> str:
    return (
        f"faces restored in {result.frames_restored} of {count(result.frames, 'frame')} "
        f"({count(len(result.tracks), 'face')} followed, found in {result.frames_with_faces}), "
        f"{result.frames / max(result.seconds, 1e-9):.1f} frames/s, {result.encoder}, sound: {result.sound}"
    )
