"""Time, as a thing that can be handed in."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where a part that is tested against time gets it from."""

    def time(self) -> float:
        """Return the wall clock: seconds since the epoch."""

    def monotonic(self) -> float:
        """Return seconds that never go back, whatever happens to the wall clock."""


class SystemClock:
    """The machine's own clocks."""

    def time(self) -> float:
        """Return the wall clock: seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back, whatever happens to the wall clock."""
        return time.monotonic()


SYSTEM_CLOCK = SystemClock()
