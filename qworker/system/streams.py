"""Standard input, output and error: open from the start, and able to bear that nobody reads them."""

import contextlib
import io
import os
import sys
from typing import Any, Final, TextIO

from typing_extensions import Buffer

_STREAMS: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_standard_streams() -> None:
    """Open on the null device those that are closed, and let the others escape what their encoding doesn't have.

    Without this, a socket or a database gets the number 0, 1 or 2, and what is printed goes into it.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        if not _is_open(number):
            _open_on_nothing(number)
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 — for the process's life
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def forgiving(stream: TextIO) -> TextIO:
    """Return a stream to the same place that loses what can't be written, without an error.

    One that is no plain file of the system's is returned as it is.
    """
    binary = getattr(stream, "buffer", None)
    raw = getattr(binary, "raw", binary)
    if not isinstance(stream, io.TextIOWrapper) or type(raw) is not io.FileIO:
        return stream
    flush_or_drop(stream)
    same: Any = _Forgiving(raw.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(
        same if binary is raw else io.BufferedWriter(same),  # PYTHONUNBUFFERED has nothing wait for a flush
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def forgive_output() -> None:
    """Let nothing that this process prints or logs fail from now on because nobody can read it."""
    sys.stdout, sys.stderr = forgiving(sys.stdout), forgiving(sys.stderr)


def flush_or_drop(stream: TextIO) -> bool:
    """Write all that the stream holds, and return whether that went well; if not, it and all that follows is lost.

    Python would try again as it ends, and complain.
    """
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            _open_on_nothing(stream.fileno())
            stream.flush()
        return False
    return True


class _Forgiving(io.FileIO):
    def write(self, data: Buffer, /) -> int:
        written = None
        with contextlib.suppress(OSError):
            written = super().write(data)  # None: it would have to wait
        return memoryview(data).nbytes if written is None else written


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _open_on_nothing(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    os.set_inheritable(number, True)
