"""How many jobs may run, wait their turn, or be on their way to this worker."""

import asyncio
import math
import time
from typing import Final

from qworker.brokers.base import MAX_BATCH

_SOON: Final = 0.5
"""Seconds within which a message that waits here should start; it is another worker's otherwise."""
_MOST_WAITING: Final = 2 * MAX_BATCH
_WINDOW: Final = 0.25
"""Seconds over which the rate of jobs is measured."""


class Slots:
    """The worker's room for messages: free slots, and a few more for those that can start soon.

    How many "a few" are follows the rate at which jobs end here: none for jobs that take long, so that another
    worker can have them; up to two full batches for quick ones, so that a slot never waits for the network.
    """

    def __init__(self, concurrency: int, most: int | None = None) -> None:
        self.concurrency = concurrency
        self.left = math.inf if most is None else most
        """Jobs that it may still start."""
        self.running = 0
        self._settling = 0
        """Jobs that ended and hold their leases until the broker has been told."""
        self.waiting = 0
        """Jobs received and not started."""
        self._asked_for = 0
        """Messages."""
        self._jobs_each = 1.0
        """How many jobs a message carries, as the last ones did."""
        self._ended = 0
        self._rate = 0.0
        self._since = time.monotonic()
        self._change = asyncio.Event()
        self._open = True

    @property
    def free(self) -> int:
        """Slots in which a job could start now."""
        return self.concurrency - self.running

    def wanted(self) -> int:
        """Return how many messages to ask for now: a full batch, or whatever can start when nothing else waits."""
        if not self._open:
            return 0
        on_the_way = self.waiting + self._asked_for * self._jobs_each
        soon = self.free + max(self._prefetch() - self._settling, 0)
        room = math.ceil((min(soon, self.left) - on_the_way) / self._jobs_each)
        if room >= MAX_BATCH / self._jobs_each:
            return min(room, MAX_BATCH)
        return max(room, 0) if not on_the_way else 0

    def received(self, *, messages: int, jobs: int) -> None:
        """Note that messages came, and how many jobs they carry."""
        self.waiting += jobs
        self._jobs_each = max(jobs / messages, 1.0)

    def set_open(self, *, to_more: bool) -> None:
        """Say whether any message is wanted, whatever room there is."""
        if to_more and not self._open:
            self._change.set()
        self._open = to_more

    def reserve(self, count: int) -> None:
        """Keep room for messages that are asked for."""
        self._asked_for += count

    def unreserve(self, count: int) -> None:
        """Give that room back: the answer is here."""
        self._asked_for -= count
        self._change.set()

    def started(self) -> None:
        """Note that a waiting message became a running job."""
        self.waiting -= 1
        self.left -= 1
        self.running += 1
        self._change.set()

    def ended(self) -> None:
        """Note that a running job left its slot."""
        self.running -= 1
        self._settling += 1
        self._ended += 1
        self._change.set()

    def settled(self) -> None:
        """Note that what became of an ended job is settled."""
        self._settling -= 1
        self._change.set()

    async def changed(self) -> None:
        """Wait until there may be more room."""
        self._change.clear()
        await self._change.wait()

    def _prefetch(self) -> int:
        now = time.monotonic()
        elapsed = now - self._since
        if elapsed >= _WINDOW:
            self._rate = self._ended / elapsed
            self._ended, self._since = 0, now
        # Within the first window the rate so far is the best guess there is.
        rate = max(self._rate, self._ended / _WINDOW) if elapsed < _WINDOW else self._rate
        return min(int(rate * _SOON), int(_MOST_WAITING * self._jobs_each))
