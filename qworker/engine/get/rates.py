"""Tells of a queue that is asked less often than it could be, because it would refuse more."""

import time
from collections.abc import Callable
from typing import Final

from qworker.brokers.base import Queue
from qworker.events import Event, QueueThrottled, QueueUnthrottled

_SETTLED: Final = 3.0
"""Seconds after which the rate says something."""
_EVERY: Final = 30.0
"""Seconds between two times that it is told."""


class RateReport:
    """Watches one queue's rate; asked now and then to look."""

    def __init__(
        self, queue: Queue, emit: Callable[[Event], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._queue = queue
        self._emit = emit
        self._monotonic = monotonic
        self._since: float | None = None
        self._due = 0.0

    def look(self) -> None:
        """Tell what is new, if it is time to."""
        rate, now = self._queue.rate, self._monotonic()
        if rate is None:
            if self._since is not None:
                self._emit(QueueUnthrottled(queue=self._queue.name, seconds=now - self._since))
            self._since = None
            return
        if self._since is None:
            self._since, self._due = now, now + _SETTLED
        if now >= self._due:
            self._due = now + _EVERY
            self._emit(QueueThrottled(queue=self._queue.name, rate=rate))
