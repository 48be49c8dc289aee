"""The lines of a history, as a worker writes them; they outlive a kill -9."""

import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any, Final

from qworker import Context
from qworker.context import NoContext, current
from qworker.events import (
    Event,
    JobEvent,
    JobExpired,
    JobPoisoned,
    JobReleased,
    JobRetried,
    JobSnoozed,
    JobStuck,
    JobSucceeded,
    LeaseLost,
    MessagePoisoned,
    SettleFailed,
    TaskUnknown,
)
from qworker.processes.beginning import CHILD
from qworker.wire.bundle import TASK as BUNDLE_TASK

FILE: Final = os.environ.get("HISTORY")
"""Where a worker's history goes; None outside of a worker under test."""
_SETTLED: Final[dict[type, str]] = {
    JobSucceeded: "succeeded",
    JobRetried: "retried",
    JobReleased: "released",
    JobSnoozed: "snoozed",
    JobPoisoned: "poisoned",
    TaskUnknown: "unknown",
    JobExpired: "expired",
    LeaseLost: "lost",
    SettleFailed: "failed",
}


def append(path: str | Path, *lines: dict[str, Any]) -> None:
    """Append lines; a single O_APPEND write is never torn, and is in the kernel's hands when it returns."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def is_child() -> bool:
    """Say whether this is a worker's child process, or one that its handler has multiprocessing start."""
    return multiprocessing.current_process().name == CHILD or multiprocessing.parent_process() is not None


def now() -> dict[str, Any]:
    """Return which process writes, and when on the clock that all processes of the machine share."""
    written: dict[str, Any] = {"pid": os.getpid(), "at": time.monotonic()}
    if is_child():
        written["worker"] = os.getppid()
    return written


def message_of(ctx: Context) -> dict[str, str | None]:
    """Return the id of a handler's message, which handlers aren't told; None in a child process.

    That of a bundle is told by another name: each of its jobs may have a message of its own later.
    """
    attempt = next(iter(getattr(ctx._save_state, "args", ())), None)
    message = None if attempt is None else str(attempt.lease.message_id)
    in_bundle = attempt is not None and attempt.part is not None
    return {"message": None, "bundle": message} if in_bundle else {"message": message}


def listen(event: Event) -> None:
    """Write down what became of a delivery, but not that of a bundle: its jobs are told of one by one."""
    if FILE is None or (isinstance(event, JobEvent) and event.job.task == BUNDLE_TASK):
        return
    if isinstance(event, MessagePoisoned):
        line = {"what": "settled", "as": "poisoned", "job": event.message_id, "attempt": event.dequeue_count}
    elif isinstance(event, JobStuck):
        line = {"what": "stuck", "job": event.job.id, "attempt": event.attempt}
    elif isinstance(event, JobEvent) and type(event) in _SETTLED:
        line = {"what": "settled", "as": _SETTLED[type(event)], "job": event.job.id, "attempt": event.attempt}
        line |= _message_settled(event.job.id)
    else:
        return
    append(FILE, line | now())


def _message_settled(job: str) -> dict[str, str | None]:
    """Return the id of the message whose handler ran in this asyncio task; None if none was called."""
    try:
        ctx = current()
    except NoContext:
        return {"message": None}
    return message_of(ctx) if ctx.job_id == job else {"message": None}
