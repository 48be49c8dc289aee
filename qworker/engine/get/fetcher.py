"""Gets as many messages as can be run soon, from several queues, and rests while there are none."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol

from qworker._routine import Polled
from qworker.brokers.base import MAX_BATCH, Message, Queue, Urgency
from qworker.engine.get.rates import RateReport
from qworker.engine.guard.access import Suspended
from qworker.errors import AccessDenied, BrokerBusy, BrokerUnusable, QueueNotFound, text_of
from qworker.events import Event, PollFailed, PollRecovered

_GETS_AT_ONCE: Final = 4
"""Gets under way for one queue, as long as the last of them came back full."""
_FIRST_PAUSE, _LONGEST_PAUSE, _DENIED_PAUSE = 0.25, 4.0, 5.0
"""Seconds to rest after a failed poll: doubled from the first to the longest; the last when access is denied."""


class Room(Protocol):
    """What the fetcher asks before it asks a broker."""

    def wanted(self) -> int:
        """Return how many messages can be run soon; 0 for none now."""

    def reserve(self, count: int) -> None:
        """Keep room for messages that are asked for."""

    def unreserve(self, count: int) -> None:
        """Give that room back: the answer is here."""

    async def changed(self) -> None:
        """Wait until there may be more room."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a queue is polled."""

    lease: int
    """Seconds that a message is leased for."""
    poll_min: float
    poll_max: float


Deliver = Callable[[Queue, list[Message], float], None]
"""Takes a queue's messages, or none if it is empty, and the monotonic time from before it was asked."""


class _Poll:
    """One queue and when to ask it next."""

    def __init__(self, queue: Queue, weight: int, report: RateReport) -> None:
        self.queue = queue
        self.weight = weight
        self.report = report
        self.due = 0.0
        self.under_way = 0
        self.asked: float | None = None
        """When a get under way was sent, or another was answered meanwhile."""
        self.full = False
        self.rest = 0.0
        self.failing_since: float | None = None
        self.told = False
        """Whether its failing was."""
        self.watch: asyncio.Task[None] | None = None
        """Ends its rest early, or when it is over."""

    def late(self, now: float, since: float) -> float:
        """Return how late an answer is, or else a get that could have been sent from *since* on."""
        if self.under_way:
            return 0.0 if self.asked is None else now - self.asked
        return max(0.0, now - max(self.due, since))

    @property
    def watched(self) -> bool:
        return self.watch is not None and not self.watch.done()

    def ready(self, now: float) -> bool:
        if self.under_way:
            return self.full and self.under_way < _GETS_AT_ONCE
        return now >= self.due


class Fetcher:
    """Polls queues by weight, whenever there is room for their messages."""

    def __init__(  # noqa: PLR0913 — the parts of a worker that it works between
        self,
        queues: dict[Queue, int],
        room: Room,
        pace: Pace,
        deliver: Deliver,
        emit: Callable[[Event], None],
        *,
        tell: Callable[[Polled], None] | None = None,
    ) -> None:
        """Take what is told of everything worth a line, and what is told of each poll, if anything is."""
        self._polls = [_Poll(queue, weight, RateReport(queue, emit)) for queue, weight in queues.items()]
        self._room = room
        self._pace = pace
        self._deliver = deliver
        self._emit = emit
        self._tell = tell
        self._stepped: float | None = None
        """When it last looked for a queue to ask; None while there is no room for messages."""
        self._answered = asyncio.Event()
        self._gets: set[asyncio.Task[None]] = set()
        self._held_back: set[asyncio.Task[Any] | None] = set()
        """Those that wait until their queue has room for them."""

    async def run(self) -> None:
        """Fetch until cancelled; a get under way is then waited for, as its messages are leased already."""
        try:
            while True:
                await self._step()
        finally:
            for task in (*(self._gets & self._held_back), *(poll.watch for poll in self._polls if poll.watch)):
                task.cancel()
            if self._gets:
                await asyncio.wait(self._gets)

    def late(self, now: float) -> float:
        """Return the seconds by which the poll is late that is due, or unanswered, for the longest time."""
        since = now if self._stepped is None else self._stepped
        return max(poll.late(now, since) for poll in self._polls)

    async def _step(self) -> None:
        wanted = self._room.wanted()
        if not wanted:
            self._stepped = None
            await self._room.changed()
            return
        self._stepped = now = time.monotonic()
        ready = [poll for poll in self._polls if poll.ready(now)]
        if not ready:
            await self._rest(now)
            return
        poll = random.choices(ready, [poll.weight for poll in ready])[0]  # noqa: S311 — fairness, not secrecy
        if poll.queue.rate is None:
            self._start(poll, self._get(poll, self._reserved(wanted)))
        else:
            self._start(poll, self._get_in_turn(poll))

    async def _rest(self, now: float) -> None:
        """Wait until a queue is due, or an answer changes what is."""
        resting = [poll for poll in self._polls if not poll.under_way]
        for poll in resting:
            if not poll.watched and poll.failing_since is None:
                poll.watch = asyncio.get_running_loop().create_task(self._watch(poll, poll.due - now))
        waits = [poll.due - now for poll in resting if not poll.watched]
        self._answered.clear()
        try:
            async with asyncio.timeout(min(waits) if waits else None):
                await self._answered.wait()
        except TimeoutError:
            pass

    async def _watch(self, poll: _Poll, seconds: float) -> None:
        """Have a queue asked as soon as there may be something in it."""
        try:
            await poll.queue.wait(seconds)
            poll.due = 0.0
        except Exception:  # noqa: BLE001 — a get will say what is wrong
            await asyncio.sleep(seconds)
        finally:
            self._answered.set()

    def _start(self, poll: _Poll, get: Coroutine[Any, Any, None]) -> None:
        if poll.watch is not None:
            poll.watch.cancel()
            poll.watch = None
        poll.under_way += 1
        task = asyncio.get_running_loop().create_task(get)
        self._gets.add(task)
        task.add_done_callback(self._gets.discard)

    def _reserved(self, wanted: int) -> int:
        limit = min(wanted, MAX_BATCH)
        self._room.reserve(limit)
        return limit

    async def _get_in_turn(self, poll: _Poll) -> None:
        """Wait until a queue at its limit takes another request; until then, other queues may have the room."""
        get = asyncio.current_task()
        self._held_back.add(get)
        wanted = 0
        try:
            await poll.queue.admit(Urgency.NEW_WORK)
            wanted = self._room.wanted()
        except Exception as error:  # noqa: BLE001 — as below
            self._failed(poll, error)
        finally:
            self._held_back.discard(get)
            if not wanted:
                self._ended(poll)
        if wanted:
            await self._get(poll, self._reserved(wanted))

    def _ended(self, poll: _Poll) -> None:
        poll.under_way -= 1
        self._answered.set()

    async def _get(self, poll: _Poll, limit: int) -> None:
        messages: list[Message] | None = None
        try:
            poll.asked = began = time.monotonic()
            messages = await poll.queue.get(limit, visibility=self._pace.lease)
        except Exception as error:  # noqa: BLE001 — whatever a broker does, the worker goes on
            self._failed(poll, error)
        else:
            self._succeeded(poll, len(messages), limit)
        finally:
            poll.asked = time.monotonic() if poll.under_way > 1 else None
            poll.report.look()
            if self._tell is not None:
                self._tell(Polled(queue=poll.queue.name, messages=None if messages is None else len(messages)))
            self._room.unreserve(limit)
            self._ended(poll)
        # One empty answer of several says nothing: another may be on its way with all there was.
        if messages or (messages is not None and not poll.under_way):
            self._deliver(poll.queue, messages, began)

    def _succeeded(self, poll: _Poll, count: int, limit: int) -> None:
        now = time.monotonic()
        if poll.failing_since is not None and poll.told:
            self._emit(PollRecovered(queue=poll.queue.name, seconds=now - poll.failing_since))
        poll.failing_since, poll.told = None, False
        poll.full = count == limit
        if poll.full:
            poll.rest = 0.0
        elif count:
            poll.rest = self._pace.poll_min
        else:
            poll.rest = min(max(poll.rest * 2, self._pace.poll_min), self._pace.poll_max)
        poll.due = now + poll.rest * random.uniform(0.5, 1.0)  # noqa: S311 — the same

    def _failed(self, poll: _Poll, error: Exception) -> None:
        now = time.monotonic()
        since = poll.failing_since
        poll.failing_since = now if since is None else since
        poll.full = False
        poll.rest = _FIRST_PAUSE if since is None else min(max(poll.rest * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        pause = poll.rest * random.uniform(0.5, 1.0)  # noqa: S311 — the same
        if isinstance(error, AccessDenied):
            pause = error.retry_in if isinstance(error, Suspended) else _DENIED_PAUSE
        elif isinstance(error, BrokerBusy) and error.retry_after is not None:
            pause = max(pause, error.retry_after)
        poll.due = now + pause
        if since is None and isinstance(error, BrokerBusy) and poll.queue.rate is not None:
            return  # a single get that is refused is how a limit is kept to
        poll.told = True
        self._emit(
            PollFailed(
                queue=poll.queue.name,
                reason=text_of(error),
                retry_in=pause,
                lasting=_is_lasting(error),
                everywhere=isinstance(error, Suspended) and error.everywhere,
                unusable=isinstance(error, BrokerUnusable),
            ),
        )


def _is_lasting(error: Exception) -> bool:
    return isinstance(error, AccessDenied | QueueNotFound) and not (isinstance(error, Suspended) and not error.sent)
