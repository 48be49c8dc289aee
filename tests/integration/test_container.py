"""A worker as process 1, as in a container: of a namespace of its own, in which it sees nothing else."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

import containing
from proc import family
from stage import Stage
from waiting import wait_until

NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
may_make_one = subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_make_one, reason="this system lets nobody make a namespace")
@pytest.mark.parametrize("processes", ["1", "2"])
def test_programs_that_handlers_leave_behind_become_no_zombies(sqlite_stage: Stage, processes: str) -> None:
    for n in range(5):
        sqlite_stage.enqueue(containing.leave_behind, n)
    worker = sqlite_stage.worker("-p", processes, app="containing", prefix=NAMESPACE)
    wait_until(lambda: len(worker.lines("worker.started")) == int(processes), what="all workers")
    wait_until(lambda: len(worker.lines("job.succeeded")) == 5, what="the jobs' end")
    started = family(worker.process.pid) - {worker.process.pid}
    one = min(started)
    wait_until(lambda: not [pid for pid in family(one) if _state(pid) == "Z"], what="the end of all zombies")
    os.kill(one, signal.SIGTERM)
    assert 0 == worker.wait(), worker.output
    assert int(processes) == len(worker.lines("worker.stopped"))


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "gone"
