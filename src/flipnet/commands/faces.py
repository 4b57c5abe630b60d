"""`flipnet faces`: which faces a photo has, which would be restored, and why the others not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from flipnet.commands.finding import FindingSettings, face_finder
from flipnet.commands.inputs import read_input
from flipnet.commands.outputs import Existing, OutputNaming, make_folder, plan_outputs
from flipnet.commands.report import count, geometry_as_json, one_line, write_json
from flipnet.images import Photo, find_images, to_8_bit, write_photo
from flipnet.types import Face, FaceDetector, FlipnetError

if TYPE_CHECKING:
    from flipnet.faces.selection import FaceSelection


@dataclass(frozen=True)
class FacesSettings:
    """What `flipnet faces` was asked to do; each field is the option of the same name."""

    output: Path | None = None
    json: Path | None = None
    overwrite: bool = False
    finding: FindingSettings = field(default_factory=FindingSettings)


@dataclass(frozen=True)
class FoundFaces:
    """One photo's faces, and for each why it would be left alone (None: it would be restored)."""

    photo: Photo
    faces: tuple[Face, ...]
    reasons: tuple[str | None, ...]


def list_faces(inputs: Sequence[Path], settings: FacesSettings) -> bool:
    """Print a table of every photo's faces; write numbered pictures and JSON where asked.

    Returns:
        Whether every photo could be read and has a face.

    Raises:
        FlipnetError: the run cannot start, or a file cannot be written.
    """
    targets = _targets(inputs, settings)
    finder, selection = face_finder(settings.finding), settings.finding.selection()
    document: dict[str, list[dict[str, Any]]] = {}
    failures = []
    for source, target in targets.items():
        try:
            found = find_faces(source, finder(source), selection)
            _print_table(source, found)
            if target is not None:
                _write_annotated(target, found)
            document[str(source)] = [
                face_as_json(i, f, r) for i, (f, r) in enumerate(zip(found.faces, found.reasons, strict=True))
            ]
        except FlipnetError as error:
            failures.append(f"{source}: {one_line(str(error).removeprefix(f'{source}: '))}")
    if settings.json is not None:
        write_json(settings.json, _by_name(document))
    for line in failures:
        typer.echo(line, err=True)
    return not failures


def find_faces(source: Path, detector: FaceDetector, selection: FaceSelection) -> FoundFaces:
    """Find the faces of a photo file and say which would be restored.

    Raises:
        FlipnetError: the photo cannot be read, has no face, or lacks a face that was named.
    """
    from flipnet.faces.photo import NoFacesError
    from flipnet.faces.selection import reasons_to_skip

    photo, _ = read_input(source)
    faces = detector(to_8_bit(photo.pixels))
    if not faces:
        raise NoFacesError("no face was found in the photo")
    reasons = reasons_to_skip(faces, photo.pixels.shape, selection)
    return FoundFaces(photo, tuple(faces), tuple(reasons))


def face_as_json(index: int, face: Face, reason: str | None) -> dict[str, Any]:
    """Return one face as JSON types; `--boxes` reads the same form. Lengths in pixels of the upright photo."""
    from flipnet.faces.selection import eye_distance_px, size_px

    return {
        "index": index,
        **geometry_as_json(face),
        "size_px": round(size_px(face), 1),
        "eye_distance_px": round(eye_distance_px(face), 1),
        "restored": reason is None,
        "reason": reason,
        "notes": list(face.notes),
    }


def _targets(inputs: Sequence[Path], settings: FacesSettings) -> dict[Path, Path | None]:
    """Each photo, and the path of its numbered picture if one is wanted."""
    if settings.output is None:
        return {path: None for given in inputs for path in find_images(given)}
    existing = Existing.OVERWRITE if settings.overwrite else Existing.FAIL
    plan = plan_outputs(inputs, OutputNaming(settings.output), existing)
    for source, cause in plan.failures:
        raise FlipnetError(f"{source}: {cause.replace(' or --skip-existing', '')}")
    return {job.source: job.target for job in plan.jobs}


def _write_annotated(target: Path, found: FoundFaces) -> None:
    from flipnet.faces.overlay import annotate_faces

    make_folder(target.parent)
    write_photo(target, annotate_faces(found.photo, found.faces, found.reasons))


def _print_table(source: Path, found: FoundFaces) -> None:
    from flipnet.faces.selection import eye_distance_px, size_px

    height, width = found.photo.pixels.shape[:2]
    typer.echo(f"{source}: {count(len(found.faces), 'face')}, {width}x{height} pixels")
    table = Table()
    for heading in ("face", "box x0 y0 x1 y1", "score", "size", "eyes"):
        table.add_column(heading, justify="right")
    table.add_column("restored")
    for index, (face, reason) in enumerate(zip(found.faces, found.reasons, strict=True)):
        box = " ".join(f"{value:.0f}" for value in face.box_px)
        verdict = "yes" if reason is None else f"no: {reason}"
        table.add_row(
            *(str(index), box, f"{face.score:.2f}", f"{size_px(face):.0f} px"),
            f"{eye_distance_px(face):.0f} px",
            "; ".join((verdict, *face.notes)),
        )
    console = Console()
    # A pipe has no width; cutting the reasons off would hide what the table is for.
    console.print(table, width=None if console.is_terminal else 160)


def _by_name(document: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Key the photos by file name, unless two share one."""
    names = [Path(path).name for path in document]
    return (
        dict(document) if len(set(names)) < len(names) else dict(zip(names, document.values(), strict=True))
    )
