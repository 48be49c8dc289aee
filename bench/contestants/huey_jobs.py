"""Huey, on its SQLite storage."""

import os
import time

from huey import SqliteHuey

from bench.contestants import work

huey = SqliteHuey(
    filename=work.URL.removeprefix("sqlite:///") or ":memory:", fsync=os.environ.get("BENCH_FSYNC") == "1"
)


@huey.task()
def noop(number: int) -> None:
    """Count a job."""
    work.done()


@huey.task()
def timed(enqueued_at: float) -> None:
    """Say how late it was started."""
    work.started(enqueued_at)


def enqueue(count: int) -> None:
    """Enqueue jobs one after the other, which is all that it can do."""
    for number in range(count):
        noop(number)


def enqueue_timed() -> None:
    """Enqueue one job that says how late it was started."""
    timed(time.time())
