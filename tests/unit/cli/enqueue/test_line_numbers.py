import pytest

from qworker.cli.enqueue.line_numbers import LineNumbers
from qworker.errors import ConfigurationError


@pytest.mark.parametrize(
    ("given", "said"), [("7", "7"), ("9-12, 3", "3,9-12"), ("1-3,4", "1-4"), ("5-9,6-7,8-20", "5-20"), ("2-2", "2")]
)
def test_they_are_said_as_spans(given: str, said: str) -> None:
    assert said == str(LineNumbers.parse("--skip-lines", given))


@pytest.mark.parametrize("given", ["", "x", "0", "3-", "9-3", "1,,2", "-4", "1.5"])
def test_what_is_none_is_refused(given: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--skip-lines: .* is neither a line's number nor a span"):
        LineNumbers.parse("--skip-lines", given)


def test_they_are_a_set() -> None:
    numbers = LineNumbers.of([5, 3, 4]) | LineNumbers.of([9])
    assert ("3-5,9", [3, 4, 5, 9]) == (str(numbers), [number for number in range(12) if number in numbers])
    assert ("5,9", "", True) == (str(numbers.after(4)), str(numbers.after(9)), bool(numbers))
    assert not numbers.after(9)
