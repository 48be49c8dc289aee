"""Celery, on kombu's transport for Azure Storage Queue."""

import time

from celery import Celery

from bench.contestants import work

_parts = dict(part.split("=", 1) for part in work.URL.rstrip(";").split(";")) if work.URL else {}
app = Celery(broker=f"azurestoragequeues://{_parts.get('AccountKey')}@{_parts.get('QueueEndpoint')}")
app.conf.task_default_queue = "bench"
app.conf.broker_transport_options = {"polling_interval": 0.1}
app.conf.task_ignore_result = True


@app.task(name="noop")
def noop(number: int) -> None:
    """Count a job."""
    work.done()


@app.task(name="timed")
def timed(enqueued_at: float) -> None:
    """Say how late it was started."""
    work.started(enqueued_at)


def enqueue(count: int) -> None:
    """Enqueue jobs one after the other, which is all that it can do."""
    for number in range(count):
        noop.delay(number)


def enqueue_timed() -> None:
    """Enqueue one job that says how late it was started."""
    timed.delay(time.time())
