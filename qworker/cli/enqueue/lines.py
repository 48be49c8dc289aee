"""Lines of a file or a pipe, numbered, as they come."""

import os
import select
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from qworker.errors import ConfigurationError

MAX_LINE: Final = 1 << 20
"""Bytes. What fits into a message is shorter, however its JSON is written."""
ENDLESS: Final = 64 << 20
"""Bytes after which a line that has not ended is taken for one that never will."""
_CHUNK: Final = 1 << 16
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end."""

    number: int
    """1, 2, 3 …"""
    data: bytes | None = field(repr=False)
    """None if it is longer than MAX_LINE."""
    whole: bool = True
    """Whether it was ended, which the last of a file need not be."""


class EndlessLine(Exception):
    """The input has no lines."""


class LineSource:
    """The source of lines; *waits* surrounds each wait for more of them."""

    def __init__(self, file: int, name: str, waits: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._file = file
        self._waits = waits
        self.name = name
        self.bytes_read = 0

    @classmethod
    def open(cls, path: str, waits: Callable[[], AbstractContextManager[None]] = nullcontext) -> Self:
        """Open a file, or standard input for "-". Raises ConfigurationError."""
        if path == "-":
            return cls._of(sys.stdin.fileno(), "standard input", waits)
        try:
            with Path(path).open("rb", buffering=0) as file:
                return cls._of(os.dup(file.fileno()), path, waits)
        except OSError as error:
            raise ConfigurationError(f"--from: {path}: {error.strerror}") from None
        except ValueError:  # a NUL, or half of a character
            raise ConfigurationError(f"--from: {path!r} can't be a file's name") from None

    @classmethod
    def _of(cls, file: int, name: str, waits: Callable[[], AbstractContextManager[None]]) -> Self:
        mode = os.fstat(file).st_mode
        if stat.S_ISDIR(mode):
            raise ConfigurationError(f"--from: {name}: Is a directory")
        if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and not os.isatty(file) and not _is_null(file):
            raise ConfigurationError(f"--from: {name} is a device, whose lines may have no end: name a file or a pipe")
        return cls(file, name, waits)

    @property
    def size(self) -> int | None:
        """Number of bytes to read; None for a pipe."""
        status = os.fstat(self._file)
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def __iter__(self) -> Iterator[Line | None]:
        """Yield the lines, and None where the next would have to be waited for. Raises OSError and EndlessLine."""
        number, rest, too_long, begun_at = 1, b"", False, 0
        while True:
            if not _is_ready(self._file):
                yield None
            with self._waits():
                chunk = os.read(self._file, _CHUNK)
            if not chunk:
                break
            self.bytes_read += len(chunk)
            *ended, rest = (rest + chunk).split(b"\n")
            for data in ended:
                yield _line(number, data, too_long=too_long)
                number, too_long, begun_at = number + 1, False, self.bytes_read
            if len(rest) > MAX_LINE:
                rest, too_long = b"", True
            if self.bytes_read - begun_at > ENDLESS:
                raise EndlessLine(f"line {number} has not ended after {ENDLESS:,} bytes")
        if rest or too_long:
            yield _line(number, rest, too_long=too_long, whole=False)


def _line(number: int, data: bytes, *, too_long: bool, whole: bool = True) -> Line:
    if number == 1:
        data = data.removeprefix(_BYTE_ORDER_MARK)
    return Line(number, None if too_long or len(data) > MAX_LINE else data, whole)


def _is_ready(file: int) -> bool:
    """Say whether a read would return at once; one of a regular file always does."""
    if sys.platform != "win32":
        return bool(select.select([file], [], [], 0)[0])
    else:  # noqa: RET505 — type checkers would call it unreachable elsewhere
        return stat.S_ISREG(os.fstat(file).st_mode)  # Windows tells that of sockets alone: a pipe may not be ready


def _is_null(file: int) -> bool:
    """Say whether it is the null device, which ends at once."""
    try:
        return os.path.samestat(os.fstat(file), Path(os.devnull).stat())
    except OSError:
        return False
