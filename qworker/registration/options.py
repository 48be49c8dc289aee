"""Checks the options of tasks, and says how a task's jobs are run."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, cast, get_args, get_origin

from qworker.errors import ConfigurationError, shown
from qworker.middleware import Middleware
from qworker.outcome import Reject, Retry, Snooze
from qworker.retry import Backoff, Delay, ErrorTypes, RetryPolicy, error_types, in_seconds, seconds_of

Executor = Literal["thread", "process"]

MAX_TIMEOUT: Final = 365 * 24 * 3600
"""Seconds: whoever means longer means none; and a date beyond the calendar would fail every attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """How a task's jobs are run."""

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float | None = None
    """Seconds that one attempt may take; None means any time."""
    executor: Executor | None = None
    """Where a plain function runs; None for ``async def``, which runs on the event loop."""
    middleware: tuple[Middleware, ...] = ()


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


def executor_for(task: str, function: Callable[..., Any], executor: Executor | None) -> Executor | None:
    """Return where a task's function runs; None for ``async def``. Raises ConfigurationError."""
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


def state_type_for(task: str, state: Any, of_contexts: Sequence[Any]) -> Any:
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
