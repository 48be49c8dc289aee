"""From what happened to what is done about it: pure, and total."""

from typing import assert_never

from qworker.outcome import (
    Abandon,
    Action,
    Delete,
    Expired,
    Failed,
    Lost,
    Outcome,
    Poison,
    Reappear,
    Rejected,
    Released,
    RetryAsked,
    Snoozed,
    Succeeded,
    Unknown,
)
from qworker.retry import UNKNOWN_TASK, RetryPolicy


def decide(outcome: Outcome, *, attempt: int, policy: RetryPolicy) -> Action:  # noqa: C901, PLR0911 — a table of outcomes
    """Return what is to be done to a message after this outcome of its attempt number *attempt*."""
    match outcome:
        case Succeeded() | Expired():
            return Delete()
        case Rejected(failure):
            return Poison(failure)
        case Failed(failure) | RetryAsked(failure) if policy.exhausted(attempt):
            return Poison(failure)
        case Failed():
            return _next_attempt(policy.delay(attempt), attempt, policy)
        case RetryAsked(after=after):
            return _next_attempt(policy.delay(attempt) if after is None else after, attempt, policy)
        case Snoozed(after):
            return Reappear(after, counted=False)
        case Released(after=after):
            return Reappear(after, counted=False)
        case Unknown(failure, deliveries) if UNKNOWN_TASK.exhausted(deliveries):
            return Poison(failure)
        case Unknown(deliveries=deliveries):
            return Reappear(UNKNOWN_TASK.delay(deliveries), counted=False, unknown=True)
        case Lost():
            return Abandon()
        case _:
            assert_never(outcome)


def _next_attempt(after: int, attempt: int, policy: RetryPolicy) -> Reappear:
    return Reappear(after, counted=True, one_left=policy.exhausted(attempt + 1))
