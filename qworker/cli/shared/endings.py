"""Turns whatever ends a command into one line and an exit code, so that no user meets a traceback."""

import os
import traceback
from typing import Any, Final

import typer

from qworker._exits import BUG, FAILED, INTERRUPTED, NOT_FOUND, UNREAD, UNUSABLE, WRONG_USE
from qworker.cli.shared.asking import Interrupted, Refused
from qworker.cli.shared.hiding import without_secrets
from qworker.cli.shared.stopping import Stopped
from qworker.errors import BrokerUnusable, ConfigurationError, QueueNotFound, QworkerError
from qworker.lines.escaping import printable
from qworker.operate.missing import NotFound

DEBUG: Final = "QWORKER_DEBUG"
"""Set to anything, this variable has the traceback shown too."""
_LONGEST: Final = 2_000
"""Characters of a line; its middle gives way."""
_CODES: Final[dict[type[BaseException], int]] = {
    ConfigurationError: WRONG_USE,
    BrokerUnusable: UNUSABLE,
    NotFound: NOT_FOUND,
    QueueNotFound: NOT_FOUND,
    Refused: FAILED,
    Interrupted: INTERRUPTED,
    QworkerError: FAILED,
}
"""Functions that explain in one line why a command ended, with the exit code; the first that fits is used."""

# Typer re-exports only this one of its usage errors; their common base class is further up.
_UsageError: Any = typer.BadParameter.__bases__[0]


def explained(error: BaseException) -> tuple[str, int]:
    """Return the line that tells a user of an error, or none, and the exit code. The line holds no secret."""
    text, code = _explained(error)
    return in_one_line(text), code


def in_one_line(text: str) -> str:
    """Return a text that may hold anything as one line fit to be printed."""
    line = printable(without_secrets(" ".join(text.split())))
    if len(line) <= _LONGEST:
        return line
    half = _LONGEST // 2
    return f"{line[:half]} … {line[-half:]}"


def traceback_of(error: BaseException) -> str:
    """Return the traceback if the environment asks for it, else nothing."""
    if not os.environ.get(DEBUG):
        return ""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(printable(without_secrets(line)) for line in lines)


def _explained(error: BaseException) -> tuple[str, int]:  # noqa: C901, PLR0911 — a table of errors
    match error:
        case Stopped():
            return str(error), error.exit_code
        case _UsageError():
            return _usage(error), WRONG_USE
        case KeyboardInterrupt() | typer.Abort():
            return "", INTERRUPTED
        case BrokenPipeError():
            return "", UNREAD
        case OSError():
            return _of_system(error), FAILED
        case UnicodeError():
            return "a text holds characters that can't be encoded, such as a lone surrogate", WRONG_USE
        case MemoryError():
            return "there is not enough memory", FAILED
        case BaseExceptionGroup() if len(error.exceptions) == 1:
            return _explained(error.exceptions[0])
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return str(error), code
    return _bug(error), BUG


def _usage(error: Any) -> str:
    command = error.ctx.command_path if error.ctx else "qworker"
    return f"{error.format_message().rstrip('.')}; see '{command} --help'"


def _of_system(error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    return reason if error.filename is None else f"{error.filename}: {reason}"


def _bug(error: BaseException) -> str:
    """Say where it is; the text of an error that nobody thought of may hold anything."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""  # noqa: PTH119
    return f"unexpected {type(error).__name__}{where}: a bug in qworker; {DEBUG}=1 shows the traceback"
