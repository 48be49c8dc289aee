"""Puts what was given up into a poison queue, with the reason."""

from dataclasses import dataclass
from typing import Final

from qworker._queue_names import poison_queue_of
from qworker.brokers.base import Broker, Urgency
from qworker.engine.attempt import Attempt, Received
from qworker.engine.settle.persist import persist
from qworker.errors import QueueNotFound
from qworker.job import Reason, utc_now
from qworker.outcome import Failure
from qworker.poison.record import PoisonRecord, encode_poison
from qworker.wire.bodies import Encoding

_TRIES: Final = 5.0
"""Seconds that a put is tried for; then the job is kept where it is, for as long as a lease."""
_SHORT: Final = 512
"""Characters of a failure that are kept in a message until its poison queue takes it."""


@dataclass(frozen=True, slots=True)
class Poisoner:
    """The way to the poison queues of a broker."""

    broker: Broker
    worker: str
    encoding: Encoding

    async def put(self, received: Received, body: str, failure: Failure, attempt: Attempt | None) -> None:
        """Put a record of what is given up; *attempt* is what was made of it, if it is a job. Raises BrokerError."""
        message = received.message
        record = PoisonRecord(
            body=body,
            queue=received.queue,
            failure=failure,
            attempts=attempt.number if attempt else message.dequeue_count,
            worker=self.worker,
            poisoned_at=utc_now(),
            message_id=message.id,
            job_id=attempt.job.id if attempt else None,
            task=attempt.job.task if attempt else None,
        )
        patience = min(_TRIES, received.lease.length / 2)
        await persist(lambda: self._put(record, within=patience), seconds=patience, while_busy=patience)

    async def _put(self, record: PoisonRecord, *, within: float) -> None:
        queue = self.broker.queue(poison_queue_of(record.queue))
        body = encode_poison(record, self.encoding)
        await queue.admit(Urgency.SETTLEMENT, within=within)
        try:
            await queue.put(body)
        except QueueNotFound:
            await self.broker.create_queue(queue.name)
            await queue.put(body)


def short_reason(failure: Failure) -> Reason:
    """Return what a message is to say of a failure until its poison queue takes it."""
    return Reason(failure.type[:_SHORT], failure.message[:_SHORT])
