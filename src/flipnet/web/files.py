"""The app's own temporary folder: uploads, one folder per job, results, and their end."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from flipnet.types import FlipnetError
from flipnet.web.limits import MEGABYTE, Limits


class Workspace:
    """A temporary folder that nobody but the app's user can enter; the only files the app ever serves.

    Gradio finds its place for uploads in the environment, so making a workspace sets GRADIO_TEMP_DIR and
    GRADIO_EXAMPLES_CACHE for the whole process.

    Attributes:
        root: the folder, resolved.
        limits: bounds on what may lie in it.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.root = Path(tempfile.mkdtemp(prefix="flipnet-web-")).resolve()
        self._jobs = self.root / "jobs"
        self._jobs.mkdir()
        os.environ["GRADIO_TEMP_DIR"] = str(self.root)
        os.environ["GRADIO_EXAMPLES_CACHE"] = str(self.root / "examples")

    def new_job(self) -> Path:
        """Return a new empty folder with a name that cannot be guessed."""
        return Path(tempfile.mkdtemp(dir=self._jobs))

    def take(self, upload: str | os.PathLike[str] | None, job: Path) -> Path:
        """Give a job its own link to an uploaded photo, which then outlives the upload.

        Returns:
            Path below `job`, with the upload's file name; a second file of that stem gets a number.

        Raises:
            FlipnetError: no upload, one outside the workspace, one that is gone, or one above a limit.
        """
        if upload is None:
            raise FlipnetError("choose a photo first")
        source = Path(upload).resolve()
        if not source.is_relative_to(self.root):
            raise FlipnetError(f"{source.name}: this is not an uploaded file")
        if not source.is_file():
            raise FlipnetError(f"{source.name}: the upload is no longer here, upload it again")
        if source.stat().st_size > self.limits.upload_bytes:
            raise FlipnetError(
                f"{source.name}: larger than {self.limits.upload_mb:g} MB, the limit of one file"
            )
        self._refuse_too_many_pixels(source)
        folder = job / "in"
        folder.mkdir(exist_ok=True)
        target = _free_name(folder, source.name)
        os.link(source, target)
        return target

    def _refuse_too_many_pixels(self, path: Path) -> None:
        # The header only: a small file can unfold to gigabytes. What is wrong with the file beyond its size
        # is said by `images.read_photo`, which decodes it.
        too_large = f"{path.name}: more than {self.limits.megapixels:g} megapixels, the limit of one photo"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(path) as image:
                    pixels = image.width * image.height
        except Image.DecompressionBombError as error:
            raise FlipnetError(too_large) from error
        except (OSError, SyntaxError, ValueError):
            return
        if pixels > self.limits.megapixels * 1e6:
            raise FlipnetError(too_large)

    def for_visitor(self, text: str) -> str:
        """Return a message without the folders that stand before file names in it."""
        return re.sub(rf"{re.escape(str(self.root))}/(?:[^/\s]+/)*", "", text)

    def has_room(self, length: int) -> bool:
        """Whether `length` more bytes fit into what all visitors together may use."""
        return self._size() + length <= self.limits.folder_mb * MEGABYTE

    def _size(self) -> int:
        return sum(_size_of(path) for path in self.root.rglob("*"))

    def sweep(self, now: float | None = None) -> None:
        """Delete what is older than `limits.keep_seconds`; `now` is seconds since the epoch."""
        oldest = (time.time() if now is None else now) - self.limits.keep_seconds
        for folder, _, names in os.walk(self.root, topdown=False):
            for path in (Path(folder) / name for name in names):
                if _changed(path) < oldest:
                    path.unlink(missing_ok=True)
            if Path(folder) not in (self.root, self._jobs) and _changed(Path(folder)) < oldest:
                _remove_if_empty(Path(folder))

    def close(self) -> None:
        """Delete the folder with all that is in it."""
        shutil.rmtree(self.root, ignore_errors=True)


class Sweeper(threading.Thread):
    """Sweeps a workspace every minute until it is stopped."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(name="flipnet-sweeper", daemon=True)
        self._workspace, self._stopped = workspace, threading.Event()

    def run(self) -> None:
        """Sweep until `stop`."""
        while not self._stopped.wait(60):
            self._workspace.sweep()

    def stop(self) -> None:
        """End the thread, if it was started."""
        self._stopped.set()
        if self.is_alive():
            self.join()


def write_zip(path: Path, files: Iterable[Path]) -> Path:
    """Write files, side by side and uncompressed since pictures are compressed already, and return `path`."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, file.name)
    return path


def _free_name(folder: Path, name: str) -> Path:
    # Stems, because results of a.png and a.bmp would share a name.
    taken, stem, number = {path.stem for path in folder.iterdir()}, Path(name).stem, 1
    while (stem if number == 1 else f"{stem}-{number}") in taken:
        number += 1
    return folder / name if number == 1 else folder / f"{stem}-{number}{Path(name).suffix}"


def _size_of(path: Path) -> int:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    # A file with two names takes its place once.
    return status.st_size // status.st_nlink


def _changed(path: Path) -> float:
    # Of status, not of content: a file that is uploaded again, or linked into a job, counts as new.
    try:
        return path.lstat().st_ctime
    except FileNotFoundError:
        return float("inf")


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
