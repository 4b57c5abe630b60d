"""`--engine ray`: the photos of `flipnet restore` and the faces of `flipnet degrade`, over a Ray cluster.

What happens to a photo or a face is `commands.restore` and `commands.degrade`; here is only who does it.
Workers read inputs and write results themselves, so every machine must see the input and output folders under
the same paths. Pairs for shards travel to the driver instead, the one writer of their folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flipnet.commands.degrade import DegradeRun, DegradeSettings, UsedMethod, load_for, result_record
from flipnet.commands.degrade_outputs import PairShards, PngFiles, Store, encoded_pair
from flipnet.commands.degrade_report import ResultRecord, ResultStatus
from flipnet.commands.outputs import Job, make_folder
from flipnet.commands.packed_inputs import PackedImage, PackedImages, image_of, unpacked
from flipnet.commands.progress import restore_progress
from flipnet.commands.report import PhotoRecord, PhotoStatus
from flipnet.commands.restore import JobRestorer, RestoreSettings, UsedModel
from flipnet.distributed import MAX_ATTEMPTS, Cluster, map_on_cluster
from flipnet.types import FlipnetError

if TYPE_CHECKING:
    from flipnet.commands.degrade_methods import Degraded
    from flipnet.commands.degrade_outputs import MadeBy
    from flipnet.data.shards import EncodedPair
    from flipnet.images import Photo

LOST = f"its worker process died {MAX_ATTEMPTS} times"


@dataclass(frozen=True)
class _Task:
    job: Job
    image: PackedImage | None


# ------------------------------------------------------------------------------------------ restoration


def restore_on_cluster(
    cluster: Cluster, jobs: Sequence[Job], settings: RestoreSettings, packed: PackedImages
) -> Iterator[tuple[PhotoRecord, UsedModel | None]]:
    """Restore photos on a cluster: a `RestoreEngine`, bound to its cluster.

    Raises FlipnetError where the run cannot go on: no cluster, no model.
    """
    tasks = [_Task(job, image_of(job, packed)) for job in jobs]
    results = map_on_cluster(tasks, partial(_RestoreWorker, settings), cluster, remember=True)
    with restore_progress(len(jobs)) as progress:
        for job, result in zip(jobs, results, strict=True):
            progress.photo_done()
            yield result or (PhotoRecord(job.source, PhotoStatus.FAILED, cause=LOST), None)


class _RestoreWorker:
    def __init__(self, settings: RestoreSettings) -> None:
        self._restore = JobRestorer(settings)

    def __call__(self, task: _Task) -> tuple[PhotoRecord, UsedModel]:
        source = task.job.source
        try:
            with unpacked(task.job, task.image) as job:
                record = self._restore(job, source)
        except FlipnetError as error:
            record = PhotoRecord(source, PhotoStatus.FAILED, cause=str(error))
        record.source = source
        return record, self._restore.used


# ------------------------------------------------------------------------------------------ degradation


@dataclass
class _Made:
    """What a worker hands over of one unit; `pairs` by key, for shards."""

    records: list[ResultRecord]
    pairs: dict[str, EncodedPair]
    used: UsedMethod


def degrade_on_cluster(
    cluster: Cluster,
    jobs: Sequence[Job],
    settings: DegradeSettings,
    packed: PackedImages,
    store: Store,
    records: list[ResultRecord],
) -> UsedMethod | None:
    """Degrade faces on a cluster: a `DegradeEngine`, bound to its cluster.

    Raises FlipnetError where the run cannot go on: no cluster, no model.
    """
    tasks = [_Task(job, image_of(job, packed)) for job in jobs]
    # All variants of a face, in whole batches, so that a face is read once and batches are those of one machine.
    size = settings.batch_size * -(-settings.variants // settings.batch_size)
    units = [tasks[first : first + size] for first in range(0, len(tasks), size)]
    remember = not isinstance(store, PairShards)
    results = map_on_cluster(units, partial(_DegradeWorker, settings), cluster, remember=remember)
    used = None
    try:
        with restore_progress(len(jobs), "results") as progress:
            for unit, made in zip(units, results, strict=True):
                if made is None:
                    lost = [result_record(task.job, settings, ResultStatus.FAILED) for task in unit]
                    for record in lost:
                        record.cause = LOST
                    records += lost
                else:
                    records += made.records
                    used = made.used
                    _store_pairs(made, store)
                for _ in unit:
                    progress.photo_done()
    finally:
        store.close()
    return used


def _store_pairs(made: _Made, store: Store) -> None:
    for record in made.records:
        if isinstance(store, PairShards) and record.key in made.pairs:
            try:
                store.add(record, made.pairs[record.key])
            except FlipnetError as error:
                record.cause = str(error)


@dataclass
class _EncodedPairs:
    """A `Store` that keeps what would go into a shard."""

    pairs: dict[str, EncodedPair] = field(default_factory=dict)

    def write(self, record: ResultRecord, target: Path, hq: Photo, result: Degraded, by: MadeBy) -> None:
        """See `Store`; the record is marked as written when the shard has it."""
        self.pairs[record.key or ""] = encoded_pair(record, result, by)

    def close(self) -> None:
        """Nothing is unfinished."""


class _DegradeWorker:
    def __init__(self, settings: DegradeSettings) -> None:
        make_folder(settings.output)
        method = load_for(settings)
        self._settings, self._records = settings, list[ResultRecord]()
        self._store = PngFiles() if settings.shards is None else _EncodedPairs()
        self._run = DegradeRun(settings, method, self._store, self._records)
        self._used = UsedMethod(method.as_json(), method.native_size_px)

    def __call__(self, unit: Sequence[_Task]) -> _Made:
        self._records.clear()
        jobs, files = [], dict[Path, Path]()
        with ExitStack() as stack:
            for task in unit:
                source = task.job.source
                try:
                    if source not in files:
                        files[source] = stack.enter_context(unpacked(task.job, task.image)).source
                    jobs.append(replace(task.job, source=files[source]))
                except FlipnetError as error:
                    record = result_record(task.job, self._settings, ResultStatus.FAILED)
                    record.cause = str(error)
                    self._records.append(record)
            self._run.degrade(jobs)
        sources = {file: source for source, file in files.items()}
        for record in self._records:
            record.source = sources.get(record.source, record.source)
        pairs: dict[str, EncodedPair] = {}
        if isinstance(self._store, _EncodedPairs):
            pairs, self._store.pairs = self._store.pairs, {}
        return _Made(list(self._records), pairs, self._used)
