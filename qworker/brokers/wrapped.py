"""Brokers around another: what they don't do themselves, that one does."""

from qworker.brokers.base import Broker, Message, PeekedMessage, Queue, Right, Urgency


class WrappedQueue(Queue):
    """A queue that has another do all it is asked."""

    def __init__(self, queue: Queue) -> None:
        self.name = queue.name
        self._queue = queue

    @property
    def rate(self) -> float | None:
        """Requests a second that it is asked at most."""
        return self._queue.rate

    async def admit(self, urgency: Urgency, *, within: float | None = None) -> None:
        """Wait until there is room for another request."""
        await self._queue.admit(urgency, within=within)

    def check_thread(self) -> None:
        """Raise QworkerError if a call from plain code would wait for the calling thread itself."""
        self._queue.check_thread()

    async def put(self, body: str, *, delay: int = 0, ttl: int | None = None) -> str:
        """Add a message and return its id."""
        return await self._queue.put(body, delay=delay, ttl=ttl)

    async def get(self, limit: int = 1, *, visibility: int) -> list[Message]:
        """Lease visible messages."""
        return await self._queue.get(limit, visibility=visibility)

    async def wait(self, seconds: float) -> None:
        """Wait until a message may have become visible."""
        await self._queue.wait(seconds)

    async def peek(self, limit: int = 1) -> list[PeekedMessage]:
        """Look at visible messages."""
        return await self._queue.peek(limit)

    async def update(self, message_id: str, receipt: str, *, visibility: int, body: str | None = None) -> str:
        """Let a leased message reappear later."""
        return await self._queue.update(message_id, receipt, visibility=visibility, body=body)

    async def delete(self, message_id: str, receipt: str) -> None:
        """Delete a leased message."""
        await self._queue.delete(message_id, receipt)

    async def clear(self) -> None:
        """Delete all messages, the invisible ones too."""
        await self._queue.clear()

    async def count(self) -> int:
        """Return how many messages there are, about."""
        return await self._queue.count()

    async def check_right(self, right: Right) -> None:
        """Raise AccessDenied if this credential may not do that here."""
        await self._queue.check_right(right)


class WrappedBroker(Broker):
    """A broker that has another do all but to make its queues."""

    def __init__(self, broker: Broker) -> None:
        self.label, self.poll_max, self.shared = broker.label, broker.poll_max, broker.shared
        self._broker = broker

    async def create_queue(self, name: str) -> bool:
        """Create a queue."""
        return await self._broker.create_queue(name)

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with all its messages."""
        await self._broker.delete_queue(name)

    async def list_queues(self, prefix: str = "") -> list[str]:
        """Return the names of all queues that begin with *prefix*, sorted."""
        return await self._broker.list_queues(prefix)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._broker.aclose()
