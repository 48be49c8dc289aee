"""A message that was received, and the attempt of a job that comes of it."""

import time
from dataclasses import dataclass
from typing import Any

from qworker.brokers.base import Message
from qworker.engine.lease import Lease
from qworker.job import Job
from qworker.task import Task


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """A leased message, of which nothing more is known than its queue."""

    message: Message
    lease: Lease
    queue: str


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt of one job: what is run, and then settled."""

    received: Received
    job: Job
    """Its state changes with each checkpoint."""
    task: Task[..., Any] | None
    """None if this worker knows no such task."""
    started: float | None = None

    @property
    def number(self) -> int:
        """1, 2, 3 …: the dequeue count minus the releases that were not the job's fault."""
        return max(self.received.message.dequeue_count - self.job.releases, 1)

    @property
    def lease(self) -> Lease:
        """The right to its message."""
        return self.received.lease

    @property
    def queue(self) -> str:
        """The name of the queue it came from."""
        return self.received.queue

    @property
    def seconds(self) -> float:
        """How long its handler has run."""
        return 0.0 if self.started is None else time.monotonic() - self.started
