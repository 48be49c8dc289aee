from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from qworker import INJECTED, App, Context, InvalidArguments, Job, current
from qworker.context import NoContext
from qworker.testing import make_context, running


class Progress(BaseModel):
    done: int


app = App(broker="sqlite://")


@app.task(name="copy", queue="files", state=Progress)
def copy(*, ctx: Context = INJECTED) -> int:
    done: int = ctx.state.done if ctx.state else 0
    ctx.checkpoint({"done": done + 1})
    return done


def test_has_a_default_for_everything() -> None:
    ctx = make_context()
    assert ("test", "default", 1, None, False) == (ctx.task, ctx.queue, ctx.attempt, ctx.state, ctx.lease_lost)
    assert ({}, {}, None) == (ctx.headers, ctx.resources, ctx.deadline)
    assert ctx.enqueued_at is not None


def test_takes_a_name_a_task_or_a_job() -> None:
    assert ("mail", "default") == (make_context("mail").task, make_context("mail").queue)
    assert ("copy", "files") == (make_context(copy).task, make_context(copy).queue)
    job = Job("j1", "other", headers={"a": "b"})
    assert job is make_context(job).job


def test_takes_what_a_worker_would_say() -> None:
    deadline = datetime(2027, 1, 1, tzinfo=UTC)
    ctx = make_context(
        copy,
        queue="slow",
        attempt=3,
        headers={"trace": "1"},
        resources={"pool": 7},
        deadline=deadline,
        lease_lost=True,
    )
    assert ("slow", 3, {"trace": "1"}, {"pool": 7}) == (ctx.queue, ctx.attempt, ctx.headers, ctx.resources)
    assert (deadline, True) == (ctx.deadline, ctx.lease_lost)


def test_a_checkpoint_is_seen_in_the_state() -> None:
    ctx = make_context(copy, state={"done": 3})
    assert Progress(done=3) == ctx.state
    assert 3 == copy(ctx=ctx)
    assert {"done": 4} == ctx.state


async def test_an_async_checkpoint_is_seen_in_the_state() -> None:
    ctx = make_context()
    await ctx.acheckpoint([1])
    assert [1] == ctx.state


async def test_a_state_that_the_task_does_not_take_is_refused() -> None:
    with pytest.raises(InvalidArguments):
        make_context(copy, state={"done": "much"})
    ctx = make_context(copy)
    with pytest.raises(InvalidArguments):
        await ctx.acheckpoint({"done": "much"})
    assert ctx.state is None


def test_current_finds_the_running_context() -> None:
    ctx = make_context(attempt=2)
    with running(ctx):
        assert ctx is current()
        assert 2 == INJECTED.attempt
    with pytest.raises(NoContext):
        current()
