"""Degrade a clean face: the network's other mode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flipnet.commands.degrade import result_seed
from flipnet.commands.degrade_methods import NETWORK, Degraded
from flipnet.commands.degrade_outputs import PngFiles
from flipnet.commands.degrade_report import ResultRecord, ResultStatus, run_as_json
from flipnet.commands.inputs import native_crop, read_input
from flipnet.commands.report import write_json
from flipnet.faces.align import align, estimate_similarity
from flipnet.images import Photo, faces_to_tensor, tensor_to_uint8, to_8_bit
from flipnet.pipelines.degrade import FaceDegrader
from flipnet.types import FlipnetError
from flipnet.web.engine import Engine, OnProgress, silent
from flipnet.web.files import write_zip
from flipnet.web.options import DegradeOptions
from flipnet.web.pictures import preview


@dataclass(frozen=True)
class DegradedFace:
    """What a clean face became.

    Attributes:
        face: the clean face as the network saw it, PNG.
        variants: its bad versions, PNG, at the model's native size.
        archive: zip of `face`, `variants` and the report.
        records: one per variant, those that failed included.
    """

    face: Path
    variants: tuple[Path, ...]
    archive: Path
    records: tuple[ResultRecord, ...]


def degrade(
    engine: Engine,
    session: str,
    upload: Path | str | None,
    options: DegradeOptions,
    on_progress: OnProgress = silent,
) -> DegradedFace:
    """Make bad versions of an uploaded clean face as a job of `session`.

    Name and seed of the upload give the seeds of the versions as in `flipnet degrade`, so the same file gives
    the same results there.

    Raises:
        FlipnetError: no readable picture within the limits, no face in it, or a model without the mode.
        JobStoppedError: cancelled, or its time was up.
    """
    with engine.job(session) as (folder, job):
        source = engine.workspace.take(upload, folder)
        photo, warnings = read_input(source)
        degrader = FaceDegrader(
            engine.pipeline, phi=options.phi, steps=options.steps or None, model_name=engine.model_name
        )
        face, notes = _clean_face(engine, photo, degrader.native_size_px, options.find_face)
        records = []
        for number in range(options.variants):
            job.check()
            on_progress(number, options.variants, "variants")
            key = f"{source.stem}_{number:02}"
            record = ResultRecord(Path(source.name), ResultStatus.FAILED, key, result_seed(options.seed, key))
            record.warnings = warnings + notes
            _write_variant(degrader, face, photo, record, folder / f"{key}.png")
            records.append(record)
        clean = preview(Photo(face, icc_profile=photo.icc_profile), folder / f"{source.stem}_clean.png")
        return _degraded_face(engine, options, clean, records)


def _clean_face(engine: Engine, photo: Photo, size_px: int, find: bool) -> tuple[np.ndarray, list[str]]:
    """The largest face, or the whole picture, as uint8 (S, S, 3), and sentences on what that took."""
    if not find:
        return native_crop(photo, size_px)
    faces = engine.detect(to_8_bit(photo.pixels))
    if not faces:
        raise FlipnetError("no face was found; if the picture is one aligned face, untick 'find the face'")
    crop = align(photo.pixels, estimate_similarity(faces[0].landmarks_px, size_px), size_px)
    return np.rint(crop * 255).astype(np.uint8), []


def _write_variant(
    degrader: FaceDegrader, face: np.ndarray, photo: Photo, record: ResultRecord, path: Path
) -> None:
    result = degrader(faces_to_tensor(face), [record.seed or 0])
    if not result.isfinite().all():
        record.cause = "the network returned values that are not finite"
        return
    PngFiles().write(record, path, photo, Degraded(face, tensor_to_uint8(result)[0]), {})


def _degraded_face(
    engine: Engine, options: DegradeOptions, clean: Path, records: list[ResultRecord]
) -> DegradedFace:
    variants = tuple(record.output for record in records if record.output is not None)
    if not variants:
        raise FlipnetError(str(records[0].cause))
    for record in records:
        # The server's folders are not the visitor's business.
        record.output = None if record.output is None else Path(record.output.name)
    settings = options.model_dump() | {
        "method": NETWORK, "model": engine.model_name, "device": engine.device,
    }  # fmt: skip
    report = clean.with_name("report.json")
    write_json(report, run_as_json(settings, records))
    archive = write_zip(clean.with_name("degraded.zip"), [clean, *variants, report])
    return DegradedFace(clean, variants, archive, tuple(records))
