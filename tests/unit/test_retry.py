import math
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qworker.errors import ConfigurationError
from qworker.retry import MAX_DELAY, Backoff, RetryPolicy, seconds_of, whole_seconds


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        (0, 0),
        (0.1, 1),
        (1, 1),
        (1.0001, 2),
        (-5, 0),
        (timedelta(milliseconds=1), 1),
        (timedelta(minutes=5), 300),
        (timedelta(seconds=-1), 0),
        (timedelta(days=8), MAX_DELAY),
        (math.inf, MAX_DELAY),
    ],
)
def test_whole_seconds(delay: float | timedelta, seconds: int) -> None:
    assert seconds == whole_seconds(delay)


def test_seconds_of_a_time_span() -> None:
    assert 1.5 == seconds_of(timedelta(seconds=1.5))
    assert 1.5 == seconds_of(1.5)


def test_backoff_grows_up_to_its_maximum() -> None:
    backoff = Backoff(base=5, factor=2, max=60, jitter=0)
    assert [5, 10, 20, 40, 60, 60] == [backoff.delay(attempt) for attempt in range(1, 7)]
    assert 60 == backoff.delay(100_000)


def test_jitter_only_shortens() -> None:
    backoff = Backoff(base=10, jitter=0.2)
    assert 10 == backoff.delay(1, rand=lambda: 0.0)
    assert 9 == backoff.delay(1, rand=lambda: 0.5)
    assert 1 < len({backoff.delay(1) for _ in range(20)})


@given(
    st.builds(
        Backoff,
        base=st.floats(0, 1e9),
        factor=st.floats(1, 1e6),
        max=st.floats(0, 1e9),
        jitter=st.floats(0, 1),
    ),
    st.integers(1, 10_000),
)
def test_any_backoff_gives_a_delay_that_the_service_takes(backoff: Backoff, attempt: int) -> None:
    assert 0 <= RetryPolicy(backoff=backoff).delay(attempt) <= MAX_DELAY


@pytest.mark.parametrize(
    "wrong",
    [{"base": -1}, {"factor": 0.5}, {"max": -1}, {"jitter": -0.1}, {"jitter": 1.1}],
    ids=str,
)
def test_what_can_not_be_a_backoff(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="jitter 0 to 1"):
        Backoff(**wrong)


@pytest.mark.parametrize("wrong", [math.nan, "5", True, None, timedelta(seconds=5)], ids=str)
def test_a_backoff_is_of_numbers(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"must be numbers, not {re.escape(repr(wrong))}"):
        Backoff(base=wrong)


@pytest.mark.parametrize("wrong", ["5", math.nan, True, [5]], ids=str)
def test_what_can_not_be_a_time_span(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"seconds or a timedelta, not {wrong!r}")):
        whole_seconds(wrong)


@pytest.mark.parametrize("wrong", [5, 0.1, "5", timedelta(seconds=5)], ids=str)
def test_a_policy_has_a_backoff(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"as in Backoff(base=5, max=600), not {wrong!r}")):
        RetryPolicy(3, wrong)


@pytest.mark.parametrize("wrong", [0, 2.5, "3", True, None], ids=str)
def test_a_policy_allows_at_least_one_attempt(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"max_attempts must be a whole number, 1 or more, not {wrong!r}"):
        RetryPolicy(wrong)
    assert RetryPolicy(1).exhausted(1)


def test_a_policy_is_exhausted_by_its_last_attempt() -> None:
    assert [False, False, True, True] == [RetryPolicy(3).exhausted(attempt) for attempt in (1, 2, 3, 4)]
