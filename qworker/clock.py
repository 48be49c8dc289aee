"""Time, as a thing that can be handed in."""

import sys
import time
from functools import partial
from typing import Protocol

# A clock that goes on while the machine sleeps. Python's own does so on Windows alone.
if sys.platform == "win32":
    _steady = time.monotonic
elif sys.platform == "linux":
    _steady = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
else:
    _steady = partial(time.clock_gettime, time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Where a part that is tested against time gets it from."""

    def time(self) -> float:
        """Return the wall clock: seconds since the epoch."""

    def monotonic(self) -> float:
        """Return seconds that never go back nor leap, whatever the wall clock is set to; they pass in sleep too."""


class SystemClock:
    """The machine's own clocks."""

    def time(self) -> float:
        """Return the wall clock: seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back nor leap, whatever the wall clock is set to; they pass in sleep too."""
        return _steady()


SYSTEM_CLOCK = SystemClock()
