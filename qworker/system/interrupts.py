"""Ctrl-C while the command ``qworker`` is still being imported ends it without a traceback.

``qworker`` imports this before all else; in a program that only uses the package, nothing happens.
"""

import os
import signal
import sys
from pathlib import PurePath
from typing import Final

_CODE: Final = 128 + signal.SIGINT
"""The exit code, as a shell says it of what SIGINT has ended."""


def end_on_interrupt() -> None:
    """Let SIGINT end this process at once if it is the command: an exception could surface anywhere in an import."""
    if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(_CODE))


def raise_on_interrupt() -> None:
    """Let SIGINT raise KeyboardInterrupt again; one that the process was started to ignore stays ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_command() -> bool:
    program = PurePath(sys.argv[0]).stem if sys.argv else ""
    return program == "qworker" or sys.orig_argv[1:3] == ["-m", "qworker"]


end_on_interrupt()
