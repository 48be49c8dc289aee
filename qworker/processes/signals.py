"""The signals that stop a process, from its first moment to its last."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

from qworker.system.platform import STOPPING, at_fork

Handler = Callable[[int, object], object]

if sys.platform == "linux":
    SUPERVISOR_ENDED: Final = signal.SIGRTMIN
else:
    SUPERVISOR_ENDED = signal.SIGTERM
"""The signal that the kernel sends a supervised worker. It has a number of its own, because the threads of a supervisor
may end one after the other: as long as one is left, a SIGTERM for its end looks like one that the supervisor sent."""
_STOPPING: Final = (*STOPPING, SUPERVISOR_ENDED)
_held: Final = threading.local()


def end_on_signals() -> None:
    """Let a signal end the process at once, with exit code 0: it has nothing in its hands yet."""
    _install(lambda *_: os._exit(0))  # an exception could be swallowed by whatever is being imported


def pass_signals_to(call: Callable[[signal.Signals], None]) -> None:
    """Have *call* called for each signal from now on, in the main thread, between any two steps of its code.

    A process that a handler forks is ended by them: nobody there listens to *call*.
    """
    _install(lambda number, _: call(signal.Signals(number)))
    at_fork(before=_hold, after_in_parent=_let_through, after_in_child=_let_kill)


def ignore_signals() -> None:
    """Ignore them from now on: what they ask for is done, and Python, as it ends, would let them kill the process."""
    _install(signal.SIG_IGN)


def _hold() -> None:
    """Let signals wait while this thread forks: the child would take them before it has left them to the system."""
    if sys.platform != "win32":
        _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)


def _let_through() -> None:
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _let_kill() -> None:
    _install(signal.SIG_DFL)
    _let_through()


def _install(handler: Handler | signal.Handlers) -> None:
    for number in _STOPPING:
        signal.signal(number, handler)
