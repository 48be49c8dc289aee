"""How often a job is tried, and how long it rests in between."""

import math
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from numbers import Real
from typing import Any, Final

from qworker.errors import BrokerError, ConfigurationError, EnqueueUncertain, PartlyEnqueued, shown

MAX_DELAY: Final = 7 * 24 * 3600
"""Seconds that a message may rest, at most: the service's own limit."""

Delay = timedelta | float
"""A time span: a timedelta, or seconds."""
ErrorTypes = type[BaseException] | Collection[type[BaseException]]
"""One exception class, or several."""
_NOT_THE_JOBS_FAULT: Final = (BrokerError, EnqueueUncertain, PartlyEnqueued)


def is_number(value: object) -> bool:
    """Say whether a value counts something: a bool doesn't, nor do infinity and NaN."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def seconds_of(delay: Delay) -> float:
    """Return a time span in seconds. Raises ConfigurationError for what is none."""
    if isinstance(delay, timedelta):
        return delay.total_seconds()
    if not is_number(delay):
        raise ConfigurationError(f"a time span is a number of seconds or a timedelta, not {shown(delay)}")
    return float(delay)


def rest_of(delay: Delay, name: str) -> int:
    """Return the time that a message is to rest in whole seconds, rounded up.

    Raises ConfigurationError, which begins with *name*, for what is no time span or not from 0 seconds to 7 days.
    """
    try:
        seconds = seconds_of(delay)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    if not 0 <= seconds <= MAX_DELAY:
        raise ConfigurationError(f"{name} must be from 0 seconds to 7 days, not {in_seconds(seconds)}")
    return math.ceil(seconds)


def in_seconds(seconds: float) -> str:
    """Return a time span as an error shows it."""
    return f"{seconds:,.10g} s"


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
        if odd := [number for number in (self.base, self.factor, self.max, self.jitter) if not is_number(number)]:
            raise ConfigurationError(f"a Backoff's base, factor, max and jitter must be numbers, not {shown(odd[0])}")
        if not 0 <= self.max <= MAX_DELAY:
            raise ConfigurationError(f"{self}: max must be from 0 to {MAX_DELAY} seconds, which are 7 days")
        if not 0 <= self.base <= self.max:
            raise ConfigurationError(f"{self}: base must be from 0 seconds to max, which is {in_seconds(self.max)}")
        if self.factor < 1:
            raise ConfigurationError(f"{self}: factor must be at least 1, or rests would become shorter")
        if not 0 <= self.jitter <= 1:
            raise ConfigurationError(f"{self}: jitter must be from 0 to 1, the part that chance may take off a rest")

    def delay(self, attempt: int, *, rand: Callable[[], float] = random.random) -> float:
        """Return the seconds to rest after attempt number *attempt* (1, 2, …) failed."""
        try:
            full = min(self.base * float(self.factor) ** (attempt - 1), self.max)
        except OverflowError:
            full = self.max if self.base else 0
        return full * (1 - self.jitter * rand())


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again, and when to give up."""

    max_attempts: int = 5
    backoff: Backoff = Backoff()
    retry_on: frozenset[type[BaseException]] | None = None
    """Exceptions after which it is tried again, and after no others; None for all."""
    give_up_on: frozenset[type[BaseException]] = frozenset()
    """Exceptions after which it is given up at once."""

    def __post_init__(self) -> None:
        """Refuse what can't be a policy."""
        if type(self.max_attempts) is not int or self.max_attempts < 1:
            raise ConfigurationError(f"max_attempts must be a whole number, 1 or more, not {shown(self.max_attempts)}")
        if not isinstance(self.backoff, Backoff):
            raise ConfigurationError(
                f"backoff must be a Backoff, as in Backoff(base=5, max=600), not {shown(self.backoff)}"
            )
        if both := self.give_up_on.intersection(self.retry_on or ()):
            names = ", ".join(sorted(kind.__qualname__ for kind in both))
            raise ConfigurationError(f"retry_on and give_up_on can't both name {names}")

    def exhausted(self, attempt: int) -> bool:
        """Say whether attempt number *attempt* was the last."""
        return attempt >= self.max_attempts

    def delay(self, attempt: int) -> int:
        """Return the whole seconds to rest after attempt number *attempt* failed."""
        return math.ceil(self.backoff.delay(attempt))

    def gives_up_on(self, error: BaseException) -> bool:
        """Say whether an exception ends a job at once. Of the classes that are named, the nearest to its own decides.

        A group of several is as hopeless as its most hopeless. A broker's answer to the handler, or the lack of one,
        says nothing of the job: only a class that is named ends it for that.
        """
        for kind in type(error).__mro__:
            if kind in self.give_up_on:
                return True
            if self.retry_on is not None and kind in self.retry_on:
                return False
        if isinstance(error, BaseExceptionGroup):
            return any(map(self.gives_up_on, error.exceptions))
        return self.retry_on is not None and not isinstance(error, _NOT_THE_JOBS_FAULT)


UNKNOWN_TASK: Final = RetryPolicy(max_attempts=100, backoff=Backoff(base=1, factor=1.2, max=600))
"""How long a job waits for a worker that knows its task, each rest beginning at one that doesn't: about ten hours.

Two apps on one queue come by each other's jobs by chance, so the first rests are short, and hardly grow. Of a job that
nine of ten workers don't know, the chance to meet only those a hundred times is 1 in 40,000.
"""


def error_types(given: Any, name: str) -> frozenset[type[BaseException]]:
    """Return what an option named *name* says: one exception class, or several. Raises ConfigurationError."""
    found = [*given] if isinstance(given, Collection) and not isinstance(given, type | str) else [given]
    for kind in found:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            right = "as in (ConnectionError, TimeoutError)"
            raise ConfigurationError(f"{name} takes exception classes, {right}, not {shown(kind)}")
    if not found:
        raise ConfigurationError(f"{name} names no exception: leave it out")
    return frozenset(found)
