"""Ctrl-C as a wish: it is granted where a command can say how far it has come."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from qworker.errors import QworkerError
from qworker.system.platform import STOPPING


class Stopped(QworkerError):
    """A command that ended before its end; its text says why, and how to go on."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Stopping:
    """Signals that ask for an end within a ``with`` block.

    The first is noted, and only ends a wait; work under way goes on. A second raises KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        """The signal that came, if one did."""
        self._waiting = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._hear) for number in STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Surround a wait, which a signal ends by KeyboardInterrupt."""
        self._waiting = True
        try:
            if self.asked is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._waiting = False

    def _hear(self, number: int, _: FrameType | None) -> None:
        again = self.asked is not None
        self.asked = signal.Signals(number)
        if again or self._waiting:
            raise KeyboardInterrupt
