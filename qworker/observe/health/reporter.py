"""Reports from a worker process to its supervisor, on a thread of its own: a blocked event loop is news, too."""

import os
import threading
from collections.abc import Callable
from typing import Final

from qworker.observe.health.reports import Report, Samples, pack
from qworker.observe.health.state import WorkerState

_EVERY: Final = 1.0
"""Seconds between two reports."""


class Reporter(threading.Thread):
    """Writes reports until it is stopped, or nobody reads them any more."""

    def __init__(self, fd: int, state: WorkerState, samples: Callable[[], Samples]) -> None:
        """Take the file descriptor to write to, which is this thread's from now on."""
        super().__init__(name="qworker-reporter", daemon=True)
        self._fd = fd
        self._state = state
        self._samples = samples
        self._told: Samples = {}
        self._stopping = threading.Event()
        os.set_inheritable(fd, False)  # what a handler starts has nothing to report

    def stop(self) -> None:
        """Have it write what is left to say; a supervisor that doesn't read is not waited for."""
        self._stopping.set()
        self.join(_EVERY)

    def run(self) -> None:
        """Report, and once more in the end."""
        try:
            self._report()
            while not self._stopping.wait(_EVERY):
                self._report()
            self._report()
        except OSError:  # the supervisor is gone, which its worker learns in another way
            pass
        finally:
            os.close(self._fd)

    def _report(self) -> None:
        now = self._samples()
        changed = {key: value for key, value in now.items() if self._told.get(key) != value}
        gone = tuple(key for key in self._told if key not in now)
        self._told = now
        left = memoryview(pack(Report(self._state.live(), self._state.ready(), changed, gone)))
        while left:
            left = left[os.write(self._fd, left) :]
