"""What the page says about results, in Markdown; whatever came from a file name is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

from flipnet.commands.report import PhotoRecord, count
from flipnet.commands.restore import notes


def summary_of(record: PhotoRecord) -> str:
    """Say what became of a photo's faces."""
    restored = sum(face.status == "restored" for face in record.faces)
    lines = [f"{restored} of {count(len(record.faces), 'face')} restored in {record.seconds:.1f} s."]
    lines += [] if record.cause is None else [record.cause]
    return _bullets([*lines, *notes(record)])


def list_of(records: Sequence[PhotoRecord]) -> str:
    """Say what became of each photo of a batch; failures stand among all others."""
    failed = sum(record.is_failure for record in records)
    lines = [f"{len(records) - failed} of {count(len(records), 'photo')} restored, {failed} failed."]
    for record in records:
        outcome = f"{record.source}: {record.status.value}"
        if record.faces:
            outcome += f", {count(len(record.faces), 'face')} found"
        lines.append(outcome if record.cause is None else f"{outcome}; {record.cause}")
    return _bullets(lines)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {html.escape(' '.join(line.split()), quote=False)}" for line in lines)
