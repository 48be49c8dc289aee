"""Services that refuse what is too much, and the callers of some processes, in simulated time."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Protocol

from qworker.brokers.base import Urgency
from qworker.brokers.throttle import Throttle

_CALLERS = 64
"""Of each process."""
_LATENCY, _PAUSE, _LOOK_AGAIN = 0.005, 0.1, 0.25
"""Seconds: of a request, after a refusal, and between two looks at whose turn it is."""


class Service(Protocol):
    def take(self, now: float) -> bool:
        """Say whether a request that arrives now is accepted."""


class Bucket:
    """Accepts so many requests a second, and some at once after a lull."""

    def __init__(self, limit: float, at_once: float) -> None:
        self._limit, self._at_once = limit, max(at_once, 1.0)
        self._left, self._at = self._at_once, 0.0

    def take(self, now: float) -> bool:
        self._left = min(self._left + (now - self._at) * self._limit, self._at_once)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class EachSecond:
    """Accepts so many requests in each second of its clock, and refuses all that come later in it."""

    def __init__(self, limit: float, offset: float) -> None:
        self._limit, self._offset = limit, offset
        self._second, self._taken = -1, 0

    def take(self, now: float) -> bool:
        second = int(now + self._offset)
        if second != self._second:
            self._second, self._taken = second, 0
        self._taken += 1
        return self._taken <= self._limit


class Unlucky:
    """Refuses a share of the requests, however many there are."""

    def __init__(self, share: float, random: Random) -> None:
        self._share, self._random = share, random

    def take(self, now: float) -> bool:
        return self._random.random() >= self._share


class Changing:
    """Is one service until a moment, and then another."""

    def __init__(self, *parts: tuple[float, Service]) -> None:
        self._parts = parts

    def take(self, now: float) -> bool:
        return next(service for until, service in self._parts if now < until).take(now)


class OutOfOrder:
    """Accepts nothing."""

    def take(self, now: float) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Answer:
    at: float
    accepted: bool
    process: int


@dataclass(frozen=True, slots=True)
class Course:
    """What was answered, and how the throttles ended."""

    answers: list[Answer]
    throttles: list[Throttle]

    def accepted(self, begin: float, end: float, process: int | None = None) -> float:
        """Return how many requests were accepted a second."""
        return sum(each.accepted for each in self._between(begin, end, process)) / (end - begin)

    def asked(self, begin: float, end: float) -> float:
        """Return how many requests were made a second."""
        return len(self._between(begin, end)) / (end - begin)

    def refused_share(self, begin: float, end: float) -> float:
        return 1 - self.accepted(begin, end) / max(self.asked(begin, end), 1e-9)

    def _between(self, begin: float, end: float, process: int | None = None) -> list[Answer]:
        return [each for each in self.answers if begin <= each.at < end and process in (None, each.process)]


def simulate(
    service: Service,
    *,
    seconds: float,
    demand: float = 4_000,
    processes: int = 1,
    seed: int = 0,
) -> Course:
    """Let the callers of some processes ask a service as fast as they may; *demand*: requests a second of them all."""
    random = Random(seed)
    course = Course([], [Throttle(0.0) for _ in range(processes)])
    rest = processes * _CALLERS / demand

    def caller(process: int, now: float) -> Generator[float, float, None]:
        throttle = course.throttles[process]
        note: dict[bool, Callable[[float], None]] = {True: throttle.accepted, False: throttle.refused}
        while True:
            place = throttle.join(now, Urgency.NEW_WORK)
            while wait := throttle.wait(now, place, Urgency.NEW_WORK):
                now = yield min(wait, _LOOK_AGAIN)
            now = yield _LATENCY * random.uniform(0.3, 0.6)
            accepted = service.take(now)
            now = yield _LATENCY * random.uniform(0.3, 0.6)
            note[accepted](now)
            course.answers.append(Answer(now, accepted, process))
            now = yield rest * random.uniform(0.5, 1.5) if accepted else _PAUSE

    order = count()
    due: list[tuple[float, int, Generator[float, float, None]]] = []
    for number in range(processes * _CALLERS):
        at = random.random() * rest
        asking = caller(number % processes, at)
        heappush(due, (at + next(asking), next(order), asking))
    while due[0][0] < seconds:
        now, _, asking = heappop(due)
        heappush(due, (now + asking.send(now), next(order), asking))
    return course
