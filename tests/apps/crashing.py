"""Tasks that end their process, and what else a handler can raise that is no ordinary error."""

import asyncio
import ctypes
import os
import signal
from collections.abc import Callable
from typing import Any, Final

from jobs import app, note
from qworker import INJECTED, Backoff, Context
from qworker._faultpoints import faultpoint

__all__ = ["app"]


@app.task
async def pass_by(n: int, seconds: float, *, ctx: Context = INJECTED) -> None:
    """Take so long the first time, and no time when it is delivered again."""
    note("start", n, ctx)
    faultpoint("in-handler")
    if ctx.attempt == 1 and ctx.job.releases == 0:
        await asyncio.sleep(seconds)
    note("end", n, ctx)


def _out_of_memory() -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # which is what the kernel sends


DEATHS: Final[dict[str, Callable[[], Any]]] = {
    "os._exit": lambda: os._exit(7),
    "segfault": lambda: ctypes.string_at(0),
    "out of memory": _out_of_memory,
}


async def die(n: int, how: str, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    await asyncio.sleep(0.1)  # others are under way by then
    DEATHS[how]()


async def live(n: int, seconds: float, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    await asyncio.sleep(seconds)
    note("end", n, ctx)


_AT_ONCE: Final = Backoff(base=0)
dies = {tries: app.task(name=f"die-{tries}", max_attempts=tries, backoff=_AT_ONCE)(die) for tries in (3, 5)}
"""By max_attempts."""
lives = {tries: app.task(name=f"live-{tries}", max_attempts=tries, backoff=_AT_ONCE)(live) for tries in (3, 5)}


@app.task(executor="process", max_attempts=3, backoff=_AT_ONCE)
def die_in_child(n: int, how: str, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    DEATHS[how]()


def _recurse() -> None:
    _recurse()


def _throw(error: type[BaseException]) -> None:
    raise error


RAISES: Final[dict[str, Callable[[], Any]]] = {
    "MemoryError": lambda: bytearray(2**62),
    "RecursionError": _recurse,
    "SystemExit": lambda: _throw(SystemExit),
    "KeyboardInterrupt": lambda: _throw(KeyboardInterrupt),
    "CancelledError": lambda: _throw(asyncio.CancelledError),
}


@app.task(max_attempts=2, backoff=_AT_ONCE)
async def throw(n: int, what: str, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    if ctx.attempt == 1:
        RAISES[what]()
    note("end", n, ctx)


@app.task(max_attempts=2, backoff=_AT_ONCE)
def throw_in_thread(n: int, what: str, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    if ctx.attempt == 1:
        RAISES[what]()
    note("end", n, ctx)


@app.task(executor="process", max_attempts=2, backoff=_AT_ONCE)
def throw_in_child(n: int, what: str, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    if ctx.attempt == 1:
        RAISES[what]()
    note("end", n, ctx)


@app.task(max_attempts=3, backoff=_AT_ONCE)
async def fails_once(n: int, *, ctx: Context = INJECTED) -> None:
    note("start", n, ctx)
    if ctx.attempt == 1:
        raise ValueError("the first time")
    note("end", n, ctx)


@app.task
async def rest_at_most(n: int, seconds: float, *, ctx: Context = INJECTED) -> None:
    """Take so long, but no longer than this worker's environment says."""
    note("start", n, ctx)
    await asyncio.sleep(min(seconds, float(os.environ.get("LONGEST", "inf"))))
    note("end", n, ctx)
