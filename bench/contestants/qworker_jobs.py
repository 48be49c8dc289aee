"""qworker, on either broker."""

import asyncio
import time
from threading import Thread

from bench.contestants import work
from qworker import App

app = App(broker=work.URL or "sqlite://")


@app.task(name="noop", queue="bench")
async def noop(number: int) -> None:
    work.done()


@app.task(name="timed", queue="bench")
async def timed(enqueued_at: float) -> None:
    work.started(enqueued_at)


@app.task(name="sleep", queue="bench")
async def sleep(number: int) -> None:
    work.done()
    await asyncio.sleep(3600)


def enqueue(count: int) -> None:
    """Enqueue jobs all at once."""
    noop.enqueue_many([(number,) for number in range(count)])


def enqueue_bundles(count: int) -> None:
    """Enqueue jobs all at once, a hundred in a message."""
    noop.using(bundle=100).enqueue_many([(number,) for number in range(count)])


def enqueue_singly(count: int) -> None:
    """Enqueue jobs one after the other."""
    for number in range(count):
        noop.enqueue(number)


def enqueue_in_threads(count: int) -> None:
    """Enqueue jobs one after the other in each of four threads."""
    threads = [Thread(target=enqueue_singly, args=(count // 4,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def enqueue_sleepers(count: int) -> None:
    """Enqueue jobs that sleep for an hour."""
    sleep.enqueue_many([(number,) for number in range(count)])


def enqueue_timed() -> None:
    """Enqueue one job that says how late it was started."""
    timed.enqueue(time.time())
