"""qworker on an SQLite file, beside Huey and the sqlite3 module."""

import tempfile
from collections.abc import Iterator
from typing import Final

from bench.contestants import workers
from bench.measure import Contestant, Figures, drain, enqueue
from bench.results import Result
from qworker import App

QWORKER: Final = Contestant("qworker", "qworker_jobs", workers.qworker, "enqueue")
BUNDLES: Final = Contestant("qworker, bundles", "qworker_jobs", workers.qworker, "enqueue_bundles")
SINGLY: Final = Contestant("qworker, one by one (FULL)", "qworker_jobs", workers.qworker, "enqueue_singly")
THREADS: Final = Contestant("qworker, four threads (FULL)", "qworker_jobs", workers.qworker, "enqueue_in_threads")
CALLING: Final = Contestant(
    "qworker, a system call a job", "qworker_jobs", workers.qworker, environment={"BENCH_SYSTEM_CALL": "1"}
)
RAW: Final = Contestant("sqlite3 (FULL)", "sqlite_jobs", list, environment={"BENCH_FSYNC": "1"})
RAW_FAST: Final = Contestant("sqlite3 (NORMAL)", "sqlite_jobs", list)
HUEY: Final = Contestant("Huey (FULL)", "huey_jobs", workers.huey, environment={"BENCH_FSYNC": "1"})
HUEY_FAST: Final = Contestant("Huey (no fsync)", "huey_jobs", workers.huey)

_ENQUEUE: Final = (
    (QWORKER, 100_000),
    (BUNDLES, 100_000),
    (SINGLY, 4000),
    (THREADS, 8000),
    (RAW, 4000),
    (RAW_FAST, 20_000),
    (HUEY, 4000),
    (HUEY_FAST, 10_000),
)
_DRAIN: Final = ((QWORKER, 40_000), (BUNDLES, 40_000), (CALLING, 40_000), (HUEY, 6000), (HUEY_FAST, 6000))
WORKERS: Final = (QWORKER, HUEY, HUEY_FAST)
_BACKLOGS: Final = (1000, 100_000, 1_000_000, 10_000_000)
_DRAINED: Final = 900
_DRAINS: Final = 5


def rounds(count: int, scale: float) -> Iterator[Result]:
    """Have all contestants enqueue and drain, one after the other, again and again."""
    for number in range(count):
        for who, jobs in _ENQUEUE:
            with tempfile.TemporaryDirectory() as folder:
                figures = enqueue(who, f"sqlite:///{folder}/q.db", int(jobs * scale))
            yield Result.of("sqlite", "enqueue", who.name, number, figures)
        for who, jobs in _DRAIN:
            with tempfile.TemporaryDirectory() as folder:
                url, waiting = f"sqlite:///{folder}/q.db", int(jobs * scale)
                enqueue(who, url, waiting)
                yield Result.of("sqlite", "drain", who.name, number, drain(who, url, waiting))


def processes(count: int, scale: float) -> Iterator[Result]:
    """Drain with one process, two and four."""
    for number in range(count):
        for several in (1, 2, 4):
            with tempfile.TemporaryDirectory() as folder:
                url, waiting = f"sqlite:///{folder}/q.db", int(20_000 * scale)
                enqueue(QWORKER, url, waiting)
                figures = drain(QWORKER, url, waiting, processes=several)
                yield Result.of("sqlite: processes", "drain", str(several), number, figures)


def backlogs(count: int, scale: float) -> Iterator[Result]:
    """Drain some hundred jobs while few or many wait."""
    for backlog in _BACKLOGS:
        waiting = max(int(backlog * scale), _BACKLOGS[0])
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/q.db"
            _fill(url, waiting)
            for number in range(count):
                yield Result.of("sqlite: backlog", "drain", str(waiting), number, _drain_some(url, waiting))


def _drain_some(url: str, waiting: int) -> Figures:
    parts = []
    for _ in range(_DRAINS):
        parts.append(drain(QWORKER, url, _DRAINED))
        if waiting == _BACKLOGS[0]:
            _fill(url, waiting)
    return Figures(
        sum(each.jobs for each in parts), sum(each.seconds for each in parts), sum(each.cpu for each in parts)
    )


def _fill(url: str, count: int) -> None:
    app = App(broker=url)

    @app.task(name="noop", queue="bench")
    async def noop(number: int) -> None: ...

    for start in range(0, count, 50_000):
        noop.enqueue_many([(number,) for number in range(start, min(start + 50_000, count))])
    app.close()
