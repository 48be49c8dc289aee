"""One round of one contestant: its processes are started, watched from outside, and ended."""

import contextlib
import importlib
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

_LOOK: Final = 0.002
_PATIENCE: Final = 300.0


@dataclass(frozen=True)
class Contestant:
    """A library, as it is set up here."""

    name: str
    module: str
    """In bench.contestants."""
    worker: Callable[..., list[str]]
    """Returns the command that starts its worker."""
    enqueue: str = "enqueue"
    """Its function that enqueues."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """What a round took."""

    jobs: int
    seconds: float
    cpu: float
    """Seconds, of all its processes."""
    requests: int = 0

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.jobs / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of CPU time a job."""
        return self.cpu / self.jobs * 1000

    @property
    def requests_each(self) -> float:
        """Requests a job."""
        return self.requests / self.jobs


def enqueue(who: Contestant, url: str, count: int, requests: Callable[[], int] = lambda: 0) -> Figures:
    """Have a process of its own enqueue jobs; what is measured begins when it has connected, and put one."""
    before = requests()
    script = "import sys; from bench.measure import _enqueue_here; _enqueue_here(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", script, who.module, who.enqueue, str(count)],
        env=_environment(who, url),
        stdout=subprocess.PIPE,
        check=True,
    )
    seconds, cpu = json.loads(done.stdout)
    return Figures(count, seconds, cpu, requests() - before)


def _enqueue_here(module: str, function: str, count: str) -> None:
    call = getattr(importlib.import_module(f"bench.contestants.{module}"), function)
    call(4)
    began, cpu = time.perf_counter(), time.process_time()
    call(int(count))
    print(json.dumps([time.perf_counter() - began, time.process_time() - cpu]))


def enqueue_timed(who: Contestant, url: str, count: int, pause: float = 0.0) -> None:
    """Have a process of its own enqueue one job after the other that say how late they were started.

    *pause*: seconds that it rests in between on average.
    """
    script = "import sys; from bench.measure import _enqueue_timed_here; _enqueue_timed_here(*sys.argv[1:])"
    subprocess.run(
        [sys.executable, "-c", script, who.module, str(count), str(pause)], env=_environment(who, url), check=True
    )


def _enqueue_timed_here(module: str, count: str, pause: str) -> None:
    contestant = importlib.import_module(f"bench.contestants.{module}")
    for number in range(int(count)):
        if number:
            time.sleep(random.uniform(0.2, 1.8) * float(pause))
        contestant.enqueue_timed()


def drain(
    who: Contestant, url: str, count: int, requests: Callable[[], int] = lambda: 0, *, skip: int = 0, **options: Any
) -> Figures:
    """Have a worker handle jobs that wait; what is measured begins with the first of them, or after some more.

    So neither its start nor its first poll counts; requests are counted from its start.
    """
    before = requests()
    with worker(who, url, **options) as running:
        running.wait_for(1 + skip)
        first, began, cpu = running.done(), time.perf_counter(), running.cpu()
        running.wait_for(count + skip)
        seconds, used = time.perf_counter() - began, running.cpu() - cpu
        return Figures(count + skip - first, seconds, used, requests() - before)


class Running:
    """A worker that runs."""

    def __init__(self, process: "subprocess.Popen[bytes]", progress: Path) -> None:
        self.process = process
        self._progress = progress
        self._handled: dict[Path, memoryview[int]] = {}
        """The numbers of its threads."""

    def done(self) -> int:
        """Return how many jobs it has handled."""
        for path in {*self._progress.iterdir()} - self._handled.keys():
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size:  # else its thread is about to begin
                    numbers = mmap.mmap(file.fileno(), mmap.PAGESIZE, access=mmap.ACCESS_READ)
                    self._handled[path] = memoryview(numbers).cast("Q")
        return sum(numbers[0] for numbers in self._handled.values())

    def wait_for(self, count: int) -> None:
        """Wait until it has handled so many."""
        until = time.monotonic() + _PATIENCE
        while self.done() < count:
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError(f"{self.process.args!r} has handled {self.done()} of {count} jobs")
            time.sleep(_LOOK)

    def cpu(self) -> float:
        """Return the CPU time that its processes have taken, in seconds."""
        return sum(sum(process.cpu_times()[:2]) for process in self._tree())

    def memory(self) -> int:
        """Return the resident memory of its processes, in bytes."""
        return sum(process.memory_info().rss for process in self._tree())

    def _tree(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]


@contextlib.contextmanager
def worker(who: Contestant, url: str, *, delays: Path | None = None, **options: Any) -> Iterator[Running]:
    """Run a worker, and end it with all that it has started."""
    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder, "progress")
        progress.mkdir()
        environment = _environment(who, url) | {"BENCH_PROGRESS": str(progress)}
        if delays is not None:
            environment["BENCH_DELAYS"] = str(delays)
        command = who.worker(**options)
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True
        )
        try:
            yield Running(process, progress)
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment(who: Contestant, url: str) -> dict[str, str]:
    root = str(Path(__file__).parents[1])
    return {**os.environ, "BENCH_URL": url, "PYTHONPATH": root, "PYTHONWARNINGS": "ignore", **who.environment}
