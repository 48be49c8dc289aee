"""What a worker still asks of a broker that denies it something: one request in five seconds, until one is granted.

A right may be given, and a key renewed, while the worker runs; so it goes on asking, but no faster than that.
"""

import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from qworker.brokers.base import Broker, Message, Queue, Right
from qworker.brokers.wrapped import WrappedBroker, WrappedQueue
from qworker.errors import AccessDenied, LeaseLost, MessageTooLarge, QueueBeingDeleted, QueueNotFound, QworkerError

T = TypeVar("T")
_PAUSE: Final = 5.0
"""Seconds between two requests while access is denied."""
_TURN: Final = 1.0
"""Seconds more for what was denied last: another request may show that nothing else is denied."""
_AUTHORISED: Final = (LeaseLost, QueueNotFound, QueueBeingDeleted, MessageTooLarge)
"""Refusals that come only after the right was found good."""

Asked = tuple[str, str]
"""An operation, and the queue's name."""


class Suspended(AccessDenied):
    """Access is denied: by the broker's answer, or by one a short while ago, and then nothing was sent."""

    def __init__(
        self, reason: str, retry_in: float, *, everywhere: bool, missing: bool = False, sent: bool = True
    ) -> None:
        super().__init__(reason)
        self.sent = sent
        self.retry_in = retry_in
        """Seconds after which it may be asked again."""
        self.everywhere = everywhere
        """Whether nothing was granted since: it may be more than this one right that is missing."""
        self.missing = missing
        """Whether it is known to be just this right, so that it may be long until it is there."""


class Access:
    """What is denied, and when it may be asked for again; one for all threads of a worker.

    The first denial may be of this one right, or of all: a credential has expired. It holds up what was denied, and
    gets from all queues; everything else is tried once. If something else is denied too, all of it waits; if something
    is granted, only what was denied does. Puts are for poison queues, with rights of their own, and tell nothing.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._denied: dict[Asked, str] = {}
        """What was denied, and not granted since, with the reason."""
        self._missing: set[Asked] = set()
        """Of these, what was denied although other things were granted."""
        self._due: dict[Asked, float] = {}
        self._first: Asked | None = None
        """What was denied first, if nothing at all was granted since."""
        self._everything = False
        """Whether all waits until ``_next``."""
        self._next = 0.0
        self._last: Asked | None = None
        self._reason = ""

    def begin(self, asked: Asked) -> None:
        """Take the turn to ask. Raises Suspended if it is not time for it, and QworkerError in a forked process."""
        if os.getpid() != self._pid:
            raise QworkerError("a process that a handler forked has no right to the worker's messages")
        if not self._denied:
            return
        with self._lock:
            now, due = self._monotonic(), self._when(asked)
            if now < due:
                raise self._suspended(asked, due - now, sent=False)
            self._next = now + _PAUSE
            if self._first is not None or asked in self._denied:
                self._due[asked] = now + _PAUSE

    def deny(self, asked: Asked, reason: str) -> Suspended:
        """Note what the broker denied; return what to raise."""
        with self._lock:
            telling = asked not in self._denied and asked[0] != "put"
            self._note(asked, reason)
            if self._first is None and telling:
                self._first, self._reason = asked, reason
            elif self._first is None:
                self._missing.add(asked)
            elif asked != self._first and telling:
                self._everything = True
            return self._suspended(asked, _PAUSE, sent=True)

    def expect_denial(self, asked: Asked, reason: str) -> None:
        """Note a right that is known to be missing: its denial will tell nothing."""
        with self._lock:
            self._note(asked, reason)
            self._missing.add(asked)

    def grant(self, asked: Asked) -> None:
        """Note what the broker allowed: if all waited, each other thing may be asked for at once."""
        if not self._denied:
            return
        with self._lock:
            self._denied.pop(asked, None)
            self._missing.discard(asked)
            if self._everything:
                self._due.clear()
            self._due.pop(asked, None)
            self._first, self._everything = None, False

    def _note(self, asked: Asked, reason: str) -> None:
        self._denied[asked] = reason
        self._due[asked] = self._next = self._monotonic() + _PAUSE
        self._last = asked

    def _when(self, asked: Asked) -> float:
        gets_wait = self._first is not None and self._first[0] == asked[0] == "get"
        if self._everything or gets_wait:
            return self._next + (_TURN if asked == self._last else 0)
        return self._due.get(asked, 0.0)

    def _suspended(self, asked: Asked, retry_in: float, *, sent: bool) -> Suspended:
        everywhere = self._first is not None
        reason = self._reason if everywhere else self._denied.get(asked, self._reason)
        missing = not everywhere and asked in self._missing
        return Suspended(reason, retry_in, everywhere=everywhere, missing=missing, sent=sent)


class GuardedBroker(WrappedBroker):
    """A broker whose queues are guarded, each by the same Access."""

    def __init__(self, broker: Broker, access: Access) -> None:
        super().__init__(broker)
        self._access = access

    def queue(self, name: str) -> "GuardedQueue":
        """Return the queue of this name, guarded. Raises InvalidQueueName."""
        return GuardedQueue(self._broker.queue(name), self._access)


class GuardedQueue(WrappedQueue):
    """A queue that is asked no more than access allows. What a worker uses may raise Suspended instead."""

    def __init__(self, queue: Queue, access: Access) -> None:
        super().__init__(queue)
        self._access = access

    async def put(self, body: str, *, delay: int = 0, ttl: int | None = None) -> str:
        """Add a message and return its id."""
        return await self._ask("put", lambda: self._queue.put(body, delay=delay, ttl=ttl))

    async def get(self, limit: int = 1, *, visibility: int) -> list[Message]:
        """Lease visible messages."""
        return await self._ask("get", lambda: self._queue.get(limit, visibility=visibility))

    async def update(self, message_id: str, receipt: str, *, visibility: int, body: str | None = None) -> str:
        """Let a leased message reappear later."""
        return await self._ask(
            "update", lambda: self._queue.update(message_id, receipt, visibility=visibility, body=body)
        )

    async def delete(self, message_id: str, receipt: str) -> None:
        """Delete a leased message."""
        await self._ask("delete", lambda: self._queue.delete(message_id, receipt))

    async def check_right(self, right: Right) -> None:
        """Raise AccessDenied if this credential may not do that here, which then surprises no more."""
        try:
            await self._queue.check_right(right)
        except AccessDenied as error:
            self._access.expect_denial((right, self.name), str(error))
            raise

    async def _ask(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        asked = operation, self.name
        self._access.begin(asked)
        try:
            answer = await call()
        except AccessDenied as error:
            raise self._access.deny(asked, str(error)) from None
        except _AUTHORISED:
            self._access.grant(asked)
            raise
        self._access.grant(asked)
        return answer
