"""Progress bars for photos and faces on stderr; silent where stderr is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from flipnet.faces.photo import FaceResult


class RestoreProgress:
    """Two bars, one for the photos of the run and one for the faces of the current photo."""

    def __init__(self, progress: Progress, photos: int, what: str) -> None:
        self._progress = progress
        self._photos: TaskID = progress.add_task(what, total=photos)
        self._faces: TaskID = progress.add_task("faces", total=None, visible=False)

    def faces_found(self, count: int) -> None:
        """Start the bar of the current photo's faces."""
        self._progress.update(self._faces, completed=0, total=count, visible=True)

    def face_done(self, result: FaceResult) -> None:
        """Count one face, whatever became of it."""
        self._progress.advance(self._faces)

    def photo_done(self) -> None:
        """Move on to the next photo."""
        self._progress.advance(self._photos)
        self._progress.update(self._faces, visible=False)


@contextmanager
def restore_progress(photos: int, what: str = "photos") -> Iterator[RestoreProgress]:
    """Show progress while the block runs; `photos` is how many will be tried, `what` the name of the bar."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield RestoreProgress(progress, photos, what)
