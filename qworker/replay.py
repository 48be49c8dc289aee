"""From a poison queue back to work: the original bodies are put into their queue once more."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

from qworker.brokers.base import MAX_BATCH, Broker, Message, Urgency
from qworker.engine.faultpoints import faultpoint
from qworker.envelope import without_history
from qworker.errors import (
    AnswerLost,
    BrokerBusy,
    BrokerError,
    BrokerFull,
    BrokerUnavailable,
    InvalidEnvelope,
    LeaseLost,
    PartlyReplayed,
    QueueNotFound,
)
from qworker.poison import PoisonRecord, decode_poison
from qworker.task import check_task_queue, poison_queue_of

T = TypeVar("T")
_PAUSES: Final = (0.1, 0.5, 2.0)
"""Seconds before each further try of a call that was refused for now, or not answered."""


async def replay(broker: Broker, queue: str, *, limit: int | None = None, lease: int = 60) -> int:
    """Put what is in the poison queue of *queue* back into it, as if it were new; return how many messages.

    It ends: at most *limit* messages are put back, at most as many as there were when it began, and none twice that was
    given up again meanwhile. Put comes before delete: killed in between, it leaves a copy in both queues, never in
    neither, and others can have the rest of its batch after *lease* seconds. Several replays at once share the work.

    Raises InvalidQueueName, or what the broker answered: within PartlyReplayed if something was put back before.
    """
    run = _Replay(broker, check_task_queue(queue), lease)
    try:
        await run.put_back(limit)
    except BrokerError as error:
        if run.count:
            raise PartlyReplayed(run.count, queue, error) from error
        raise
    finally:
        await run.leave_what_came_back()
    return run.count


class _Replay:
    """One run, and what it has put back so far."""

    def __init__(self, broker: Broker, queue: str, lease: int) -> None:
        self.count = 0
        self._lease = lease
        self._broker = broker
        self._queue = broker.queue(queue)
        self._poison = broker.queue(poison_queue_of(queue))
        self._put: set[str] = set()
        """The ids of the messages that it put back, which are in their records if they are given up again."""
        self._came_back: list[Message] = []

    async def put_back(self, limit: int | None) -> None:
        left = await _patiently(self._poison.count)
        left = left if limit is None else min(left, limit)
        while left > 0:
            until = time.monotonic() + self._lease / 2
            batch = await self._poison.get(min(left, MAX_BATCH), visibility=self._lease)
            if not batch:
                return
            before = self.count
            ended = await asyncio.gather(*(self._move(message, until) for message in batch), return_exceptions=True)
            for error in ended:
                if error is not None:
                    raise error
            left -= self.count - before

    async def leave_what_came_back(self) -> None:
        for message in self._came_back:
            with suppress(BrokerError):  # its lease ends anyway
                await self._poison.update(message.id, message.receipt, visibility=0)

    async def _move(self, message: Message, until: float) -> None:
        record = _record_in(message.body)
        if record is not None and record.message_id in self._put:
            self._came_back.append(message)
            return
        body = without_history(message.body if record is None else record.body)
        self._put.add(await _patiently(lambda: self._put_once(body, until), until))
        self.count += 1
        faultpoint("after-replay-put")
        with suppress(LeaseLost):  # another replay has it by now, and puts it back once more
            await _patiently(lambda: self._delete(message, until), until)

    async def _put_once(self, body: str, until: float) -> str:
        await self._queue.admit(Urgency.NEW_WORK, within=until - time.monotonic())
        try:
            return await self._queue.put(body)
        except QueueNotFound:
            await self._broker.create_queue(self._queue.name)
            return await self._queue.put(body)

    async def _delete(self, message: Message, until: float) -> None:
        await self._poison.admit(Urgency.SETTLEMENT, within=until - time.monotonic())
        await self._poison.delete(message.id, message.receipt)


def _record_in(body: str) -> PoisonRecord | None:
    """Return the record in a poison message; None if it is a body alone, as one without room for more."""
    try:
        return decode_poison(body)
    except InvalidEnvelope:
        return None


async def _patiently(call: Callable[[], Awaitable[T]], until: float | None = None) -> T:
    """Try a call again, a few times and not after *until*, if it was refused for now or not answered."""
    for pause in _PAUSES:
        try:
            return await call()
        except (BrokerBusy, BrokerFull, BrokerUnavailable, AnswerLost) as error:
            asked = error.retry_after if isinstance(error, BrokerBusy) else None
            rest = pause if asked is None else asked
            if until is not None and time.monotonic() + rest >= until:
                raise
        await asyncio.sleep(rest)
    return await call()
