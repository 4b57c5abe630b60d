"""The loaded model, the face detector and the temporary folder that all jobs of the app share."""

from __future__ import annotations

import contextvars
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from flipnet.checkpoints import bundled_names
from flipnet.faces.detect import CenterFaceDetector
from flipnet.faces.rotation import TurningDetector
from flipnet.pipelines.likeness import LikenessCheck
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.pipelines.restore import FaceRestorer
from flipnet.types import Face, Mode
from flipnet.web.files import Workspace
from flipnet.web.jobs import Job, Jobs

T = TypeVar("T")

OnProgress = Callable[[int, int, str], None]
"""Called with (done, total, what) as a job goes on."""


def silent(done: int, total: int, what: str) -> None:
    """Show no progress."""


class Engine:
    """One loaded model and what it works with; safe to use from many threads.

    Attributes:
        pipeline: the model; only a job of `jobs` may call it.
        model_name: what it was loaded by.
        device: "cpu", "cuda", ...
        licence: of the weights, or where to look.
        steps: default denoising steps by mode, "restoration" and, where the model has it, "degradation".
        likeness: compares faces before and after; for the job that has the model.
        jobs: who has the model, and cancelling.
        workspace: uploads and results.
    """

    def __init__(self, pipeline: FlipnetPipeline, model_name: str, workspace: Workspace) -> None:
        self.pipeline, self.model_name, self.workspace = pipeline, model_name, workspace
        self.device = str(pipeline.device)
        bundled = model_name in bundled_names()
        self.licence = "Apache-2.0" if bundled else "not known here, see where the model came from"
        self.steps = dict(pipeline.network.default_steps)
        self.jobs = Jobs(workspace.limits.job_seconds)
        self.jobs.watch(pipeline.unet)
        self.likeness = LikenessCheck(pipeline.face_encoder)
        self._thread = ThreadPoolExecutor(1, "flipnet-model")
        self._detector, self._detecting = TurningDetector(CenterFaceDetector()), threading.Lock()

    @classmethod
    def load(cls, model: str, device: str, workspace: Workspace) -> Self:
        """Load a model by bundled name, folder or hub id; FlipnetError if it or the device cannot be had."""
        return cls(FaceRestorer.from_checkpoint(model, device=device).pipeline, model, workspace)

    @property
    def can_degrade(self) -> bool:
        """Whether the model has the degradation mode."""
        return Mode.DEGRADATION.value in self.steps

    def in_one_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Call `work(*arguments)` in the thread that all jobs share, and return its result.

        Torch and the memory allocator keep buffers per thread; in a server's many threads they would add up.
        """
        return self._thread.submit(contextvars.copy_context().run, work, *arguments).result()

    def detect(self, pixels: np.ndarray) -> list[Face]:
        """Return the faces of a uint8 (H, W, 3) RGB photo, largest first; see `types.FaceDetector`."""
        with self._detecting:
            return self._detector(pixels)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A new folder for the block's files; if the block raises, nothing of it is left."""
        folder = self.workspace.new_job()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @contextmanager
    def job(self, session: str) -> Iterator[tuple[Path, Job]]:
        """Run the block as a job of `session`, alone with the model, with a folder of its own.

        Raises:
            JobStoppedError: cancelled while it waited.
        """
        with self.folder() as folder, self.jobs.run(session) as job:
            yield folder, job
