"""Tasks that rest; DONE names a file that a second delivery waits for."""

import asyncio
import os
import time
from pathlib import Path

from history_lines import FILE, append, is_child, now
from jobs import app
from qworker import INJECTED, Context

__all__ = ["app"]


def _note(what: str, n: int, ctx: Context) -> None:
    assert FILE is not None
    line = {"what": what, "n": n, "job": ctx.job_id, "attempt": ctx.attempt} | now()
    append(FILE, line | ({"worker": os.getppid()} if is_child() else {}))


def _may_end() -> bool:
    return Path(os.environ["DONE"]).exists()


@app.task
async def on_loop(n: int, seconds: float, *, ctx: Context = INJECTED) -> None:
    _note("start", n, ctx)
    await asyncio.sleep(seconds if ctx.attempt == 1 else 0)
    while ctx.attempt > 1 and not _may_end():  # noqa: ASYNC110 — a file tells nobody
        await asyncio.sleep(0.02)
    _note("end", n, ctx)


def _rest(n: int, seconds: float, ctx: Context) -> None:
    _note("start", n, ctx)
    time.sleep(seconds if ctx.attempt == 1 else 0)
    while ctx.attempt > 1 and not _may_end():
        time.sleep(0.02)
    _note("end", n, ctx)


@app.task
def in_thread(n: int, seconds: float, *, ctx: Context = INJECTED) -> None:
    _rest(n, seconds, ctx)


@app.task(executor="process")
def in_child(n: int, seconds: float, *, ctx: Context = INJECTED) -> None:
    _rest(n, seconds, ctx)
