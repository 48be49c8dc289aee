"""qworker on Azure's protocol, beside Celery, dramatiq and a loop written by hand."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from azure.core.exceptions import ResourceExistsError
from azure.storage.queue import QueueServiceClient

from bench.contestants import workers
from bench.measure import Contestant, drain, enqueue
from bench.results import Result
from bench.servers import Server

QWORKER: Final = Contestant("qworker", "qworker_jobs", workers.qworker)
BUNDLES: Final = Contestant("qworker, bundles", "qworker_jobs", workers.qworker, "enqueue_bundles")
SDK: Final = Contestant("the SDK, by hand", "sdk_jobs", workers.sdk)
CELERY: Final = Contestant("Celery", "celery_jobs", workers.celery)
DRAMATIQ: Final = Contestant("dramatiq-azure", "dramatiq_jobs", workers.dramatiq)


@dataclass(frozen=True)
class Entry:
    """A contestant, and how many jobs it is given: enough for a second or more."""

    who: Contestant
    jobs: int


_ENTRIES: Final = (
    Entry(QWORKER, 8000),
    Entry(BUNDLES, 40_000),
    Entry(SDK, 4000),
    Entry(CELERY, 300),
    Entry(DRAMATIQ, 800),
)
WORKERS: Final = tuple(entry.who for entry in _ENTRIES if entry.who is not BUNDLES)


def rounds(server: Server, count: int, scale: float) -> Iterator[Result]:
    """Have all contestants enqueue and drain, one after the other, again and again."""
    for number in range(count):
        for entry in _ENTRIES:
            jobs = max(int(entry.jobs * scale), 200)
            empty(server)
            figures = enqueue(entry.who, server.url, jobs, server.requests)
            yield Result.of(f"azure: {server.name}", "enqueue", entry.who.name, number, figures)
            figures = drain(entry.who, server.url, jobs, server.requests)
            yield Result.of(f"azure: {server.name}", "drain", entry.who.name, number, figures)


def processes(server: Server, count: int, scale: float) -> Iterator[Result]:
    """Drain with one process, two and four."""
    for number in range(count):
        for several in (1, 2, 4):
            jobs = max(int(8000 * scale), 200)
            empty(server)
            enqueue(QWORKER, server.url, jobs)
            figures = drain(QWORKER, server.url, jobs, server.requests, processes=several)
            yield Result.of(f"processes: {server.name}", "drain", str(several), number, figures)


def empty(server: Server) -> None:
    """Have the queues be there, with nothing in them."""
    with QueueServiceClient.from_connection_string(server.url, api_version="2025-11-05") as service:
        for name in ("bench", "bench-poison"):
            try:
                service.create_queue(name)
            except ResourceExistsError:
                service.get_queue_client(name).clear_messages()
