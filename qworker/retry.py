"""How often a job is tried, and how long it rests in between."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from numbers import Real
from typing import Final

from qworker.errors import ConfigurationError

MAX_DELAY: Final = 7 * 24 * 3600
"""Seconds that a message may rest, at most: the service's own limit."""

Delay = timedelta | float
"""A time span: a timedelta, or seconds."""


def _is_number(value: object) -> bool:
    return type(value) is not bool and isinstance(value, Real) and not math.isnan(value)


def seconds_of(delay: Delay) -> float:
    """Return a time span in seconds. Raises ConfigurationError for what is none."""
    if isinstance(delay, timedelta):
        return delay.total_seconds()
    if not _is_number(delay):
        raise ConfigurationError(f"a time span is a number of seconds or a timedelta, not {delay!r}")
    return delay


def whole_seconds(delay: Delay) -> int:
    """Return *delay* as the service takes it: whole seconds, rounded up, from 0 to 7 days.

    Raises ConfigurationError for what is no time span.
    """
    return math.ceil(min(max(seconds_of(delay), 0), MAX_DELAY))


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays between attempts: ``base``, ``base * factor``, … up to ``max`` seconds.

    Each is shortened by a random part of up to ``jitter`` (0 to 1) of itself, so that jobs that failed together
    don't come back together.
    """

    base: float = 5.0
    factor: float = 2.0
    max: float = 600.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what can't be a backoff."""
        if odd := [number for number in (self.base, self.factor, self.max, self.jitter) if not _is_number(number)]:
            raise ConfigurationError(f"{self}: base, factor, max and jitter must be numbers, not {odd[0]!r}")
        if not (self.base >= 0 and self.factor >= 1 and self.max >= 0 and 0 <= self.jitter <= 1):
            raise ConfigurationError(f"{self}: base and max must be at least 0, factor at least 1, jitter 0 to 1")

    def delay(self, attempt: int, *, rand: Callable[[], float] = random.random) -> float:
        """Return the seconds to rest after attempt number *attempt* (1, 2, …) failed."""
        try:
            full = min(self.base * self.factor ** (attempt - 1), self.max)
        except OverflowError:
            full = self.max
        return full * (1 - self.jitter * rand())


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again, and when to give up."""

    max_attempts: int = 5
    backoff: Backoff = Backoff()

    def __post_init__(self) -> None:
        """Refuse what can't be a policy."""
        if type(self.max_attempts) is not int or self.max_attempts < 1:
            raise ConfigurationError(f"max_attempts must be a whole number, 1 or more, not {self.max_attempts!r}")
        if not isinstance(self.backoff, Backoff):
            raise ConfigurationError(f"backoff must be a Backoff, as in Backoff(base=5, max=600), not {self.backoff!r}")

    def exhausted(self, attempt: int) -> bool:
        """Say whether attempt number *attempt* was the last."""
        return attempt >= self.max_attempts

    def delay(self, attempt: int) -> int:
        """Return the whole seconds to rest after attempt number *attempt* failed."""
        return whole_seconds(self.backoff.delay(attempt))
