"""Tasks that fork, and wait for their child's end before their own; GO, BACK and DONE name files that let things go on.

What the child does then: it returns from the handler, raises, calls sys.exit, saves a state, awaits; or what it should,
which is to leave by itself. A second delivery only waits for DONE.
"""

import asyncio
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path

from history_lines import FILE, append, is_child, now
from jobs import app
from qworker import INJECTED, Context

__all__ = ["app"]

_PATIENCE = 60.0
"""Seconds after which a child ends whose test has died."""


def _note(what: str, n: int, ctx: Context, **fields: object) -> None:
    assert FILE is not None
    line = {"what": what, "n": n, "job": ctx.job_id, "attempt": ctx.attempt} | fields | now()
    append(FILE, line | ({"worker": os.getppid()} if what == "start" and is_child() else {}))


def _is_there(name: str) -> bool:
    return Path(os.environ[name]).exists()


def _wait_for(name: str) -> None:
    give_up = time.monotonic() + _PATIENCE
    while not _is_there(name) and time.monotonic() < give_up:
        time.sleep(0.02)


def _is_over(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _code_of(pid: int) -> int:
    """Wait for a child's end, and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _misbehave(then: str, n: int, ctx: Context) -> None:
    """Be the child; whoever called this comes back from the handler next."""
    match then:
        case "raise":
            raise ValueError("in the child")
        case "exit":
            sys.exit(3)
        case "leave":
            os._exit(7)
        case "linger" | "terminate":
            _wait_for("BACK")


@app.task
async def on_loop(n: int, then: str, *, ctx: Context = INJECTED) -> None:
    _note("start", n, ctx)
    if ctx.attempt > 1:
        await _until(lambda: _is_there("DONE"))
    else:
        pid = os.fork()
        if pid == 0:
            _note("forked", n, ctx)
            if then == "save":
                await ctx.acheckpoint({"n": n})
            if then == "wait":
                await asyncio.sleep(0)
            return _misbehave(then, n, ctx)
        await _until(lambda: _is_over(pid))
        _note("child", n, ctx, code=_code_of(pid))
        await _until(lambda: _is_there("GO"))
    _note("end", n, ctx)
    return None


def _fork(n: int, then: str, ctx: Context) -> None:
    _note("start", n, ctx)
    if ctx.attempt > 1:
        _wait_for("DONE")
    else:
        pid = os.fork()
        if pid == 0:
            _note("forked", n, ctx)
            if then == "save":
                ctx.checkpoint({"n": n})
            return _misbehave(then, n, ctx)
        _note("child", n, ctx, code=_code_of(pid))
        _wait_for("GO")
    _note("end", n, ctx)
    return None


@app.task
def in_thread(n: int, then: str, *, ctx: Context = INJECTED) -> None:
    _fork(n, then, ctx)


@app.task(executor="process")
def in_child(n: int, then: str, *, ctx: Context = INJECTED) -> None:
    _fork(n, then, ctx)


@app.task
async def by_library(n: int, then: str, *, ctx: Context = INJECTED) -> None:
    """Have multiprocessing or subprocess fork."""
    _note("start", n, ctx)
    if ctx.attempt > 1:
        await _until(lambda: _is_there("DONE"))
    else:
        _note("child", n, ctx, code=await _run_by_library(n, then, ctx))
        await _until(lambda: _is_there("GO"))
    _note("end", n, ctx)


async def _run_by_library(n: int, then: str, ctx: Context) -> int | None:
    if then == "preexec":
        return subprocess.run(["true"], preexec_fn=lambda: _note("forked", n, ctx), check=False).returncode  # noqa: ASYNC221
    child: ForkProcess = multiprocessing.get_context("fork").Process(target=_be_target, args=(then, n, ctx))
    child.start()
    if then == "terminate":
        child.terminate()
    await _until(lambda: not child.is_alive())
    return child.exitcode


def _be_target(then: str, n: int, ctx: Context) -> None:
    _note("forked", n, ctx)
    _misbehave(then, n, ctx)


async def _until(fact: Callable[[], bool]) -> None:
    while not fact():  # noqa: ASYNC110 — files and processes tell nobody
        await asyncio.sleep(0.02)
