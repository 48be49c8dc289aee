"""From what a handler raised to its outcome."""

import inspect
from dataclasses import replace
from typing import Any, Final

from qworker.errors import QworkerError
from qworker.failing import JobFailed
from qworker.outcome import Failed, Failure, Outcome, Reject, Rejected, Retry, RetryAsked, Snooze, Snoozed, sole
from qworker.retry import RetryPolicy

_ASKED: Final = (Retry, Snooze, Reject)
"""What a handler asks for by raising it."""


def outcome_of(error: BaseException, policy: RetryPolicy) -> Outcome:
    """Return what a handler asked for by raising, or that it failed."""
    error = sole(error)  # a TaskGroup raises a group of what one of its tasks has raised
    match error:
        case Retry():
            return RetryAsked(Failure.of(error), error.after)
        case Snooze():
            return Snoozed(error.after, str(error))
        case Reject():
            return Rejected(Failure.of(error))
        case _:
            return failed(error, policy)


def failed(error: BaseException, policy: RetryPolicy) -> Failed | Rejected:
    """Return that an attempt failed: its task's policy may have it given up at once."""
    failure = _with_way_out(Failure.of(error))
    return Rejected(failure) if policy.gives_up_on(error) else Failed(failure)


def _with_way_out(failure: Failure) -> Failure:
    """Say what to do about an error that is nobody's fault: nest_asyncio and the like patch asyncio's own loop only."""
    if not failure.message.startswith("Can't patch loop of type"):
        return failure
    return replace(failure, message=f"{failure.message}: give the worker a loop that can be patched, by --loop asyncio")


def error_of(outcome: Outcome) -> Exception:
    """Return what a handler of a child process raised there, as its middleware here would know it."""
    match outcome:
        case RetryAsked(failure, after):
            return Retry(failure.message, after=after)
        case Snoozed(after, reason):
            return Snooze(reason, after=after)
        case Rejected(failure) if failure.type == Reject.__name__:
            return Reject(failure.message)
        case Failed(failure) | Rejected(failure):
            return JobFailed(failure)
        case _:
            return QworkerError(f"a handler can't come to {outcome}")


def check_returned(returned: Any) -> Any:
    """Return what a handler returned, unless it meant something else by it. Raises TypeError."""
    if returned is None:  # as most do
        return None
    if inspect.isgenerator(returned) or inspect.isasyncgen(returned):
        raise TypeError("the handler is a generator: a task has nobody to iterate over it")
    if isinstance(returned, _ASKED) or (isinstance(returned, type) and issubclass(returned, _ASKED)):
        kind = returned if isinstance(returned, type) else type(returned)
        raise TypeError(f"the handler returned {kind.__name__}, which does nothing: raise it")
    return returned
