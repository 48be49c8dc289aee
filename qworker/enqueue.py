"""From jobs to messages in a queue: what a producer does."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from qworker.brokers.base import Broker, Queue, check_body
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
"""Seconds before each further try of a put that was refused for now, or not answered."""
_LONGEST_PAUSE: Final = 10.0
_MAY_PASS: Final = (AnswerLost, BrokerBusy, BrokerUnavailable)
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
        maybe_done = False
        for pause in (*_PAUSES, None):
            try:
                await self._put_once(queue, body, sending)
            except BrokerError as error:
                maybe_done = maybe_done or isinstance(error, AnswerLost)
                if pause is None or not isinstance(error, _MAY_PASS):
                    if maybe_done:
                        raise EnqueueUncertain(job.id, job.task) from error
                    raise
                await asyncio.sleep(_wait(error, pause))
            else:
                return

    async def _put_once(self, queue: Queue, body: str, sending: Sending) -> None:
        try:
            await queue.put(body, delay=sending.delay, ttl=sending.ttl)
        except QueueNotFound as missing:
            try:
                await self._broker.create_queue(sending.queue)
            except AccessDenied:
                raise missing from None  # a producer may well have no right to create queues
            await queue.put(body, delay=sending.delay, ttl=sending.ttl)


def _wait(error: QworkerError, pause: float) -> float:
    asked = error.retry_after if isinstance(error, BrokerBusy) else None
    return pause if asked is None else min(asked, _LONGEST_PAUSE)
