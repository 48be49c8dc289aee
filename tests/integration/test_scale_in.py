"""Scale-in while jobs run, with the signals of Kubernetes, of KEDA on it, and of Container Apps.

All of them send SIGTERM, and SIGKILL once terminationGracePeriodSeconds is over. The delays here are shorter than in
examples/deploy: a grace of 3 s for 25 s, a lease of 2 s for 60 s. The 10 s between the grace and the SIGKILL are kept,
since what a process needs to end doesn't shrink with the grace.
"""

import signal
import subprocess
import time
from functools import partial

import jobs
import stopping
from stage import Stage, WorkerProcess
from waiting import wait_until

GRACE = 3.0
SHORT = GRACE / 3
LONG = 60.0
PERIOD = GRACE + 10.0
TOO_SHORT = GRACE / 10


def terminate(stage: Stage, worker: WorkerProcess, period: float) -> int:
    """Do what a platform does to a container that it takes away; return the exit code."""
    stage.kill(worker, signal.SIGTERM)
    try:
        return worker.wait(period)
    except subprocess.TimeoutExpired:
        stage.kill(worker, signal.SIGKILL)
        return worker.wait()


def started(stage: Stage, ids: set[str]) -> bool:
    return ids <= {line["job"] for line in stage.history.lines()}


def attempts(stage: Stage, ids: set[str]) -> list[int]:
    """Return the attempt of each start of these jobs."""
    return sorted(line["attempt"] for line in stage.history.lines() if line["job"] in ids)


def busy_worker(stage: Stage) -> tuple[WorkerProcess, set[str], set[str]]:
    """Start a worker and give it two jobs that end within the grace, and two that don't."""
    worker = stage.worker("-c", "4", "--grace", f"{GRACE:g}s", "--lease", "2", app="stopping")
    short = {stage.enqueue(jobs.rest, n, SHORT).id for n in range(2)}
    long = {stage.enqueue(stopping.rest, n, LONG).id for n in range(2)}
    wait_until(partial(started, stage, short | long), what="four jobs under way")
    return worker, short, long


def test_scale_in_while_jobs_run_loses_nothing(sqlite_stage: Stage) -> None:
    """One replica is taken away; another does what it gives back."""
    stage = sqlite_stage
    drained, short, long = busy_worker(stage)
    stage.worker("-c", "8", "--lease", "2", app="stopping")

    began = time.monotonic()
    assert 0 == terminate(stage, drained, PERIOD), drained.output
    assert GRACE <= time.monotonic() - began < PERIOD  # it used its grace, and no SIGKILL was needed

    stage.verdict().assert_clean()
    ended = {line["job"]: line for line in stage.history.lines("end")}
    assert all(began < ended[job]["at"] and drained.process.pid == ended[job]["pid"] for job in short)
    assert [1, 1] == attempts(stage, short)  # they ended where they were
    assert [1, 1, 1, 1] == attempts(stage, long)  # they were given back: no attempt was spent


def test_a_kill_before_the_grace_is_over_loses_nothing_either(sqlite_stage: Stage) -> None:
    stage = sqlite_stage
    killed, _, long = busy_worker(stage)

    assert -signal.SIGKILL == terminate(stage, killed, TOO_SHORT)

    # Scaled to zero meanwhile; the next replica waits for the leases to end.
    stage.worker("-c", "8", "--lease", "2", app="stopping")
    stage.verdict().assert_clean()
    assert [1, 1, 2, 2] == attempts(stage, long)
