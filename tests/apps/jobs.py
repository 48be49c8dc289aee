"""Tasks for the tests of real worker processes; each writes down what it does, so that it outlives a kill -9."""

import asyncio
import logging
import os
import sys
import time

from history_lines import FILE, append, listen, message_of, now
from qworker import INJECTED, App, Backoff, Context, Reject, Snooze

app = App(listeners=[] if FILE is None else [listen])


def note(what: str, n: int, ctx: Context) -> None:
    """Write down what a handler does."""
    assert FILE is not None
    line = {"what": what, "n": n, "job": ctx.job_id, "attempt": ctx.attempt}
    append(FILE, line | message_of(ctx) | now())


@app.task
async def quick(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    note("end", n, ctx)


@app.task
async def rest(n: int, seconds: float, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    await asyncio.sleep(seconds)
    note("end", n, ctx)


@app.task
async def block(n: int, seconds: float, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    time.sleep(seconds)  # noqa: ASYNC251 — the mistake under test
    note("end", n, ctx)


@app.task
async def burn(n: int, seconds: float, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    note("end", n, ctx)


@app.task(max_attempts=2, backoff=Backoff(base=0))
async def exit_in_subtask(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)

    async def leave() -> None:
        sys.exit(3)

    await asyncio.gather(leave())


@app.task(max_attempts=2, backoff=Backoff(base=0))
async def cancel_itself(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


@app.task
async def ignore_cancel(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            note("ignored", n, ctx)


@app.task
def sleep_in_thread(n: int, seconds: float, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    time.sleep(seconds)
    note("end", n, ctx)


@app.task(max_attempts=3, backoff=Backoff(base=1, factor=1, jitter=0))
async def fail(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    raise ValueError(f"no {n}")


@app.task
async def reject(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    raise Reject("never")


@app.task(max_attempts=1)
async def snooze_once(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    if ctx.job.releases == 0:
        raise Snooze(after=1)
    note("end", n, ctx)


@app.task(max_attempts=2)
async def crash(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    os._exit(7)


@app.task
async def log_lines(n: int, *, ctx: Context = INJECTED) -> None:
    ctx.log.info("from the handler\n\x1b[31mred", n=n)
    logging.getLogger("some.library").warning("from a library, %s", n)
