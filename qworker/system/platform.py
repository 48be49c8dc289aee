"""Knows how Windows differs from other systems, as far as that matters to more than one part."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Final

from qworker.errors import ConfigurationError

IS_WINDOWS: Final[bool] = sys.platform == "win32"

if sys.platform == "win32":
    STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGBREAK)
    KILLING: Final = signal.SIGTERM
else:
    STOPPING = (signal.SIGTERM, signal.SIGINT)
    """Signals that ask a process to stop. Windows has one more, of Ctrl-Break."""
    KILLING = signal.SIGKILL
    """The signal that ends a process whatever it does. On Windows, os.kill() does that by nearly any number."""


def at_fork(
    *,
    before: Callable[[], object] | None = None,
    after_in_parent: Callable[[], object] | None = None,
    after_in_child: Callable[[], object] | None = None,
) -> None:
    """Have functions called at each fork of this process, for as long as it lives; Windows has no forks."""
    if sys.platform != "win32":
        calls = {"before": before, "after_in_parent": after_in_parent, "after_in_child": after_in_child}
        os.register_at_fork(**{name: call for name, call in calls.items() if call is not None})


def refuse_on_windows(what: str, instead: str) -> None:
    """Raise ConfigurationError on Windows, in one line: *what* doesn't work there, and what to do *instead*."""
    if IS_WINDOWS:
        raise ConfigurationError(f"{what} doesn't work on Windows: {instead}")
