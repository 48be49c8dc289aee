"""A task: a registered function with its options, and the ways to enqueue a call of it."""

import functools
import gc
import inspect
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

from qworker._callables import middleware_of
from qworker._names import check_name
from qworker._verbs import missing
from qworker.bounds import MAX_OWN_HEADERS, header_problem
from qworker.brokers.base import MAX_TTL, check_queue_name
from qworker.context import Context
from qworker.errors import ConfigurationError, InvalidArguments, shown
from qworker.job import Job, new_job_ids, utc_now
from qworker.outcome import Reject, Retry, Snooze
from qworker.retry import Backoff, Delay, ErrorTypes, RetryPolicy, error_types, in_seconds, rest_of, seconds_of
from qworker.signature import Encoded, Signature
from qworker.states import States
from qworker.surroundings import Surroundings

P = ParamSpec("P")
R = TypeVar("R")

Executor = Literal["thread", "process"]
Call = Sequence[Any] | Mapping[str, Any]
"""One call's arguments: a tuple of positional or a mapping of keyword arguments."""

CallNext = Callable[[], Awaitable[Any]]
Middleware = Callable[[Context[Any, Any], CallNext], Coroutine[Any, Any, Any]]
"""``async def middleware(ctx, call_next)``: wraps each call of a handler; what it raises fails the attempt."""

DEFAULT_QUEUE = "default"
POISON_SUFFIX = "-poison"
MAX_TIMEOUT: Final = 365 * 24 * 3600
"""Seconds: whoever means longer means none; and a date beyond the calendar would fail every attempt."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """How a task's jobs are run."""

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float | None = None
    """Seconds that one attempt may take; None means any time."""
    executor: Executor | None = None
    """Where a plain function runs; None for ``async def``, which runs on the event loop."""
    middleware: tuple[Middleware, ...] = ()


class Task(Generic[P, R]):
    """A function that can be enqueued. Calling it is calling the function, here and now."""

    def __init__(  # noqa: PLR0913 — each option of @task has its own name
        self,
        function: Callable[P, R],
        sender: Sender,
        *,
        name: str,
        queue: str = DEFAULT_QUEUE,
        max_attempts: int = 5,
        backoff: Backoff | None = None,
        timeout: Delay | None = None,
        executor: Executor | None = None,
        state: Any = None,
        middleware: Iterable[Middleware] = (),
        bundle: int = 1,
        retry_on: ErrorTypes | None = None,
        give_up_on: ErrorTypes | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        functools.update_wrapper(self, function, updated=())  # another library's "enqueue" must not hide this one
        self.function = function
        self.made_in = ""
        """The module that made it a task, if one did: not always the function's own."""
        self.name = check_name(name)
        self.queue = check_task_queue(queue)
        self.signature = Signature(name, function)
        self.states = States(name, _state_type(name, state, self.signature.state_types))
        self.options = TaskOptions(
            policy=policy_of(f"task {name}", max_attempts, backoff, retry_on, give_up_on),
            timeout=timeout_of(f"task {name}", timeout),
            executor=_executor(name, function, executor),
            middleware=middleware_of(middleware, f"task {name}: "),
        )
        self.surroundings = surroundings or Surroundings()
        """What its App has around it where it is a plain function."""
        self._producer = Producer(self, sender, Sending(self.queue, bundle=bundle_of(f"task {name}", bundle)))

    @property
    def bundle(self) -> int:
        """How many of its jobs `enqueue_many` may put into one message."""
        return self._producer.bundle

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself; nothing is enqueued."""
        return self.function(*args, **kwargs)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Enqueue a call and return it once the broker has accepted it.

        Works anywhere: in scripts, threads, after a fork, and inside a running event loop, which it blocks
        for the time of one put; there, ``await aenqueue(…)`` doesn't.

        Raises InvalidArguments and MessageTooLarge, with nothing sent; EnqueueUncertain if the broker's answer was
        lost; other BrokerErrors if the job was not accepted.
        """
        return self._producer.enqueue(*args, **kwargs)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Enqueue a call without blocking the event loop; see enqueue."""
        return await self._producer.aenqueue(*args, **kwargs)

    def enqueue_many(self, calls: Iterable[Call]) -> list[Job]:
        """Enqueue many calls, each a tuple of positional or a mapping of keyword arguments.

        All are validated before the first is sent. With the task's option *bundle*, or ``using(bundle=…)``, a message
        carries as many jobs as that, and 64 KiB, allow.

        Raises InvalidArguments and MessageTooLarge, with nothing sent, and PartlyEnqueued if the broker accepted
        only some.
        """
        return self._producer.enqueue_many(calls)

    async def aenqueue_many(self, calls: Iterable[Call]) -> list[Job]:
        """Enqueue many calls without blocking the event loop; see enqueue_many."""
        return await self._producer.aenqueue_many(calls)

    def using(
        self,
        *,
        delay: Delay | None = None,
        queue: str | None = None,
        ttl: Delay | None = None,
        headers: Mapping[str, str] | None = None,
        bundle: int | None = None,
    ) -> "Producer[P]":
        """Return a way to enqueue this task with other options than its own.

        *delay*: not before this time span (up to 7 days); *ttl*: not worth starting later than this (up to 68 years);
        *headers*: texts that the handler finds in ``ctx.headers``; *bundle*: how many jobs ``enqueue_many`` may put
        into one message.
        Time spans are timedeltas, or seconds.
        """
        return self._producer.using(delay=delay, queue=queue, ttl=ttl, headers=headers, bundle=bundle)

    if not TYPE_CHECKING:  # or type checkers would take any attribute for one

        def __getattr__(self, name: str) -> Any:
            raise missing(self, name)

    def __repr__(self) -> str:
        return f"<Task {self.name}{self.signature}>"


class Producer(Generic[P]):
    """Enqueues calls of one task in one way."""

    def __init__(self, task: Task[P, Any], sender: Sender, sending: Sending) -> None:
        self._task = task
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
            delay=self._sending.delay if delay is None else rest_of(delay, f"task {self._task.name}: delay"),
            ttl=self._sending.ttl if ttl is None else _ttl(ttl, f"task {self._task.name}: ttl"),
            headers=self._sending.headers if headers is None else _headers(headers),
            bundle=self._sending.bundle if bundle is None else bundle_of(f"task {self._task.name}", bundle),
        )
        if changed.ttl is not None and changed.ttl <= changed.delay:
            given = f"a ttl of {in_seconds(changed.ttl)} must be more than the delay of {in_seconds(changed.delay)}"
            raise ConfigurationError(f"task {self._task.name}: {given}")
        return Producer(self._task, self._sender, changed)

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
        (job,) = self._jobs_of([self._task.signature.encode_json(args, kwargs)], utc_now())
        self._sender.check(job)
        return job

    def send_made(self, jobs: Sequence[Job]) -> None:
        """Enqueue what `make` has returned; see Task.enqueue_many."""
        self._sender.send(jobs, self._sending)

    if not TYPE_CHECKING:  # see Task

        def __getattr__(self, name: str) -> Any:
            raise missing(self, name)

    def _jobs(self, calls: Iterable[Call]) -> list[Job]:
        now, jobs, waiting = utc_now(), list[Job](), iter(calls)
        while some := list(islice(waiting, _VALIDATED_AT_ONCE)):
            with _no_collection():
                split = [_split(self._task.name, call, number) for number, call in enumerate(some, len(jobs))]
                jobs += self._jobs_of(self._task.signature.encode_many(split, len(jobs)), now)
        return jobs

    def _job(self, args: Sequence[Any], kwargs: Mapping[str, Any], now: datetime) -> Job:
        (job,) = self._jobs_of([self._task.signature.encode(args, kwargs)], now)
        return job

    def _jobs_of(self, calls: Sequence[Encoded], now: datetime) -> list[Job]:
        task, sending = self._task.name, self._sending
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


def poison_queue_of(queue: str) -> str:
    """Return the name of the queue for jobs of *queue* that were given up."""
    return queue + POISON_SUFFIX


def check_task_queue(name: str) -> str:
    """Return *name* if it and its poison queue can both be made; raises InvalidQueueName."""
    check_queue_name(name)
    check_queue_name(poison_queue_of(name))
    return name


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


def _state_type(task: str, state: Any, of_contexts: Sequence[Any]) -> Any:
    """Return the type of a task's states, which its option and its Context parameters may say."""
    said = [kind for kind in (state, *of_contexts) if kind is not None]
    for other in said[1:]:
        if not _are_one(said[0], other):
            raise ConfigurationError(
                f"task {task}: its state is {_in_words(said[0])} in one place and {_in_words(other)} in another: "
                "have state= and Context[Resources, State] say the same"
            )
    return said[0] if said else None


def _are_one(kind: Any, other: Any) -> bool:
    """Say whether two types of a state are one; whether None is among them doesn't matter: a state may be missing."""
    kinds, others = _kinds_of(kind), _kinds_of(other)
    return len(kinds) == len(others) and all(one in others for one in kinds)


def _kinds_of(kind: Any) -> list[Any]:
    is_union = get_origin(kind) in {Union, UnionType}
    return [one for one in get_args(kind) if one is not NoneType] if is_union else [kind]


def _in_words(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else shown(kind)


def bundle_of(where: str, jobs: Any) -> int:
    """Return how many jobs a message may carry. Raises ConfigurationError, which begins with *where*."""
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise ConfigurationError(f"{where}: bundle must be a whole number of jobs, 1 or more, not {shown(jobs)}")
    return jobs


def policy_of(
    where: str,
    max_attempts: int,
    backoff: Backoff | None,
    retry_on: ErrorTypes | None,
    give_up_on: ErrorTypes | None,
) -> RetryPolicy:
    """Return when a task's jobs are tried again, and when they are given up. Raises ConfigurationError."""
    try:
        return RetryPolicy(
            max_attempts,
            Backoff() if backoff is None else backoff,
            None if retry_on is None else _error_types(retry_on, "retry_on"),
            frozenset() if give_up_on is None else _error_types(give_up_on, "give_up_on"),
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _error_types(given: ErrorTypes, name: str) -> frozenset[type[BaseException]]:
    found = error_types(given, name)
    for kind in (Retry, Snooze, Reject):
        if kind in found:
            raise ConfigurationError(f"{name} can't name {kind.__name__}, which says itself what becomes of the job")
    return found


def timeout_of(where: str, timeout: Delay | None) -> float | None:
    """Return the seconds that one attempt may take, None for any time. Raises ConfigurationError."""
    if timeout is None:
        return None
    try:
        seconds = seconds_of(timeout)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: timeout: {error}") from None
    if not 0 < seconds <= MAX_TIMEOUT:
        raise ConfigurationError(
            f"{where}: timeout must be more than 0 seconds and at most 365 days, not {in_seconds(seconds)}"
        )
    return seconds


def executor_of(where: str, executor: Any) -> Executor | None:
    """Return where plain functions run. Raises ConfigurationError."""
    if executor is not None and executor not in get_args(Executor):
        raise ConfigurationError(f"{where}: executor must be 'thread' or 'process', not {shown(executor)}")
    return cast(Executor | None, executor)


def _executor(task: str, function: Callable[..., Any], executor: Executor | None) -> Executor | None:
    executor = executor_of(f"task {task}", executor)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"task {task}: it is a generator, and nobody would iterate over it: drop its yield")
    if not inspect.iscoroutinefunction(function):
        return executor or "thread"
    if executor is not None:
        raise ConfigurationError(
            f"task {task}: it is 'async def' and runs on the event loop: drop executor={executor!r}"
        )
    return None
