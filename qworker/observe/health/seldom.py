"""Says the same thing seldom, however often there is a reason for it."""

import logging
import time
from collections.abc import Callable
from typing import Final

EVERY: Final = 30.0
"""Seconds between two lines."""

_log = logging.getLogger("qworker")


class Seldom:
    """One kind of warning: the first is written at once, those that come soon after are counted into the next line."""

    def __init__(self, text: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._text = text
        self._monotonic = monotonic
        self._count = 0
        self._said_at: float | None = None

    def note(self, detail: object = "") -> None:
        """Count another reason, and write a line if none was written for a while."""
        self._count += 1
        now = self._monotonic()
        if self._said_at is None or now - self._said_at >= EVERY:
            self._said_at = now
            self.flush(detail)

    def flush(self, detail: object = "") -> None:
        """Write what was counted and not written."""
        if self._count:
            times = "" if self._count == 1 else f" ({self._count} times)"
            _log.warning("%s%s%s", self._text, f": {detail}" if detail else "", times)
            self._count = 0
