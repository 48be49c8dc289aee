"""Does the duties of process 1, which a container's worker is: passes signals on, and collects dead processes.

A process whose parent has ended becomes a child of process 1. A worker couldn't collect those itself: it can't tell
them from those that its handlers wait for, whose exit codes would be lost.
"""

import os
import signal
import sys
from contextlib import suppress
from typing import Final

assert sys.platform == "linux"  # noqa: S101 — type checkers then skip the rest for other systems

_SENT_BY_TERMINAL: Final = 128
"""SI_KERNEL: a signal like Ctrl-C's, which every process of the terminal has got already."""
_KILLED_BY: Final = 128
"""What a shell adds to the number of the signal that has ended a program."""


def leave_process_one() -> None:
    """Go on in a new process if this is process 1, which stays behind and ends as that does; else do nothing.

    No thread may have been started yet.
    """
    if os.getpid() != 1:
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    worker = os.fork()
    if worker == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    code = _watch(worker)
    os._exit(code if code >= 0 else _KILLED_BY - code)


def _watch(worker: int) -> int:
    """Pass signals on until that process ends, collect all that end, and return its exit code."""
    signals = signal.valid_signals()
    while True:
        got = signal.sigwaitinfo(signals)
        if got.si_signo == signal.SIGCHLD:
            if (code := _collect(worker)) is not None:
                return code
        elif got.si_code != _SENT_BY_TERMINAL:
            with suppress(ProcessLookupError):  # it has ended, and SIGCHLD is on its way
                os.kill(worker, got.si_signo)


def _collect(worker: int) -> int | None:
    """Collect every child that has ended, for which one signal may stand; return the worker's exit code if it has."""
    code = None
    with suppress(ChildProcessError):  # none is left
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == worker:
                code = os.waitstatus_to_exitcode(ended[1])
    return code
