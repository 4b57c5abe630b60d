"""The machine-readable record of a run: what happened to every photo and every face in it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flipnet import __version__
from flipnet.provenance import NOT_EVIDENCE
from flipnet.types import Face, Findings, FlipnetError, Likeness

if TYPE_CHECKING:
    from flipnet.faces.photo import FaceResult


class PhotoStatus(StrEnum):
    """What became of one input photo.

    RESTORED: written, every chosen face restored. PARTIAL: written, but at least one chosen face could not be
    restored and is still the photo's own; counts as failed. FAILED: nothing written. SKIPPED: not tried, its
    output exists.
    """

    RESTORED = "restored"
    PARTIAL = "partial"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass
class PhotoRecord:
    """One photo's part of the report.

    Attributes:
        source: the input file.
        status: what became of it.
        output: the result's path; None where nothing was written.
        cause: why it is a failure, else None.
        seconds: wall-clock seconds from reading to writing.
        faces: the faces' outcomes, without pixels.
        warnings: sentences about the file itself.
    """

    source: Path
    status: PhotoStatus
    output: Path | None = None
    cause: str | None = None
    seconds: float = 0.0
    faces: list[FaceResult] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def is_failure(self) -> bool:
        """Whether the photo makes the run's exit code 1."""
        return self.status in (PhotoStatus.FAILED, PhotoStatus.PARTIAL)

    def as_json(self, phi: float) -> dict[str, Any]:
        """Return the record as JSON types; `phi` is the run's boosting weight."""
        return {
            "input": str(self.source),
            "output": None if self.output is None else str(self.output),
            "status": self.status.value,
            "cause": self.cause,
            "seconds": round(self.seconds, 3),
            "warnings": self.warnings,
            "faces": [face_as_json(face, phi) for face in self.faces],
        }


def without_pixels(result: FaceResult) -> FaceResult:
    """Return the outcome without its pictures, so that a long run does not keep every face in memory."""
    nothing = np.empty((0, 0, 3), np.uint8)
    findings = result.findings
    if findings is not None:
        findings = replace(findings, spread=np.empty((0, 0), np.float32))
    return replace(result, crop=nothing, restored=None, findings=findings)


def face_as_json(result: FaceResult, phi: float) -> dict[str, Any]:
    """Return one face's outcome as JSON types.

    Box and landmarks are (x, y) in pixels of the upright input photo (of the crop itself, if aligned); `seed`
    and `phi` are null for a face the network never saw.
    """
    return {
        "index": result.index,
        "status": result.status,
        "reason": result.reason,
        **geometry_as_json(result.face),
        "scale": round(result.scale, 4),
        "seconds": round(result.seconds, 3),
        "phi": None if result.seed is None else phi,
        "seed": result.seed,
        "warnings": list(result.warnings),
        "likeness": None if result.likeness is None else _likeness_as_json(result.likeness),
        "samples": None if result.findings is None else _findings_as_json(result.findings),
    }


def geometry_as_json(face: Face) -> dict[str, Any]:
    """Return a face's box, landmarks and score as JSON types, (x, y) in pixels of the upright photo."""
    return {
        "box_px": [round(float(value), 2) for value in face.box_px],
        "landmarks_px": [[round(float(value), 2) for value in point] for point in face.landmarks_px],
        "score": round(float(face.score), 4),
    }


def _likeness_as_json(likeness: Likeness) -> dict[str, Any]:
    return {
        "similarity": round(likeness.similarity, 4),
        "threshold": likeness.threshold,
        "method": likeness.method,
        "low": likeness.is_low,
    }


def _findings_as_json(findings: Findings) -> dict[str, Any]:
    consistency = findings.consistency
    return {
        "count": len(findings.seeds),
        "seeds": list(findings.seeds),
        "chosen": findings.chosen,
        "spread_mean_levels": round(findings.spread_mean_levels, 2),
        "spread_p95_levels": round(findings.spread_p95_levels, 2),
        "flip_consistency_levels": None
        if consistency is None
        else [round(value, 3) for value in consistency],
    }


def run_as_json(settings: dict[str, Any], records: list[PhotoRecord]) -> dict[str, Any]:
    """Return the whole report: version, what to think of it, settings of every face, totals, and the photos."""
    totals = {status.value: sum(record.status is status for record in records) for status in PhotoStatus}
    return {
        "flipnet": __version__,
        "note": NOT_EVIDENCE,
        "settings": settings,
        "totals": totals,
        "photos": [record.as_json(settings["phi"]) for record in records],
    }


def count(number: int, noun: str) -> str:
    """Return "1 face", "2 faces"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def one_line(cause: str | None) -> str:
    """Return a cause on one line; torch's messages span several."""
    return " ".join((cause or "").split())


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write `document` as UTF-8 JSON, completely or not at all.

    File names that are no valid UTF-8 come back as they were through `json.load`.

    Raises:
        FlipnetError: the file cannot be written.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A lone surrogate becomes the JSON escape \udcXX, which is what stands for an undecodable byte.
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
        os.replace(temporary, path)
    except OSError as error:
        raise FlipnetError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)
