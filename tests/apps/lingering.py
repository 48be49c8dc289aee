"""A handler whose thread takes its time to end, and something that is to be done when the process exits."""

import atexit
import gc
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


def _note_exit() -> None:
    if FILE is not None:
        append(FILE, {"what": "exit", "frozen": gc.get_freeze_count()})


atexit.register(_note_exit)
