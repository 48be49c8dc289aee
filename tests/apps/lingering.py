"""A handler whose thread takes its time to end, and something that is to be done when the process exits."""

import atexit
import sys
import time
from types import FrameType
from typing import Any

from history_lines import FILE, append
from jobs import app, note
from qworker import INJECTED, Context

__all__ = ["app"]


def _take_time(frame: FrameType, event: str, _: Any) -> None:
    if event == "return" and frame.f_code.co_name == "_worker":  # of the executor, which ends with the worker
        time.sleep(0.5)


@app.task
def linger(n: int, *, ctx: Context = INJECTED) -> None:
    sys.setprofile(_take_time)
    note("end", n, ctx)


if FILE is not None:
    atexit.register(append, FILE, {"what": "exit"})
