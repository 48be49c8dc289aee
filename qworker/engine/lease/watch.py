"""Notices, from another thread, that an event loop does not turn, and what holds it."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from pathlib import PurePath
from types import FrameType
from typing import Final

from qworker.events import LoopBlocked
from qworker.job import Job

BLOCKED_AFTER: Final = 1.0
"""Seconds without a turn that are worth a warning."""


class LoopWatch:
    """Watches one event loop: made on its thread, asked to look from another."""

    def __init__(
        self,
        emit: Callable[[LoopBlocked], None],
        job_of: Callable[[asyncio.Task[object] | None], Job | None],
        *,
        blocked_after: float = BLOCKED_AFTER,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._emit = emit
        self._job_of = job_of
        self._first = self._next = blocked_after
        self._asked: float | None = None

    def look(self) -> None:
        """Ask the loop for a sign of life; report it once it owes one for too long, and each time that doubles."""
        now = time.monotonic()
        if self._asked is None:
            self._asked = now
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # the loop has closed
                return
        elif now - self._asked >= self._next:
            self._next *= 2
            self._report(now - self._asked)

    def _answer(self) -> None:
        self._asked = None
        self._next = self._first

    def _report(self, seconds: float) -> None:
        job = self._job_of(asyncio.current_task(self._loop))
        self._emit(LoopBlocked(seconds=seconds, job=job, where=_place(sys._current_frames().get(self._thread))))  # noqa: SLF001 — documented, and the only way


def _place(frame: FrameType | None) -> str:
    if frame is None:
        return "unknown"
    code = frame.f_code
    return f"{PurePath(code.co_filename).name}:{frame.f_lineno} in {code.co_name}"
