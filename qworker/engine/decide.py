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
)
from qworker.retry import RetryPolicy


def decide(outcome: Outcome, *, attempt: int, policy: RetryPolicy) -> Action:  # noqa: PLR0911 — a table of outcomes
    """Return what is to be done to a message after this outcome of its attempt number *attempt*."""
    match outcome:
        case Succeeded() | Expired():
            return Delete()
        case Rejected(failure):
            return Poison(failure)
        case Failed(failure) | RetryAsked(failure) if policy.exhausted(attempt):
            return Poison(failure)
        case Failed():
            return Reappear(policy.delay(attempt), counted=True)
        case RetryAsked(after=after):
            return Reappear(policy.delay(attempt) if after is None else after, counted=True)
        case Snoozed(after):
            return Reappear(after, counted=False)
        case Released():
            return Reappear(0, counted=False)
        case Lost():
            return Abandon()
        case _:
            assert_never(outcome)
