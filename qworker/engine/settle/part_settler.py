"""Settles the jobs of a bundle one by one, and then the message that they came in."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from qworker._faultpoints import faultpoint
from qworker.brokers.base import MAX_BATCH, MAX_TTL, Urgency
from qworker.engine.attempt import Attempt, Received
from qworker.engine.bundles import Bundle, Part
from qworker.engine.settle.persist import persist
from qworker.engine.settle.poisoner import Poisoner, short_reason
from qworker.errors import BrokerError, InvalidEnvelope, LeaseLost, MessageTooLarge, QworkerError
from qworker.outcome import Abandon, Action, Delete, Failure, Poison, Reappear
from qworker.wire.bodies import Encoding
from qworker.wire.notes import said_of

_AT_ONCE: Final = MAX_BATCH
"""Puts under way at the same time when a bundle is split."""
_AFTER_SPLIT: Final = 2
"""Seconds until the jobs of a split bundle become visible: by then it is deleted, unless something is wrong.

One of them may have ended its worker. If it ended the next before the bundle is gone, it would be put once more.
"""


@dataclass(frozen=True, slots=True)
class PartSettler:
    """Does to the parts of a bundle what was decided: a job that has to run again gets a message of its own."""

    poisoner: Poisoner
    encoding: Encoding

    async def settle(self, attempt: Attempt, part: Part, action: Action) -> None:
        """Apply *action* to one part. Raises LeaseLost or another BrokerError."""
        bundle = part.bundle
        if bundle.lease.lost and not isinstance(action, Abandon):
            raise LeaseLost(bundle.lease.message_id)
        try:
            match action:
                case Delete():
                    bundle.settle(part)
                case Reappear(after=0, counted=False):
                    # It stays in the bundle, which will be given back as soon as all its parts have ended.
                    part.note(_begun(attempt))
                case Abandon():
                    pass
                case Reappear(after):
                    await self._put_alone(attempt.queue, part, after, _notes_of(attempt, action))
                case Poison(failure):
                    await self.poison(attempt.received, part, failure, attempt)
        except QworkerError:
            bundle.failed = bundle.failed or part in bundle.left
            raise

    async def poison(self, received: Received, part: Part, failure: Failure, attempt: Attempt | None) -> None:
        """Move one part to the poison queue. Raises BrokerError."""
        try:
            await self.poisoner.put(received, part.body(), failure, attempt)
        except BrokerError:
            await self._keep_with_reason(received.queue, part, failure, attempt)
            raise
        faultpoint("after-poison-put")
        part.bundle.settle(part)
        faultpoint("after-poison-delete")

    async def finish(self, bundle: Bundle) -> None:
        """Delete the message if all of its parts are settled, or give it back with those that are not."""
        lease = bundle.lease
        if lease.lost:
            return
        if not bundle.left:
            await persist(lease.complete, seconds=lease.length)
            faultpoint("after-delete")
            return
        body = bundle.body() if bundle.failed else bundle.body_as_released()
        after = lease.length if bundle.failed else 0
        faultpoint("before-release")
        await persist(lambda: lease.reappear(after, body=body), seconds=lease.length)
        faultpoint("after-release")

    async def split(self, bundle: Bundle, queue: str) -> None:
        """Give each part a message of its own, and then delete the bundle."""

        async def put_each(waiting: Iterator[Part]) -> None:
            for part in waiting:
                await self._put_alone(queue, part, _AFTER_SPLIT, {"attempts": 1 + _attempts(part)})

        waiting = iter(bundle.left)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_AT_ONCE, len(bundle.left))):
                    group.create_task(put_each(waiting))
        except ExceptionGroup as failed:
            bundle.failed = True
            await self.finish(bundle)
            raise failed.exceptions[0] from None
        await self.finish(bundle)

    async def save(self, part: Part, state: Any) -> None:
        """Write a checkpoint's state into the message. Raises MessageTooLarge or BrokerError."""
        before, part.said = part.said, part.said | {"state": state}
        try:
            part.bundle.body()
        except MessageTooLarge:
            part.said = before
            raise
        await part.bundle.lease.save(part.bundle.body)

    async def _keep_with_reason(self, queue: str, part: Part, failure: Failure, attempt: Attempt | None) -> None:
        """Have a part that was given up come back, to be moved then; the bundle itself may not say why."""
        after = part.bundle.lease.length
        if attempt is None:  # whoever receives what is no job sees that for himself
            await self._put_alone(queue, part, after, {})
            return
        reason = said_of(short_reason(failure))
        notes = _begun_or_waited(attempt) | ({"attempts": attempt.number - 1} if attempt.number > 1 else {})
        try:
            await self._put_alone(queue, part, after, notes | {"given_up": reason})
        except MessageTooLarge:
            await self._put_alone(queue, part, after, notes)

    async def _put_alone(self, queue_name: str, part: Part, after: int, notes: dict[str, Any]) -> None:
        """Put a message with one job, and have the bundle know that it need not be there any more."""
        bundle = part.bundle
        queue = self.poisoner.broker.queue(queue_name)
        body = part.body(self.encoding, **notes)

        async def put() -> None:
            await queue.admit(Urgency.SETTLEMENT, within=bundle.lease.length)
            await queue.put(body, delay=after)

        await persist(put, seconds=bundle.lease.length)
        faultpoint("after-put-alone")
        bundle.settle(part)


def _notes_of(attempt: Attempt, action: Reappear) -> dict[str, Any]:
    made = attempt.number if action.counted else attempt.number - 1
    notes = _begun_or_waited(attempt) | ({"attempts": made} if made else {})
    return notes | {"last": True} if action.one_left else notes


def _begun(attempt: Attempt) -> dict[str, Any]:
    return {"begun": True} if attempt.noted_as_begun else {}


def _begun_or_waited(attempt: Attempt) -> dict[str, Any]:
    """Return what another message has to say of a ttl, which counts from its put."""
    if attempt.noted_as_begun or attempt.job.ttl is None:
        return _begun(attempt)
    return {"waited": min(attempt.job.waited + int(attempt.received.age.total_seconds()), MAX_TTL)}


def _attempts(part: Part) -> int:
    try:
        return part.job().attempts
    except InvalidEnvelope:
        return 0
