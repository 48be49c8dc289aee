"""From what was decided and done to the event that tells of it."""

from typing import assert_never

from qworker._queue_names import poison_queue_of
from qworker.engine.attempt import Attempt
from qworker.events import (
    JobEvent,
    JobExpired,
    JobPoisoned,
    JobReleased,
    JobRetried,
    JobSnoozed,
    JobSucceeded,
    LeaseLost,
    TaskUnknown,
)
from qworker.outcome import (
    Abandon,
    Action,
    Delete,
    Expired,
    Failed,
    Outcome,
    Poison,
    Reappear,
    Rejected,
    Released,
    RetryAsked,
    Snoozed,
    Unknown,
)


def event_of(attempt: Attempt, outcome: Outcome, action: Action, *, max_attempts: int) -> JobEvent:  # noqa: PLR0911 — a table of outcomes
    """Return the event for an action that was applied."""
    job, queue, number, seconds = attempt.job, attempt.queue, attempt.number, attempt.seconds
    match action, outcome:
        case Delete(), Expired():
            return JobExpired(job=job, queue=queue, attempt=number)
        case Delete(), _:
            return JobSucceeded(job=job, queue=queue, attempt=number, seconds=seconds)
        case Poison(failure), _:
            return JobPoisoned(
                job=job,
                queue=queue,
                attempt=number,
                poison_queue=poison_queue_of(queue),
                failure=failure,
                seconds=seconds,
            )
        case Reappear(after), Snoozed(reason=reason):
            return JobSnoozed(job=job, queue=queue, attempt=number, after=after, reason=reason)
        case Reappear(after), Failed(failure) | RetryAsked(failure) | Rejected(failure):
            return JobRetried(
                job=job,
                queue=queue,
                attempt=number,
                max_attempts=max_attempts,
                after=after,
                failure=failure,
                seconds=seconds,
            )
        case Reappear(after), Unknown(failure, deliveries):
            return TaskUnknown(
                job=job, queue=queue, attempt=number, deliveries=deliveries, after=after, failure=failure
            )
        case Reappear(), _:
            reason = outcome.reason if isinstance(outcome, Released) else ""
            return JobReleased(job=job, queue=queue, attempt=number, reason=reason)
        case Abandon(), _:
            return LeaseLost(job=job, queue=queue, attempt=number, reason="another worker may have it")
        case _:
            assert_never(action)
