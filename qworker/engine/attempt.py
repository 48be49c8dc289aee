"""One attempt of one job: what is run, and then settled."""

import time
from dataclasses import dataclass, field
from typing import Any

from qworker.engine.lease import Lease
from qworker.job import Job
from qworker.task import Task


@dataclass(slots=True, eq=False)
class Attempt:
    """A job that was received: its lease, and which attempt this is."""

    job: Job
    queue: str
    number: int
    """1, 2, 3 …: the dequeue count minus the releases that were not the job's fault."""
    lease: Lease
    task: Task[..., Any] | None
    """None if this worker knows no such task."""
    received: float = field(default_factory=time.monotonic)
    started: float | None = None

    @property
    def seconds(self) -> float:
        """How long its handler has run."""
        return 0.0 if self.started is None else time.monotonic() - self.started
