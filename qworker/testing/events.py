"""What a worker told of, for a test to look at and to wait for."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar, cast

from qworker.events import Event

E = TypeVar("E", bound=Event)


class _Waiter(NamedTuple):
    kind: type[Any]
    where: Callable[[Any], bool]
    found: Future[Any]

    def take(self, event: Event) -> bool:
        """Say whether it waits no more, now that *event* has come."""
        if self.found.cancelled():
            return True
        if not isinstance(event, self.kind):
            return False
        try:
            matches = self.where(event)
        except Exception as error:  # noqa: BLE001 — a mistake of the test, to be raised in the test
            self.found.set_exception(error)
            return True
        if matches:
            self.found.set_result(event)
        return matches


class EventRecorder:
    """A listener that keeps every event, in the order they came; safe to use from any thread.

    ::

        recorder = EventRecorder()
        async with app.worker(listeners=[recorder]):
            retried = await recorder.wait_for(JobRetried)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._waiters: list[_Waiter] = []

    def __call__(self, event: Event) -> None:
        """Keep an event, and wake who waits for it."""
        with self._lock:
            self._events.append(event)
            self._waiters = [waiter for waiter in self._waiters if not waiter.take(event)]

    @property
    def events(self) -> tuple[Event, ...]:
        """All events until now, the oldest first."""
        with self._lock:
            return tuple(self._events)

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one kind until now, the oldest first."""
        return [event for event in self.events if isinstance(event, kind)]

    async def wait_for(self, kind: type[E], where: Callable[[E], bool] = lambda _: True, *, within: float = 10.0) -> E:
        """Return the first event of this kind for which *where* is true, past or future.

        Raises AssertionError, with what came instead, if there is none *within* so many seconds.
        """
        waiter = _Waiter(kind, where, Future())
        with self._lock:
            if not any(waiter.take(event) for event in self._events):
                self._waiters.append(waiter)
        try:
            async with asyncio.timeout(within):
                return cast(E, await asyncio.wrap_future(waiter.found))
        except TimeoutError:
            raise AssertionError(f"no such {kind.__name__} within {within:g} s; {self}") from None

    def __str__(self) -> str:
        counts = Counter(type(event).__name__ for event in self.events)
        return "seen: " + (", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing")

    def __repr__(self) -> str:
        return f"<EventRecorder, {self}>"
