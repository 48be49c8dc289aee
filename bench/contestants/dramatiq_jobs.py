"""dramatiq, with dramatiq-azure as its broker."""

import os
import time

from bench.contestants import work

os.environ["AZURE_STORAGE_CONNECTION_STR"] = work.URL

import dramatiq
import dramatiq_azure

broker = dramatiq_azure.ASQBroker()
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="bench")
def noop(number: int) -> None:
    """Count a job."""
    work.done()


@dramatiq.actor(queue_name="bench")
def timed(enqueued_at: float) -> None:
    """Say how late it was started."""
    work.started(enqueued_at)


def enqueue(count: int) -> None:
    """Enqueue jobs one after the other, which is all that it can do."""
    for number in range(count):
        noop.send(number)


def enqueue_timed() -> None:
    """Enqueue one job that says how late it was started."""
    timed.send(time.time())
