"""From what a handler raised to its outcome."""

import inspect
from typing import Any

from qworker.outcome import Failed, Failure, Outcome, Reject, Rejected, Retry, RetryAsked, Snooze, Snoozed


def outcome_of(error: BaseException) -> Outcome:
    """Return what a handler asked for by raising, or that it failed."""
    match error:
        case Retry():
            return RetryAsked(Failure.of(error), error.after)
        case Snooze():
            return Snoozed(error.after, str(error))
        case Reject():
            return Rejected(Failure.of(error))
        case _:
            return Failed(Failure.of(error))


def refuse_generator(returned: Any) -> Any:
    """Return what a handler returned, unless its code has not run yet. Raises TypeError."""
    if inspect.isgenerator(returned) or inspect.isasyncgen(returned):
        raise TypeError("the handler is a generator: a task has nobody to iterate over it")
    return returned
