"""One job at a time, cancelling, and the time limit."""

from __future__ import annotations

import threading
import time

import pytest
from torch import nn

from flipnet.web.jobs import Job, Jobs, JobStoppedError, JobTimeoutError


def test_a_job_goes_on_until_it_is_cancelled():
    job = Job(60)
    job.check()
    job.cancel()
    with pytest.raises(JobStoppedError, match=r"^cancelled$"):
        job.check()


def test_the_clock_starts_with_the_job_and_not_with_the_waiting():
    job = Job(0.05)
    time.sleep(0.1)
    job.check()
    job.start_clock()
    time.sleep(0.1)
    with pytest.raises(JobTimeoutError, match=r"after 0\.05 seconds"):
        job.check()


def test_a_waiting_job_can_be_cancelled_and_never_runs():
    jobs, ran, outcome = Jobs(60), [], []

    def wait_for_the_model():
        try:
            with jobs.run("second"):
                ran.append("second")
        except JobStoppedError as error:
            outcome.append(str(error))

    with jobs.run("first"):
        thread = threading.Thread(target=wait_for_the_model)
        thread.start()
        while jobs.cancel("second") == 0:
            time.sleep(0.01)
    thread.join(5)
    assert (ran, outcome) == ([], ["cancelled"])


def test_cancelling_reaches_the_sessions_own_jobs_only():
    jobs = Jobs(60)
    with jobs.run("mine") as mine:
        assert jobs.cancel("somebody else") == 0
        mine.check()
        assert jobs.cancel("mine") == 1
        with pytest.raises(JobStoppedError):
            mine.check()
    assert jobs.cancel("mine") == 0


def test_jobs_never_overlap():
    jobs, inside, most = Jobs(60), [], []

    def work(name: str) -> None:
        for _ in range(20):
            with jobs.run(name):
                inside.append(name)
                most.append(len(inside))
                time.sleep(0.001)
                inside.remove(name)

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(most) == 80
    assert max(most) == 1


def test_a_watched_network_refuses_to_compute_for_a_cancelled_job():
    jobs, network = Jobs(60), nn.Identity()
    jobs.watch(network)
    assert network(1) == 1
    with jobs.run("mine"):
        assert network(2) == 2
        jobs.cancel("mine")
        with pytest.raises(JobStoppedError):
            network(3)
    assert network(4) == 4
