"""Enqueues calls of a task: makes jobs of them, and says where and when they are put."""

import gc
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    ParamSpec,
    Protocol,
)

from qworker._queue_names import check_task_queue
from qworker.brokers.base import MAX_TTL
from qworker.errors import ConfigurationError, InvalidArguments, shown
from qworker.job import Job, new_job_ids, utc_now
from qworker.registration.verbs import missing
from qworker.retry import Delay, in_seconds, rest_of, seconds_of
from qworker.wire.bounds import MAX_OWN_HEADERS, header_problem
from qworker.wire.signature import Encoded, Signature

P = ParamSpec("P")

Call = Sequence[Any] | Mapping[str, Any]
"""One call's arguments: a tuple of positional or a mapping of keyword arguments."""

_VALIDATED_AT_ONCE: Final = 2000
"""Calls that are validated together: the rest of them need not be in memory yet."""


@dataclass(frozen=True, slots=True)
class Sending:
    """Where and when a job is to be put."""

    queue: str
    delay: int = 0
    ttl: int | None = None
    """Seconds; told in the job itself, not to the broker, which would end a job that runs."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    bundle: int = 1
    """How many jobs one message may carry, if many are enqueued at once."""


class Sender(Protocol):
    """What puts jobs into queues: the App."""

    def send(self, jobs: Sequence[Job], sending: Sending) -> Sequence[Job]:
        """Put the jobs, waiting until they are accepted; return them as they were put."""

    async def asend(self, jobs: Sequence[Job], sending: Sending) -> Sequence[Job]:
        """Do the same without blocking the event loop."""

    def check(self, job: Job) -> None:
        """Raise InvalidArguments or MessageTooLarge if a job can't be put."""


class Producer(Generic[P]):
    """Enqueues calls of one task in one way."""

    def __init__(self, task: str, signature: Signature, sender: Sender, sending: Sending) -> None:
        self._task = task
        self._signature = signature
        self._sender = sender
        self._sending = sending

    @property
    def bundle(self) -> int:
        """How many jobs `enqueue_many` may put into one message."""
        return self._sending.bundle

    def using(
        self,
        *,
        delay: Delay | None = None,
        queue: str | None = None,
        ttl: Delay | None = None,
        headers: Mapping[str, str] | None = None,
        bundle: int | None = None,
    ) -> "Producer[P]":
        """Return a producer with some options changed; see Task.using."""
        changed = replace(
            self._sending,
            queue=self._sending.queue if queue is None else check_task_queue(queue),
            delay=self._sending.delay if delay is None else rest_of(delay, f"task {self._task}: delay"),
            ttl=self._sending.ttl if ttl is None else _ttl(ttl, f"task {self._task}: ttl"),
            headers=self._sending.headers if headers is None else _headers(headers),
            bundle=self._sending.bundle if bundle is None else bundle_of(f"task {self._task}", bundle),
        )
        if changed.ttl is not None and changed.ttl <= changed.delay:
            given = f"a ttl of {in_seconds(changed.ttl)} must be more than the delay of {in_seconds(changed.delay)}"
            raise ConfigurationError(f"task {self._task}: {given}")
        return Producer(self._task, self._signature, self._sender, changed)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Enqueue a call and return it once the broker has accepted it; see Task.enqueue."""
        job = self._job(args, kwargs, utc_now())
        return self._sender.send([job], self._sending)[0]

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Enqueue a call without blocking the event loop; see Task.enqueue."""
        job = self._job(args, kwargs, utc_now())
        return (await self._sender.asend([job], self._sending))[0]

    def enqueue_many(self, calls: Iterable[Call]) -> list[Job]:
        """Enqueue many calls; see Task.enqueue_many."""
        return list(self._sender.send(self._jobs(calls), self._sending))

    async def aenqueue_many(self, calls: Iterable[Call]) -> list[Job]:
        """Enqueue many calls without blocking the event loop; see Task.enqueue_many."""
        return list(await self._sender.asend(self._jobs(calls), self._sending))

    def make(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Job:
        """Return a call, its arguments given as JSON values, as a job that is not enqueued yet.

        Raises InvalidArguments and MessageTooLarge.
        """
        (job,) = self._jobs_of([self._signature.encode_json(args, kwargs)], utc_now())
        self._sender.check(job)
        return job

    def send_made(self, jobs: Sequence[Job]) -> None:
        """Enqueue what `make` has returned; see Task.enqueue_many."""
        self._sender.send(jobs, self._sending)

    if not TYPE_CHECKING:  # or type checkers would take any attribute for one

        def __getattr__(self, name: str) -> Any:
            raise missing(self, name)

    def _jobs(self, calls: Iterable[Call]) -> list[Job]:
        now, jobs, waiting = utc_now(), list[Job](), iter(calls)
        while some := list(islice(waiting, _VALIDATED_AT_ONCE)):
            with _no_collection():
                split = [_split(self._task, call, number) for number, call in enumerate(some, len(jobs))]
                jobs += self._jobs_of(self._signature.encode_many(split, len(jobs)), now)
        return jobs

    def _job(self, args: Sequence[Any], kwargs: Mapping[str, Any], now: datetime) -> Job:
        (job,) = self._jobs_of([self._signature.encode(args, kwargs)], now)
        return job

    def _jobs_of(self, calls: Sequence[Encoded], now: datetime) -> list[Job]:
        task, sending = self._task, self._sending
        return [
            Job(job_id, task, args, kwargs, enqueued_at=now, ttl=sending.ttl, headers=sending.headers)
            for job_id, (args, kwargs) in zip(new_job_ids(len(calls)), calls, strict=True)
        ]


@contextmanager
def _no_collection() -> Iterator[None]:
    """Put the garbage collector off: of many objects that all stay, it finds none, again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def bundle_of(where: str, jobs: Any) -> int:
    """Return how many jobs a message may carry. Raises ConfigurationError, which begins with *where*."""
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise ConfigurationError(f"{where}: bundle must be a whole number of jobs, 1 or more, not {shown(jobs)}")
    return jobs


def _split(task: str, call: object, number: int) -> tuple[Sequence[Any], Mapping[str, Any]]:
    if type(call) is tuple:  # most are, and to ask the abstract classes takes as long as all else here
        return call, {}
    if isinstance(call, Mapping):
        return (), call
    if isinstance(call, Sequence) and not isinstance(call, str | bytes):
        return call, {}
    raise InvalidArguments(
        task,
        f"call number {number}: a call is a tuple of positional or a mapping of keyword arguments, "
        f"not a {type(call).__name__}",
    )


def _ttl(ttl: Delay, name: str) -> int:
    try:
        seconds = seconds_of(ttl)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    if not 0 < seconds <= MAX_TTL:
        most = f"{MAX_TTL:,} s (68 years)"
        raise ConfigurationError(f"{name} must be more than 0 seconds and at most {most}, not {in_seconds(seconds)}")
    return math.ceil(seconds)


def _headers(headers: Any) -> Mapping[str, str]:
    if not isinstance(headers, Mapping) or not all(isinstance(text, str) for pair in headers.items() for text in pair):
        raise ConfigurationError("headers must be a mapping of texts, names and values")
    if problem := header_problem(headers, MAX_OWN_HEADERS):
        raise ConfigurationError(f"headers {problem}")
    return dict(headers)
