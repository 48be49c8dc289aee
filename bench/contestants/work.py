"""The job that all contestants do: as little as can be counted, across threads and processes."""

import mmap
import os
import tempfile
import threading
import time

URL = os.environ.get("BENCH_URL", "")
_delays = os.open(os.environ.get("BENCH_DELAYS", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_sink = os.open(os.devnull, os.O_WRONLY) if os.environ.get("BENCH_SYSTEM_CALL") == "1" else None
_thread = threading.local()


def done() -> None:
    """Note that a job was handled: without a system call, unless it is to make one."""
    try:
        handled = _thread.handled
    except AttributeError:
        handled = _thread.handled = _number_in_a_file()
    handled[0] += 1
    if _sink is not None:
        os.write(_sink, b".")


def started(enqueued_at: float) -> None:
    """Note how long after its enqueueing, in seconds, a job was started."""
    os.write(_delays, f"{time.time() - enqueued_at:.6f}\n".encode())
    done()


def _number_in_a_file() -> "memoryview[int]":
    """Return memory that whoever measures can read."""
    with tempfile.NamedTemporaryFile(dir=os.environ.get("BENCH_PROGRESS"), delete=False) as file:
        file.truncate(mmap.PAGESIZE)
        return memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")
