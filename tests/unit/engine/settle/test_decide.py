"""The table of outcomes: what becomes of a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qworker.engine.settle.decide import decide
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
    Rejected,
    Released,
    RetryAsked,
    Snoozed,
    Succeeded,
    Unknown,
)
from qworker.retry import MAX_DELAY, UNKNOWN_TASK, Backoff, RetryPolicy

WHY = Failure("ValueError", "no")
POLICY = RetryPolicy(3, Backoff(base=5, factor=2, jitter=0))


@pytest.mark.parametrize(
    ("outcome", "attempt", "action"),
    [
        (Succeeded(), 1, Delete()),
        (Succeeded(), 9, Delete()),
        (Failed(WHY), 1, Reappear(5, counted=True)),
        (Failed(WHY), 2, Reappear(10, counted=True, one_left=True)),
        (Failed(WHY), 3, Poison(WHY)),
        (Failed(WHY), 4, Poison(WHY)),
        (RetryAsked(WHY, 60), 1, Reappear(60, counted=True)),
        (RetryAsked(WHY, 0), 1, Reappear(0, counted=True)),
        (RetryAsked(WHY, None), 2, Reappear(10, counted=True, one_left=True)),
        (RetryAsked(WHY, 60), 3, Poison(WHY)),
        (Snoozed(60), 1, Reappear(60, counted=False)),
        (Snoozed(60), 9, Reappear(60, counted=False)),
        (Rejected(WHY), 1, Poison(WHY)),
        (Expired(), 1, Delete()),
        (Released("stop"), 1, Reappear(0, counted=False)),
        (Released("stop"), 9, Reappear(0, counted=False)),
        (Unknown(WHY, 100), 1, Poison(WHY)),
        (Unknown(WHY, 101), 9, Poison(WHY)),
        (Released("no descriptors", 4), 1, Reappear(4, counted=False)),
        (Lost(), 1, Abandon()),
        (Lost(), 9, Abandon()),
    ],
    ids=str,
)
def test_table(outcome: Outcome, attempt: int, action: Action) -> None:
    assert action == decide(outcome, attempt=attempt, policy=POLICY)


delays = st.integers(0, MAX_DELAY)
failures = st.builds(Failure, st.text(), st.text())
outcomes = st.one_of(
    st.builds(Succeeded),
    st.builds(Failed, failures),
    st.builds(RetryAsked, failures, st.none() | delays),
    st.builds(Snoozed, delays),
    st.builds(Rejected, failures),
    st.builds(Expired),
    st.builds(Released, st.text()),
    st.builds(Unknown, failures, st.integers(1, 200)),
    st.builds(Lost),
)


@given(outcomes, st.integers(1, 1000), st.integers(1, 100))
def test_every_outcome_is_decided_and_nothing_is_lost(outcome: Outcome, attempt: int, max_attempts: int) -> None:
    match decide(outcome, attempt=attempt, policy=RetryPolicy(max_attempts)):
        case Delete():
            assert isinstance(outcome, Succeeded | Expired)
        case Poison(failure):
            assert isinstance(outcome, Rejected | Failed | RetryAsked | Unknown)
            assert failure == outcome.failure
            if isinstance(outcome, Unknown):
                assert outcome.deliveries >= UNKNOWN_TASK.max_attempts
            else:
                assert isinstance(outcome, Rejected) or attempt >= max_attempts
        case Reappear(after, counted, one_left, unknown):
            assert unknown == isinstance(outcome, Unknown)
            assert 0 <= after <= MAX_DELAY
            assert counted == isinstance(outcome, Failed | RetryAsked)
            assert not counted or attempt < max_attempts
            assert one_left == (counted and attempt + 1 == max_attempts)
        case Abandon():
            assert isinstance(outcome, Lost)
