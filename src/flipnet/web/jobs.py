"""One job at a time has the model; a job can be cancelled and has a time limit."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class JobStoppedError(Exception):
    """The job was cancelled or its time is up; the message is a sentence for its user.

    No FlipnetError, because that is one photo's failure, after which a batch goes on.
    """


class JobTimeoutError(JobStoppedError):
    """The job's time is up."""


class Job:
    """A running or waiting job; `check` is called between faces and between denoising steps."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = float("inf")
        self._cancelled = threading.Event()

    def start_clock(self) -> None:
        """Count the time limit from now."""
        self._deadline = time.monotonic() + self._seconds

    def cancel(self) -> None:
        """Stop the job at its next check; from any thread."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise JobStoppedError if the job shall not go on."""
        if self._cancelled.is_set():
            raise JobStoppedError("cancelled")
        if time.monotonic() > self._deadline:
            raise JobTimeoutError(f"stopped after {self._seconds:g} seconds, the time limit of one job")


class Jobs:
    """Hands the model to one job at a time and finds a session's jobs to cancel them.

    A job is known from the moment it asks for the model, so it can be cancelled while it waits too.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._model = threading.Lock()
        self._register = threading.Lock()
        self._of_session: defaultdict[str, set[Job]] = defaultdict(set)
        self._running: Job | None = None

    def watch(self, network: nn.Module) -> None:
        """Check the running job before every forward pass of `network`, the denoiser of the model."""
        network.register_forward_pre_hook(self._check_running)

    @contextmanager
    def run(self, session: str) -> Iterator[Job]:
        """Wait for the model, then run the block as a job of `session`.

        Raises:
            JobStoppedError: cancelled while it waited.
        """
        job = Job(self._seconds)
        with self._register:
            self._of_session[session].add(job)
        try:
            with self._model:
                job.start_clock()
                job.check()
                self._running = job
                try:
                    yield job
                finally:
                    self._running = None
        finally:
            with self._register:
                self._of_session[session].discard(job)
                if not self._of_session[session]:
                    del self._of_session[session]

    def cancel(self, session: str) -> int:
        """Cancel all jobs of a session and return how many there were."""
        with self._register:
            jobs = list(self._of_session.get(session, ()))
        for job in jobs:
            job.cancel()
        return len(jobs)

    def cancel_all(self) -> None:
        """Cancel the jobs of all sessions."""
        with self._register:
            jobs = [job for own in self._of_session.values() for job in own]
        for job in jobs:
            job.cancel()

    def _check_running(self, *_: Any) -> None:
        if self._running is not None:
            self._running.check()
