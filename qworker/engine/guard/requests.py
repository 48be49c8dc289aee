"""A broker whose requests are told of, each with its result and its time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from qworker._routine import Operation, RequestMade, Result
from qworker.brokers.base import Broker, Message, Queue
from qworker.brokers.wrapped import WrappedBroker, WrappedQueue
from qworker.errors import AccessDenied, AnswerLost, BrokerBusy, BrokerUnavailable, LeaseLost

T = TypeVar("T")
Tell = Callable[[RequestMade], None]

_RESULTS: Final[tuple[tuple[type[BaseException], Result], ...]] = (
    (LeaseLost, "lost"),
    (AccessDenied, "denied"),
    (BrokerBusy, "busy"),
    (BrokerUnavailable, "unreachable"),
    (AnswerLost, "unanswered"),
    (asyncio.CancelledError, "unanswered"),  # whoever asked waits no longer
)


class ToldBroker(WrappedBroker):
    """A broker that tells of what its queues are asked."""

    def __init__(self, broker: Broker, tell: Tell) -> None:
        super().__init__(broker)
        self._tell = tell

    def queue(self, name: str) -> Queue:
        """Return the queue of this name. Raises InvalidQueueName."""
        return _ToldQueue(self._broker.queue(name), self._tell)


class _ToldQueue(WrappedQueue):
    def __init__(self, queue: Queue, tell: Tell) -> None:
        super().__init__(queue)
        self._tell = tell

    async def put(self, body: str, *, delay: int = 0, ttl: int | None = None) -> str:
        return await self._told("put", self._queue.put(body, delay=delay, ttl=ttl))

    async def get(self, limit: int = 1, *, visibility: int) -> list[Message]:
        return await self._told("get", self._queue.get(limit, visibility=visibility))

    async def update(self, message_id: str, receipt: str, *, visibility: int, body: str | None = None) -> str:
        return await self._told("update", self._queue.update(message_id, receipt, visibility=visibility, body=body))

    async def delete(self, message_id: str, receipt: str) -> None:
        await self._told("delete", self._queue.delete(message_id, receipt))

    async def count(self) -> int:
        return await self._told("count", self._queue.count())

    async def _told(self, operation: Operation, asking: Awaitable[T]) -> T:
        began = time.monotonic()
        result: Result = "ok"
        try:
            return await asking
        except BaseException as error:
            result = result_of(error)
            raise
        finally:
            self._tell(
                RequestMade(queue=self.name, operation=operation, result=result, seconds=time.monotonic() - began)
            )


def result_of(error: BaseException) -> Result:
    """Return what a request came to that raised an error."""
    return next((result for kind, result in _RESULTS if isinstance(error, kind)), "refused")
