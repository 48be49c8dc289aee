import re
import traceback
from collections.abc import Callable

import pytest

from qworker import tracebacks
from qworker.tracebacks import place_of, traceback_of


def plain(text: str = "no") -> None:
    raise ValueError(text)


def with_cause() -> None:
    try:
        plain()
    except ValueError as error:
        raise KeyError("outer") from error


def with_context() -> None:
    try:
        plain()
    except ValueError:
        {"inner": 1}["outer"]


def with_hidden_context() -> None:
    try:
        plain()
    except ValueError:
        raise KeyError("outer") from None


def with_note() -> None:
    error = ValueError("no")
    error.add_note("seen at night")
    raise error


def group() -> None:
    raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])


def endless() -> None:
    endless()


def syntax() -> None:
    compile("def def", "file.py", "exec")


def raised_by(function: Callable[[], None]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 — any
        function()
    return caught.value


@pytest.mark.parametrize(
    "function", [plain, with_cause, with_context, with_hidden_context, with_note, group, endless, syntax]
)
def test_it_is_as_python_prints_it(function: Callable[[], None]) -> None:
    for _ in range(2):  # the second time from memory
        error = raised_by(function)
        assert "".join(traceback.format_exception(error)) == traceback_of(error)


def test_what_comes_from_the_same_place_keeps_its_own_text() -> None:
    texts = []
    for text in ("first", "second"):
        with pytest.raises(ValueError, match=text) as caught:
            plain(text)
        texts.append(traceback_of(caught.value))
    assert texts[0].endswith("ValueError: first\n")
    assert texts[0].replace("first", "second") == texts[1]


def test_two_lines_of_one_function_are_two_places() -> None:
    def either(first: bool) -> None:  # noqa: FBT001 — a stand-in for a handler
        if first:
            plain()
        plain()

    one, two = (raised_by(lambda first=first: either(first)) for first in (True, False))  # type: ignore[misc]
    assert traceback_of(one) != traceback_of(two)
    assert re.fullmatch(r"test_tracebacks.py:\d+ in plain", place_of(one))


def test_what_was_never_raised_has_no_place() -> None:
    assert ("ValueError: no\n", "") == (traceback_of(ValueError("no")), place_of(ValueError("no")))


def test_no_more_stacks_are_kept_than_useful(monkeypatch: pytest.MonkeyPatch) -> None:
    tracebacks._stacks.clear()
    monkeypatch.setattr(tracebacks, "_KEPT", 2)
    for function in (plain, with_note, syntax, endless):
        assert "".join(traceback.format_exception(error := raised_by(function))) == traceback_of(error)
        assert len(tracebacks._stacks) <= 2
    assert all(len(stack) < 10 for stack in tracebacks._stacks)
