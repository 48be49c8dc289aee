"""The tasks of jobs.py, in a process whose wall clock a test sets: WALL_CLOCK names a file with its offset, in s."""

import os
import threading
import time
from pathlib import Path

from history_lines import FILE, append, now
from jobs import app

__all__ = ["app"]

_OFFSET = Path(os.environ["WALL_CLOCK"])
_real_time, _real_time_ns = time.time, time.time_ns


def _follow() -> None:
    assert FILE is not None
    followed = 0.0
    while True:
        offset = float(_OFFSET.read_text() or 0)
        if offset != followed:
            time.time = lambda by=offset: _real_time() + by  # type: ignore[misc]
            time.time_ns = lambda by=offset: _real_time_ns() + int(by * 1e9)  # type: ignore[misc]
            append(FILE, {"what": "clock", "offset": offset} | now())
            followed = offset
        time.sleep(0.01)


threading.Thread(target=_follow, daemon=True).start()
