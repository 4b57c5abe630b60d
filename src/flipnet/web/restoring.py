"""Find the faces of an uploaded photo, restore the chosen ones, or restore a batch of photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flipnet.commands.demo import sample_photo
from flipnet.commands.faces import find_faces as faces_of
from flipnet.commands.inputs import read_input
from flipnet.commands.outputs import Existing, OutputNaming, plan_outputs
from flipnet.commands.outputs import Job as PlannedJob
from flipnet.commands.report import PhotoRecord, PhotoStatus, run_as_json, write_json
from flipnet.commands.restore import RestoreSettings, restore_job, with_samples
from flipnet.faces.overlay import annotate_faces
from flipnet.faces.selection import FaceSelection
from flipnet.pipelines.invention import SAMPLING_STEPS
from flipnet.pipelines.restore import FaceRestorer
from flipnet.types import Face, FaceDetector, FlipnetError, Mode
from flipnet.web.engine import Engine, OnProgress, silent
from flipnet.web.files import write_zip
from flipnet.web.jobs import Job, JobTimeoutError
from flipnet.web.options import RestoreOptions
from flipnet.web.pictures import preview, thumbnail

if TYPE_CHECKING:
    from flipnet.faces.photo import FaceResult

SUFFIX = "_restored"


@dataclass(frozen=True)
class FoundFaces:
    """The faces of a photo, numbered from 0 as everywhere in flipnet.

    Attributes:
        faces: where they are.
        picture: the photo with numbered boxes, PNG.
        thumbnails: one PNG per face, upright.
        reasons: one per face; why it would be left alone if all were to be restored, else None.
    """

    faces: tuple[Face, ...]
    picture: Path
    thumbnails: tuple[Path, ...]
    reasons: tuple[str | None, ...]


@dataclass(frozen=True)
class RestoredPhoto:
    """What one photo became.

    Attributes:
        before, after: PNG files of one size for looking at, at most `pictures.PREVIEW_PX` long.
        photo: the result at full size, in the upload's format where that can be written.
        faces: zip of every restored face before and after, at the model's native size, and of the full-size
            `uncertainty`.
        report: JSON, see `commands.report`.
        uncertainty: the photo with its spread over the samples as heat, PNG; None for one sample.
        record: the report's content.
    """

    before: Path
    after: Path
    photo: Path
    faces: Path
    report: Path
    uncertainty: Path | None
    record: PhotoRecord


@dataclass(frozen=True)
class RestoredPhotos:
    """What a batch became: a zip of the results (for several samples also where they differ) and the report, the
    report, and one record per upload.
    """

    archive: Path
    report: Path
    records: tuple[PhotoRecord, ...]


def sample(engine: Engine) -> Path:
    """Return the degraded sample photo as a fresh PNG file."""
    return preview(sample_photo(), engine.workspace.new_job() / "sample.png")


def find_faces(engine: Engine, upload: Path | str | None) -> FoundFaces:
    """Find the faces of an uploaded photo.

    Raises:
        FlipnetError: no readable photo within the limits, or no face in it.
    """
    with engine.folder() as folder:
        source = engine.workspace.take(upload, folder)
        found = faces_of(source, engine.detect, FaceSelection())
        pictures = [
            thumbnail(found.photo, face, folder / f"face{index}.png")
            for index, face in enumerate(found.faces)
        ]
        shown = preview(annotate_faces(found.photo, found.faces, found.reasons), folder / "faces.png")
        return FoundFaces(found.faces, shown, tuple(pictures), found.reasons)


def restore(
    engine: Engine,
    session: str,
    upload: Path | str | None,
    options: RestoreOptions,
    on_progress: OnProgress = silent,
) -> RestoredPhoto:
    """Restore the chosen faces of an uploaded photo as a job of `session`.

    Raises:
        FlipnetError: no readable photo within the limits, or no face of it could be restored.
        JobStoppedError: cancelled, or its time was up; no further face or step is computed.
    """
    with engine.job(session) as (folder, job):
        source = engine.workspace.take(upload, folder)
        settings = _settings(engine, options, folder, save_faces=True)
        planned = _plan(source, settings)
        record = _restore(engine, planned, settings, _Progress(job, on_progress, "faces"))
        if record.output is None:
            raise FlipnetError(str(record.cause))
        return _restored_photo(planned, settings, record, folder)


def restore_batch(
    engine: Engine,
    session: str,
    uploads: Sequence[Path | str],
    options: RestoreOptions,
    on_progress: OnProgress = silent,
) -> RestoredPhotos:
    """Restore several photos as one job of `session`, going on past those that fail.

    When its time is up, the photos not reached are failures too, and what was done is returned.

    Raises:
        FlipnetError: no photos, or too many.
        JobStoppedError: cancelled.
    """
    limit = engine.workspace.limits.photos
    if not 0 < len(uploads) <= limit:
        raise FlipnetError(f"choose 1 to {limit} photos, not {len(uploads)}")
    records = []
    with engine.job(session) as (folder, job):
        settings = _settings(engine, options, folder, save_faces=False)
        for number, upload in enumerate(uploads, 1):
            progress = _Progress(job, on_progress, f"faces, photo {number} of {len(uploads)}")
            records.append(_restore_one_of_batch(engine, upload, folder, settings, progress))
        report = _write_report(folder / "report.json", settings, records)
        results = sorted(settings.naming.output.glob("*"))
        archive = write_zip(folder / "restored.zip", [*results, report])
    return RestoredPhotos(archive, report, tuple(records))


def _settings(engine: Engine, options: RestoreOptions, folder: Path, *, save_faces: bool) -> RestoreSettings:
    own_steps = engine.steps[Mode.RESTORATION.value]
    if options.samples > 1:
        own_steps = max(own_steps, SAMPLING_STEPS)
    return RestoreSettings(
        naming=OutputNaming(folder / "out", suffix=SUFFIX),
        faces=options.faces,
        phi=options.phi,
        steps=options.steps or own_steps,
        samples=options.samples,
        uncertainty=options.samples > 1,
        seed=options.seed,
        blend=options.blend,
        save_faces=save_faces,
        model=engine.model_name,
        device=engine.device,
        batch_size=1,  # so that a job can stop between faces
    )


def _plan(source: Path, settings: RestoreSettings) -> PlannedJob:
    (planned,) = plan_outputs([source], settings.naming, Existing.FAIL, side_files=True).jobs
    return planned


def _restore(
    engine: Engine, planned: PlannedJob, settings: RestoreSettings, progress: _Progress
) -> PhotoRecord:
    faces = FaceRestorer(
        engine.pipeline, phi=settings.phi, steps=settings.steps, model_name=engine.model_name
    )
    restorer = with_samples(faces, settings)
    detector = progress.watching(engine.detect)
    record = restore_job(planned, settings, restorer, detector, progress.face_done, engine.likeness)
    # The visitor knows the photo by its name, and the server's folders are not the visitor's business.
    record.source = Path(record.source.name)
    record.output = None if record.output is None else Path(record.output.name)
    # Python collects warnings process-wide, so another visitor's may be among them; those name their file.
    root = str(engine.workspace.root)
    record.warnings = [warning for warning in record.warnings if root not in warning]
    return record


def _restore_one_of_batch(
    engine: Engine, upload: Path | str, folder: Path, settings: RestoreSettings, progress: _Progress
) -> PhotoRecord:
    name = Path(upload).name
    try:
        source = engine.workspace.take(upload, folder)
        return _restore(engine, _plan(source, settings), settings, progress)
    except (FlipnetError, JobTimeoutError) as error:
        return PhotoRecord(Path(name), PhotoStatus.FAILED, cause=str(error).removeprefix(f"{name}: "))


def _restored_photo(
    planned: PlannedJob, settings: RestoreSettings, record: PhotoRecord, folder: Path
) -> RestoredPhoto:
    before, _ = read_input(planned.source)
    after, _ = read_input(planned.target)
    faces = sorted(path for path in planned.target.parent.iterdir() if path != planned.target)
    overlay = None
    if settings.uncertainty:
        shown, _ = read_input(planned.uncertainty_path)
        overlay = preview(shown, folder / "uncertainty.png")
    return RestoredPhoto(
        before=preview(before, folder / "before.png"),
        after=preview(after, folder / "after.png"),
        photo=planned.target,
        faces=write_zip(folder / f"{planned.target.stem}_faces.zip", faces),
        report=_write_report(folder / f"{planned.target.stem}.json", settings, [record]),
        uncertainty=overlay,
        record=record,
    )


def _write_report(path: Path, settings: RestoreSettings, records: list[PhotoRecord]) -> Path:
    names = ("faces", "phi", "steps", "samples", "choose", "seed", "blend", "model", "device")
    write_json(path, run_as_json({name: getattr(settings, name) for name in names}, records))
    return path


class _Progress:
    """Tells how many of a photo's faces are done, and stops the job there if it shall not go on."""

    def __init__(self, job: Job, on_progress: OnProgress, what: str) -> None:
        self._job, self._on_progress, self._what = job, on_progress, what
        self._done = self._total = 0

    def watching(self, detector: FaceDetector) -> FaceDetector:
        """Return the detector, which now starts the count."""

        def detect(pixels: np.ndarray) -> list[Face]:
            self._job.check()
            faces = detector(pixels)
            self._total = len(faces)
            self._step(0)
            return faces

        return detect

    def face_done(self, result: FaceResult) -> None:
        """Count a face, whatever became of it."""
        self._step(1)

    def _step(self, faces: int) -> None:
        self._job.check()
        self._done += faces
        self._on_progress(self._done, self._total, self._what)
