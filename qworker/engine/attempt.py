"""A message that was received, and the attempt of a job that comes of it."""

import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from qworker.brokers.base import Message
from qworker.clock import SYSTEM_CLOCK
from qworker.engine.bundles import Bundle, Part
from qworker.engine.lease.lease import Lease
from qworker.errors import InvalidEnvelope
from qworker.job import Job
from qworker.task import Task


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """A leased message, of which nothing more is known than its queue."""

    message: Message
    lease: Lease
    queue: str
    content: Part | Bundle | InvalidEnvelope | None = None
    """What is known to be in it: one of many jobs, which is meant here; many, to be taken apart; or nothing sound."""
    answered: float = field(default_factory=SYSTEM_CLOCK.monotonic)
    """When the get's answer was here, on the clock that goes on while the machine sleeps."""

    @property
    def age(self) -> timedelta:
        """How long ago the message was put: until it was received by the broker's clock, and since then by our own.

        The broker may cut its moments to whole seconds. Ours are cut likewise, so that a sum of parts that were lost by
        it doesn't make a message older than it is.
        """
        waited = timedelta(seconds=int(SYSTEM_CLOCK.monotonic() - self.answered))
        return self.message.received_at - self.message.inserted_at + waited

    @property
    def part(self) -> Part | None:
        """The job of a bundle that is meant, if it is one."""
        return self.content if isinstance(self.content, Part) else None

    def let_go(self) -> bool:
        """Note that nothing more is done here; return whether that holds for its message, and the lease can go."""
        return self.part is None or self.part.bundle.let_go(self.part)


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt of one job: what is run, and then settled."""

    received: Received
    job: Job
    """Its state changes with each checkpoint."""
    task: Task[..., Any] | None
    """None if this worker knows no such task."""
    started: float | None = None
    error: BaseException | None = field(default=None, repr=False)
    """What its handler raised, or what ended it, until the error hooks have been told."""
    body: str = field(init=False, repr=False)
    """What the message says, as it was last written."""
    part: Part | None = field(init=False)
    """What it is in a bundle, if it came in one."""
    number: int = field(init=False)
    """1, 2, 3 …: the dequeue count minus the releases that were not the job's fault, and what was before it."""
    max_attempts: int = field(init=False)
    """How many attempts its task has; 0 if that is unknown."""
    alone: bool = field(init=False)
    """Whether no other job may run beside it.

    Its earlier attempts are not known to have failed, so that workers were lost with it, and if one is in its last, it
    is given up: that must not be for another job's crash.
    """

    def __post_init__(self) -> None:
        self.body = self.received.message.body
        self.part = self.received.part
        self.number = self._number()
        self.max_attempts = 0 if self.task is None else self.task.options.policy.max_attempts
        runs = self.job.given_up is None and self.part is None
        self.alone = runs and not self.job.last and 1 < self.max_attempts <= self.number

    def _number(self) -> int:
        if self.part is not None:
            return self.part.bundle.number + self.job.attempts
        return max(self.received.message.dequeue_count - self.job.releases, 1) + self.job.attempts

    @property
    def noted_as_begun(self) -> bool:
        """Whether its message has to say that it was begun, where an attempt that is not spent would not."""
        return self.job.begun or (self.job.has_ttl and self.started is not None)

    @property
    def expired(self) -> bool:
        """Whether it is too late to start its job, which no attempt has begun.

        An attempt that was spent counts as begun: its worker may have died in it.
        """
        job, message = self.job, self.received.message
        if not job.has_ttl or job.begun or self.number > 1:
            return False
        return job.expired(message.inserted_at, message.inserted_at + self.received.age)

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
