"""Applies an action through the lease: the thin layer behind decide()."""

import asyncio
from dataclasses import replace

from qworker._faultpoints import faultpoint
from qworker.brokers.base import Broker, check_body
from qworker.engine.attempt import Attempt, Received
from qworker.engine.bundles import Bundle
from qworker.engine.settle.part_settler import PartSettler
from qworker.engine.settle.persist import persist
from qworker.engine.settle.poisoner import Poisoner, short_reason
from qworker.errors import BrokerError, InvalidArguments, MessageTooLarge
from qworker.job import Job
from qworker.outcome import Abandon, Action, Delete, Failure, Poison, Reappear
from qworker.wire.bodies import Encoding
from qworker.wire.envelope import encode
from qworker.wire.notes import Notes, with_notes, without_notes


class Settler:
    """Does to messages what was decided. Its methods raise BrokerError when the broker would not have it."""

    def __init__(self, broker: Broker, worker: str, encoding: Encoding) -> None:
        self._encoding = encoding
        self._poisoner = Poisoner(broker, worker, encoding)
        self._parts = PartSettler(self._poisoner, encoding)

    async def settle(self, attempt: Attempt, action: Action) -> None:
        """Apply *action*; tries again while the lease lasts. Raises LeaseLost or another BrokerError."""
        if attempt.part is not None:
            await self._parts.settle(attempt, attempt.part, action)
            return
        lease = attempt.lease
        match action:
            case Delete():
                await persist(lease.complete, seconds=lease.length)
                faultpoint("after-delete")
            case Reappear(after):
                body = _noted_body(attempt, action)
                faultpoint("before-release")
                await persist(lambda: lease.reappear(after, body=body), seconds=lease.length)
                faultpoint("after-release")
            case Poison(failure):
                await self._move(attempt.received, failure, attempt)
            case Abandon():
                pass

    async def poison_message(self, received: Received, failure: Failure) -> None:
        """Move a message that is no job to the poison queue, or what is none in a bundle. Raises BrokerError."""
        if received.part is not None:
            await self._parts.poison(received, received.part, failure, None)
        else:
            await self._move(received, failure, None)

    async def finish(self, bundle: Bundle) -> None:
        """Delete a bundle of which all parts have ended, or give back what is left of it. Raises BrokerError."""
        await self._parts.finish(bundle)

    async def split(self, bundle: Bundle, queue: str) -> None:
        """Give each job of a bundle a message of its own, and delete the bundle. Raises BrokerError."""
        await self._parts.split(bundle, queue)

    async def save_state(self, attempt: Attempt, state: object) -> None:
        """Write a checkpoint's state, a JSON value, into the message.

        Raises InvalidArguments, MessageTooLarge or BrokerError.
        """
        job = replace(attempt.job, state=state)
        try:
            body = _noted(attempt, job, encode(job, self._encoding))
        except ValueError as error:
            raise InvalidArguments(job.task, f"a state that can't be saved as JSON: {error}") from None
        saving = attempt.lease.save(body) if attempt.part is None else self._parts.save(attempt.part, job.state)
        # Shielded: a handler that is cancelled now must not take the new receipt with it.
        await asyncio.shield(saving)
        attempt.job, attempt.body = job, body

    async def note_last(self, attempt: Attempt) -> None:
        """Write into the message that its last attempt begins. Raises MessageTooLarge or BrokerError."""
        job = replace(attempt.job, last=True)
        body = _noted(attempt, job, attempt.body)
        await persist(lambda: attempt.lease.save(body), seconds=attempt.lease.length / 2)
        attempt.job, attempt.body = job, body

    async def _move(self, received: Received, failure: Failure, attempt: Attempt | None) -> None:
        """Put, then delete: a crash in between leaves a copy in both queues, never in neither."""
        lease, message = received.lease, received.message
        body = without_notes(attempt.body if attempt else message.body, message.id)
        try:
            await self._poisoner.put(received, body, failure, attempt)
        except BrokerError:
            given_up = _given_up_body(attempt, failure) if attempt else None
            await persist(lambda: lease.reappear(lease.length, body=given_up), seconds=lease.length / 2)
            raise
        faultpoint("after-poison-put")
        await persist(lease.complete, seconds=lease.length)
        faultpoint("after-poison-delete")


def _noted_body(attempt: Attempt, action: Reappear) -> str | None:
    """Return the body that says what the dequeue count can't, if there is anything to say, and room for it."""
    job = attempt.job
    if not action.counted:  # and an attempt that was alone will be so again
        begun, last = attempt.noted_as_begun, job.last and not attempt.alone
        unknown = job.unknown + action.unknown
        job = replace(job, releases=job.releases + 1, unknown=unknown, begun=begun, last=last)
    elif action.one_left and not job.last:
        job = replace(job, last=True)
    else:
        return None
    try:
        return _noted(attempt, job, attempt.body)
    except MessageTooLarge:
        return None  # no room to note a release: the attempt is spent, the job is not lost


def _given_up_body(attempt: Attempt, failure: Failure) -> str | None:
    """Return the body that says why the job was given up, unless it says so already, or has no room for it."""
    if attempt.job.given_up is not None:
        return None
    try:
        return _noted(attempt, replace(attempt.job, given_up=short_reason(failure)), attempt.body)
    except MessageTooLarge:
        return None  # the job is run again, or its record will say in general that it was


def _noted(attempt: Attempt, job: Job, body: str) -> str:
    """Return a body with what is to be noted of its job. Raises MessageTooLarge."""
    notes = Notes(job.releases, job.begun, job.last, job.given_up, job.unknown)
    return check_body(with_notes(body, attempt.lease.message_id, notes))
