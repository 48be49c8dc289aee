"""The contract that every broker keeps: what a queue can do, and within which limits.

The limits are those of Azure Storage Queue, so that what runs on one broker runs on every other.
All times are whole seconds, because the service knows no fractions of one.
"""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final, Literal

from qworker._queue_names import check_queue_name as check_queue_name  # noqa: PLC0414 — of the contract, too
from qworker.errors import MessageTooLarge

MAX_BATCH: Final = 32
"""Messages that one get or peek may ask for."""
MAX_BODY_BYTES: Final = 65_536
"""Bytes of UTF-8 in a message's body."""
MAX_VISIBILITY: Final = 7 * 24 * 3600
"""Seconds a message may stay invisible."""
MAX_TTL: Final = 2**31 - 1
"""Seconds that a message's life may be limited to: 68 years, the largest that every API version has room for."""

Right = Literal["put", "get", "update", "delete"]
"""What producers and workers must be allowed to do to a queue."""

# XML 1.0, section 2.2: all that a document may hold, however it is escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Urgency(Enum):
    """What a request is for; where a broker can't have all at once, the first of these come first."""

    RENEWAL = "renewal"
    """Keeps a lease."""
    SETTLEMENT = "settlement"
    """Ends one, or makes it worth keeping."""
    NEW_WORK = "new work"
    """Gets messages, or puts some."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that a get has leased to its receiver."""

    id: str
    receipt: str
    """The right to update or delete it; replaced by each update, void once the message is received again."""
    dequeue_count: int
    """How often it has been received, this time included."""
    body: str = field(repr=False)
    inserted_at: datetime
    expires_at: datetime | None
    """When the broker drops it unprocessed; None means never."""
    received_at: datetime
    """When it was received, by the broker's clock as all of these: they may be compared with each other only."""


@dataclass(frozen=True, slots=True)
class PeekedMessage:
    """A visible message that was looked at and left where it was."""

    id: str
    dequeue_count: int
    body: str = field(repr=False)
    inserted_at: datetime
    expires_at: datetime | None
    seen_at: datetime
    """When it was looked at, by the broker's clock as all of these."""


@dataclass(frozen=True, slots=True)
class Condition:
    """How a broker was found to be; None for what it doesn't have, or doesn't say."""

    clock_ahead: float | None = None
    """Seconds by which the service's clock is ahead of this machine's, half a second more or less."""
    api_version: str | None = None
    """The version of the protocol that the service answered in."""
    version_asked: str | None = None
    journal_mode: str | None = None
    free_bytes: int | None = None
    """On the disk that holds the queues."""


class Queue(ABC):
    """One named queue of a broker.

    Any method may raise a BrokerError; QueueNotFound and QueueBeingDeleted are not repeated below.
    Safe to use from any thread and any event loop.
    """

    name: str
    put_limit: int = 1
    """How many messages `put_many` takes."""

    @property
    def rate(self) -> float | None:
        """Requests a second that it is asked at most, because it refuses more; None if it takes all."""
        return None

    async def admit(self, urgency: Urgency, *, within: float | None = None) -> None:  # noqa: B027 — most take all at once
        """Wait until there is room for another request: to be called before those that an overload could cost much.

        Waiting here, not in the request, spends no time of a lease and leaves no doubt about what was done. A queue
        that wraps another has to pass this on. Raises BrokerBusy if there was no room within so many seconds.
        """

    @abstractmethod
    async def put(self, body: str, *, delay: int = 0, ttl: int | None = None) -> str:
        """Add a message and return its id.

        It becomes visible after *delay* seconds (0 to 7 days) and is dropped *ttl* seconds (at least 1, more than
        *delay*) after now, even while it is leased; without a *ttl* it never expires.

        Raises MessageTooLarge, or ValueError for what no broker would take, before anything is sent.
        """

    def check_thread(self) -> None:  # noqa: B027 — most brokers do nothing on a caller's own thread
        """Raise QworkerError if a call from plain code would wait for the calling thread itself."""

    def put_now(self, body: str, *, delay: int = 0, ttl: int | None = None) -> str | None:  # noqa: ARG002 — for brokers that can
        """Add a message from plain code and return its id, or None where only `put` can; see put."""
        return None

    async def put_many(self, bodies: Sequence[str], *, delay: int = 0, ttl: int | None = None) -> None:
        """Add up to `put_limit` messages: all of them, or none; see put. Raises ValueError for more."""
        for body in check_many(bodies, self.put_limit):
            await self.put(body, delay=delay, ttl=ttl)

    @abstractmethod
    async def get(self, limit: int = 1, *, visibility: int) -> list[Message]:
        """Lease up to *limit* (1 to 32) visible messages for *visibility* seconds (1 to 7 days).

        Never waits for messages to come: an empty list means that none is visible.
        """

    async def wait(self, seconds: float) -> None:
        """Wait until a message may have become visible, at most so many seconds; where that can't be told, all of them.

        A queue that wraps another has to pass this on.
        """
        await asyncio.sleep(seconds)

    @abstractmethod
    async def peek(self, limit: int = 1) -> list[PeekedMessage]:
        """Return up to *limit* (1 to 32) visible messages without leasing them."""

    @abstractmethod
    async def update(self, message_id: str, receipt: str, *, visibility: int, body: str | None = None) -> str:
        """Let a leased message reappear in *visibility* seconds (0 to 7 days) from now; return its new receipt.

        A *body* replaces the message's own; without one it is kept. The dequeue count is not touched.

        Raises LeaseLost if the receipt is not the newest or the message is gone.
        """

    @abstractmethod
    async def delete(self, message_id: str, receipt: str) -> None:
        """Delete a leased message.

        Raises LeaseLost if the receipt is not the newest or the message is gone.
        """

    @abstractmethod
    async def clear(self) -> None:
        """Delete all messages, the invisible ones too."""

    @abstractmethod
    async def count(self) -> int:
        """Return how many messages there are, about; the invisible ones count too."""

    async def check_right(self, right: Right) -> None:  # noqa: B027 — a broker that knows no rights has none to check
        """Raise AccessDenied if this credential may not do that here; the queue is not changed by asking.

        Returns if it may, and also where a broker has no rights, or no such queue to ask about.
        """


class Broker(ABC):
    """The place that holds queues: a storage account, an SQLite file.

    Making one does nothing yet: connections are opened at the first call, one set for each event loop that calls.
    Safe to use from any thread, any event loop, and after a fork.
    """

    label: str
    """What it is and where, without secrets: for logs."""
    poll_max: float
    """Seconds between polls of an idle queue, unless settings say otherwise."""
    shared: bool
    """Whether other processes can reach the same queues."""
    remote: bool = False
    """Whether it is a service, with rights of its own, that is paid by the request."""

    def exists(self) -> bool:
        """Return False if the place is not there yet, and the first call would make it."""
        return True

    async def examine(self) -> Condition:
        """Make one cheap request, and say how the broker was found. An answer that denies it is one, too."""
        return Condition()

    async def check_writable(self) -> None:  # noqa: B027 — a service has rights instead
        """Raise a BrokerError if nothing can be written; no queue is changed. A service may return without asking."""

    @abstractmethod
    def queue(self, name: str) -> Queue:
        """Return the queue of this name, whether it exists or not. Raises InvalidQueueName."""

    @abstractmethod
    async def create_queue(self, name: str) -> bool:
        """Create a queue; return False if it was there already. Raises InvalidQueueName."""

    @abstractmethod
    async def delete_queue(self, name: str) -> None:
        """Delete a queue with all its messages. Raises QueueNotFound."""

    @abstractmethod
    async def list_queues(self, prefix: str = "") -> list[str]:
        """Return the names of all queues that begin with *prefix*, sorted."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later call opens new ones."""


def check_body(body: str) -> str:
    """Return *body* if it fits into a message; raises MessageTooLarge."""
    # A string has at most as many characters as bytes: the common case is decided without encoding it.
    if len(body) * 4 > MAX_BODY_BYTES and (size := len(body.encode())) > MAX_BODY_BYTES:
        raise MessageTooLarge(size, MAX_BODY_BYTES)
    return body


def check_text(body: str) -> str:
    """Return *body* if it can travel in the service's XML; raises ValueError.

    What passes comes back as it was, except for carriage returns, which XML parsers read as line feeds.
    """
    if not body.isprintable() and (found := _NOT_XML.search(body)):  # all of these characters are not printable
        msg = f"a message can't hold the character U+{ord(found[0]):04X} (at {found.start()}): escape it"
        raise ValueError(msg)
    return body


def check_put(delay: int, ttl: int | None) -> None:
    """Raise ValueError unless every broker takes these for a put."""
    _check_range("delay", delay, 0, MAX_VISIBILITY)
    if ttl is not None:
        _check_range("ttl", ttl, delay + 1, MAX_TTL)


def check_many(bodies: Sequence[str], limit: int) -> Sequence[str]:
    """Return *bodies* if they are no more than *limit*; raises ValueError."""
    if len(bodies) > limit:
        raise ValueError(f"{len(bodies)} messages are too many to put at once: {limit} are taken")
    return bodies


def check_limit(limit: int) -> None:
    """Raise ValueError unless every broker takes this as the size of a batch."""
    _check_range("limit", limit, 1, MAX_BATCH)


def check_lease(visibility: int) -> None:
    """Raise ValueError unless every broker takes this as a get's visibility timeout."""
    _check_range("visibility", visibility, 1, MAX_VISIBILITY)


def check_visibility(visibility: int) -> None:
    """Raise ValueError unless every broker takes this as an update's visibility timeout."""
    _check_range("visibility", visibility, 0, MAX_VISIBILITY)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        msg = f"{name} must be between {low} and {high}, not {value}"
        raise ValueError(msg)
