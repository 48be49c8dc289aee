"""A clock that a test moves."""

from typing import Final

EPOCH: Final = 1_800_000_000.0
"""Where a fake clock starts, unless told otherwise: a moment in January 2027."""


class FakeClock:
    """A Clock that stands still until it is told to move."""

    def __init__(self, start: float = EPOCH) -> None:
        self._time = start
        self._monotonic = 0.0

    def time(self) -> float:
        """Return the wall clock: seconds since the epoch."""
        return self._time

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass on both clocks. Raises ValueError for a negative number: that is a step."""
        if seconds < 0:
            msg = f"time can't pass backwards: {seconds}"
            raise ValueError(msg)
        self._time += seconds
        self._monotonic += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock forward or, if negative, back, as an administrator does; no time passes."""
        self._time += seconds
