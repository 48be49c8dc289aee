"""Whether one worker is alive and ready, from its events and its pulse."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from qworker import events
from qworker._routine import Polled, RequestMade, Routine, RoutineListener
from qworker.engine.guard.vitals import Vitals
from qworker.events import Event

PATIENCE: Final = 30.0
"""Seconds that an event loop may stand still, or half a lease if that is less, and that a poll may be late."""


class WorkerState(RoutineListener):
    """Knows what holds a worker up. Its event loop has to beat every second; others may ask from any thread."""

    def __init__(self, lease: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._patience = min(PATIENCE, lease / 2)
        self._vitals: Vitals | None = None
        self._beat_at: float | None = None
        """None before the worker polls."""
        self._blocked: events.LoopBlocked | None = None
        self._answered = False
        self._failing: dict[str, str] = {}
        """Queues whose last poll failed, and why."""
        self._missing: dict[tuple[str, str], str] = {}
        """Rights that were found missing, and not been used since."""
        self._takers: dict[type[Event | Routine], Callable[[Any], None]] = {
            Polled: self._polled,
            RequestMade: self._requested,
            events.WorkerStarted: self._started,
            events.PollFailed: self._poll_failed,
            events.RightMissing: self._right_missing,
            events.LoopBlocked: self._loop_blocked,
        }

    def __call__(self, event: Event | Routine) -> None:
        """Take note of an event."""
        take = self._takers.get(type(event))
        if take is not None:
            take(event)

    def beat(self, vitals: Vitals) -> None:
        """Note that the worker's event loop turns, and how the worker is.

        Right after a standstill, of a frozen process say, all else is late, too, and has not had its turn yet.
        """
        now, before = self._monotonic(), self._beat_at
        if before is not None and now - before > self._patience / 2:
            vitals = replace(vitals, polls_late=0.0, keeper_late=0.0)
        self._vitals, self._beat_at, self._blocked = vitals, now, None

    def live(self) -> str | None:
        """Return why the worker should be restarted; None if it gets on, or has nothing to do.

        A poll that failed is one that ended: a restart would not mend the broker.
        """
        if (beat_at := self._beat_at) is None:
            return None
        if (still := self._monotonic() - beat_at) > self._patience:
            return f"the event loop has not turned for {still:.0f} s{self._held_by()}"
        vitals = self._vitals
        if vitals is None or vitals.stopping:
            return None
        if vitals.polls_late > PATIENCE:
            return f"no poll has ended that should have, {vitals.polls_late:.0f} s ago"
        if vitals.keeper_late > self._patience:
            return f"the lease keeper has not looked at its leases for {vitals.keeper_late:.0f} s"
        return None

    def ready(self) -> str | None:
        """Return why the worker can't do its work now; None if it can."""
        if self._beat_at is None:
            return "the worker is starting"
        if self._vitals is not None and self._vitals.stopping:
            return "the worker is stopping"
        if failing := tuple(self._failing.items()):
            queue, reason = failing[0]
            return f"queue {queue} can't be polled: {reason}"
        if missing := tuple(self._missing.items()):
            (queue, right), reason = missing[0]
            return f"queue {queue}: no right to {right}: {reason}"
        return self.live() if self._answered else "no queue has answered yet"

    def _held_by(self) -> str:
        if (blocked := self._blocked) is None:
            return ""
        return f": {blocked.job.task + ' at ' if blocked.job else ''}{blocked.where}"

    def _started(self, _: events.WorkerStarted) -> None:
        self._beat_at = self._monotonic()

    def _polled(self, event: Polled) -> None:
        if event.messages is not None:
            self._answered = True
            self._failing.pop(event.queue, None)

    def _requested(self, event: RequestMade) -> None:
        if self._missing and event.result == "ok":
            self._missing.pop((event.queue, event.operation), None)

    def _poll_failed(self, event: events.PollFailed) -> None:
        self._failing[event.queue] = event.reason

    def _right_missing(self, event: events.RightMissing) -> None:
        self._missing[event.queue, event.right] = event.reason

    def _loop_blocked(self, event: events.LoopBlocked) -> None:
        self._blocked = event
