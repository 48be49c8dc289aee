"""A ttl says until when a job is worth starting, of real workers and producers, whatever their clocks say."""

import subprocess
import sys
import time

import pytest

import jobs
from stage import APPS, Stage
from waiting import wait_until


def has_passed(seconds: float, since: float) -> None:
    """Wait for a moment: no fact but this one says that a ttl is over."""
    wait_until(lambda: time.monotonic() > since + seconds, what="the end of a ttl")


def enqueue_by_another_clock(stage: Stage, ahead: float, n: int, ttl: float) -> None:
    command = [sys.executable, str(APPS / "skewed.py"), stage.queue, str(n), str(ttl)]
    env = stage.env() | {"SKEW": str(ahead)}
    told = subprocess.run(command, env=env, cwd=stage.folder, check=True, capture_output=True, text=True, timeout=60)
    assert ahead == pytest.approx(int(told.stdout), abs=5)


def test_a_job_that_began_within_its_ttl_is_finished(stage: Stage) -> None:
    worker = stage.worker("--lease", str(stage.lease))
    worker.wait_for("worker.started")
    jobs.rest.using(queue=stage.queue, ttl=5).enqueue(1, 5 + stage.lease)
    assert 1 == worker.wait_for("job.succeeded")["attempt"]
    assert (1, 1) == (stage.history.count()[1], stage.history.count("end")[1])
    assert 0 == stage.remaining()


def test_a_job_whose_worker_was_killed_runs_again_after_its_ttl(stage: Stage) -> None:
    victim = stage.worker("--lease", str(stage.lease))
    victim.wait_for("worker.started")
    jobs.rest.using(queue=stage.queue, ttl=5).enqueue(1, 4)
    enqueued = time.monotonic()
    wait_until(lambda: stage.history.count()[1] == 1, what="its start")
    stage.kill(victim)
    has_passed(6, since=enqueued)
    survivor = stage.worker("--lease", str(stage.lease))
    assert 2 == survivor.wait_for("job.succeeded")["attempt"]
    assert (2, 1) == (stage.history.count()[1], stage.history.count("end")[1])
    assert 0 == stage.remaining()


def test_a_job_that_waited_for_longer_than_its_ttl_is_deleted_unrun(stage: Stage) -> None:
    jobs.quick.using(queue=stage.queue, ttl=1).enqueue(1)
    has_passed(4, since=time.monotonic())
    assert 1 == stage.remaining()
    worker = stage.worker("--burst")
    assert 0 == worker.wait(), worker.output
    assert 1 == len(worker.lines("job.expired"))
    assert 0 == stage.history.count()[1]
    assert 0 == stage.remaining()


@pytest.mark.parametrize(("producer", "worker"), [(-600, 600), (600, -600)])
def test_neither_the_producers_clock_nor_the_workers_says_when_a_ttl_ends(
    stage: Stage, producer: float, worker: float
) -> None:
    enqueue_by_another_clock(stage, producer, 1, ttl=1)
    has_passed(4, since=time.monotonic())
    enqueue_by_another_clock(stage, producer, 2, ttl=300)
    running = stage.worker("--burst", app="skewed", env={"SKEW": str(worker)})
    assert 0 == running.wait(), running.output
    assert [1, 1] == [len(running.lines(event)) for event in ("job.expired", "job.succeeded")]
    assert (0, 1) == (stage.history.count()[1], stage.history.count("end")[2])
