"""Tasks that are given a secret as an argument, and come to every end there is; all loggers speak."""

import asyncio
import logging
import os
from typing import Annotated, Any

from pydantic import BaseModel, Field

from qworker import INJECTED, App, Backoff, Context, Reject, Retry, Snooze

if "HISTORY" in os.environ:  # in a worker under test
    logging.getLogger("azure").setLevel(logging.DEBUG)
app = App()
once: dict[str, Any] = {"max_attempts": 1}


class Letter(BaseModel):
    """What a task is given."""

    to: Annotated[str, Field(max_length=5)]


@app.task
async def well(secret: str, **more: str) -> None: ...


@app.task(**once)
async def fails(secret: str) -> None:
    raise RuntimeError("it failed")


@app.task(max_attempts=2, backoff=Backoff(base=0))
def fails_in_a_thread(secret: str) -> None:
    raise RuntimeError("it failed") from ValueError("for a reason")


@app.task(max_attempts=2)
async def ends_as_it_asks(secret: str, *, ctx: Context = INJECTED) -> None:
    if ctx.attempt == 1 and not ctx.job.releases:
        raise Snooze("not yet", after=0)
    if ctx.attempt == 1:
        raise Retry("again", after=0)
    raise Reject("never")


@app.task(**once, timeout=0.3)
async def takes_too_long(secret: str) -> None:
    await asyncio.sleep(60)


@app.task(**once)
async def wants(number: int, letter: Letter, by_name: dict[str, int]) -> None: ...


@app.task(**once, state=int)
async def saves(secret: str, *, ctx: Context = INJECTED) -> None:
    await ctx.acheckpoint(secret)


@app.task(**once)
async def outgrows(secret: str, *, ctx: Context = INJECTED) -> None:
    await ctx.acheckpoint(secret * 10_000)


@app.task(**once, executor="process")
def fails_in_a_child(secret: str) -> None:
    raise RuntimeError("it failed")


@app.task(**once, executor="process")
def ends_its_child(secret: str) -> None:
    os._exit(3)


@app.task(**once)
async def blocks(secret: str) -> None:
    import time

    time.sleep(0.7)  # noqa: ASYNC251 — so that asyncio's debug mode and the watch tell of it
