"""SIGTERM and SIGINT, from a process's first moment to its last."""

import os
import signal
from collections.abc import Callable
from functools import partial

Handler = Callable[[int, object], object]


def end_on_signals() -> None:
    """Let a signal end the process at once, with exit code 0: it has nothing in its hands yet."""
    _install(lambda *_: os._exit(0))  # an exception could be swallowed by whatever is being imported


def pass_signals_to(call: Callable[[signal.Signals], None]) -> None:
    """Have *call* called for each signal from now on, in the main thread, between any two steps of its code.

    A process that a handler forks is ended by them: nobody there listens to *call*.
    """
    _install(lambda number, _: call(signal.Signals(number)))
    os.register_at_fork(after_in_child=partial(_install, signal.SIG_DFL))


def ignore_signals() -> None:
    """Ignore them from now on: what they ask for is done, and Python, as it ends, would let them kill the process."""
    _install(signal.SIG_IGN)


def _install(handler: Handler | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)
