"""Prints for people and scripts, whoever still reads: a stream may be full, or a pipe closed at its other end."""

import sys
from typing import TextIO

from qworker.lines.escaping import printable
from qworker.system.streams import flush_or_drop


def print_text(text: str) -> None:
    """Print the output of a command. Raises OSError if standard output doesn't take it."""
    try:
        sys.stdout.write(_encodable(text, sys.stdout))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def tell(line: str, *streams: TextIO) -> None:
    """Print the result of a command to the first of these streams that takes it, if any does.

    Without any: to standard output, else standard error.
    """
    for stream in streams or (sys.stdout, sys.stderr):
        if _took(f"{line}\n", stream):
            return


def say(text: str) -> bool:
    """Tell a person something in one line on standard error; return whether it was taken."""
    return _took(f"{printable(text)}\n", sys.stderr)


def _took(text: str, stream: TextIO) -> bool:
    try:
        stream.write(_encodable(text, stream))
    except (OSError, ValueError):  # ValueError: it was closed
        flush_or_drop(stream)
        return False
    return flush_or_drop(stream)


def _encodable(text: str, stream: TextIO) -> str:
    """Return a text with the characters escaped that the stream's encoding lacks."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
