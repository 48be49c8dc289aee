import asyncio
import math
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from qworker import ConfigurationError
from qworker.outcome import Failure, Reject, Retry, Snooze


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_retry_and_snooze_take_a_time_span() -> None:
    assert (None, 2, 60) == (Retry().after, Retry(after=1.5).after, Retry(after=timedelta(minutes=1)).after)
    assert 60 == Snooze(after=timedelta(minutes=1)).after
    assert ("no", "no") == (Reject("no").reason, str(Reject("no")))


@pytest.mark.parametrize("kind", [Retry, Snooze])
@pytest.mark.parametrize("after", [-1, -0.001, 7 * 24 * 3600 + 1, timedelta(days=30), "5", True, math.nan, math.inf])
def test_a_time_span_out_of_range_is_refused_and_not_changed(kind: Any, after: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"^{kind.__name__}'s after(:| must be from 0 seconds to 7 days, not)"
    ):
        kind("busy", after=after)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Retry(5), "Retry takes its reason as a text, not as int; a time is given as Retry(after=…)"),  # type: ignore[arg-type]
        (
            lambda: Retry(timedelta(minutes=1)),  # type: ignore[arg-type]
            "Retry takes its reason as a text, not as timedelta; a time is given as Retry(after=…)",
        ),
        (
            lambda: Snooze(5, after=5),  # type: ignore[arg-type]
            "Snooze takes its reason as a text, not as int; a time is given as Snooze(after=…)",
        ),
        (lambda: Reject(404), "Reject takes its reason as a text, not as int"),  # type: ignore[arg-type]
    ],
)
def test_a_reason_is_a_text(make: Callable[[], Exception], problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert problem == str(caught.value)


def test_a_failure_names_the_exception() -> None:
    assert Failure("ValueError", "no") == Failure.of(ValueError("no")).__class__("ValueError", "no")
    failure = Failure.of(ValueError("no"))
    assert ("ValueError", "no", "ValueError: no") == (failure.type, failure.message, str(failure))
    failure = Failure.of(asyncio.CancelledError())
    assert "asyncio.exceptions.CancelledError" == failure.type == str(failure)


def test_a_failure_has_the_traceback_and_keeps_it_out_of_logs() -> None:
    with pytest.raises(KeyError) as caught:
        {1: 2}[3]
    failure = Failure.of(caught.value)
    assert "{1: 2}[3]" in failure.traceback
    assert "Traceback" not in repr(failure)
    assert re.fullmatch(r"test_outcome.py:\d+ in test_a_failure_\w+", failure.where)


def test_a_failure_survives_an_exception_without_text() -> None:
    assert "<its text can't be had: RuntimeError>" == Failure.of(Broken()).message


def test_an_exception_that_python_cannot_format_is_described_all_the_same() -> None:
    error = SyntaxError("odd", ("file", 1, "3", "text"))  # type: ignore[arg-type] # Python takes it
    failure = Failure.of(error)
    assert "SyntaxError" == failure.type
    assert "odd" in failure.message


def test_a_group_of_one_is_described_as_that_one() -> None:
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [ValueError("no")])])
    assert ("ValueError", "no") == (Failure.of(group).type, Failure.of(group).message)


def fail(number: int) -> None:
    raise KeyError(number)


def test_a_group_of_several_names_the_first_and_how_many_there_are() -> None:
    errors = []
    for number in range(3):
        with pytest.raises(KeyError) as caught:
            fail(number)
        errors.append(caught.value)
    failure = Failure.of(ExceptionGroup("outer", [ExceptionGroup("inner", errors[:2]), errors[2]]))
    assert "ExceptionGroup: 3 exceptions, the first: KeyError: 0" == str(failure)
    assert re.fullmatch(r"test_outcome.py:\d+ in fail", failure.where)
    assert "KeyError: 2" in failure.traceback
