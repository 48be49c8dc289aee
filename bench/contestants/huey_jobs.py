"""Huey, on its SQLite storage."""

import os

from huey import SqliteHuey

from bench.contestants import work

huey = SqliteHuey(
    filename=work.URL.removeprefix("sqlite:///") or ":memory:", fsync=os.environ.get("BENCH_FSYNC") == "1"
)


@huey.task()
def noop(number: int) -> None:
    """Count a job."""
    work.done()


def enqueue(count: int) -> None:
    """Enqueue jobs one after the other, which is all that it can do."""
    for number in range(count):
        noop(number)
