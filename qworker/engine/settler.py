"""Applies an action through the lease: the thin layer behind decide()."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Final

from qworker.brokers.base import Broker, Urgency, check_body
from qworker.engine.access import Suspended
from qworker.engine.attempt import Attempt, Received
from qworker.engine.faultpoints import faultpoint
from qworker.envelope import Encoding, encode, note_given_up, note_last, without_notes
from qworker.errors import (
    AnswerLost,
    BrokerBusy,
    BrokerError,
    BrokerFull,
    BrokerUnavailable,
    InvalidArguments,
    MessageTooLarge,
    QueueNotFound,
)
from qworker.job import Reason, utc_now
from qworker.outcome import Abandon, Action, Delete, Failure, Poison, Reappear
from qworker.poison import PoisonRecord, encode_poison
from qworker.task import encode_state, poison_queue_of

_PAUSES: Final = (0.1, 0.3, 1.0, 2.0)
"""Seconds between tries; the last is repeated."""
_POISON_TRIES: Final = 5.0
"""Seconds that a put to a poison queue is tried for; then the message reappears after the length of a lease."""
_SHORT: Final = 512
"""Characters of a failure that are kept in the message until its poison queue takes it."""


@dataclass(frozen=True, slots=True)
class Settler:
    """Does to messages what was decided. Its methods raise BrokerError when the broker would not have it."""

    broker: Broker
    worker: str
    encoding: Encoding

    async def settle(self, attempt: Attempt, action: Action) -> None:
        """Apply *action*; tries again while the lease lasts. Raises LeaseLost or another BrokerError."""
        lease = attempt.lease
        match action:
            case Delete():
                await _persist(lease.complete, seconds=lease.length)
                faultpoint("after-delete")
            case Reappear(after):
                body = self._noted_body(attempt, action)
                faultpoint("before-release")
                await _persist(lambda: lease.reappear(after, body=body), seconds=lease.length)
                faultpoint("after-release")
            case Poison(failure):
                await self._move(attempt.received, failure, attempt)
            case Abandon():
                pass

    async def poison_message(self, received: Received, failure: Failure) -> None:
        """Move a message that is no job to the poison queue. Raises BrokerError."""
        await self._move(received, failure, None)

    async def save_state(self, attempt: Attempt, state: object) -> None:
        """Write a checkpoint's state into the message. Raises InvalidArguments, MessageTooLarge or BrokerError."""
        assert attempt.task is not None  # noqa: S101 — it is running
        job = replace(attempt.job, state=encode_state(attempt.task, state))
        try:
            body = check_body(encode(job, self.encoding))
        except ValueError as error:
            raise InvalidArguments(job.task, f"a state that can't be saved as JSON: {error}") from None
        # Shielded: a handler that is cancelled now must not take the new receipt with it.
        await asyncio.shield(attempt.lease.save(body))
        attempt.job, attempt.body = job, body

    async def note_last(self, attempt: Attempt) -> None:
        """Write into the message that its last attempt begins. Raises MessageTooLarge or BrokerError."""
        body = check_body(note_last(attempt.body))
        await _persist(lambda: attempt.lease.save(body), seconds=attempt.lease.length / 2)
        attempt.job, attempt.body = replace(attempt.job, last=True), body

    async def _move(self, received: Received, failure: Failure, attempt: Attempt | None) -> None:
        """Put, then delete: a crash in between leaves a copy in both queues, never in neither."""
        lease, message = received.lease, received.message
        record = PoisonRecord(
            body=without_notes(attempt.body if attempt else message.body),
            queue=received.queue,
            failure=failure,
            attempts=attempt.number if attempt else message.dequeue_count,
            worker=self.worker,
            poisoned_at=utc_now(),
            message_id=message.id,
            job_id=attempt.job.id if attempt else None,
            task=attempt.job.task if attempt else None,
        )
        try:
            patience = min(_POISON_TRIES, lease.length / 2)
            await _persist(lambda: self._put_poison(record, within=patience), seconds=patience, while_busy=patience)
        except BrokerError:
            body = _given_up_body(attempt, failure) if attempt else None
            await _persist(lambda: lease.reappear(lease.length, body=body), seconds=lease.length / 2)
            raise
        faultpoint("after-poison-put")
        await _persist(lease.complete, seconds=lease.length)
        faultpoint("after-poison-delete")

    async def _put_poison(self, record: PoisonRecord, *, within: float) -> None:
        queue = self.broker.queue(poison_queue_of(record.queue))
        body = encode_poison(record, self.encoding)
        await queue.admit(Urgency.SETTLEMENT, within=within)
        try:
            await queue.put(body)
        except QueueNotFound:
            await self.broker.create_queue(queue.name)
            await queue.put(body)

    def _noted_body(self, attempt: Attempt, action: Reappear) -> str | None:
        """Return the body that says what the dequeue count can't, if there is anything to say, and room for it."""
        job = attempt.job
        try:
            if not action.counted:  # and an attempt that was alone will be so again
                job = replace(job, releases=job.releases + 1, last=job.last and not attempt.alone)
                return check_body(encode(job, self.encoding))
            return check_body(note_last(attempt.body)) if action.one_left and not job.last else None
        except MessageTooLarge:
            return None  # no room to note a release: the attempt is spent, the job is not lost


def _given_up_body(attempt: Attempt, failure: Failure) -> str | None:
    """Return the body that says why the job was given up, unless it says so already, or has no room for it."""
    if attempt.job.given_up is not None:
        return None
    try:
        return check_body(note_given_up(attempt.body, Reason(failure.type[:_SHORT], failure.message[:_SHORT])))
    except MessageTooLarge:
        return None  # the job is run again, or its record will say in general that it was


async def _persist(call: Callable[[], Awaitable[None]], *, seconds: float, while_busy: float = math.inf) -> None:
    """Try a call again and again for some seconds, unless it is refused for good.

    A broker that is too busy says that nothing was done; by itself, that ends only with the lease, or *while_busy*.
    """
    began = time.monotonic()
    pauses = chain(_PAUSES, repeat(_PAUSES[-1]))
    while True:
        try:
            await call()
        except (BrokerBusy, BrokerFull, BrokerUnavailable, AnswerLost, Suspended) as error:
            if isinstance(error, Suspended) and error.missing:
                raise
            is_busy = isinstance(error, BrokerBusy)
            pause = _PAUSES[0] if is_busy else next(pauses)  # what comes next to a busy queue, its admission decides
            if time.monotonic() + pause >= began + (while_busy if is_busy else seconds):
                raise
        else:
            return
        await asyncio.sleep(pause)
