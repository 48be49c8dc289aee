import asyncio
import sys
import threading
from typing import Any

import pytest
import structlog

from qworker import INJECTED, Context, Job, QworkerError, current
from qworker.context import NoContext, context_of, set_current

JOB = Job("j1", "mail.send", headers={"a": "b"})


def test_without_a_job_there_is_no_context() -> None:
    with pytest.raises(NoContext, match=r"no job is running here: .* qworker.testing.make_context\(\)"):
        current()
    with pytest.raises(NoContext):
        _ = INJECTED.attempt
    assert "INJECTED" == repr(INJECTED)
    assert isinstance(INJECTED, Context)


def test_current_and_injected_are_the_one_that_is_set() -> None:
    ctx = Context(JOB, queue="mail", attempt=2)
    token = set_current(ctx)
    try:
        assert ctx is current()
        assert (2, "mail", "j1", JOB) == (INJECTED.attempt, INJECTED.queue, INJECTED.job_id, INJECTED.job)
    finally:
        token.var.reset(token)


def test_the_logger_is_bound() -> None:
    ctx = Context(JOB, queue="mail", attempt=2)
    with structlog.testing.capture_logs() as lines:
        ctx.log.info("sending", to="x")
    expected = {"job": "j1", "task": "mail.send", "attempt": 2, "queue": "mail", "to": "x"}
    assert [{**expected, "event": "sending", "log_level": "info"}] == lines


async def test_an_asyncio_task_tells_its_context() -> None:
    ctx = Context(JOB, queue="mail")

    async def handler() -> None:
        set_current(ctx)
        await asyncio.Event().wait()

    task = asyncio.create_task(handler())
    await asyncio.sleep(0)
    known = sys.version_info >= (3, 12)
    assert (ctx if known else None) is context_of(task)
    assert context_of(asyncio.current_task()) is None
    assert context_of(None) is None
    task.cancel()


class Saved:
    def __init__(self) -> None:
        self.states: list[tuple[Any, int]] = []

    async def __call__(self, state: Any) -> None:
        await asyncio.sleep(0)
        self.states.append((state, threading.get_ident()))


async def test_a_checkpoint_runs_on_the_workers_loop() -> None:
    saved = Saved()
    ctx = Context(JOB, queue="mail", save_state=saved, loop=asyncio.get_running_loop())
    await ctx.acheckpoint(1)
    await asyncio.to_thread(ctx.checkpoint, 2)
    await asyncio.to_thread(lambda: asyncio.run(ctx.acheckpoint(3)))
    assert [(state, threading.get_ident()) for state in (1, 2, 3)] == saved.states
    assert 3 == ctx.state


def test_a_checkpoint_without_a_loop_makes_one() -> None:
    saved = Saved()
    ctx = Context(JOB, queue="mail", save_state=saved)
    ctx.checkpoint(1)
    assert ([(1, threading.get_ident())], 1) == (saved.states, ctx.state)


async def test_a_checkpoint_that_would_block_the_loop_is_refused() -> None:
    saved = Saved()
    ctx = Context(JOB, queue="mail", save_state=saved, loop=asyncio.get_running_loop())
    with pytest.raises(QworkerError, match=r"use 'await ctx.acheckpoint\(…\)'"):
        ctx.checkpoint(1)
    assert [] == saved.states


async def test_a_checkpoint_that_fails_keeps_the_state() -> None:
    async def fail(_: Any) -> None:
        raise QworkerError("no")

    ctx = Context(JOB, queue="mail", state="old", save_state=fail, loop=asyncio.get_running_loop())
    with pytest.raises(QworkerError, match="no"):
        await ctx.acheckpoint("new")
    with pytest.raises(QworkerError, match="no"):
        await asyncio.to_thread(ctx.checkpoint, "new")
    assert "old" == ctx.state


async def test_a_context_may_have_nowhere_to_save() -> None:
    with pytest.raises(QworkerError, match="can't save a state"):
        await Context(JOB, queue="mail").acheckpoint(1)
