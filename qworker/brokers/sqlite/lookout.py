"""Who waits for something to be in a database, and when it is worth to look for it."""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

from qworker.brokers.sqlite.session import Session

T = TypeVar("T")

_GLANCE_EVERY: Final = 0.011
"""Seconds between glances at the file while something is watched for: has anybody written to it?"""
_LOOK_EVERY: Final = 0.1
"""Seconds after which to look even if nobody seems to have written: messages become visible by themselves."""
_SAME_MOMENT: Final = 0.01
"""Seconds within which two writes may bear the same time: that of a file goes by the ticks of the kernel's clock."""


@dataclass(slots=True, eq=False)
class Watch:
    """One call that waits for something to be there."""

    is_there: Callable[[Session], bool]
    until: float
    future: asyncio.Future[None]


class Lookout:
    """What is watched for in one database. All but `changes` belongs to the writer's thread alone.

    To look is a query; a glance, which only tells whether anybody has written, costs next to nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.watches: list[Watch] = []
        self.changes = 0
        """How many transactions this process has committed: all there are, if the database is in its memory."""
        self._path = path
        self._seen: object = None
        """What a glance had shown before the last look."""
        self._look_at = 0.0
        """When to look again, whatever a glance shows."""

    def add(self, watches: Sequence[Watch]) -> None:
        """Watch for more."""
        self.watches += watches
        self._seen, self._look_at = None, 0.0  # it may be there already

    def end(self, is_over: Callable[[Watch], bool]) -> list[Watch]:
        """Watch no longer for those of which that is true, and return them."""
        ended = [each for each in self.watches if is_over(each)]
        self.watches = [each for each in self.watches if each not in ended]
        return ended

    def wait(self, inbox: SimpleQueue[T]) -> T:
        """Wait for something else to do. Raises Empty when a watch has to be looked after.

        This is what an idle worker does, a hundred times a second.
        """
        until = min(self._look_at, *(each.until for each in self.watches))
        while True:
            try:
                return inbox.get(timeout=_GLANCE_EVERY)
            except Empty:
                if time.monotonic() >= until or self._glance() != self._seen:
                    raise

    def is_worth_a_look(self, now: float) -> bool:
        """Say whether to look now, which is taken as done."""
        shown = self._glance()
        is_written = shown != self._seen
        if not is_written and now < self._look_at:
            return False
        self._seen = shown
        self._look_at = now + (_SAME_MOMENT if is_written else _LOOK_EVERY)
        return True

    def _glance(self) -> object:
        return self.changes if self._path is None else _last_written(self._path)


def _last_written(path: Path) -> object:
    """Return what changes when a process writes to a database in WAL mode, except twice at the same moment."""
    try:
        status = os.stat(f"{path}-wal")  # noqa: PTH116 — a Path takes as long to be made as all else here
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
