"""From a poison queue back to work: the original bodies are put into their queue once more."""

import time

from qworker._faultpoints import faultpoint
from qworker._queue_names import check_task_queue, poison_queue_of
from qworker.brokers.base import Broker, Urgency
from qworker.errors import BrokerError, PartlyReplayed, QueueNotFound
from qworker.poison.patience import patiently
from qworker.poison.selection import GivenUp
from qworker.poison.sweep import ALL, Done, Leased, Pass, Sweep, delete
from qworker.wire.envelope import has_ttl


async def replay(broker: Broker, queue: str, over: Pass = ALL) -> int:
    """Put the messages of the poison queue of *queue* back into it, as if they were new; return how many.

    Their ttls count anew from then on. A job whose producer named a moment instead (``expires_at``) runs however late.

    A replay ends: it puts back no more messages than there were when it began, and none twice that was given up again
    meanwhile. It puts before it deletes: a kill in between leaves a copy in both queues, never in neither, and others
    get the rest of its messages when their leases end. If it is cancelled, it ends the batch that it has begun.
    Several replays at once share the work. Its Progress also says how many messages could not be put back.

    Raises InvalidQueueName, or the error of the broker: within PartlyReplayed if something was put back before.
    """
    back = _WayBack(broker, check_task_queue(queue))
    sweep = Sweep(back.poison, over, leave=back.was_put)
    try:
        await sweep.run(back.move)
    except BrokerError as error:
        if sweep.progress.done:
            raise PartlyReplayed(sweep.progress.done, queue, error) from error
        raise
    return sweep.progress.done


class _WayBack:
    """From one poison queue to its queue, and what was put on it so far."""

    def __init__(self, broker: Broker, queue: str) -> None:
        self.poison = broker.queue(poison_queue_of(queue))
        self._broker = broker
        self._queue = broker.queue(queue)
        self._put: set[str] = set()
        """The ids of the messages that it put, which are in their records if they are given up again."""
        self._moved: set[str] = set()
        """The ids of the poison messages that it put back; one that is received again could not be deleted in time."""

    def was_put(self, given_up: GivenUp) -> bool:
        """Say whether a job was put back by this replay, and given up again."""
        return given_up.record is not None and given_up.record.message_id in self._put

    async def move(self, leased: Leased, done: Done) -> None:
        name = leased.message.id
        if name not in self._moved:
            body = leased.given_up.as_new()
            self._put.add(await patiently(lambda: self._put_once(body, leased.until), leased.until))
            self._moved.add(name)
            done(ttl_anew=has_ttl(body))
            faultpoint("after-replay-put")
        await delete(self.poison, leased)  # if another replay has it by now, that puts it back once more

    async def _put_once(self, body: str, until: float) -> str:
        await self._queue.admit(Urgency.NEW_WORK, within=until - time.monotonic())
        try:
            return await self._queue.put(body)
        except QueueNotFound:
            await self._broker.create_queue(self._queue.name)
            return await self._queue.put(body)
