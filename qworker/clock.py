"""Time, as a thing that can be handed in."""

import time
from typing import Final, Protocol

# Linux has a clock of its own that goes on while the machine sleeps; that of macOS does.
_STEADY: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


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
        return time.monotonic() if _STEADY is None else time.clock_gettime(_STEADY)


SYSTEM_CLOCK = SystemClock()
