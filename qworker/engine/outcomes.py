"""From what a handler raised to its outcome."""

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
