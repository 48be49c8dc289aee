"""How long until a job starts, how much an idle worker costs, and how much sleeping jobs weigh."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import azure, sqlite
from bench.contestants import workers
from bench.measure import Contestant, Running, enqueue, enqueue_timed, worker
from bench.results import Result
from bench.servers import Server

QWORKER: Final = Contestant("qworker", "qworker_jobs", workers.qworker)
_MEGABYTE: Final = 1 << 20


_SETTLED: Final = 3.0
"""Seconds after which a worker that had a job is idle again."""
_IDLE: Final = 8.0
_TIMED, _PAUSE = 100, 0.1
"""Jobs that come now and then, and the seconds between two of them on average."""


def _moments(scene: str, server: Server, number: int, count: int, poll_max: float | None) -> Iterator[Result]:
    """Measure a worker that does nothing, then one job now and then: from its enqueueing to its start."""
    who = "default settings" if poll_max is None else f"{poll_max:g}"
    with tempfile.TemporaryDirectory() as folder:
        delays = Path(folder, "delays")
        with worker(QWORKER, server.url, delays=delays, poll_max=poll_max) as running:
            enqueue_timed(QWORKER, server.url, 1)
            running.wait_for(1)
            yield from _idle(scene, server, who, number, running)
            # The first one waits for no connection of its producer's.
            enqueue_timed(QWORKER, server.url, 1 + count, 0.05 if poll_max is None else poll_max)
            running.wait_for(2 + count)
        yield from _percentiles(scene, who, number, delays, 2)


def _percentiles(scene: str, who: str, number: int, delays: Path, skip: int) -> Iterator[Result]:
    waited = [float(line) * 1000 for line in delays.read_text().splitlines()[skip:]]
    percentiles = statistics.quantiles(waited, n=100)
    yield Result(scene, "start p50, ms", who, number, value=percentiles[49])
    yield Result(scene, "start p99, ms", who, number, value=percentiles[98])


def latencies(server: Server, rounds: int) -> Iterator[Result]:
    """Measure how long jobs that come now and then wait for their start, for each contestant."""
    contestants = sqlite.WORKERS if server.url.startswith("sqlite:") else azure.WORKERS
    for number in range(rounds):
        for who in contestants:
            with tempfile.TemporaryDirectory() as folder:
                delays = Path(folder, "delays")
                url = server.url.replace("FOLDER", folder)
                if contestants is azure.WORKERS:
                    azure.empty(server)
                with worker(who, url, delays=delays) as running:
                    enqueue_timed(who, url, 1)
                    running.wait_for(1)
                    enqueue_timed(who, url, 1 + _TIMED, _PAUSE)
                    running.wait_for(2 + _TIMED)
                yield from _percentiles(f"latency: {server.name}", who.name, number, delays, 2)


def _idle(scene: str, server: Server, who: str, number: int, running: Running) -> Iterator[Result]:
    time.sleep(_SETTLED)
    cpu, before, began = running.cpu(), server.requests(), time.monotonic()
    time.sleep(_IDLE)
    lasted, asked = time.monotonic() - began, server.requests() - before
    yield Result(scene, "idle CPU, %", who, number, value=(running.cpu() - cpu) / lasted * 100)
    yield Result(scene, "idle requests an hour", who, number, value=asked / lasted * 3600)


def on_sqlite(rounds: int) -> Iterator[Result]:
    """Measure on a file, with the settings that it comes with."""
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            file = Server("sqlite", f"sqlite:///{folder}/q.db", lambda: 0)
            yield from _moments("sqlite: moments", file, number, 200, None)


def on_azure(server: Server, rounds: int) -> Iterator[Result]:
    """Measure with some settings of `--poll-max`."""
    for number in range(rounds):
        for poll_max in (0.1, 0.3, 1.0, 2.0):
            yield from _moments(f"polling: {server.name}", server, number, 40, poll_max)


def starts(rounds: int) -> Iterator[Result]:
    """Measure from a command to its first effect."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            url = f"sqlite:///{folder}/{number}.db"
            enqueue(QWORKER, url, 1)
            began = time.perf_counter()
            with worker(QWORKER, url) as running:
                running.wait_for(1)
                yield Result("start", "first job, s", "qworker run", number, value=time.perf_counter() - began)
            began = time.perf_counter()
            subprocess.run([sys.executable, "-m", "qworker", "--help"], stdout=subprocess.DEVNULL, check=True)
            yield Result("start", "help, s", "qworker --help", number, value=time.perf_counter() - began)


def asleep(rounds: int, jobs: int) -> Iterator[Result]:
    """Measure the memory of a worker in which many jobs are asleep."""
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/q.db"
            enqueue(Contestant("qworker", "qworker_jobs", workers.qworker, "enqueue_sleepers"), url, jobs)
            with worker(QWORKER, url, concurrency=jobs + 10) as running:
                running.wait_for(jobs)
                yield Result("memory", f"{jobs:,} asleep, MB", "qworker", number, value=running.memory() / _MEGABYTE)
