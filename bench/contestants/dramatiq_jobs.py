"""dramatiq, with dramatiq-azure as its broker."""

import os

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


def enqueue(count: int) -> None:
    """Enqueue jobs one after the other, which is all that it can do."""
    for number in range(count):
        noop.send(number)
