"""From jobs to messages in a queue: what a producer does."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Final

from qworker.brokers.base import Broker, Queue, Urgency, check_body
from qworker.envelope import Encoding, encode
from qworker.errors import (
    AccessDenied,
    AnswerLost,
    BrokerBusy,
    BrokerError,
    BrokerUnavailable,
    EnqueueUncertain,
    InvalidArguments,
    PartlyEnqueued,
    QueueNotFound,
    QworkerError,
)
from qworker.job import Job
from qworker.task import Sending

_PAUSES: Final = (0.1, 0.5, 2.0)
"""Seconds before each further try of a put that was not done, or not answered."""
_PATIENCE: Final = 30.0
"""Seconds that a put is tried for at least while the broker is too busy: it then says that nothing was done."""
_LONGEST_PAUSE: Final = 10.0
_AT_ONCE: Final = 64
"""Puts under way at the same time when many jobs are enqueued."""


class Enqueuer:
    """Puts jobs into a broker's queues, and creates a queue that isn't there yet."""

    def __init__(self, broker: Broker, encoding: Encoding) -> None:
        self._broker = broker
        self._encoding = encoding

    def bodies(self, jobs: Sequence[Job]) -> list[str]:
        """Return the messages' bodies. Raises InvalidArguments and MessageTooLarge."""
        return [self._body(job) for job in jobs]

    async def put(self, jobs: Sequence[Job], bodies: Sequence[str], sending: Sending) -> None:
        """Put each body into its queue. Raises EnqueueUncertain, PartlyEnqueued or a BrokerError."""
        queue = self._broker.queue(sending.queue)
        if len(jobs) == 1:
            await self._put(queue, jobs[0], bodies[0], sending)
        elif jobs:
            await self._put_many(queue, jobs, bodies, sending)

    def _body(self, job: Job) -> str:
        try:
            return check_body(encode(job, self._encoding))
        except ValueError as error:
            problem = f"an argument can't be sent as JSON: {error}"
        # Out here, so that Python's error, with the whole body in it, is not even its context.
        raise InvalidArguments(job.task, problem)

    async def _put_many(self, queue: Queue, jobs: Sequence[Job], bodies: Sequence[str], sending: Sending) -> None:
        try:
            await self._put(
                queue, jobs[0], bodies[0], sending
            )  # creates the queue, or finds the broker down, just once
        except EnqueueUncertain as lost:
            raise PartlyEnqueued([], [jobs[0].id], [job.id for job in jobs[1:]], lost) from lost
        accepted, uncertain, reasons = [jobs[0].id], list[str](), list[QworkerError]()

        async def put_from(waiting: Iterator[tuple[Job, str]]) -> None:
            for job, body in waiting:
                try:
                    await self._put(queue, job, body, sending)
                    accepted.append(job.id)
                except QworkerError as error:
                    reasons.append(error)
                    if isinstance(error, EnqueueUncertain):
                        uncertain.append(job.id)
                if reasons:
                    return

        waiting = iter(list(zip(jobs, bodies, strict=True))[1:])
        await asyncio.gather(*(put_from(waiting) for _ in range(min(_AT_ONCE, len(jobs)))))
        if reasons:
            known = {*accepted, *uncertain}
            refused = [job.id for job in jobs if job.id not in known]
            raise PartlyEnqueued(accepted, uncertain, refused, reasons[0]) from reasons[0]

    async def _put(self, queue: Queue, job: Job, body: str, sending: Sending) -> None:
        retries = _Retries()
        while True:
            try:
                await queue.admit(Urgency.NEW_WORK, within=retries.seconds_left)
                await self._put_once(queue, body, sending)
            except BrokerError as error:
                pause = retries.pause_after(error)
                if pause is None:
                    if retries.maybe_done:
                        raise EnqueueUncertain(job.id, job.task) from error
                    raise
            else:
                return
            await asyncio.sleep(pause)

    async def _put_once(self, queue: Queue, body: str, sending: Sending) -> None:
        try:
            await queue.put(body, delay=sending.delay, ttl=sending.ttl)
        except QueueNotFound as missing:
            try:
                await self._broker.create_queue(sending.queue)
            except AccessDenied:
                raise missing from None  # a producer may well have no right to create queues
            await queue.put(body, delay=sending.delay, ttl=sending.ttl)


class _Retries:
    """How often one put is tried again, and when."""

    def __init__(self) -> None:
        self.maybe_done = False
        """Whether a try may have been applied."""
        self._until = time.monotonic() + _PATIENCE
        self._pauses = iter(_PAUSES)

    @property
    def seconds_left(self) -> float:
        """How long a broker may be too busy from now on."""
        return self._until - time.monotonic()

    def pause_after(self, error: BrokerError) -> float | None:
        """Return the seconds to wait before the next try; None if there is to be none."""
        self.maybe_done = self.maybe_done or isinstance(error, AnswerLost)
        if isinstance(error, BrokerBusy):
            pause = _PAUSES[0] if error.retry_after is None else min(error.retry_after, _LONGEST_PAUSE)
            return pause if pause < self.seconds_left else None
        return next(self._pauses, None) if isinstance(error, AnswerLost | BrokerUnavailable) else None
