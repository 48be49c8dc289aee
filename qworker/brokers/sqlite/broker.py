"""Queues in an SQLite file, or in memory, with the semantics of Azure Storage Queue.

Any number of processes on one machine may share the file. An acknowledged put survives a loss of power; a get, an
update or a delete may then be forgotten, which costs a second delivery at most.

A call that is cancelled may have been applied, like a request whose answer was lost: a put may have queued its
message, and messages of a get come back when their visibility timeout ends.
"""

import asyncio
import os
import shutil
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from qworker._queue_names import check_queue_name
from qworker.brokers.base import (
    Broker,
    Condition,
    Message,
    PeekedMessage,
    Queue,
    check_body,
    check_lease,
    check_limit,
    check_many,
    check_put,
    check_text,
    check_visibility,
)
from qworker.brokers.sqlite.deletes import Deletes
from qworker.brokers.sqlite.operation import Mode
from qworker.brokers.sqlite.place import place_of
from qworker.brokers.sqlite.writer import Writer
from qworker.clock import SYSTEM_CLOCK, Clock

_WRITE_PATIENCE: Final = 5.0
"""Seconds for which somebody who asks whether the file can be written waits for its lock."""
POLL_MAX: Final = 0.5
"""Seconds between polls of an idle queue: a look costs no request and no write."""


class SqliteBroker(Broker):
    """Queues in the file *path*, made when it isn't there; without a path, in this object's memory.

    The path is resolved here and now, links and all: neither a change of directory nor of a link moves the broker.
    Every call may raise BrokerUnusable (the file is corrupt, another program's, out of reach or on a network file
    system; it was not touched), BrokerBusy (another process held its lock for a minute; nothing was done), BrokerFull
    (nothing was done), BrokerUnavailable (an I/O error; nothing was done), AnswerLost (an I/O error at the end of a
    transaction; it may have been done), or BrokerRefused.
    """

    def __init__(self, path: str | Path | None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._path = None if path is None else place_of(path)
        self.label = "sqlite:// (in memory)" if path is None else f"sqlite:///{self._path}"
        self.poll_max = POLL_MAX
        self.shared = path is not None
        self._writer = Writer(self._path, clock, self.label)
        self._deletes = Deletes(self._writer)
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        # At exit the writers see to themselves.
        weakref.finalize(self, self._writer.abandon).atexit = False

    def exists(self) -> bool:
        """Return whether the file is there; see Broker.exists."""
        return self._path is None or os.path.lexists(self._path)  # unlike Path.exists, of a name too long as well

    async def examine(self) -> Condition:
        """Look at the file and its disk; see Broker.examine."""
        mode = await self.writer().submit(Mode.READ, lambda session: session.journal_mode())
        free = None
        if self._path is not None:
            with suppress(OSError):
                free = shutil.disk_usage(self._path.parent).free
        return Condition(journal_mode=mode, free_bytes=free)

    async def check_writable(self) -> None:
        """Write what the file says already, down to the disk; see Broker.check_writable."""
        await self.writer().submit(Mode.KEEP, lambda session: session.rewrite_version(), patience=_WRITE_PATIENCE)

    def queue(self, name: str) -> "SqliteQueue":
        """Return the queue of this name, whether it exists or not. Raises InvalidQueueName."""
        return SqliteQueue(self, check_queue_name(name))

    async def create_queue(self, name: str) -> bool:
        """Create a queue; return False if it was there already. Raises InvalidQueueName."""
        check_queue_name(name)
        return await self.writer().submit(Mode.KEEP, lambda session: session.create_queue(name))

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with all its messages; its name is free at once. Raises QueueNotFound."""
        check_queue_name(name)
        await self.writer().submit(Mode.KEEP, lambda session: session.delete_queue(name))

    async def list_queues(self, prefix: str = "") -> list[str]:
        """Return the names of all queues that begin with *prefix*, sorted."""
        return await self.writer().submit(Mode.READ, lambda session: session.list_queues(prefix))

    async def aclose(self) -> None:
        """Close the file, unless other loops use it too; a later call opens it again. Memory keeps its messages."""
        self._deletes.hand_in()
        with self._own_lock():
            self._loops.discard(asyncio.get_running_loop())
            in_use = any(not loop.is_closed() for loop in self._loops)
        if not in_use:
            await self._writer.aclose()

    def writer_now(self) -> Writer:
        """Return what runs operations, for a call from plain code."""
        return self._writer

    def deletes(self) -> Deletes:
        """Return what takes deletes, for a call from the running event loop."""
        self.writer()
        return self._deletes

    def writer(self) -> Writer:
        """Return what runs operations, for a call from the running event loop."""
        loop = asyncio.get_running_loop()
        with self._own_lock():
            self._loops.add(loop)
        return self._writer

    def _own_lock(self) -> threading.Lock:
        if self._pid != os.getpid():
            # A lock that another thread of the parent held at the fork would stay locked here for ever.
            self._lock, self._loops, self._pid = threading.Lock(), weakref.WeakSet(), os.getpid()
        return self._lock


class SqliteQueue(Queue):
    """One queue of an SqliteBroker."""

    put_limit = 2000

    def __init__(self, broker: SqliteBroker, name: str) -> None:
        self.name = name
        self._broker = broker

    async def put(self, body: str, *, delay: int = 0, ttl: int | None = None) -> str:
        """Add a message and return its id; it is on the disk then."""
        check_put(delay, ttl)
        check_body(check_text(body))
        return await self._broker.writer().submit(Mode.KEEP, lambda session: session.put(self.name, body, delay, ttl))

    def check_thread(self) -> None:
        """Raise QworkerError if this thread is in the middle of another call; see Queue.check_thread."""
        self._broker.writer_now().check_thread()

    def put_now(self, body: str, *, delay: int = 0, ttl: int | None = None) -> str:
        """Add a message and return its id; it is on the disk then. Blocks the calling thread."""
        check_put(delay, ttl)
        check_body(check_text(body))
        return self._broker.writer_now().run(Mode.KEEP, lambda session: session.put(self.name, body, delay, ttl))

    async def put_many(self, bodies: Sequence[str], *, delay: int = 0, ttl: int | None = None) -> None:
        """Add messages in one transaction; they are on the disk then."""
        check_put(delay, ttl)
        for body in check_many(bodies, self.put_limit):
            check_body(check_text(body))
        await self._broker.writer().submit(Mode.KEEP, lambda session: session.put_many(self.name, bodies, delay, ttl))

    async def get(self, limit: int = 1, *, visibility: int) -> list[Message]:
        """Lease up to *limit* visible messages for *visibility* seconds; an empty list if none is visible."""
        check_limit(limit)
        check_lease(visibility)
        return await self._broker.writer().submit(
            Mode.CLAIM,
            lambda session: session.get(self.name, limit, visibility),
            is_due=lambda session: session.any_due(self.name),
            otherwise=[],
            patience=visibility / 2,  # most of a lease that began when it was asked for would be over
        )

    async def wait(self, seconds: float) -> None:
        """Wait until a message is visible, whichever process has put it; see Queue.wait."""
        await self._broker.writer().watch(lambda session: session.any_due(self.name), seconds)

    async def peek(self, limit: int = 1) -> list[PeekedMessage]:
        """Return up to *limit* visible messages without leasing them."""
        check_limit(limit)
        return await self._broker.writer().submit(Mode.READ, lambda session: session.peek(self.name, limit))

    async def update(self, message_id: str, receipt: str, *, visibility: int, body: str | None = None) -> str:
        """Let a leased message reappear in *visibility* seconds; return its new receipt. Raises LeaseLost."""
        check_visibility(visibility)
        if body is not None:
            check_body(check_text(body))
        return await self._broker.writer().submit(
            Mode.CHANGE, lambda session: session.update(self.name, message_id, receipt, visibility, body)
        )

    async def delete(self, message_id: str, receipt: str) -> None:
        """Delete a leased message. Raises LeaseLost."""
        await self._broker.deletes().add(self.name, (message_id, receipt))

    async def clear(self) -> None:
        """Delete all messages, the invisible ones too."""
        await self._broker.writer().submit(Mode.CHANGE, lambda session: session.clear(self.name))

    async def count(self) -> int:
        """Return how many messages there are, the invisible ones too."""
        return await self._broker.writer().submit(Mode.READ, lambda session: session.count(self.name))
