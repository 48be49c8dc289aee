"""Tasks that take long, or won't stop, the first time; a second delivery ends at once."""

import asyncio
import os
import time

from history_lines import FILE, append, now
from jobs import app, note
from qworker import INJECTED, Context

__all__ = ["app"]


def is_again(ctx: Context) -> bool:
    return ctx.attempt > 1 or ctx.job.releases > 0


@app.task
async def rest(n: int, seconds: float, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    if not is_again(ctx):
        await asyncio.sleep(seconds)
    note("end", n, ctx)


@app.task
def turn_in_thread(n: int, seconds: float, *, ctx: Context = INJECTED) -> None:
    """Stay in Python code."""
    note("start", n, ctx)
    until = time.monotonic() + seconds
    while not is_again(ctx) and time.monotonic() < until:
        time.sleep(0.01)
    note("end", n, ctx)


@app.task(executor="process")
def rest_in_child(n: int, seconds: float, *, ctx: Context = INJECTED) -> None:
    assert FILE is not None
    line = {"n": n, "job": ctx.job_id, "attempt": ctx.attempt, "worker": os.getppid()}
    append(FILE, {"what": "start"} | line | now())
    if not is_again(ctx):
        time.sleep(seconds)
    append(FILE, {"what": "end"} | line | now())


@app.task
async def swallow(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    while not is_again(ctx):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            note("swallowed", n, ctx)
    note("end", n, ctx)


@app.task
def swallow_in_thread(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    while not is_again(ctx):
        try:
            time.sleep(0.01)
        except BaseException:  # noqa: BLE001 — the mistake under test
            note("swallowed", n, ctx)
    note("end", n, ctx)


@app.task
def sleep_in_thread(n: int, *, ctx: Context = INJECTED) -> None:
    """Stay in C code."""
    note("start", n, ctx)
    if not is_again(ctx):
        time.sleep(3600)
    note("end", n, ctx)


@app.task
async def block(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    if not is_again(ctx):
        time.sleep(3600)  # noqa: ASYNC251 — the mistake under test
    note("end", n, ctx)


@app.task
async def burn(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    while not is_again(ctx):
        pass
    note("end", n, ctx)
