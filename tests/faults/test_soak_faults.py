"""Fault 12: a worker that works for long is as small as it was when it had warmed up."""

import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Final

import pytest

import soaking
from fault_report import Fault
from stage import Stage
from waiting import wait_until

WARM_UP: Final = 0.3
"""The part of all jobs after which a worker has everything that it needs."""


@dataclass(frozen=True)
class Sample:
    """What a process has."""

    memory: float
    """Resident megabytes."""
    files: int
    threads: int


class Vitals(threading.Thread):
    """Looks at a process from time to time, until told to stop, or the process ends."""

    def __init__(self, pid: int, every: float) -> None:
        super().__init__(daemon=True)
        self.samples: list[Sample] = []
        self._proc = Path(f"/proc/{pid}")
        self._every = every
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self._every):
            status = dict(line.split(":", 1) for line in (self._proc / "status").read_text().splitlines())
            if "VmRSS" not in status:
                return
            memory = int(status["VmRSS"].split()[0]) / 1024
            files = len(list((self._proc / "fd").iterdir()))
            self.samples.append(Sample(memory, files, int(status["Threads"])))

    def stop(self) -> list[Sample]:
        self._stopped.set()
        self.join()
        return self.samples


@dataclass(frozen=True)
class Soak:
    """How much is done, and what a worker may have more of at its end than after its warm-up."""

    jobs: int
    chunk: int
    """Jobs that are enqueued at once, when fewer than these are left."""
    memory: float
    """Megabytes."""
    files: int = 2
    threads: int = 2


SOAKS: Final = {
    ("sqlite", False): Soak(jobs=10_000, chunk=500, memory=4),
    ("sqlite", True): Soak(jobs=1_000_000, chunk=5_000, memory=10),
    ("azure", False): Soak(jobs=600, chunk=50, memory=4, files=20),
    ("azure", True): Soak(jobs=20_000, chunk=50, memory=10, files=20),
}
"""By broker, and whether it is the full form."""


@pytest.mark.fault(12, minutes=6)
def test_a_million_jobs_leave_a_worker_as_small_as_it_was(stage: Stage, fault: Fault) -> None:
    soak = SOAKS[broker_of(stage), fault.full]
    soaking.app.use_broker(stage.url)
    worker = stage.worker("-l", "error", app="soaking")
    vitals = Vitals(worker.process.pid, every=fault.scale(short=0.05, full=0.5))
    soaking.occupy_a_thread.using(queue=stage.queue).enqueue_many([()] * 48)
    began = time.monotonic()
    for first in range(0, soak.jobs, soak.chunk):
        enqueue(stage, range(first, first + soak.chunk), fault.random)
        wait_until(lambda: stage.remaining() < soak.chunk, what="room for more jobs")
        if first > WARM_UP * soak.jobs and not vitals.is_alive():
            vitals.start()
    wait_until(lambda: stage.remaining() == 0, what="an empty queue")
    seconds = time.monotonic() - began
    samples = vitals.stop()
    poisoned = stage.app._portal.run(stage.app.broker.queue(f"{stage.queue}-poison").count())
    soaking.app.close()
    worker.send(signal.SIGTERM)
    assert 0 == worker.wait(), worker.output
    before, after = (peak(half) for half in (samples[: len(samples) // 2], samples[len(samples) // 2 :]))
    fault.did(f"{soak.jobs:,} jobs, {soak.jobs // 10:,} of them raising, {soak.jobs / seconds:,.0f} a second")
    fault.saw(
        f"{before.memory:.1f} MB, then {after.memory:.1f} MB; "
        f"{before.files} and {after.files} files, {before.threads} and {after.threads} threads"
    )
    assert soak.jobs // 100 == poisoned
    assert after.memory - samples[0].memory < soak.memory
    assert after.files - before.files <= soak.files
    assert after.threads - before.threads <= soak.threads


def broker_of(stage: Stage) -> str:
    return "sqlite" if stage.url.startswith("sqlite") else "azure"


def enqueue(stage: Stage, numbers: range, random: Random) -> None:
    calls = [(n, "x" * random.randrange(1_000)) for n in numbers]
    for task, kind in ((soaking.soak, 0), (soaking.soak_in_thread, 1)):
        task.using(queue=stage.queue).enqueue_many([call for call in calls if call[0] // 10 % 2 == kind])


def peak(samples: Sequence[Sample]) -> Sample:
    """Return the most that there was of everything."""
    return Sample(*(max(getattr(each, field.name) for each in samples) for field in fields(Sample)))
