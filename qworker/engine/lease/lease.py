"""The exclusive right to a message, and the thread that keeps it."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, Final

from qworker._faultpoints import faultpoint, faultpoint_soon
from qworker.brokers.base import Message, Queue, Urgency
from qworker.engine.lease.watch import LoopWatch
from qworker.engine.lease.within import Within
from qworker.errors import AnswerLost, LeaseLost

RENEWALS: Final = 3
"""Renewals in the length of a lease."""
_RENEWALS_AT_ONCE: Final = 32


class Lease:
    """Sole owner of one message's pop receipt.

    Its deadline counts from before the request that got the message was sent, on the monotonic clock: it ends
    here no later than it does at the broker, whatever the wall clocks say.
    """

    def __init__(self, queue: Queue, message: Message, *, length: int, began: float) -> None:
        self.queue = queue
        self.message_id = message.id
        self.length = length
        self.deadline = began + length
        self.due = began + length / RENEWALS
        """When the keeper should renew it."""
        self.rewrite: Callable[[], str | None] = lambda: None
        """Returns the body that a renewal is to write, or None to leave it; called on the keeper's thread."""
        self._on_lost: list[Callable[[], None]] = []
        self._receipt = message.receipt
        self._lost = False
        self._uncertain = False
        self._settled = False
        self._unanswered = False
        """Whether it may have been settled: a renewal with a receipt that is stale by then would call it lost."""
        self._turn = _Turn()

    @property
    def lost(self) -> bool:
        """Whether the message may belong to someone else by now."""
        return self._lost or time.monotonic() >= self.deadline

    async def renew(self) -> bool:
        """Begin the lease's length anew; return False if it is being settled, or was. Raises BrokerError."""
        await self._admitted(Urgency.RENEWAL)
        if self._turn.try_take():
            try:
                if not (self._settled or self._unanswered):
                    faultpoint_soon("renewal-sent")
                    await self._update(self.length, self.rewrite(), within=self.length / 6)
                    faultpoint("renewal-answered")
                    return True
            finally:
                self._turn.give_back()
        return False

    async def save(self, body: str | Callable[[], str]) -> None:
        """Write a new body into the message, which renews the lease as well. Raises BrokerError.

        A body that others write too is asked for when its turn has come.
        """
        await self._begin_settling()
        try:
            text = body if isinstance(body, str) else body()
            await self._update(self.length, text, within=self.length / 2)
        finally:
            self._turn.give_back()

    async def reappear(self, after: int, *, body: str | None = None) -> None:
        """Let the message become visible in *after* seconds, with a new body if one is given. Raises BrokerError.

        A message whose receipt went stale counts as done if that was by an earlier try, of which no answer came.
        """
        await self._begin_settling()
        certain = not self._uncertain
        try:
            await self._update(after, body, within=self.length / 2)
        except AnswerLost:
            self._unanswered = self._unanswered or certain
            raise
        except LeaseLost:
            if not self._unanswered:
                raise
            self._settled = True
        else:
            self._settled = True
        finally:
            self._turn.give_back()

    async def complete(self) -> None:
        """Delete the message. Raises BrokerError.

        A message that is already gone counts as deleted: an earlier answer may have been lost on the way.
        """
        await self._begin_settling()
        try:
            with Within(self.length / 2):
                await self.queue.delete(self.message_id, self._receipt)
        except (TimeoutError, AnswerLost) as error:
            self._unanswered = True
            if isinstance(error, AnswerLost):
                raise
            raise AnswerLost(f"message {self.message_id}: its delete was not answered in time") from None
        except LeaseLost:
            if self._uncertain:  # not gone: a renewal was applied that gave it a receipt we never saw
                raise
            self._settled = True
        else:
            self._settled = True
        finally:
            self._turn.give_back()

    def when_lost(self, call: Callable[[], None]) -> "_WhenLost":
        """Within the block, have *call* called if the lease is lost: on whichever thread finds out, or at once."""
        return _WhenLost(self, self._on_lost, call)

    def lose(self) -> None:
        """Note that the message belongs to someone else."""
        if not self._lost:
            self._lost = True
            for call in tuple(self._on_lost):
                call()

    async def _begin_settling(self) -> None:
        """Wait for its turn, which is to be given back. Raises BrokerBusy or LeaseLost, and has no turn then."""
        if self.queue.rate is not None and not self.lost:
            await self._admitted(Urgency.SETTLEMENT)  # without its turn: the keeper may renew it meanwhile
        await self._turn.take()
        if self._settled or self.lost:
            if not self._settled:
                self.lose()
            self._turn.give_back()
            raise LeaseLost(self.message_id)

    async def _admitted(self, urgency: Urgency) -> None:
        await self.queue.admit(urgency, within=self.deadline - time.monotonic())

    async def _update(self, visibility: int, body: str | None, *, within: float) -> None:
        began = time.monotonic()
        try:
            with Within(within):
                receipt = await self.queue.update(self.message_id, self._receipt, visibility=visibility, body=body)
        except TimeoutError:
            self._uncertain = True
            raise AnswerLost(f"message {self.message_id}: its update was not answered in time") from None
        except (AnswerLost, asyncio.CancelledError):
            self._uncertain = True
            raise
        except LeaseLost:
            self.lose()
            raise
        self._receipt = receipt
        self._uncertain = False
        self.deadline = began + visibility
        self.due = began + visibility / RENEWALS


class _WhenLost:
    """A block in which a loss is told of."""

    __slots__ = ("_call", "_calls", "_lease")

    def __init__(self, lease: Lease, calls: list[Callable[[], None]], call: Callable[[], None]) -> None:
        self._lease, self._calls, self._call = lease, calls, call

    def __enter__(self) -> None:
        self._calls.append(self._call)
        if self._lease._lost:  # noqa: SLF001 — a part of it
            self._call()

    def __exit__(self, *_: object) -> None:
        self._calls.remove(self._call)


class LeaseKeeper:
    """Renews leases from a thread and an event loop of its own, so that no handler can cost one."""

    def __init__(
        self,
        length: int,
        watch: LoopWatch,
        on_stop: Callable[[], object],
        on_failure: Callable[[Lease, Exception, float], None] = lambda *_: None,
        on_renewed: Callable[[Lease], None] = lambda _: None,
    ) -> None:
        """Take what closes its connections in the end, and what is told of a failed renewal: seconds to the next."""
        self._length = length
        self._tick = min(length / 12, 0.5)
        self._watch = watch
        self._on_stop = on_stop
        self._on_failure = on_failure
        self._on_renewed = on_renewed
        self._looked = time.monotonic()
        """When it last looked at its leases."""
        self._leases: set[Lease] = set()
        self._waiting: list[Lease] = []
        """Those that are due, the most urgent last."""
        self._renewing: dict[Lease, asyncio.Task[None]] = {}
        self._stopping = False
        self._stopped = asyncio.Event()
        self._ended = Future[None]()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = Future[asyncio.AbstractEventLoop]()
        self._thread = threading.Thread(target=self._run, name="qworker-lease-keeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """End the thread; leases still kept are renewed no more, and renewals under way are given up."""
        self._stopping = True
        loop = self._loop
        if loop is not None:  # otherwise the thread has not come that far, and will see that it is to stop
            with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
                loop.call_soon_threadsafe(self._stopped.set)
        await asyncio.wrap_future(self._ended)
        self._thread.join()

    async def run(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run *call* on the keeper's event loop, over the connections that renewals take."""
        loop = await asyncio.shield(asyncio.wrap_future(self._started))
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), loop))

    def keep(self, leases: Iterable[Lease]) -> None:
        """Renew these until they are dropped."""
        self._leases.update(leases)

    def drop(self, lease: Lease) -> None:
        """Renew this one no more."""
        self._leases.discard(lease)

    def late(self, now: float) -> float:
        """Return the seconds by which it is late to look at its leases; safe to call from another thread."""
        return max(0.0, now - self._looked - self._tick)

    def _run(self) -> None:
        asyncio.run(self._keep())

    async def _keep(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
            self._started.set_result(self._loop)
            while not self._stopping:
                self._watch.look()
                self._looked = time.monotonic()
                self._look_at_leases(self._looked)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), self._tick)
            await self._close()
        finally:
            self._ended.set_result(None)

    def _look_at_leases(self, now: float) -> None:
        leases = tuple(self._leases)
        for lease in leases:
            if now >= lease.deadline:
                lease.lose()
                self.drop(lease)
        due = (lease for lease in leases if lease.due <= now < lease.deadline and lease not in self._renewing)
        self._waiting = sorted(due, key=lambda lease: lease.deadline, reverse=True)
        self._start_renewals()

    def _start_renewals(self) -> None:
        while self._waiting and len(self._renewing) < _RENEWALS_AT_ONCE and not self._stopping:
            lease = self._waiting.pop()
            if lease in self._leases and not lease.lost:
                self._renewing[lease] = asyncio.get_running_loop().create_task(self._renew(lease))

    async def _renew(self, lease: Lease) -> None:
        try:
            if await lease.renew():
                self._on_renewed(lease)
        except LeaseLost:
            self.drop(lease)
        except Exception as error:  # noqa: BLE001 — whatever a broker does, the other leases are kept
            pause = self._length / 12
            lease.due = time.monotonic() + pause
            self._on_failure(lease, error, pause)
        finally:
            self._renewing.pop(lease, None)
            self._start_renewals()

    async def _close(self) -> None:
        renewals = tuple(self._renewing.values())
        for renewal in renewals:
            renewal.cancel()
        await asyncio.gather(*renewals, return_exceptions=True)
        closing = self._on_stop()
        if asyncio.iscoroutine(closing):
            await closing


class _Turn:
    """Lets one at a time have a lease, across threads; the keeper never waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def try_take(self) -> bool:
        with self._lock:
            if self._taken:
                return False
            self._taken = True
            return True

    def give_back(self) -> None:
        with self._lock:
            self._taken = False
            waiting, self._waiting = self._waiting, []
        for loop, future in waiting:
            loop.call_soon_threadsafe(_wake, future)

    async def take(self) -> None:
        while not self.try_take():
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            with self._lock:
                if not self._taken:
                    continue
                self._waiting.append((loop, future))
            await future


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
