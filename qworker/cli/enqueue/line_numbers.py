"""Numbers of lines, as people write many of them: 1205,1209-1230."""

import re
from collections.abc import Iterable
from itertools import chain
from typing import Final, Self

from qworker.errors import ConfigurationError

_SPAN: Final = re.compile(r"\s*([1-9]\d{0,17})\s*(?:-\s*([1-9]\d{0,17})\s*)?")


class LineNumbers:
    """A set of line numbers, of which few are not beside each other."""

    def __init__(self, spans: Iterable[range] = ()) -> None:
        self._spans = tuple(_merged(spans))

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Self:
        """Return the set of single numbers."""
        return cls(range(number, number + 1) for number in numbers)

    @classmethod
    def parse(cls, option: str, text: str) -> Self:
        """Return the numbers that an option names. Raises ConfigurationError."""
        return cls(_span(option, part) for part in text.split(","))

    def __contains__(self, number: int) -> bool:
        return any(number in span for span in self._spans)

    def __bool__(self) -> bool:
        return bool(self._spans)

    def __or__(self, other: "LineNumbers") -> "LineNumbers":
        return LineNumbers(chain(self._spans, other._spans))

    def after(self, number: int) -> "LineNumbers":
        """Return those that are greater than *number*."""
        return LineNumbers(range(max(span.start, number + 1), span.stop) for span in self._spans if span.stop > number)

    def __str__(self) -> str:
        return ",".join(str(span.start) if len(span) == 1 else f"{span.start}-{span.stop - 1}" for span in self._spans)


def _span(option: str, text: str) -> range:
    found = _SPAN.fullmatch(text)
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise ConfigurationError(f"{option}: {text.strip()!r} is neither a line's number nor a span such as 1209-1230")
    return range(int(found[1]), int(found[2] or found[1]) + 1)


def _merged(spans: Iterable[range]) -> Iterable[range]:
    last = range(0)
    for span in sorted((span for span in spans if span), key=lambda span: span.start):
        if last and span.start <= last.stop:
            last = range(last.start, max(last.stop, span.stop))
            continue
        if last:
            yield last
        last = span
    if last:
        yield last
