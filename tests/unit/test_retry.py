import math
import re
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from typing import Any, TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qworker.errors import ConfigurationError
from qworker.retry import MAX_DELAY, Backoff, RetryPolicy, error_types, rest_of, seconds_of

T = TypeVar("T")


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        (0, 0),
        (0.1, 1),
        (1, 1),
        (1.0001, 2),
        (timedelta(milliseconds=1), 1),
        (timedelta(minutes=5), 300),
        (timedelta(days=7), MAX_DELAY),
    ],
)
def test_a_rest_is_of_whole_seconds(delay: float | timedelta, seconds: int) -> None:
    assert seconds == rest_of(delay, "delay")


def test_seconds_of_a_time_span() -> None:
    assert 1.5 == seconds_of(timedelta(seconds=1.5))
    assert 1.5 == seconds_of(1.5)
    half: Any = Fraction(1, 2)
    assert 0.5 == seconds_of(half)


def tried(call: Callable[[], T]) -> tuple[T | None, str | None]:
    """Return what a call returns, or why it is refused."""
    try:
        return call(), None
    except ConfigurationError as error:
        return None, str(error)


spans = st.one_of(
    st.floats(),
    st.integers(),
    st.integers(10**300, 10**310),
    st.timedeltas(),
    st.fractions(),
    st.booleans(),
    st.text(),
    st.decimals(),
    st.none(),
    st.lists(st.integers()),
    st.complex_numbers(),
)


@given(spans)
@example(10**5000)
@example(MAX_DELAY)
@example(MAX_DELAY + 0.5)
@example(timedelta(days=7))
@example(timedelta(days=7, microseconds=1))
@example(timedelta.max)
@example(-0.0)
@example(-1e-9)
def test_a_rest_is_taken_as_it_is_or_refused(given_span: Any) -> None:
    """Whole seconds may be up to a second more; nothing else is changed, and nothing else is raised."""
    rest, problem = tried(lambda: rest_of(given_span, "delay"))
    if problem is None:
        span = given_span.total_seconds() if isinstance(given_span, timedelta) else given_span
        assert not isinstance(span, bool)
        assert 0 <= span <= MAX_DELAY
        assert math.ceil(span) == rest
    else:
        assert re.fullmatch("delay: a time span is.*|delay must be from 0 seconds to 7 days, not .*", problem)
        assert not (isinstance(given_span, int) and not isinstance(given_span, bool) and 0 <= given_span <= MAX_DELAY)


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (-5, "-5 s"),
        (timedelta(days=30), "2,592,000 s"),
        (timedelta(microseconds=-1), "-1e-06 s"),
        (MAX_DELAY + 0.5, "604,800.5 s"),
    ],
)
def test_a_rest_out_of_range_is_shown(span: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^x must be from 0 seconds to 7 days, not {re.escape(text)}$"):
        rest_of(span, "x")


def test_backoff_grows_up_to_its_maximum() -> None:
    backoff = Backoff(base=5, factor=2, max=60, jitter=0)
    assert [5, 10, 20, 40, 60, 60] == [backoff.delay(attempt) for attempt in range(1, 7)]
    assert 60 == backoff.delay(100_000)


def test_jitter_only_shortens() -> None:
    backoff = Backoff(base=10, jitter=0.2)
    assert 10 == backoff.delay(1, rand=lambda: 0.0)
    assert 9 == backoff.delay(1, rand=lambda: 0.5)
    assert 1 < len({backoff.delay(1) for _ in range(20)})


def test_without_a_base_there_is_no_rest() -> None:
    """Though the factor's power is beyond a float."""
    assert 0 == Backoff(base=0, factor=3, max=60).delay(100_000)


numbers = st.floats() | st.integers() | st.integers(10**400, 10**401) | st.booleans() | st.none() | st.text()


@given(st.fixed_dictionaries(dict.fromkeys(("base", "factor", "max", "jitter"), numbers)), st.integers(1, 10_000))
@example({"base": 1, "factor": 10**20, "max": MAX_DELAY, "jitter": 0}, 10_000)
@example({"base": 600.5, "factor": 2, "max": 600, "jitter": 0}, 1)
@example({"base": 5, "factor": 2, "max": 30 * 24 * 3600, "jitter": 0}, 1)
@example({"base": 5, "factor": math.inf, "max": 600, "jitter": 0}, 1)
def test_a_backoff_is_kept_to_or_refused(numbers: dict[str, Any], attempt: int) -> None:
    backoff, problem = tried(lambda: Backoff(**numbers))
    if backoff is None:
        assert problem is not None
        assert "\n" not in problem
    else:
        longest = backoff.delay(attempt, rand=lambda: 0)
        assert backoff.base <= longest <= backoff.max <= MAX_DELAY
        assert longest <= backoff.delay(attempt + 1, rand=lambda: 0)
        assert longest * (1 - backoff.jitter) <= RetryPolicy(backoff=backoff).delay(attempt) <= math.ceil(longest)


@given(
    st.floats(0, MAX_DELAY).flatmap(
        lambda most: st.builds(
            Backoff, base=st.floats(0, most), factor=st.floats(1, 1e6), max=st.just(most), jitter=st.floats(0, 1)
        )
    ),
    st.integers(1, 10_000),
)
def test_any_backoff_gives_a_delay_that_the_service_takes(backoff: Backoff, attempt: int) -> None:
    assert 0 <= RetryPolicy(backoff=backoff).delay(attempt) <= MAX_DELAY


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"base": -1}, "base must be from 0 seconds to max, which is 600 s"),
        ({"base": 601}, "base must be from 0 seconds to max, which is 600 s"),
        ({"factor": 0.5}, "factor must be at least 1"),
        ({"max": -1}, "max must be from 0 to 604800 seconds, which are 7 days"),
        ({"max": 30 * 24 * 3600}, "max must be from 0 to 604800 seconds, which are 7 days"),
        ({"jitter": -0.1}, "jitter must be from 0 to 1"),
        ({"jitter": 1.1}, "jitter must be from 0 to 1"),
    ],
    ids=str,
)
def test_what_can_not_be_a_backoff(wrong: dict[str, float], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^Backoff\(base=.*\): {problem}"):
        Backoff(**wrong)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, "5", True, None, timedelta(seconds=5)], ids=str)
def test_a_backoff_is_of_numbers(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"must be numbers, not {re.escape(repr(wrong))}"):
        Backoff(base=wrong)


@pytest.mark.parametrize("wrong", ["5", math.nan, math.inf, True, [5]], ids=str)
def test_what_can_not_be_a_time_span(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"seconds or a timedelta, not {wrong!r}")):
        seconds_of(wrong)


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


# Which exceptions end a job


KINDS: list[type[BaseException]] = [
    BaseException,
    Exception,
    OSError,
    ConnectionError,
    ConnectionResetError,
    TimeoutError,
    LookupError,
    KeyError,
    ValueError,
    UnicodeDecodeError,
    KeyboardInterrupt,
]
RAISED = [
    OSError(),
    ConnectionResetError(),
    TimeoutError(),
    KeyError(),
    ValueError(),
    UnicodeDecodeError("utf-8", b"", 0, 0, ""),
    KeyboardInterrupt(),
]
kinds = st.frozensets(st.sampled_from(KINDS))


def nearest(error: BaseException, named: frozenset[type[BaseException]]) -> int:
    """Return how many classes further up the nearest named one is."""
    found = [len(type(error).__mro__) - len(kind.__mro__) for kind in named if isinstance(error, kind)]
    return min(found, default=1000)


@given(kinds | st.none(), kinds, st.sampled_from(RAISED))
def test_the_nearest_class_decides(
    retry_on: frozenset[type[BaseException]] | None, give_up_on: frozenset[type[BaseException]], error: BaseException
) -> None:
    policy, problem = tried(lambda: RetryPolicy(retry_on=retry_on, give_up_on=give_up_on))
    if policy is None:
        assert problem is not None
        assert problem.startswith("retry_on and give_up_on can't both name ")
        assert give_up_on & (retry_on or frozenset())
        return
    hopeless, hopeful = nearest(error, give_up_on), nearest(error, retry_on or frozenset())
    if hopeless == hopeful:  # neither names it
        assert (retry_on is not None) == policy.gives_up_on(error)
    else:
        assert (hopeless < hopeful) == policy.gives_up_on(error)


@given(st.lists(st.sampled_from(RAISED), min_size=1), kinds)
def test_of_a_group_the_most_hopeless_decides(
    errors: list[BaseException], give_up_on: frozenset[type[BaseException]]
) -> None:
    give_up_on -= {BaseException, Exception}  # which name the group itself
    policy = RetryPolicy(give_up_on=give_up_on)
    group = BaseExceptionGroup("some", [BaseExceptionGroup("deep", errors), ValueError()])
    assert policy.gives_up_on(group) == any(map(policy.gives_up_on, [*errors, ValueError()]))


@pytest.mark.parametrize(
    "wrong",
    [
        "ValueError",
        ValueError(),
        7,
        int,
        (ValueError, "KeyError"),
        [ValueError()],
        {"ValueError": 1},
        iter([ValueError]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_exception_class_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^retry_on takes exception classes, as in \(ConnectionError, Time"):
        error_types(wrong, "retry_on")


def test_exception_classes_come_one_by_one_or_together() -> None:
    assert {ValueError} == error_types(ValueError, "retry_on") == error_types([ValueError], "retry_on")
    assert (
        {ValueError, KeyError} == error_types((ValueError, KeyError), "x") == error_types({ValueError, KeyError}, "x")
    )
    with pytest.raises(ConfigurationError, match=r"^give_up_on names no exception: leave it out$"):
        error_types((), "give_up_on")
