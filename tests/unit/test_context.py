import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Optional, TypeVar, get_origin

import pytest
import structlog
from typing_extensions import TypeAliasType

from qworker import (
    INJECTED,
    App,
    Backoff,
    ConfigurationError,
    Context,
    InvalidArguments,
    Job,
    QworkerError,
    Retry,
    current,
)
from qworker.context import NoContext, context_in, context_of, set_current, state_type_of
from qworker.testing import arun_until_idle

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


# What an annotation says


class Pool: ...


@dataclass
class Progress:
    page: int


ResourcesT = TypeVar("ResourcesT")
StateT = TypeVar("StateT")
OfPool = Context[Pool]
Alias = TypeAliasType("Alias", Context[Pool, int])
Generic = TypeAliasType("Generic", Context[Pool, StateT], type_params=(StateT,))


@pytest.mark.parametrize(
    ("hint", "state"),
    [
        (Context, None),
        (Context[Pool], None),
        (OfPool, None),
        (Context[Pool, Any], None),
        (Context[Pool, int], int),
        (Context[Mapping[str, Any], list[int]], list[int]),
        (Context[Pool, int | None], int | None),
        (Context[ResourcesT, StateT], None),  # type: ignore[valid-type] # as in a class of a program's own
        (Alias, int),
        (Generic[str], str),
        (Context[Pool, int] | None, int),
        (Optional[Context], None),  # noqa: UP045 — as older code has it
        (Optional[Context[Pool, int]], int),  # noqa: UP045 — the same
        (Annotated[Context[Pool, int], "anything"], int),
        (Annotated[Context | None, "anything"], None),
        (Alias | None, int),
    ],
    ids=str,
)
def test_a_context_is_known_in_any_dress(hint: Any, state: Any) -> None:
    found = context_in(hint)
    assert found is Context or get_origin(found) is Context
    assert state == state_type_of(found)

    async def handler(number: int, *, ctx: Any = INJECTED) -> None: ...

    handler.__annotations__["ctx"] = hint
    task = App(broker="sqlite://").task(handler)
    assert ("ctx",) == task.signature.context_parameters
    assert ["number"] == [*task.signature.parameters]


@pytest.mark.parametrize("hint", [int, None, Any, list[Context], type[Context], Pool, str | None], ids=str)
def test_what_is_no_context(hint: Any) -> None:
    assert context_in(hint) is None


async def test_a_state_is_what_the_context_says() -> None:
    app = App(broker="sqlite://")
    seen: list[Any] = []

    @app.task(max_attempts=2, backoff=Backoff(base=0))
    async def count(*, ctx: Context[Pool, Progress] = INJECTED) -> None:
        seen.append(ctx.state)
        if ctx.state is None:
            await ctx.acheckpoint(Progress(3))
            raise Retry(after=0)

    await count.aenqueue()
    await arun_until_idle(app)
    assert [None, Progress(3)] == seen
    with pytest.raises(InvalidArguments):
        count.states.encode("three")
    await app.aclose()


def test_state_and_context_say_the_same() -> None:
    app = App(broker="sqlite://")

    async def handler(*, ctx: Context[Pool, int | None] = INJECTED) -> None: ...

    app.task(name="same", state=int)(handler)
    app.task(name="turned", state=None | int)(handler)
    with pytest.raises(ConfigurationError, match=r"^task x: its state is str in one place and int \| None in another"):
        app.task(name="x", state=str)(handler)


async def test_resources_are_what_the_lifespan_yields() -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[Pool]:
        yield pool

    class Empty(Pool):
        def __len__(self) -> int:
            return 0

    pool, seen = Empty(), list[Any]()
    app = App(broker="sqlite://", lifespan=lifespan)

    @app.task
    async def look(*, ctx: Context[Pool] = INJECTED) -> None:
        seen.append(ctx.resources)

    await look.aenqueue()
    await arun_until_idle(app)
    assert [pool] == seen
    assert seen[0] is pool
    await app.aclose()
