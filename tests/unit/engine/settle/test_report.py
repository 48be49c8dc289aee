import time

import pytest

import doubles
from qworker.engine.attempt import Attempt, Received
from qworker.engine.lease.lease import Lease
from qworker.engine.run.outcomes import outcome_of
from qworker.engine.settle.report import event_of
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
from qworker.job import Job
from qworker.outcome import (
    Abandon,
    Action,
    Delete,
    Expired,
    Failed,
    Failure,
    Lost,
    Outcome,
    Poison,
    Reappear,
    Reject,
    Rejected,
    Released,
    Retry,
    RetryAsked,
    Snooze,
    Snoozed,
    Succeeded,
    Unknown,
)
from qworker.retry import RetryPolicy

JOB = Job("j1", "mail.send")
WHY = Failure("ValueError", "no")


def attempt(number: int = 2) -> Attempt:
    message = doubles.message(dequeue_count=number)
    lease = Lease(doubles.ScriptedQueue("mail"), message, length=60, began=time.monotonic())
    return Attempt(Received(message, lease, "mail"), JOB, None)


@pytest.mark.parametrize(
    ("action", "outcome", "event"),
    [
        (Delete(), Succeeded(), JobSucceeded(job=JOB, queue="mail", attempt=2, seconds=0.0)),
        (Delete(), Expired(), JobExpired(job=JOB, queue="mail", attempt=2)),
        *(
            (
                Poison(WHY),
                outcome,
                JobPoisoned(job=JOB, queue="mail", attempt=2, poison_queue="mail-poison", failure=WHY),
            )
            for outcome in (Failed(WHY), Rejected(WHY), RetryAsked(WHY, None))
        ),
        *(
            (
                Reappear(7, counted=True),
                outcome,
                JobRetried(job=JOB, queue="mail", attempt=2, max_attempts=5, after=7, failure=WHY, seconds=0.0),
            )
            for outcome in (Failed(WHY), RetryAsked(WHY, 7))
        ),
        (
            Reappear(7, counted=False),
            Snoozed(7, "not yet"),
            JobSnoozed(job=JOB, queue="mail", attempt=2, after=7, reason="not yet"),
        ),
        (
            Reappear(0, counted=False),
            Released("stop"),
            JobReleased(job=JOB, queue="mail", attempt=2, reason="stop"),
        ),
        (
            Reappear(7, counted=False, unknown=True),
            Unknown(WHY, 3),
            TaskUnknown(job=JOB, queue="mail", attempt=2, deliveries=3, after=7, failure=WHY),
        ),
        (Abandon(), Lost(), LeaseLost(job=JOB, queue="mail", attempt=2, reason="another worker may have it")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_event_of_what_was_done(action: Action, outcome: Outcome, event: JobEvent) -> None:
    assert event == event_of(attempt(), outcome, action, max_attempts=5)


def test_seconds_are_those_of_the_handler() -> None:
    begun = attempt()
    begun.started = time.monotonic() - 3
    assert 3 <= begun.seconds < 4
    event = event_of(begun, Succeeded(), Delete(), max_attempts=5)
    assert isinstance(event, JobSucceeded)
    assert 3 <= event.seconds < 4


def test_what_a_handler_asked_for_by_raising() -> None:
    assert Snoozed(60, "later") == outcome_of(Snooze("later", after=60), RetryPolicy())
    asked = outcome_of(Retry("busy", after=3), RetryPolicy())
    assert isinstance(asked, RetryAsked)
    assert (3, "busy") == (asked.after, asked.failure.message)
    rejected = outcome_of(Reject("never"), RetryPolicy())
    assert isinstance(rejected, Rejected)
    assert "Reject: never" == str(rejected.failure)
    failed = outcome_of(KeyboardInterrupt(), RetryPolicy())
    assert isinstance(failed, Failed)
    assert "KeyboardInterrupt" == failed.failure.type
