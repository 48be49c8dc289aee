import asyncio
import errno
import os
import re
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationInfo, field_validator
from structlog.contextvars import get_contextvars

import in_child
from doubles import ScriptedQueue, message
from qworker import INJECTED, App, Context, Reject, Retry, Snooze, current
from qworker.context import NoContext
from qworker.engine.attempt import Attempt, Received
from qworker.engine.lease.lease import Lease
from qworker.engine.run import runner as runner_module
from qworker.engine.run.runner import Run, Runner
from qworker.engine.run.threads import Interrupt
from qworker.errors import BrokerUnavailable, EnqueueUncertain, QworkerError
from qworker.job import utc_now
from qworker.middleware import CallNext
from qworker.outcome import (
    Expired,
    Failed,
    Failure,
    Lost,
    Outcome,
    Rejected,
    Released,
    RetryAsked,
    Snoozed,
    Succeeded,
    Unknown,
)
from qworker.task import Task
from waiting import until

app = App(broker="sqlite://")
STOP = Released("stop")


@pytest.fixture
def runner() -> Iterator[Runner]:
    runner = Runner(app.tasks, concurrency=1)
    yield runner
    runner.close()


def attempt_of(task: Task[..., Any], *args: Any, dequeue_count: int = 1, **changes: Any) -> Attempt:
    job = replace(task._producer._job(args, {}, utc_now()), id="j1", **changes)
    found = message(dequeue_count=dequeue_count)
    lease = Lease(ScriptedQueue(), found, length=60, began=time.monotonic())
    return Attempt(Received(found, lease, "work"), job, task)


async def save_nothing(_: Any) -> None: ...


def begin(runner: Runner, task: Task[..., Any], *args: Any, **changes: Any) -> tuple[Run, asyncio.Task[Outcome]]:
    run = runner.prepare(attempt_of(task, *args, **changes), save_nothing)
    return run, asyncio.create_task(run.outcome())


async def outcome_of(runner: Runner, task: Task[..., Any], *args: Any, **changes: Any) -> Outcome:
    return await begin(runner, task, *args, **changes)[1]


def failure_of(outcome: Outcome) -> Failure:
    assert isinstance(outcome, Failed | Rejected | RetryAsked | Unknown)
    return outcome.failure


def both_ways(body: Callable[[], Any], **options: Any) -> list[Task[..., Any]]:
    """The same handler as a coroutine function and as a plain function."""

    async def on_the_loop() -> Any:
        return body()

    def in_a_thread() -> Any:
        return body()

    return [Task(on_the_loop, app, name="a", **options), Task(in_a_thread, app, name="t", **options)]


def raise_(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


# What a handler returns and raises


async def test_what_a_handler_returns_is_success(runner: Runner) -> None:
    for task in both_ways(lambda: False):
        assert Succeeded() == await outcome_of(runner, task)


class Own(BaseException):
    pass


def recurse() -> None:
    recurse()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (raise_(ValueError("no")), "ValueError"),
        (raise_(MemoryError()), "MemoryError"),
        (recurse, "RecursionError"),
        (raise_(SystemExit(3)), "SystemExit"),
        (raise_(KeyboardInterrupt()), "KeyboardInterrupt"),
        (raise_(asyncio.CancelledError()), "asyncio.exceptions.CancelledError"),
        (raise_(StopIteration()), "RuntimeError"),
        (raise_(GeneratorExit()), "GeneratorExit"),
        (raise_(TimeoutError()), "TimeoutError"),
        (raise_(Own()), f"{Own.__module__}.Own"),
        (raise_(BaseExceptionGroup("all", [Own(), ValueError()])), "BaseExceptionGroup"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_whatever_a_handler_raises_is_one_failed_attempt(
    runner: Runner, body: Callable[[], Any], kind: str
) -> None:
    for task in both_ways(body):
        outcome = await outcome_of(runner, task)
        assert isinstance(outcome, Failed)
        assert kind == outcome.failure.type
        assert Succeeded() == await outcome_of(runner, both_ways(lambda: None)[1])


async def test_a_handler_may_ask(runner: Runner) -> None:
    for task in both_ways(raise_(Retry("busy", after=timedelta(minutes=1)))):
        outcome = await outcome_of(runner, task)
        assert isinstance(outcome, RetryAsked)
        assert (60, "busy") == (outcome.after, outcome.failure.message)
    for task in both_ways(raise_(Snooze("early", after=2))):
        assert Snoozed(2, "early") == await outcome_of(runner, task)
    for task in both_ways(raise_(Reject("never"))):
        outcome = await outcome_of(runner, task)
        assert isinstance(outcome, Rejected)
        assert "never" == outcome.failure.message


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (lambda: Retry(5), "Retry takes its reason as a text"),  # type: ignore[arg-type] # the point
        (lambda: Retry(after=-1), "Retry's after must be from 0 seconds to 7 days, not -1 s"),
        (lambda: Snooze(after=timedelta(days=30)), "Snooze's after must be from 0 seconds to 7 days, not 2,592,000 s"),
    ],
)
async def test_who_asks_for_what_can_not_be_has_failed(runner: Runner, body: Callable[[], Any], text: str) -> None:
    for task in both_ways(body):
        outcome = await outcome_of(runner, task)
        assert isinstance(outcome, Failed)
        assert outcome.failure.type == "ConfigurationError"
        assert outcome.failure.message.startswith(text)


JUDGED = {
    "hopeless": Rejected,
    "hopeless group": Rejected,
    "retried": Failed,
    "nearer": Failed,
    "farther": Rejected,
    "another": Rejected,
}


@pytest.mark.parametrize("what", JUDGED)
async def test_a_task_says_which_exceptions_end_a_job(runner: Runner, what: str) -> None:
    """In a child process, whose classes are not known here, as on the event loop and in a thread."""
    in_process = await outcome_of(runner, in_child.judge, what)
    assert isinstance(in_process, JUDGED[what])
    options: Any = {"give_up_on": (in_child.Hopeless, OSError), "retry_on": (LookupError, ConnectionError)}
    for task in both_ways(lambda: in_child.judge(what), **options):
        outcome = await outcome_of(runner, task)
        assert isinstance(outcome, JUDGED[what])
        assert failure_of(in_process).type == failure_of(outcome).type
        assert failure_of(in_process).message == failure_of(outcome).message
    assert "Hopeless" in failure_of(in_process).type or "hopeless" not in what


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Failed),
        ({"retry_on": TimeoutError}, Failed),
        ({"retry_on": ValueError}, Rejected),
        ({"give_up_on": TimeoutError}, Rejected),
        ({"give_up_on": OSError}, Rejected),
        ({"give_up_on": ValueError}, Failed),
    ],
)
async def test_a_timeout_is_judged_as_a_timeout_error(
    runner: Runner, options: dict[str, Any], expected: type[Outcome]
) -> None:
    async def waits() -> None:
        await asyncio.Event().wait()

    outcome = await outcome_of(runner, Task(waits, app, name="t", timeout=0.01, **options))
    assert isinstance(outcome, expected)
    assert "TimedOut" == failure_of(outcome).type


async def test_a_child_that_dies_is_no_exception_to_judge(runner: Runner) -> None:
    task: Task[..., Any] = Task(
        in_child.die.function, app, name="in_child.die", executor="process", give_up_on=BaseException
    )
    outcome = await outcome_of(runner, task, 0)
    assert isinstance(outcome, Failed)
    assert "ChildDied" == outcome.failure.type


async def test_a_brokers_answer_says_nothing_of_the_job(runner: Runner) -> None:
    for error in (BrokerUnavailable("no"), EnqueueUncertain("j", "t")):
        for task in both_ways(raise_(error), retry_on=ValueError):
            assert isinstance(await outcome_of(runner, task), Failed)
        for task in both_ways(raise_(error), retry_on=ValueError, give_up_on=QworkerError):
            assert isinstance(await outcome_of(runner, task), Rejected)


async def test_what_middleware_raises_is_judged_too(runner: Runner) -> None:
    async def wrong(ctx: Context, call_next: CallNext) -> None:
        try:
            await call_next()
        except KeyError as error:
            raise ValueError from error

    for task in both_ways(raise_(KeyError()), middleware=[wrong], give_up_on=ValueError):
        assert isinstance(await outcome_of(runner, task), Rejected)
    for task in both_ways(raise_(KeyError()), middleware=[wrong], give_up_on=KeyError):
        assert isinstance(await outcome_of(runner, task), Failed)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (Retry("busy", after=3), RetryAsked),
        (Snooze("early", after=2), Snoozed),
        (Reject("never"), Rejected),
        (ValueError("no"), Failed),
    ],
    ids=repr,
)
async def test_a_group_of_one_exception_is_that_exception(
    runner: Runner, raised: Exception, expected: type[Outcome]
) -> None:
    for group in (ExceptionGroup("one", [raised]), ExceptionGroup("one", [ExceptionGroup("deep", [raised])])):
        for task in both_ways(raise_(group)):
            outcome = await outcome_of(runner, task)
            assert isinstance(outcome, expected)
            if not isinstance(outcome, Snoozed):
                assert (type(raised).__name__, str(raised)) == (failure_of(outcome).type, failure_of(outcome).message)
    for task in both_ways(raise_(ExceptionGroup("two", [raised, raised]))):
        assert isinstance(await outcome_of(runner, task), Failed)


async def test_a_task_group_passes_on_what_one_of_its_tasks_asks_for(runner: Runner) -> None:
    async def check(item: int) -> None:
        if item == 2:
            raise Reject("item 2 was withdrawn")

    async def deliver() -> None:
        async with asyncio.TaskGroup() as group:
            for item in range(3):
                group.create_task(check(item))

    outcome = await outcome_of(runner, Task(deliver, app, name="t"))
    assert isinstance(outcome, Rejected)
    assert ("Reject", "item 2 was withdrawn") == (outcome.failure.type, outcome.failure.message)
    assert " in check" in outcome.failure.where


@pytest.mark.parametrize("returned", [Retry("busy"), Snooze(after=1), Reject("never"), Retry, Reject], ids=repr)
async def test_what_is_only_raised_must_not_be_returned(runner: Runner, returned: Any) -> None:
    """As RQ's jobs do; the job would count as done."""
    for task in both_ways(lambda: returned):
        outcome = await outcome_of(runner, task)
        assert isinstance(outcome, Failed)
        name = returned.__name__ if isinstance(returned, type) else type(returned).__name__
        assert f"TypeError: the handler returned {name}, which does nothing: raise it" == str(outcome.failure)


async def test_arguments_come_as_the_signature_says(runner: Runner) -> None:
    seen: list[object] = []

    @app.task(name="typed")
    async def typed(span: timedelta, /, count: int = 7, *rest: float, flag: bool = False) -> None:
        seen.extend([span, count, rest, flag])

    await outcome_of(runner, typed, timedelta(minutes=1))
    assert [timedelta(minutes=1), 7, (), False] == seen


async def test_arguments_that_do_not_fit_are_rejected(runner: Runner) -> None:
    @app.task(name="strict")
    async def strict(count: int) -> None:
        raise AssertionError

    outcome = await outcome_of(runner, strict, 1, args=["many"])
    assert isinstance(outcome, Rejected)
    assert failure_of(outcome).message.startswith("strict: count: Input should be a valid integer")


async def test_invalid_arguments_of_another_task_are_a_failure(runner: Runner) -> None:
    @app.task(name="inner")
    async def inner(count: int) -> None: ...

    @app.task(name="outer")
    async def outer() -> None:
        await inner.aenqueue("many")  # type: ignore[arg-type] # the point

    outcome = await outcome_of(runner, outer)
    assert isinstance(outcome, Failed)
    assert "InvalidArguments" == outcome.failure.type


class Validated(BaseModel):
    value: int

    @field_validator("value")
    @classmethod
    def check(cls, value: int, info: ValidationInfo) -> int:
        if value:
            raise KeyError("a bug in a validator")
        return value


async def test_a_validator_may_raise_anything(runner: Runner) -> None:
    @app.task(name="validated", state=Validated)
    async def validated(given: Validated) -> None: ...

    given = Validated(value=0)
    assert Succeeded() == await outcome_of(runner, validated, given)
    for changes in ({"args": [{"value": 1}]}, {"state": {"value": 1}}):
        outcome = await outcome_of(runner, validated, given, **changes)
        assert isinstance(outcome, Failed)
        assert "ValidatorFailed" == outcome.failure.type
        assert outcome.failure.message.endswith("a validator of its type raised KeyError")


async def test_a_saved_state_that_does_not_fit_is_rejected(runner: Runner) -> None:
    @app.task(name="stateful", state=int)
    async def stateful() -> None: ...

    outcome = await outcome_of(runner, stateful, state="many")
    assert isinstance(outcome, Rejected)
    assert "stateful: its saved state doesn't fit: state: Input should be a valid integer" in outcome.failure.message


async def test_the_traceback_begins_with_the_handler(runner: Runner) -> None:
    for task in both_ways(lambda: int("x")):
        failure = failure_of(await outcome_of(runner, task))
        assert "qworker/engine" not in failure.traceback
        assert 'int("x")' in failure.traceback
        assert failure.where.endswith(" in <lambda>")


# What a handler knows


async def test_the_context_is_passed_and_is_current(runner: Runner) -> None:
    seen: list[Context] = []

    @app.task(name="knows", timeout=60, state=int)
    async def knows(*, ctx: Context = INJECTED, other: Context | None = None) -> None:
        assert other is not None
        seen.extend([ctx, other, current()])
        assert 3 == INJECTED.attempt

    @app.task(name="knows too")
    def knows_too(*, ctx: Context = INJECTED) -> None:
        seen.extend([ctx, current()])

    runner.resources = {"pool": 7}
    before = utc_now()
    assert Succeeded() == await outcome_of(runner, knows, dequeue_count=4, releases=1, state=5, headers={"a": "b"})
    ctx = seen[0]
    assert [ctx] * 3 == seen
    assert ("j1", "knows", "work", 3, 5) == (ctx.job_id, ctx.task, ctx.queue, ctx.attempt, ctx.state)
    assert ({"a": "b"}, {"pool": 7}, False) == (ctx.headers, ctx.resources, ctx.lease_lost)
    assert ctx.deadline is not None
    assert timedelta(seconds=60) <= ctx.deadline - before < timedelta(seconds=70)
    assert ctx.enqueued_at is not None
    assert "<Context of knows j1, attempt 3>" == repr(ctx)
    seen.clear()
    assert Succeeded() == await outcome_of(runner, knows_too)
    assert seen[0] is seen[1]
    assert seen[0].deadline is None
    with pytest.raises(NoContext):
        current()


async def test_the_context_says_when_the_lease_is_lost(runner: Runner) -> None:
    seen: list[bool] = []

    @app.task(name="watches")
    async def watches(*, ctx: Context = INJECTED) -> None:
        seen.append(ctx.lease_lost)
        attempt.lease.deadline = 0
        seen.append(ctx.lease_lost)

    attempt = attempt_of(watches)
    await runner.prepare(attempt, save_nothing).outcome()
    assert [False, True] == seen


async def test_log_lines_of_a_handler_can_be_told_apart(runner: Runner) -> None:
    seen: list[dict[str, Any]] = []
    for task in both_ways(lambda: seen.append(dict(get_contextvars()))):
        await outcome_of(runner, task)
    names = [{"job": "j1", "task": name, "attempt": 1, "queue": "work"} for name in ("a", "t")]
    assert names == seen
    assert {} == get_contextvars()


async def test_checkpoints_from_the_loop_and_from_threads(runner: Runner) -> None:
    saved: list[object] = []

    async def save(state: object) -> None:
        await asyncio.sleep(0)
        saved.append((state, threading.current_thread() is threading.main_thread()))

    @app.task(name="on loop")
    async def on_loop(*, ctx: Context = INJECTED) -> None:
        await ctx.acheckpoint(1)
        assert 1 == ctx.state

    @app.task(name="in thread")
    def in_thread(*, ctx: Context = INJECTED) -> None:
        ctx.checkpoint(2)
        assert 2 == ctx.state
        asyncio.run(ctx.acheckpoint(3))
        assert 3 == ctx.state

    for task in (on_loop, in_thread):
        assert Succeeded() == await runner.prepare(attempt_of(task), save).outcome()
    assert [(1, True), (2, True), (3, True)] == saved


# Middleware


async def test_middleware_wraps_in_order(runner: Runner) -> None:
    seen: list[str] = []

    def named(name: str) -> Callable[[Context, CallNext], Any]:
        async def middleware(ctx: Context, call_next: Callable[[], Awaitable[Any]]) -> Any:
            assert ctx is current()
            seen.append(f"{name} before {ctx.task}")
            result = await call_next()
            seen.append(f"{name} after {result}")
            return result

        return middleware

    runner = Runner({}, concurrency=1, middleware=(named("one"), named("two")))
    for task in both_ways(lambda: "done", middleware=[named("own")]):
        seen.clear()
        assert Succeeded() == await outcome_of(runner, task)
        assert [f"{name} before {task.name}" for name in ("one", "two", "own")] == seen[:3]
        assert [f"{name} after done" for name in ("own", "two", "one")] == seen[3:]
    runner.close()


async def test_a_middleware_may_refuse_swallow_and_time_out(runner: Runner) -> None:
    async def refuse(ctx: Context, call_next: CallNext) -> None:
        raise Reject("not today")

    async def swallow(ctx: Context, call_next: CallNext) -> None:
        try:
            await call_next()
        except ValueError:
            return

    async def limit(ctx: Context, call_next: CallNext) -> None:
        async with asyncio.timeout(0.02):
            await call_next()

    for task in both_ways(raise_(AssertionError()), middleware=[refuse]):
        assert "not today" == failure_of(await outcome_of(runner, task)).message
    for task in both_ways(raise_(ValueError()), middleware=[swallow]):
        assert Succeeded() == await outcome_of(runner, task)
    [_, in_a_thread] = both_ways(spin, middleware=[limit])
    assert "TimeoutError" == failure_of(await outcome_of(runner, in_a_thread)).type
    assert Succeeded() == await outcome_of(runner, both_ways(lambda: None)[1])


# Stopping


def spin() -> None:
    while True:
        time.sleep(0.001)


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_timeout_ends_an_attempt(runner: Runner) -> None:
    for task in (Task(forever, app, name="a", timeout=0.02), Task(spin, app, name="t", timeout=0.02)):
        outcome = await outcome_of(runner, task)
        assert isinstance(outcome, Failed)
        assert "TimedOut" == outcome.failure.type
        assert "it took longer than its timeout of 0.02 s" == outcome.failure.message
        assert re.fullmatch(r"test_runner.py:\d+ in (forever|spin)", outcome.failure.where)


async def test_no_timeout_hits_the_next_job_of_the_thread(runner: Runner) -> None:
    def brief() -> None:
        time.sleep(0.001)

    task = Task(brief, app, name="brief", timeout=0.001)
    outcomes = [await outcome_of(runner, task) for _ in range(100)]
    assert {Failed, Succeeded} >= {type(outcome) for outcome in outcomes}
    assert Succeeded() == await outcome_of(runner, Task(brief, app, name="brief", timeout=5))


async def test_a_handler_that_succeeds_all_the_same_has_succeeded(runner: Runner) -> None:
    begun = asyncio.Event()

    async def stubborn() -> None:
        begun.set()
        try:
            await forever()
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    run, running = begin(runner, Task(stubborn, app, name="stubborn"))
    await begun.wait()
    run.stop(STOP)
    assert Succeeded() == await running
    assert 0 == running.cancelling()


async def test_a_handler_that_fails_when_stopped_was_stopped(runner: Runner) -> None:
    begun = asyncio.Event()

    async def clumsy() -> None:
        begun.set()
        try:
            await forever()
        finally:
            raise ValueError

    run, running = begin(runner, Task(clumsy, app, name="clumsy"))
    await begun.wait()
    run.stop(STOP)
    run.stop(Lost())
    assert STOP == await running
    assert 0 == running.cancelling()
    run.stop(Lost())


async def test_the_settling_is_not_cancelled_with_the_handler(runner: Runner) -> None:
    """A handler that swallowed its cancellation leaves none behind for what follows in the same asyncio task."""
    begun = asyncio.Event()

    async def stubborn() -> None:
        begun.set()
        try:
            await forever()
        except asyncio.CancelledError:
            return

    async def run_and_settle() -> int:
        await run.outcome()
        async with asyncio.timeout(1), asyncio.TaskGroup() as group:
            settling = group.create_task(asyncio.sleep(0.01, 7))
        return settling.result()

    run = runner.prepare(attempt_of(Task(stubborn, app, name="stubborn")), save_nothing)
    running = asyncio.create_task(run_and_settle())
    await begun.wait()
    run.stop(STOP)
    assert 7 == await running


async def test_a_handler_that_will_not_stop_is_told_again(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "NUDGE_EVERY", 0.01)
    tellings = 0
    begun = asyncio.Event()

    async def stubborn() -> None:
        nonlocal tellings
        while tellings < 3:
            try:
                begun.set()
                await forever()
            except asyncio.CancelledError:
                tellings += 1
        raise asyncio.CancelledError

    stuck: list[int] = []
    run, running = begin(runner, Task(stubborn, app, name="stubborn"))
    run.on_stuck = lambda: stuck.append(tellings)
    await begun.wait()
    run.stop(STOP)
    assert STOP == await running
    assert [1, 2] == stuck


async def test_a_thread_that_will_not_stop_is_told_again(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "NUDGE_EVERY", 0.05)
    begun, refused = threading.Event(), threading.Event()

    def stubborn() -> None:
        try:
            begun.set()
            spin()
        except Interrupt:
            refused.set()
            spin()

    run, running = begin(runner, Task(stubborn, app, name="stubborn"))
    await asyncio.to_thread(begun.wait)
    run.stop(STOP)
    assert STOP == await running
    assert refused.is_set()


async def test_a_thread_can_be_stopped_while_the_loop_is_blocked(runner: Runner) -> None:
    begun, ended = threading.Event(), threading.Event()

    def busy() -> None:
        begun.set()
        try:
            spin()
        finally:
            ended.set()

    run, running = begin(runner, Task(busy, app, name="busy"))
    await asyncio.to_thread(begun.wait)
    stopper = threading.Thread(target=run.stop_from_thread, args=(Lost(),))
    stopper.start()
    assert ended.wait(5), "the loop is blocked by this wait"
    stopper.join()
    assert Lost() == await running


async def test_a_thread_is_interrupted_once_by_a_lost_lease(runner: Runner) -> None:
    begun, caught, cleaned_up = threading.Event(), threading.Event(), threading.Event()
    interrupts: list[Interrupt] = []

    def cleans_up() -> None:
        try:
            begun.set()
            spin()
        except Interrupt as first:
            interrupts.append(first)
            caught.set()
            try:
                loop_has_turned.wait()
                for _ in range(1000):
                    time.sleep(0.0001)
            except Interrupt as second:
                interrupts.append(second)
        cleaned_up.set()

    loop_has_turned = threading.Event()
    run, running = begin(runner, Task(cleans_up, app, name="cleans up"))
    await asyncio.to_thread(begun.wait)
    run.stop_from_thread(Lost())
    assert caught.wait(5), "the loop is blocked by this wait"
    await until(lambda: run._nudge is not None)
    loop_has_turned.set()
    assert Succeeded() == await running, "as it swallowed the interrupt"
    assert (1, True) == (len(interrupts), cleaned_up.is_set())


async def test_a_coroutine_can_be_stopped_from_a_thread(runner: Runner) -> None:
    run, running = begin(runner, Task(forever, app, name="a"))
    await asyncio.sleep(0)
    await asyncio.to_thread(run.stop_from_thread, Lost())
    assert Lost() == await running


def test_stopping_from_a_thread_after_the_loop_is_closed_does_nothing() -> None:
    async def make() -> Run:
        runner = Runner({}, concurrency=1)
        runner.close()
        return runner.prepare(attempt_of(Task(forever, app, name="a")), save_nothing)

    asyncio.run(make()).stop_from_thread(Lost())


async def test_a_thread_that_has_not_begun_is_not_begun(runner: Runner) -> None:
    begun = threading.Event()
    first, first_running = begin(runner, Task(spin, app, name="first"))
    second, second_running = begin(runner, Task(begun.set, app, name="second"))
    await asyncio.sleep(0.01)
    second.stop(STOP)
    first.stop(STOP)
    assert [STOP, STOP] == list(await asyncio.gather(first_running, second_running))
    assert not begun.is_set()


async def test_a_stop_during_a_middleware_reaches_a_thread_that_comes_after(runner: Runner) -> None:
    begun, called = asyncio.Event(), threading.Event()

    async def swallow(ctx: Context, call_next: CallNext) -> None:
        begun.set()
        try:
            await forever()
        except asyncio.CancelledError:
            await call_next()

    run, running = begin(runner, Task(called.set, app, name="t", middleware=[swallow]))
    await begun.wait()
    run.stop(STOP)
    assert STOP == await running
    assert not called.is_set()


async def test_a_cancellation_that_is_not_the_workers_is_a_failed_attempt(runner: Runner) -> None:
    """It may be the handler's own, and would run hot for ever if it spent no attempt."""
    _, running = begin(runner, Task(forever, app, name="a"))
    await asyncio.sleep(0)
    running.cancel()
    outcome = await running
    assert isinstance(outcome, Failed)
    assert "asyncio.exceptions.CancelledError" == outcome.failure.type


async def hidden_coroutine() -> None:
    raise ValueError("it has run")


def hidden() -> Any:
    return hidden_coroutine()


def generator() -> Any:
    return (number for number in range(3))


async def test_a_coroutine_that_a_plain_function_returns_is_run(runner: Runner) -> None:
    _, running = begin(runner, Task(hidden, app, name="a"))
    outcome = await running
    assert isinstance(outcome, Failed)
    assert "it has run" == outcome.failure.message


async def test_a_generator_that_nobody_runs_has_not_succeeded(runner: Runner) -> None:
    _, running = begin(runner, Task(generator, app, name="a"))
    outcome = await running
    assert isinstance(outcome, Failed)
    assert "TypeError" == outcome.failure.type


async def test_says_which_asyncio_task_is_the_handlers(runner: Runner) -> None:
    run, running = begin(runner, Task(forever, app, name="a"))
    await asyncio.sleep(0)
    assert run.runs_in(running)
    assert not run.runs_in(asyncio.current_task())
    assert not run.runs_in(None)
    run.stop(STOP)
    await running


# In child processes


async def test_a_child_process_has_the_same_outcomes(runner: Runner) -> None:
    saved: list[object] = []

    async def save(state: object) -> None:
        saved.append(state)

    assert Succeeded() == await outcome_of(runner, in_child.add, 1, 2)
    assert "AssertionError" == failure_of(await outcome_of(runner, in_child.add, 2, 2)).type
    asked = await outcome_of(runner, in_child.ask, "retry")
    assert isinstance(asked, RetryAsked)
    assert 7 == asked.after
    assert isinstance(await outcome_of(runner, in_child.ask, "reject"), Rejected)
    assert Succeeded() == await runner.prepare(attempt_of(in_child.count_on, 2), save).outcome()
    assert [1, 2] == saved


@pytest.mark.parametrize(("releases", "longest"), [(0, 1), (1, 2), (5, 32), (500, 60)])
async def test_a_job_that_no_process_can_be_started_for_is_given_back(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, releases: int, longest: int
) -> None:
    """It rests the longer, the more often that was so."""

    def no_process(*_: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("qworker.engine.run.children._start", no_process)
    outcome = await outcome_of(runner, in_child.add, 1, 2, releases=releases)
    assert isinstance(outcome, Released)
    assert "no process can be started: Too many open files" == outcome.reason
    assert 0.8 * longest <= outcome.after <= longest


@pytest.mark.parametrize(("number", "how"), [(0, "exit code 7"), (signal.SIGKILL, "killed by SIGKILL")])
async def test_a_child_process_that_dies_is_one_failed_attempt(runner: Runner, number: int, how: str) -> None:
    outcome = await outcome_of(runner, in_child.die, number)
    assert isinstance(outcome, Failed)
    assert ("ChildDied", f"the process of its handler ended: {how}") == (outcome.failure.type, outcome.failure.message)


async def test_a_timeout_kills_the_child_process(runner: Runner, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    run, running = begin(runner, in_child.hang, str(file))
    await until(lambda: file.exists() and file.read_text().endswith("\n"))
    run.stop(STOP)
    assert STOP == await running
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


# What is not run at all, or not beside others


def test_who_has_to_be_alone() -> None:
    @app.task(name="thrice", max_attempts=3)
    async def thrice() -> None: ...

    @app.task(name="once", max_attempts=1)
    async def once() -> None: ...

    assert [False, False, True, True] == [attempt_of(thrice, dequeue_count=count).alone for count in (1, 2, 3, 4)]
    assert [False, False] == [attempt_of(thrice, dequeue_count=count, last=True).alone for count in (3, 4)]
    assert [False, True] == [attempt_of(thrice, dequeue_count=count, releases=5).alone for count in (7, 8)]
    assert [False, False] == [attempt_of(once, dequeue_count=count).alone for count in (1, 2)]


def test_what_is_refused() -> None:
    @app.task(name="tried", max_attempts=2)
    async def tried() -> None: ...

    runner = Runner({"tried": tried, "other": tried}, concurrency=1)
    assert runner.refuse(attempt_of(tried)) is None
    assert runner.refuse(attempt_of(tried, dequeue_count=2)) is None
    assert runner.refuse(attempt_of(tried, dequeue_count=5, releases=3)) is None
    assert Expired() == runner.refuse(attempt_of(tried, expires_at=utc_now() - timedelta(seconds=60)))
    assert runner.refuse(attempt_of(tried, expires_at=utc_now() + timedelta(seconds=60))) is None

    assert runner.refuse(attempt_of(tried, dequeue_count=9)) is None
    too_often = runner.refuse(attempt_of(tried, dequeue_count=3, last=True))
    assert too_often is not None
    assert "WorkerLost: it was delivered 2 times" == str(failure_of(too_often))[:36]

    unknown = attempt_of(tried)
    unknown.job, unknown.task = replace(unknown.job, task="no.such"), None
    outcome = runner.refuse(unknown)
    assert outcome is not None
    assert "unknown task 'no.such'; registered: other, tried" == failure_of(outcome).message
    assert isinstance(outcome, Unknown)
    assert 1 == outcome.deliveries

    late = attempt_of(tried, expires_at=utc_now() - timedelta(seconds=60))
    late.lease.deadline = 0
    assert Lost() == runner.refuse(late)
    runner.close()


@pytest.mark.parametrize(
    ("what", "seen"),
    [
        ("retry", "Retry: again"),
        ("reject", "Reject: never"),
        ("snooze", "Snooze: soon"),
        ("exit", "JobFailed: SystemExit: 3"),
    ],
)
async def test_middleware_sees_what_a_handler_raised_in_its_child(what: str, seen: str) -> None:
    raised: list[Exception] = []

    async def middleware(_: Context, call_next: CallNext) -> None:
        try:
            await call_next()
        except Exception as error:
            raised.append(error)
            raise

    runner = Runner({}, concurrency=1, middleware=(middleware,))
    outcome = await outcome_of(runner, in_child.ask, what)
    runner.close()
    assert [seen] == [f"{type(error).__name__}: {error}" for error in raised]
    assert Snoozed(3, "soon") == outcome or "in_child.py" in failure_of(outcome).where, "as the child tells it"


async def test_middleware_may_answer_for_a_child_that_failed() -> None:
    async def middleware(_: Context, call_next: CallNext) -> None:
        try:
            await call_next()
        except Reject as error:
            raise Retry("after all", after=1) from error

    runner = Runner({}, concurrency=1, middleware=(middleware,))
    outcome = await outcome_of(runner, in_child.ask, "reject")
    runner.close()
    assert isinstance(outcome, RetryAsked)
    assert (1, "after all") == (outcome.after, outcome.failure.message)
