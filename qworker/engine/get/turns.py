"""Whose turn it is to start, among the messages that were received; and who has to be alone."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from itertools import chain

from qworker.engine.attempt import Received


class Turns:
    """Messages that wait for their start, and those that have started.

    One that may end its worker starts when no other is under way, and no other starts beside it. Neither is waited
    for without end: who has been under way for *patience* seconds and has ended no worker is no danger, nor in any.
    """

    def __init__(self, patience: float, on_turn: Callable[[], None]) -> None:
        """Have *on_turn* called when somebody's turn comes merely because time has passed."""
        self._patience = patience
        self._on_turn = on_turn
        self._waiting: deque[Received] = deque()
        self._alone: deque[Received] = deque()
        """Those of the waiting that have to be alone."""
        self._under_way: dict[Received, float] = {}
        """When each started, in that order."""
        self._is_alone: Received | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many wait for their start."""
        return len(self._waiting) + len(self._alone)

    @property
    def open(self) -> bool:
        """Whether more messages may come: not while one has to be alone here."""
        return not self._alone and self._is_alone is None

    def add(self, received: Received, *, alone: bool) -> None:
        """Have one wait for its start, alone if it may end its worker."""
        (self._alone if alone else self._waiting).append(received)

    def take(self) -> Received | None:
        """Return the one that starts now; None if none waits, or its turn has not come."""
        quiet_in = self._quiet_in()
        if quiet_in <= 0:
            self._is_alone = None
        taken: Received | None = None
        if self._is_alone is None and self._waiting:
            taken = self._waiting.popleft()
        elif self._alone and quiet_in <= 0:
            taken = self._is_alone = self._alone.popleft()
        if taken is not None:
            self._under_way[taken] = time.monotonic()
            quiet_in = self._patience
        if not self.open:
            self._look_again(quiet_in)
        return taken

    def take_all(self) -> list[Received]:
        """Return all that wait; they will not start here."""
        left = list(chain(self._waiting, self._alone))
        self._waiting.clear()
        self._alone.clear()
        return left

    def ended(self, received: Received) -> None:
        """Note that one is under way no more, if it ever was."""
        self._under_way.pop(received, None)
        if received is self._is_alone:
            self._is_alone = None

    def _quiet_in(self) -> float:
        """Return the seconds until all that are under way have been so for long enough."""
        if not self._under_way:
            return 0.0
        return next(reversed(self._under_way.values())) + self._patience - time.monotonic()

    def _look_again(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._time_has_passed)

    def _time_has_passed(self) -> None:
        self._timer = None
        self._on_turn()
