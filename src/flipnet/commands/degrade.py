"""`flipnet degrade`: several bad versions of every clean face, as PNG files or as shards of pairs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from flipnet.commands.degrade_methods import NETWORK, Method, check_method, load_method
from flipnet.commands.degrade_outputs import PairShards, PngFiles, Store
from flipnet.commands.degrade_report import ResultRecord, ResultStatus, print_summary, run_as_json
from flipnet.commands.inputs import native_crop, read_input
from flipnet.commands.outputs import (
    Existing,
    Job,
    OutputNaming,
    Plan,
    make_folder,
    plan_outputs,
    refuse_report_over_image,
)
from flipnet.commands.packed_inputs import PackedImages, packed_images
from flipnet.commands.progress import restore_progress
from flipnet.commands.report import write_json
from flipnet.images import Photo
from flipnet.types import FlipnetError

if TYPE_CHECKING:
    from flipnet.evaluation.content import ContentChange, ContentReference


@dataclass(frozen=True)
class DegradeSettings:
    """What `flipnet degrade` was asked to do; each field is the option of the same name."""

    output: Path
    variants: int = 1
    method: str = NETWORK
    existing: Existing = Existing.FAIL
    seed: int = 0
    phi: float = 1.0
    steps: int | None = None
    model: str = "compact"
    device: str = "auto"
    batch_size: int = 1
    shards: int | None = None
    measure: bool = False
    report: Path | None = None


def result_seed(seed: int, key: str) -> int:
    """Return a result's own seed, a pure function of the run's seed and the result's key.

    Our choice: 48 bits, which every JSON reader keeps exactly; other inputs and variants change nothing.
    """
    digest = hashlib.blake2b(f"{seed} {key}".encode("utf-8", "surrogateescape"), digest_size=6)
    return int.from_bytes(digest.digest(), "big")


@dataclass(frozen=True)
class UsedMethod:
    """What the settings' method, "auto" and defaults came to; see `degrade_methods.Method`."""

    made_by: Mapping[str, Any]
    native_size_px: int


DegradeEngine = Callable[
    [Sequence[Job], DegradeSettings, PackedImages, Store, list[ResultRecord]], UsedMethod | None
]
"""Degrades jobs elsewhere, adds what happened to the records, and returns with what method where that is known."""


def degrade_inputs(
    inputs: Sequence[Path], settings: DegradeSettings, engine: DegradeEngine | None = None
) -> bool:
    """Degrade every face below `inputs`, write results and report, and print seeds and a summary.

    Args:
        engine: who degrades the faces, which may then be packed in files; None is this process.

    Returns:
        Whether every result was written or skipped as asked.

    Raises:
        FlipnetError: the run cannot start (clashing outputs, unknown method or model, unwritable folder).
    """
    check_method(settings.method)
    naming = OutputNaming(settings.output, extension="png", variants=settings.variants)
    # In shards nothing is replaced, and what is there is known by key, not by file.
    existing = Existing.OVERWRITE if settings.shards else settings.existing
    packed = packed_images(inputs) if engine else {}
    names = {path: tuple(images) for path, images in packed.items()}
    plan = plan_outputs(inputs, naming, existing, packed=names)
    refuse_report_over_image(plan, settings.report)
    store: Store = PngFiles()
    if settings.shards:
        store = PairShards(settings.output, settings.shards)
        plan = _without_stored(plan, store.done, settings)
    records = [ResultRecord(path, ResultStatus.FAILED, cause=cause) for path, cause in plan.failures]
    records += [result_record(job, settings, ResultStatus.SKIPPED) for job in plan.skipped]
    used: UsedMethod | None = None
    try:
        if plan.jobs:
            make_folder(settings.output)
        if plan.jobs and engine is not None:
            used = engine(plan.jobs, settings, packed, store, records)
        elif plan.jobs:
            method = load_for(settings)
            used = UsedMethod(method.as_json(), method.native_size_px)
            DegradeRun(settings, method, store, records).degrade(plan.jobs)
    except KeyboardInterrupt:
        written = sum(record.status is ResultStatus.WRITTEN for record in records)
        typer.echo(f"interrupted; {written} results are in place", err=True)
        raise
    finally:
        # Also after Ctrl-C: the report then covers what was finished.
        if settings.report is not None:
            write_json(settings.report, run_as_json(_settings_as_json(settings, used), records))
    print_summary(records, settings.output, seeds=settings.shards is None)
    return not any(record.status is ResultStatus.FAILED for record in records)


def _without_stored(plan: Plan, done: set[str], settings: DegradeSettings) -> Plan:
    """Take the results out of the plan that the shards hold already."""
    reduced = Plan(failures=plan.failures)
    for job in plan.jobs:
        key = _key(job, settings)
        if key not in done:
            reduced.jobs.append(job)
        elif settings.existing is Existing.SKIP:
            reduced.skipped.append(job)
        else:
            cause = f"its pair '{key}' is in the shards of {settings.output} already (--skip-existing)"
            reduced.failures.append((job.source, cause))
    return reduced


def load_for(settings: DegradeSettings) -> Method:
    """Load the method that the settings name; FlipnetError when it cannot be had."""
    return load_method(
        settings.method,
        phi=settings.phi,
        steps=settings.steps,
        model=settings.model,
        device=settings.device,
    )


def _key(job: Job, settings: DegradeSettings) -> str:
    return job.target.relative_to(settings.output).with_suffix("").as_posix()


def result_record(job: Job, settings: DegradeSettings, status: ResultStatus) -> ResultRecord:
    """Return the record of a result, before it is made."""
    key = _key(job, settings)
    record = ResultRecord(job.source, status, key, result_seed(settings.seed, key))
    if status is ResultStatus.SKIPPED:
        record.output = settings.output if settings.shards else job.target
    return record


@dataclass(frozen=True)
class _Task:
    job: Job
    record: ResultRecord
    photo: Photo
    face: np.ndarray


class DegradeRun:
    """The results of one run, made batch by batch; what fails is recorded and the rest goes on."""

    def __init__(
        self, settings: DegradeSettings, method: Method, store: Store, records: list[ResultRecord]
    ) -> None:
        self._settings, self._method, self._store, self._records = settings, method, store, records
        self._made_by = method.as_json()
        self._input = _InputReader(method.native_size_px)
        self._content = _Content() if settings.measure else None

    def degrade(self, jobs: Sequence[Job]) -> None:
        """Make the results of all jobs; those of one input follow each other, so it is read once."""
        batch: list[_Task] = []
        try:
            with restore_progress(len(jobs), "results") as progress:
                for index, job in enumerate(jobs):
                    task = self._task(job)
                    if task is not None:
                        batch.append(task)
                    if len(batch) == self._settings.batch_size or index == len(jobs) - 1:
                        self._degrade_batch(batch)
                        batch = []
                    progress.photo_done()
        finally:
            self._store.close()

    def _task(self, job: Job) -> _Task | None:
        record = result_record(job, self._settings, ResultStatus.FAILED)
        try:
            photo, face, record.warnings = self._input.read(job.source)
        except (FlipnetError, MemoryError) as error:
            record.cause = _cause(job.source, error)
            self._records.append(record)
            return None
        return _Task(job, record, photo, face)

    def _degrade_batch(self, batch: Sequence[_Task]) -> None:
        if not batch:
            return
        started = time.perf_counter()
        results = self._method([task.face for task in batch], [task.record.seed or 0 for task in batch])
        seconds = (time.perf_counter() - started) / len(batch)
        for task, result in zip(batch, results, strict=True):
            record = task.record
            record.seconds, record.parameters, record.cause = seconds, result.parameters, result.cause
            self._records.append(record)
            if result.lq is None:
                continue
            try:
                if self._content is not None:
                    record.content = self._content.change(task.face, result.lq)
                self._store.write(record, task.job.target, task.photo, result, self._made_by)
            except (FlipnetError, MemoryError) as error:
                record.cause = _cause(record.source, error)


def _cause(source: Path, error: FlipnetError | MemoryError) -> str:
    return str(error).removeprefix(f"{source}: ") or "not enough memory for this picture"


class _InputReader:
    """Reads inputs and keeps the last one, whose other variants come next."""

    def __init__(self, size_px: int) -> None:
        self._size_px = size_px
        self._path: Path | None = None
        self._outcome: tuple[Photo, np.ndarray, list[str]] | FlipnetError | MemoryError

    def read(self, path: Path) -> tuple[Photo, np.ndarray, list[str]]:
        """Return the photo, its face at native size, and warnings; raises what reading it raised."""
        if path != self._path:
            self._path = path
            try:
                photo, warnings = read_input(path)
                face, notes = native_crop(photo, self._size_px)
                self._outcome = photo, face, warnings + notes
            except (FlipnetError, MemoryError) as error:
                self._outcome = error
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


class _Content:
    """The content check, looking at each clean face once."""

    def __init__(self) -> None:
        from flipnet.evaluation.content import ContentCheck

        self._check = ContentCheck()
        self._face: np.ndarray | None = None
        self._reference: ContentReference

    def change(self, face: np.ndarray, lq: np.ndarray) -> ContentChange:
        if face is not self._face:
            self._face, self._reference = face, self._check.reference(face)
        return self._check.compare(self._reference, lq)


def _settings_as_json(settings: DegradeSettings, used: UsedMethod | None) -> dict[str, Any]:
    names = ("method", "variants", "seed", "phi", "steps", "model", "device", "batch_size", "shards")
    asked = {name: getattr(settings, name) for name in names}
    return asked if used is None else asked | dict(used.made_by) | {"size_px": used.native_size_px}
