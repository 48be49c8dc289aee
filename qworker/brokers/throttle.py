"""How fast a queue may be asked, learnt from what it refuses.

As long as a queue refuses next to nothing, nothing is held back, and all that happens here is counting. Once it does
refuse, requests are spaced: a little slower than it last accepted them, then faster and faster until it refuses again.
"""

import asyncio
import math
import threading
import time
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import Final

from qworker.brokers.base import Urgency

_WINDOW: Final = 1.0
"""Seconds over which answers are counted, as services do; a rate changes at most once in that time."""
_TOLERATED: Final = 0.05
"""The share of refused requests that is no reason to be slower: it takes some to find out where the limit is."""
_FEW: Final = 5
"""As many refusals in a window are no reason either."""
_MEMORY: Final = 5
"""Windows whose least share of refusals is taken for one that has nothing to do with the rate."""
_EASE: Final = 0.9
"""What is left of the accepted rate after it was too much."""
_LEAST: Final = 10.0
"""Requests a second that are always allowed: somebody has to find out that the queue accepts them again."""
_SEARCH: Final = 2.0
"""What each accepted request adds to the rate while it is not known what is too much."""
_FASTEST: Final = 3.0
"""The factor from second to second, up to what was too much once."""
_STEP: Final = 0.02
"""The first step up from what was too much once; each further one is twice as large."""
_FREE_AFTER: Final = 30.0
"""Seconds without too many refusals after which nothing is held back any more."""
_BURST: Final = 0.05
"""Seconds' worth of requests that may be sent at once after a lull."""
_ROUNDING: Final = 1e-9
_LOOK_AGAIN: Final = 0.25
"""Seconds after which one who waits looks again, whatever was foreseen."""
_ABSENT: Final = 1.0
"""Seconds without a look after which one no longer holds up those behind."""
_PATIENCE: Final = {Urgency.RENEWAL: -60.0, Urgency.SETTLEMENT: 0.0, Urgency.NEW_WORK: 0.5}
"""Seconds by which a request that comes later may overtake: so the urgent go first, and nobody waits for ever."""


@dataclass(slots=True)
class _Window:
    """What was answered from a moment on, or in one second."""

    accepted: float = 0
    refused: float = 0

    @property
    def requests(self) -> float:
        return self.accepted + self.refused

    @property
    def share_refused(self) -> float:
        return self.refused / max(self.requests, 1)

    def in_last_second(self, elapsed: float, before: "_Window") -> "_Window":
        if elapsed >= _WINDOW:
            return _Window(self.accepted / elapsed, self.refused / elapsed)
        rest = 1 - elapsed / _WINDOW
        return _Window(self.accepted + before.accepted * rest, self.refused + before.refused * rest)


class Limit:
    """The rate at which a queue seems to accept requests."""

    def __init__(self, now: float) -> None:
        self.rate: float | None = None
        """Requests a second; None while nothing suggests that there is a limit."""
        self.closed_until = 0.0
        """When the queue wants to be asked again, as it said itself."""
        self._window, self._before = _Window(), _Window()
        self._window_began = now
        self._shares = deque([0.0] * _MEMORY, maxlen=_MEMORY)
        self._lowered_at = -math.inf
        self._too_much = math.inf
        """The rate that was lowered last."""
        self._steps = 0

    def accepted(self, now: float) -> None:
        """Note an answer other than "too busy"."""
        self._begin_window(now)
        self._window.accepted += 1
        if self.rate is not None and math.isinf(self._too_much):
            self.rate += _SEARCH

    def refused(self, now: float, retry_after: float | None = None) -> None:
        """Note that the queue was too busy; *retry_after*: seconds it asked to be left alone."""
        self._begin_window(now)
        self._window.refused += 1
        requests = max(self._window.requests, self._before.requests)
        if retry_after is not None:
            self.closed_until = max(self.closed_until, now + retry_after)
        elif self._window.refused <= max(_FEW, self._bearable(requests)):
            return
        if self.rate is None or now - self._lowered_at >= _WINDOW:
            self._lower(now)

    def _bearable(self, requests: float) -> float:
        """Return how many of so many requests may be refused, by chance too, before it is a matter of the rate."""
        expected = (_TOLERATED + min(self._shares)) * requests
        return expected + 2 * math.sqrt(expected)

    def _begin_window(self, now: float) -> None:
        elapsed = now - self._window_began
        if elapsed < _WINDOW:
            return
        if self.rate is not None:
            used = self._window.requests >= self.rate * elapsed / 2
            if now - self._lowered_at >= _FREE_AFTER:
                self.rate = None
            elif used and self._too_much < math.inf and self._window.refused <= self._bearable(self._window.requests):
                self._raise(self.rate)
        self._end_window(now)

    def _end_window(self, now: float) -> None:
        window = self._window
        self._shares.append(window.share_refused if window.refused < window.accepted else 0.0)
        self._before = window.in_last_second(now - self._window_began, self._before)
        self._window, self._window_began = _Window(), now

    def _raise(self, rate: float) -> None:
        step = min(_STEP * 2**self._steps, 1.0)
        if rate * (1 + step) < self._too_much:
            self.rate = min(rate * _FASTEST, (rate + self._too_much) / 2)
        else:
            self.rate = rate * (1 + step)
            self._steps += 1

    def _lower(self, now: float) -> None:
        self._end_window(now)
        accepted = self._before.accepted
        if self.rate is None:
            self.rate = max(accepted * _EASE, _LEAST)
            self._too_much = math.inf  # what was accepted all at once says little of what is accepted all the time
        else:
            # A queue that suddenly accepts nothing is out of order: it will take as much as before when it is back.
            if accepted >= self.rate / 2 or math.isinf(self._too_much):
                self._too_much = self.rate
            self.rate = max(min(accepted, self.rate) * _EASE, self.rate / 2, _LEAST)
        self._lowered_at = now
        self._steps = 0


Place = tuple[float, int]
"""A place in the line: the least is first."""


class Throttle:
    """Spaces the requests to one queue while it is at its limit. Safe to use from any thread."""

    def __init__(self, now: float) -> None:
        self._lock = threading.Lock()
        self._limit = Limit(now)
        self._line: list[Place] = []
        self._seen: dict[Place, float] = {}
        """When each in the line last asked for its turn."""
        self._numbers = count()
        self._saved = 0.0
        """Requests that may be sent at once."""
        self._saved_at = now

    @property
    def rate(self) -> float | None:
        """Requests a second that are let through; None for all."""
        return self._limit.rate

    def accepted(self, now: float) -> None:
        """Note an answer other than "too busy"."""
        with self._lock:
            self._limit.accepted(now)

    def refused(self, now: float, retry_after: float | None = None) -> None:
        """Note that the queue was too busy; *retry_after*: seconds it asked to be left alone."""
        with self._lock:
            self._limit.refused(now, retry_after)

    def join(self, now: float, urgency: Urgency) -> Place:
        """Take a place in the line."""
        return now + _PATIENCE[urgency], next(self._numbers)

    def leave(self, place: Place) -> None:
        """Give a place up, if it wasn't used."""
        with self._lock:
            self._forget(place)

    def wait(self, now: float, place: Place, urgency: Urgency) -> float:
        """Return 0 if it is this place's turn, which is then over, or the seconds after which it may be."""
        with self._lock:
            rate = self._limit.rate
            if rate is None:
                return 0.0
            ahead = self._ahead(now, place)
            if urgency is not Urgency.RENEWAL and now < self._limit.closed_until:
                return self._limit.closed_until - now
            self._saved = min(self._saved + max(now - self._saved_at, 0.0) * rate, max(rate * _BURST, 1.0))
            self._saved_at = now
            lacking = ahead + 1 - self._saved
            if lacking > _ROUNDING:
                return lacking / rate
            self._saved -= 1
            self._forget(place)
            return 0.0

    async def admit(self, urgency: Urgency, within: float | None) -> bool:
        """Wait for a turn; return False if there was none within so many seconds."""
        now = time.monotonic()
        until = math.inf if within is None else now + within
        place = self.join(now, urgency)
        try:
            while wait := self.wait(now, place, urgency):
                if now >= until:
                    return False
                await asyncio.sleep(min(wait, _LOOK_AGAIN, until - now))
                now = time.monotonic()
        finally:
            self.leave(place)
        return True

    def _ahead(self, now: float, place: Place) -> int:
        """Return how many are before this place; who has not asked for long is not: his event loop does not turn."""
        if place not in self._seen:
            insort(self._line, place)
        self._seen[place] = now
        while now - self._seen[self._line[0]] > _ABSENT:
            self._forget(self._line[0])
        return bisect_left(self._line, place)

    def _forget(self, place: Place) -> None:
        if self._seen.pop(place, None) is not None:
            del self._line[bisect_left(self._line, place)]
