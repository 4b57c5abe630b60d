"""What `flipnet degrade` says about its results, in the report and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flipnet import __version__
from flipnet.commands.report import one_line

if TYPE_CHECKING:
    from flipnet.evaluation.content import ContentChange


class ResultStatus(StrEnum):
    """What became of one result; SKIPPED: not tried, it is there already."""

    WRITTEN = "written"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass
class ResultRecord:
    """One result's part of the report.

    Attributes:
        source: the input file.
        status: what became of it.
        key: relative name without extension, "/" between folders, with the variant's number; None for an
            input that cannot be tried at all.
        seed: what the method was given.
        output: the PNG file or the folder of shards; None where nothing was written.
        cause: why it is a failure, else None.
        warnings: sentences about the input.
        seconds: the method's time for it (its batch's divided by the batch's results).
        parameters: what a naive recipe drew.
        content: what `--measure` found.
    """

    source: Path
    status: ResultStatus
    key: str | None = None
    seed: int | None = None
    output: Path | None = None
    cause: str | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    parameters: dict[str, Any] | None = None
    content: ContentChange | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return {
            "input": str(self.source),
            "key": self.key,
            "output": None if self.output is None else str(self.output),
            "status": self.status.value,
            "cause": self.cause,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "warnings": self.warnings,
            "parameters": self.parameters,
            "content": None if self.content is None else asdict(self.content),
        }


def run_as_json(settings: dict[str, Any], records: Sequence[ResultRecord]) -> dict[str, Any]:
    """Return the whole report: version, the settings that held for every result, totals, and the results."""
    totals = {status.value: sum(record.status is status for record in records) for status in ResultStatus}
    return {
        "flipnet": __version__,
        "settings": settings,
        "totals": totals,
        "results": [record.as_json() for record in records],
    }


def print_summary(records: Sequence[ResultRecord], output: Path, *, seeds: bool) -> None:
    """Print seeds (if asked) and warnings, then the totals, then the failures, so that these stay in sight."""
    totals = {status: [record for record in records if record.status is status] for status in ResultStatus}
    written, failed = totals[ResultStatus.WRITTEN], totals[ResultStatus.FAILED]
    if seeds:
        for record in written:
            typer.echo(f"{record.output} seed {record.seed}")
    for line in dict.fromkeys(f"{r.source}: {warning}" for r in records for warning in r.warnings):
        typer.echo(line, err=True)
    typer.echo(
        f"{len(written)} of {len(records)} results written, {len(totals[ResultStatus.SKIPPED])} skipped, "
        f"{len(failed)} failed; results in {output}"
    )
    for line in dict.fromkeys(f"{record.source}: {one_line(record.cause)}" for record in failed):
        typer.echo(line, err=True)
