"""Turns the looks of `qworker top` into rates, from differences, and percentiles, from the buckets of histograms."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Final

from qworker._queue_names import POISON_SUFFIX
from qworker.brokers.base import MAX_BATCH
from qworker.operate.words import counted
from qworker.poison.selection import GivenUp

WINDOW: Final = 60.0
"""Seconds that rates and percentiles are of."""
_MINUTE: Final = 60.0
_FAILED: Final = ("retried", "poisoned", "lost", "unsettled")
"""Outcomes of attempts that came to no good end."""

Buckets = Mapping[float, float]
"""Counts by the upper bounds of a histogram's buckets, the last of which is infinite."""


@dataclass(frozen=True, slots=True)
class QueueSeen:
    """One queue at one moment; None for a value that is missing or unknown."""

    name: str
    messages: int | None = None
    poison: int | None = None
    given_up: Sequence[GivenUp] = field(default=(), repr=False)
    """The result of a peek into its poison queue."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Scrape:
    """The metrics of one worker, or of several behind one port."""

    gauges: Mapping[str, float]
    """Those without labels, by name: running, waiting, slots, workers; and leases_lost, process_deaths."""
    outcomes: Mapping[tuple[str, str], float]
    """Attempts that ended, by task and outcome."""
    durations: Mapping[str, Buckets]
    """The time that handlers ran, by task."""
    running: Mapping[str, float] = field(default_factory=dict)
    """Jobs that run, by task."""


@dataclass(frozen=True, slots=True)
class Look:
    """All that was seen at one moment."""

    at: float
    """By the monotonic clock."""
    queues: Sequence[QueueSeen] = ()
    scrapes: Mapping[str, Scrape | str] = field(default_factory=dict)
    """By where they come from; a text says why there is none."""
    problem: str = ""
    """Why no queue could be seen."""


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A row of the table of queues; rates are per minute, None before there are two looks."""

    name: str
    messages: int | None
    arrived: float | None
    left: float | None
    poison: int | None


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A row of the table of tasks; rates are per minute, times are in seconds."""

    name: str
    running: float | None
    done: float | None
    failed: float | None
    given_up: float | None
    median: float | None
    p95: float | None
    longest: float | None
    """The bound above which a histogram tells no times apart."""


@dataclass(frozen=True, slots=True)
class FailureRow:
    """Jobs of one task that were given up for the same reason, as far as they could be seen."""

    queue: str
    """That they came from."""
    task: str | None
    error: str | None
    """None if it was not recorded."""
    jobs: int
    ago: timedelta
    """The time since the latest of them was given up."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The whole picture."""

    queues: Sequence[QueueRow]
    workers: Mapping[str, Scrape | str]
    tasks: Sequence[TaskRow]
    failures: Sequence["FailureRow"]
    """The latest first."""
    problems: Sequence[str]
    """The brokers and workers that did not answer, with the reasons."""
    notes: Sequence[str]
    """Limits of the picture."""


def recent(history: Iterable[Look], now: float) -> list[Look]:
    """Return the looks within the window, the oldest first, and the last one before it."""
    looks = list(history)
    begin = max((number for number, look in enumerate(looks) if look.at <= now - WINDOW), default=0)
    return looks[begin:]


def picture(looks: Sequence[Look]) -> Picture:
    """Return the picture after these looks, the last of which is now; there is one at least."""
    last = looks[-1]
    return Picture(
        queues=[_queue_row(seen, looks) for seen in last.queues],
        workers=last.scrapes,
        tasks=_task_rows(looks),
        failures=_failure_rows(last),
        problems=_problems(last),
        notes=_notes(last),
    )


def flow(lengths: Sequence[tuple[float, int]]) -> tuple[float, float] | None:
    """Return how many messages came and left a minute, at least, given the lengths of a queue at some moments.

    What comes and leaves between two looks is not seen. None for fewer than two looks.
    """
    if len(lengths) < 2 or (seconds := lengths[-1][0] - lengths[0][0]) <= 0:  # noqa: PLR2004 — a difference takes two
        return None
    steps = [after - before for (_, before), (_, after) in pairwise(lengths)]
    scale = _MINUTE / seconds
    return sum(max(0, step) for step in steps) * scale, sum(max(0, -step) for step in steps) * scale


def increase(values: Sequence[float]) -> float:
    """Return by how much a counter has grown; one that goes back has begun anew."""
    return sum(after - before if after >= before else after for before, after in pairwise(values))


def quantile(buckets: Buckets, q: float) -> float | None:
    """Return the time that a part *q* of all took at most, as if they were spread evenly within each bucket.

    None if there are none, and infinity if it lies above the last finite bound: more is not known.
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0
    if total <= 0:
        return None
    rank, low, below = q * total, 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank and buckets[bound] > below:
            if math.isinf(bound):
                return math.inf
            return low + (bound - low) * (rank - below) / (buckets[bound] - below)
        low, below = bound, buckets[bound]
    return None


def _queue_row(seen: QueueSeen, looks: Sequence[Look]) -> QueueRow:
    lengths = [
        (look.at, each.messages)
        for look in looks
        for each in look.queues
        if each.name == seen.name and each.messages is not None
    ]
    came, left = flow(lengths) or (None, None)
    return QueueRow(seen.name, seen.messages, came, left, seen.poison)


def _task_rows(looks: Sequence[Look]) -> list[TaskRow]:
    """Return the tasks, those first that do most."""
    scrapes = [scrape for scrape in looks[-1].scrapes.values() if isinstance(scrape, Scrape)]
    names = {task for scrape in scrapes for task, _ in scrape.outcomes}
    rows = [_task_row(name, looks) for name in names]
    return sorted(rows, key=lambda row: (-(row.done or 0) - (row.failed or 0), row.name))


def _task_row(task: str, looks: Sequence[Look]) -> TaskRow:
    series = [_series(where, looks) for where in looks[-1].scrapes]
    seconds = max((each[-1][0] - each[0][0] for each in series if each), default=0.0)

    def rate(outcomes: Sequence[str]) -> float | None:
        if seconds <= 0:
            return None
        grown = (
            increase([scrape.outcomes.get((task, outcome), 0.0) for _, scrape in each])
            for each in series
            for outcome in outcomes
        )
        return sum(grown) * _MINUTE / seconds

    buckets = _grown_buckets(task, [[scrape for _, scrape in each] for each in series])
    finite = [bound for bound in buckets if not math.isinf(bound)]
    last = [scrape.running for scrape in looks[-1].scrapes.values() if isinstance(scrape, Scrape)]
    running = [by_task[task] for by_task in last if task in by_task]
    return TaskRow(
        task,
        sum(running) if running else None,
        rate(["succeeded"]),
        rate(_FAILED),
        rate(["poisoned"]),
        quantile(buckets, 0.5),
        quantile(buckets, 0.95),
        max(finite, default=None),
    )


def _series(where: str, looks: Sequence[Look]) -> list[tuple[float, Scrape]]:
    """Return the answers of one source, with their times."""
    series: list[tuple[float, Scrape]] = []
    for look in looks:
        scrape = look.scrapes.get(where)
        if isinstance(scrape, Scrape):
            series.append((look.at, scrape))
    return series


def _grown_buckets(task: str, series: Iterable[Sequence[Scrape]]) -> Buckets:
    """Return the buckets of the runs that ended meanwhile, of all sources; with a single look, of all runs ever."""
    grown: dict[float, float] = {}
    for scrapes in series:
        if not scrapes:
            continue
        for bound, count in scrapes[-1].durations.get(task, {}).items():
            counts = [scrape.durations.get(task, {}).get(bound, 0.0) for scrape in scrapes]
            grown[bound] = grown.get(bound, 0.0) + (increase(counts) if len(scrapes) > 1 else count)
    return grown


def _failure_rows(look: Look) -> list[FailureRow]:
    alike: defaultdict[tuple[str, str | None, str | None], list[timedelta]] = defaultdict(list)
    for seen in look.queues:
        for each in seen.given_up:
            error = each.problem or None if each.record is None else str(each.record.failure)
            alike[seen.name, each.task, error].append(each.age)
    rows = [FailureRow(*what, len(ages), min(ages)) for what, ages in alike.items()]
    return sorted(rows, key=lambda row: row.ago)


def _problems(look: Look) -> list[str]:
    of_place = [look.problem] if look.problem else []
    of_queues = [f"{seen.name}: {seen.problem}" for seen in look.queues if seen.problem]
    of_workers = [f"{where}: {scrape}" for where, scrape in look.scrapes.items() if isinstance(scrape, str)]
    return [*of_place, *of_queues, *of_workers]


def _notes(look: Look) -> list[str]:
    notes = []
    hidden = [
        f"{seen.name}{POISON_SUFFIX}: {len(seen.given_up)} of about {counted(seen.poison, 'message')} can be seen"
        for seen in look.queues
        if seen.poison is not None and seen.poison > len(seen.given_up)
    ]
    if hidden:
        others = f", and likewise {counted(len(hidden) - 1, 'queue')} more" if len(hidden) > 1 else ""
        full = any(len(seen.given_up) == MAX_BATCH for seen in look.queues)
        notes.append(hidden[0] + others + (": newer failures may be among the rest" if full else ""))
    if look.queues:
        notes.append(
            "message counts include invisible ones (delayed, or in a worker's hands), since no broker separates them; "
            "IN and OUT miss messages that come and go between two looks"
        )
    if not look.scrapes:
        notes.append("to see tasks and workers, name their ports: --from http://HOST:PORT")
    return notes
