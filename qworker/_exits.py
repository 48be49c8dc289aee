"""What a process's exit code says."""

import signal
from typing import Final

FAILED: Final = 1
WRONG_USE: Final = 2
BAD_INPUT: Final = 65
"""Some of what was to be done made no sense, the rest is done. EX_DATAERR of sysexits.h."""
NOT_FOUND: Final = 66
"""No such queue, or no such job in it. EX_NOINPUT of sysexits.h."""
INTERRUPTED: Final = 130
"""As a shell says it of what SIGINT has ended."""
UNREAD: Final = 141
"""As a shell says it of what SIGPIPE has ended: nobody reads what a command was asked to show."""
BUG: Final = 70
"""A fault of qworker's own. EX_SOFTWARE of sysexits.h."""
UNUSABLE: Final = 78
"""EX_CONFIG of sysexits.h."""
NOTHING_TO_POLL: Final = 69
"""Said to a supervisor: a burst has ended, and left a queue that it can't poll. EX_UNAVAILABLE of sysexits.h."""
MORE_TO_DO: Final = 75
"""Said to a supervisor: a burst has not ended, but this process has. EX_TEMPFAIL of sysexits.h."""


def how_it_ended(code: int | None) -> str:
    """Say how a process ended: "exit code 1", "killed by SIGKILL"."""
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-code}"
