import asyncio
import contextlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from doubles import ScriptedBroker, ScriptedQueue, message
from idle import arun_until_idle
from qworker import INJECTED, App, Backoff, Context, Job, Reject, Snooze, current
from qworker.brokers.base import MAX_BODY_BYTES
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.engine import worker as worker_module
from qworker.engine.worker import Worker
from qworker.errors import AccessDenied, BrokerBusy, BrokerRefused, BrokerUnusable, QueueNotFound
from qworker.errors import LeaseLost as LostLease
from qworker.events import (
    Event,
    JobExpired,
    JobPoisoned,
    JobReleased,
    JobRetried,
    JobSnoozed,
    JobStarted,
    JobStuck,
    JobSucceeded,
    LeaseLost,
    LoopBlocked,
    MessagePoisoned,
    PollFailed,
    PollRecovered,
    RenewalFailed,
    RightMissing,
    SettleFailed,
    TaskUnknown,
    WorkerStarted,
    WorkerStopped,
    WorkerStopping,
)
from qworker.poison.record import PoisonRecord, decode_poison
from qworker.testing import EventRecorder, FakeClock
from qworker.wire.envelope import decode, encode
from qworker.wire.notes import Notes, with_notes
from waiting import until


async def poisoned(broker: SqliteBroker, queue: str = "default") -> list[PoisonRecord]:
    return [decode_poison(found.body) for found in await broker.queue(f"{queue}-poison").peek(32)]


# What becomes of a message


async def test_success_deletes(app: App, broker: SqliteBroker) -> None:
    done: list[int] = []

    @app.task(name="ok")
    async def ok(number: int) -> None:
        done.append(number)

    jobs = await ok.aenqueue_many([(number,) for number in range(100)])
    happened = await arun_until_idle(app)
    assert list(range(100)) == sorted(done)
    assert {job.id for job in jobs} == {event.job.id for event in happened.of(JobSucceeded)}
    assert 0 == await broker.queue("default").count()


async def test_a_failed_attempt_reappears_as_the_same_message(app: App, broker: SqliteBroker, clock: FakeClock) -> None:
    attempts: list[int] = []

    @app.task(name="flaky", backoff=Backoff(base=7, jitter=0))
    async def flaky(*, ctx: Context = INJECTED) -> None:
        attempts.append(ctx.attempt)
        if ctx.attempt < 3:
            raise ValueError("not yet")

    job = await flaky.aenqueue()
    [before] = await broker.queue("default").peek()
    for after in (7, 14):
        happened = await arun_until_idle(app)
        [retried] = happened.of(JobRetried)
        assert (job.id, after, "not yet") == (retried.job.id, retried.after, retried.failure.message)
        clock.advance(after - 1)
        assert [] == await broker.queue("default").peek()
        clock.advance(1)
        [found] = await broker.queue("default").peek()
        assert (before.id, before.body) == (found.id, found.body)
    happened = await arun_until_idle(app)
    assert [3] == [event.attempt for event in happened.of(JobSucceeded)]
    assert [1, 2, 3] == attempts


async def test_a_job_that_never_succeeds_is_poisoned_with_its_reason(app: App, broker: SqliteBroker) -> None:
    @app.task(name="hopeless", max_attempts=3, backoff=Backoff(base=0))
    async def hopeless(text: str) -> None:
        raise ValueError("still no")

    await hopeless.aenqueue("with\x00odd")
    [sent] = await broker.queue("default").peek()
    happened = await arun_until_idle(app)
    assert 2 == len(happened.of(JobRetried))
    [event] = happened.of(JobPoisoned)
    assert ("default-poison", 3) == (event.poison_queue, event.attempt)
    [record] = await poisoned(broker)
    assert (sent.body, "default", 3) == (record.body, record.queue, record.attempts)
    assert ("ValueError", "still no") == (record.failure.type, record.failure.message)
    assert "raise ValueError" in record.failure.traceback
    assert 0 == await broker.queue("default").count()


async def test_a_rejected_job_is_poisoned_at_once(app: App, broker: SqliteBroker) -> None:
    @app.task(name="no")
    async def no() -> None:
        raise Reject("it makes no sense")

    await no.aenqueue()
    happened = await arun_until_idle(app)
    assert [1] == [event.attempt for event in happened.of(JobPoisoned)]
    assert ["it makes no sense"] == [record.failure.message for record in await poisoned(broker)]


async def test_a_snooze_costs_no_attempt(app: App, clock: FakeClock) -> None:
    attempts: list[int] = []

    @app.task(name="later", max_attempts=1)
    async def later() -> None:
        attempts.append(current().attempt)
        if len(attempts) < 5:
            raise Snooze("wait", after=60)

    await later.aenqueue()
    for _ in range(4):
        happened = await arun_until_idle(app)
        assert [(60, "wait")] == [(event.after, event.reason) for event in happened.of(JobSnoozed)]
        assert [] == (await arun_until_idle(app)).of(JobStarted)
        clock.advance(60)
    assert 1 == len((await arun_until_idle(app)).of(JobSucceeded))
    assert [1] * 5 == attempts


async def test_an_expired_job_is_deleted_unrun(app: App, broker: SqliteBroker) -> None:
    @app.task(name="stale")
    async def stale() -> None:
        raise AssertionError

    old = '{"task":"stale","expires_at":"2020-01-01T00:00:00Z"}'
    await broker.queue("default").put(old)
    happened = await arun_until_idle(app)
    assert 1 == len(happened.of(JobExpired))
    assert [] == happened.of(JobStarted)
    assert 0 == await broker.queue("default").count()


BAD = [
    "%%%",
    "//4=",
    "not json",
    "[]",
    "{}",
    '{"v":9,"task":"ok"}',
    '{"task":"ok","args":[NaN]}',
    '{"task":"ok","args":["\\ud800"]}',
    '{"task":"ok","enqueued_at":"0001-01-01T00:00:00+14:00"}',
    "[" * 50_000,
]


async def test_undecodable_messages_disturb_no_neighbour(app: App, broker: SqliteBroker) -> None:
    done: list[int] = []

    @app.task(name="ok")
    async def ok(number: int) -> None:
        done.append(number)

    queue = broker.queue("default")
    for number in range(22):
        await ok.aenqueue(number)
        if number < len(BAD):
            await queue.put(BAD[number])
    happened = await arun_until_idle(app, concurrency=32)
    assert list(range(22)) == sorted(done)
    assert 22 == len(happened.of(JobSucceeded))
    assert [1] * len(BAD) == [event.dequeue_count for event in happened.of(MessagePoisoned)]
    records = await poisoned(broker)
    assert sorted(BAD) == sorted(record.body for record in records)
    assert {"InvalidEnvelope"} == {record.failure.type for record in records}
    assert 0 == await queue.count()


@pytest.mark.parametrize("arguments", ['["many"]', "[]", "[1,2]", '["\\u0000"]'])
async def test_arguments_that_do_not_fit_are_poisoned_on_first_delivery(
    app: App, broker: SqliteBroker, arguments: str
) -> None:
    @app.task(name="typed")
    async def typed(number: int) -> None:
        raise AssertionError

    body = f'{{"task":"typed","args":{arguments}}}'
    await broker.queue("default").put(body)
    happened = await arun_until_idle(app)
    assert [1] == [event.attempt for event in happened.of(JobPoisoned)]
    assert [(body, "InvalidArguments")] == [(each.body, each.failure.type) for each in await poisoned(broker)]


async def test_an_unknown_task_reappears_until_its_deliveries_run_out(
    app: App, broker: SqliteBroker, clock: FakeClock
) -> None:
    """That takes hours, so that another app's worker, or a newer one, has its turn; no attempt is spent meanwhile."""
    await broker.queue("default").put('{"task":"os.system","args":["true"]}')
    waited = 0
    for delivery in range(1, 100):
        [unknown] = (await arun_until_idle(app, queues="default")).of(TaskUnknown)
        assert (delivery, 1) == (unknown.deliveries, unknown.attempt)
        assert "UnknownTask: unknown task 'os.system'; registered: none" == str(unknown.failure)
        full = min(1.2 ** (delivery - 1), 600)
        assert 0.8 * full <= unknown.after < full + 1
        waited += unknown.after
        clock.advance(unknown.after)
    assert 9 * 3600 < waited < 12 * 3600
    assert 1 == len((await arun_until_idle(app, queues="default")).of(JobPoisoned))
    assert ["UnknownTask"] == [record.failure.type for record in await poisoned(broker)]


async def test_a_job_that_others_did_not_know_has_all_its_attempts(
    app: App, broker: SqliteBroker, clock: FakeClock
) -> None:
    """Two apps share a queue: each gives the other's jobs back, more often than these have attempts."""
    other = App(broker=broker)
    runs: list[int] = []

    @app.task(name="flaky", max_attempts=2)
    async def flaky(*, ctx: Context = INJECTED) -> None:
        runs.append(ctx.attempt)
        raise ValueError

    await flaky.aenqueue()
    for _ in range(7):
        assert 1 == len((await arun_until_idle(other, queues="default")).of(TaskUnknown))
        clock.advance(600)
    await arun_until_idle(app, queues="default")
    clock.advance(600)
    for _ in range(7):
        assert 1 == len((await arun_until_idle(other, queues="default")).of(TaskUnknown))
        clock.advance(600)
    await arun_until_idle(app, queues="default")
    assert [1, 2] == runs
    [record] = await poisoned(broker)
    assert ("ValueError", 2) == (record.failure.type, record.attempts)


async def test_jobs_of_a_bundle_that_others_did_not_know_have_all_their_attempts(
    app: App, broker: SqliteBroker, clock: FakeClock
) -> None:
    other = App(broker=broker)
    runs: list[tuple[int, int]] = []

    @app.task(name="bundled", bundle=10, max_attempts=2)
    async def bundled(number: int, *, ctx: Context = INJECTED) -> None:
        runs.append((number, ctx.attempt))

    await bundled.aenqueue_many([(1,), (2,)])
    for delivery in range(1, 6):  # the second is the first of the jobs' own messages
        unknown = (await arun_until_idle(other, queues="default")).of(TaskUnknown)
        assert [(max(delivery - 1, 1), 1)] * 2 == [(event.deliveries, event.attempt) for event in unknown]
        clock.advance(600)
    await arun_until_idle(app, queues="default")
    assert [(1, 1), (2, 1)] == sorted(runs)


async def test_a_job_without_room_for_a_note_is_given_up_in_the_end(
    app: App, broker: SqliteBroker, clock: FakeClock
) -> None:
    least = len(encode(Job("j1", "nobody's", [""])))
    await broker.queue("default").put(encode(Job("j1", "nobody's", ["x" * (MAX_BODY_BYTES - least)])))
    rests = []
    while unknown := (await arun_until_idle(app, queues="default")).of(TaskUnknown):
        rests.append([event.after for event in unknown])
        clock.advance(600)
    assert 99 == len(rests)
    assert 1 == await broker.queue("default-poison").count()


async def test_a_job_that_kills_its_worker_is_poisoned_before_running(
    app: App, broker: SqliteBroker, clock: FakeClock
) -> None:
    begun: list[int] = []

    @app.task(name="killer", max_attempts=2)
    async def killer(*, ctx: Context = INJECTED) -> None:
        begun.append(ctx.attempt)

    queue = broker.queue("default")
    await queue.put(encode(Job("j1", "killer")))
    for _ in range(2):  # received, and never settled
        [received] = await queue.get(visibility=1)
        body = with_notes(received.body, received.id, Notes(last=True))
        await queue.update(received.id, received.receipt, visibility=1, body=body)
        clock.advance(1)
    happened = await arun_until_idle(app)
    assert [] == begun
    [event] = happened.of(JobPoisoned)
    assert (3, "WorkerLost") == (event.attempt, event.failure.type)


# A last attempt with which workers were lost


def noted(job: Job, message_id: str) -> str:
    """The body of a message as workers have left it."""
    return with_notes(encode(job), message_id, Notes(job.releases, job.begun, job.last, job.given_up))


def delivered(*deliveries: tuple[Job, int]) -> ScriptedBroker:
    """A broker whose queue has these jobs, as they are delivered for the so many-th time."""
    broker = ScriptedBroker()
    messages = [
        message(noted(job, f"m{number}"), number=number, dequeue_count=count)
        for number, (job, count) in enumerate(deliveries)
    ]
    broker.queue("default").will("get", messages)
    return broker


async def test_it_is_alone(recorder: EventRecorder) -> None:
    """Whatever ends the worker then, it was this job; and its message says that it has begun."""
    under_way: set[str] = set()
    beside: defaultdict[str, set[str]] = defaultdict(set)

    alone = [(Job(f"alone-{number}", "suspect"), 3 + number // 2) for number in range(4)]
    others = [(Job(f"fresh-{number}", "suspect"), 1 + number % 2) for number in range(4)]
    others.append((Job("failed", "suspect", last=True), 3))
    broker = delivered(*others, *alone)
    app = App(broker=broker)

    @app.task(name="suspect", max_attempts=3)
    async def suspect(*, ctx: Context = INJECTED) -> None:
        under_way.add(ctx.job_id)
        await asyncio.sleep(0.01)
        for job in under_way:
            beside[job] |= under_way
        under_way.discard(ctx.job_id)

    happened = await arun_until_idle(app)
    assert 9 == len(happened.of(JobSucceeded))
    ids = {job.id for job, _ in alone}
    assert {job: {job} for job in ids} == {job: beside[job] for job in ids}
    assert {job.id for job, _ in others} == beside["failed"]
    assert ids == {event.job.id for event in happened.of(JobStarted) if event.alone}
    notes = [decode(body, message_id=name) for name, *_, body in broker.queue("default").called("update")]
    assert ids == {job.id for job in notes if job.last}


async def test_it_is_not_begun_twice_without_room_for_its_note() -> None:
    room = MAX_BODY_BYTES - len(encode(Job("j1", "large", [""])))
    app = App(broker=delivered(*((Job(f"j{count}", "large", ["x" * room]), count) for count in (2, 3))))

    @app.task(name="large", max_attempts=2)
    async def large(text: str) -> None: ...

    happened = await arun_until_idle(app)
    assert ["j2"] == [event.job.id for event in happened.of(JobSucceeded)]
    assert [("j3", "WorkerLost")] == [(event.job.id, event.failure.type) for event in happened.of(JobPoisoned)]


@pytest.mark.parametrize(("error", "kind"), [(LostLease("m1"), LeaseLost), (BrokerRefused("no"), JobReleased)])
async def test_it_does_not_begin_if_that_could_not_be_noted(error: Exception, kind: type[Event]) -> None:
    broker = delivered((Job("j1", "suspect"), 2))
    broker.queue("default").will("update", error)
    app = App(broker=broker)

    @app.task(name="suspect", max_attempts=2)
    async def suspect() -> None:
        raise AssertionError

    happened = await arun_until_idle(app)
    assert [] == happened.of(JobStarted)
    assert 1 == len(happened.of(kind))


async def test_it_will_be_alone_again_if_it_is_given_back() -> None:
    broker = delivered((Job("alone", "suspect"), 2), (Job("failed", "suspect", last=True), 2))
    app = App(broker=broker)

    @app.task(name="suspect", max_attempts=2)
    async def suspect() -> None:
        raise Snooze(after=60)

    assert 2 == len((await arun_until_idle(app)).of(JobSnoozed))
    updates = [(name, body) for name, _, after, body in broker.queue("default").called("update") if after == 60]
    assert {"alone": False, "failed": True} == {
        job.id: job.last for job in (decode(body, message_id=name) for name, body in updates)
    }


async def test_no_messages_are_fetched_while_it_is_alone() -> None:
    broker = delivered((Job("j1", "suspect"), 2))
    queue = broker.queue("default")
    app = App(broker=broker)
    gets: list[int] = []

    @app.task(name="suspect", max_attempts=2)
    async def suspect() -> None:
        gets.append(len(queue.called("get")))
        await asyncio.sleep(0.1)
        gets.append(len(queue.called("get")))

    await arun_until_idle(app)
    assert gets[0] == gets[1] < len(queue.called("get"))


async def test_a_checkpoint_is_there_in_the_next_attempt(app: App, clock: FakeClock) -> None:
    states: list[Any] = []

    @app.task(name="long")
    def long(*, ctx: Context = INJECTED) -> None:
        states.append(ctx.state)
        if ctx.attempt == 1:
            ctx.checkpoint({"page": 3})
            raise ValueError

    await long.aenqueue()
    await arun_until_idle(app)
    clock.advance(60)
    await arun_until_idle(app)
    assert [None, {"page": 3}] == states


async def test_the_poison_queue_refuses(app: App, broker: SqliteBroker, clock: FakeClock) -> None:
    """The original is kept, and reappears; other jobs flow."""

    @app.task(name="no")
    async def no() -> None:
        raise Reject("no")

    @app.task(name="ok")
    async def ok() -> None: ...

    await no.aenqueue()
    await ok.aenqueue()
    refusing = Refusing(broker, {"default-poison"})
    app.use_broker(refusing)
    happened = await arun_until_idle(app)
    [failed] = happened.of(SettleFailed)
    assert ("no", "poison") == (failed.job.task, failed.action)
    assert "403 (the job had failed: Reject: no)" == failed.reason
    assert ["ok"] == [event.job.task for event in happened.of(JobSucceeded)]
    assert 1 == await broker.queue("default").count()
    app.use_broker(broker)
    clock.advance(60)
    assert 1 == len((await arun_until_idle(app)).of(JobPoisoned))


async def test_an_undecodable_message_that_can_not_be_moved_is_kept(app: App, broker: SqliteBroker) -> None:
    await broker.queue("default").put("not json")
    app.use_broker(Refusing(broker, {"default-poison"}))
    [failed] = (await arun_until_idle(app, queues="default")).of(SettleFailed)
    assert ("unknown", "poison", 1) == (failed.job.task, failed.action, failed.attempt)
    assert 1 == await broker.queue("default").count()


class Refusing(SqliteBroker):
    """Another broker whose puts to some queues are refused."""

    def __init__(self, broker: SqliteBroker, queues: set[str]) -> None:
        self.__dict__ = dict(broker.__dict__)
        self._refused = queues

    def queue(self, name: str) -> Any:
        queue = super().queue(name)
        if name in self._refused:
            queue.put = refuse  # type: ignore[method-assign] # a fault
        return queue


async def refuse(*_: Any, **__: Any) -> str:
    raise AccessDenied("403")


# Stopping


async def test_what_was_not_started_is_released_and_no_attempt_spent(
    app: App, broker: SqliteBroker, recorder: EventRecorder
) -> None:
    go = asyncio.Event()

    @app.task(name="slow")
    async def slow() -> None:
        await go.wait()

    await slow.aenqueue_many([()] * 5)
    async with app.worker(concurrency=1, listeners=[recorder]) as worker:
        await recorder.wait_for(JobStarted)
        got = await broker.queue("default").get(32, visibility=60)
        assert 4 == len(got)
        worker._deliver(broker.queue("default"), got, time.monotonic())
        worker.request_stop("test")
        go.set()
    assert [1] * 4 == [event.attempt for event in recorder.of(JobReleased)]
    again = await broker.queue("default").get(32, visibility=60)
    assert [(2, 1)] * 4 == [(each.dequeue_count, decode(each.body, message_id=each.id).releases) for each in again]
    assert 1 == len(recorder.of(JobSucceeded))


async def test_an_undecodable_message_is_poisoned_even_when_stopping(
    app: App, broker: SqliteBroker, recorder: EventRecorder
) -> None:
    await broker.queue("default").put("not json")
    got = await broker.queue("default").get(visibility=60)
    async with app.worker(queues="default", listeners=[recorder]) as worker:
        worker.request_stop("test")
        worker._deliver(broker.queue("default"), got, time.monotonic())
    assert 1 == len(recorder.of(MessagePoisoned))
    assert 1 == len(await poisoned(broker))


async def test_running_jobs_may_end_within_the_grace(app: App, recorder: EventRecorder) -> None:
    go = asyncio.Event()

    @app.task(name="slow")
    async def slow() -> None:
        await go.wait()

    await slow.aenqueue()

    async def let_go() -> None:
        stopping = await recorder.wait_for(WorkerStopping)
        assert (1, 25.0, "the program that runs it") == (stopping.running, stopping.grace, stopping.reason)
        go.set()

    letting_go = asyncio.create_task(let_go())
    async with app.worker(listeners=[recorder]):
        await recorder.wait_for(JobStarted)
    await letting_go
    [stopped] = recorder.of(WorkerStopped)
    assert (1, 0, 0) == (stopped.succeeded, stopped.failed, stopped.released)
    assert 1 == len(recorder.of(JobSucceeded))


async def test_what_outlasts_the_grace_is_cancelled_and_released(
    app: App, broker: SqliteBroker, recorder: EventRecorder
) -> None:
    cleaned_up: list[str] = []
    begun = threading.Event()

    @app.task(name="async")
    async def on_the_loop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.append("async")

    @app.task(name="thread")
    def in_a_thread() -> None:
        begun.set()
        try:
            while True:
                time.sleep(0.001)
        finally:
            cleaned_up.append("thread")

    await on_the_loop.aenqueue()
    await in_a_thread.aenqueue()
    async with app.worker(listeners=[recorder], grace=0.05):
        await recorder.wait_for(JobStarted, where=lambda event: event.job.task == "async")
        await asyncio.to_thread(begun.wait)
    assert ["async", "thread"] == sorted(cleaned_up)
    assert ["its worker stopped"] * 2 == [event.reason for event in recorder.of(JobReleased)]
    again = await broker.queue("default").get(32, visibility=60)
    assert [1, 1] == [each.dequeue_count - decode(each.body, message_id=each.id).releases for each in again]


async def test_a_second_request_ends_the_grace(app: App, recorder: EventRecorder) -> None:
    @app.task(name="endless")
    async def endless() -> None:
        await asyncio.Event().wait()

    await endless.aenqueue()
    began = time.monotonic()
    async with app.worker(listeners=[recorder], grace=60) as worker:
        await recorder.wait_for(JobStarted)
        worker.request_stop("one")
        worker.request_stop("two")
        assert "one" == worker.stop_reason
    assert time.monotonic() - began < 10
    assert 1 == len(recorder.of(JobReleased))


async def test_a_handler_that_will_not_end_is_reported_and_left(
    app: App, broker: SqliteBroker, recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_LAST_MOMENTS", 0.05)
    go = asyncio.Event()

    @app.task(name="stuck")
    async def stuck() -> None:
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()
        raise asyncio.CancelledError

    await stuck.aenqueue()
    async with app.worker(listeners=[recorder], grace=0.01):
        await recorder.wait_for(JobStarted)
    [event] = recorder.of(JobStuck)
    assert "stuck" == event.job.task
    assert 0 < event.seconds < 10
    assert 1 == await broker.queue("default").count()
    go.set()
    await recorder.wait_for(JobReleased)


async def test_takes_nothing_more_from_the_request_on(app: App, broker: SqliteBroker, recorder: EventRecorder) -> None:
    @app.task(name="ok")
    async def ok() -> None: ...

    async with app.worker(listeners=[recorder]) as worker:
        worker.request_stop("test")
        await ok.aenqueue()
        await asyncio.sleep(0.2)  # several times the longest pause between polls
        [found] = await broker.queue("default").peek()
        assert 0 == found.dequeue_count
    assert [] == recorder.of(JobReleased)


async def test_stops_after_so_many_jobs(app: App, broker: SqliteBroker) -> None:
    @app.task(name="ok")
    async def ok() -> None: ...

    await ok.aenqueue_many([()] * 10)
    recorder = EventRecorder()
    async with app.worker(listeners=[recorder], max_jobs=3) as worker:
        await asyncio.wait_for(worker.stop_requested(), 10)
        assert "it has started 3 jobs" == worker.stop_reason
    assert 3 == len(recorder.of(JobSucceeded))
    assert 7 == await broker.queue("default").count()
    left = await broker.queue("default").peek(32)
    assert [0] * 7 == [message.dequeue_count for message in left]


# Leases


async def test_a_long_job_keeps_its_lease(app: App, broker: SqliteBroker, recorder: EventRecorder) -> None:
    runs: list[int] = []

    @app.task(name="long")
    async def long() -> None:
        runs.append(1)
        time.sleep(2.5)  # noqa: ASYNC251 — it blocks the loop longer than a lease lasts

    app.use_broker(SqliteBroker(None))
    await long.aenqueue()
    happened = await arun_until_idle(app, lease=2)
    assert [1] == runs
    assert 1 == len(happened.of(JobSucceeded))
    [blocked, *_] = happened.of(LoopBlocked)
    assert blocked.job is not None
    assert "long" == blocked.job.task
    assert blocked.where.endswith(" in long")
    await app.aclose()


async def test_a_lost_lease_cancels_the_handler_and_touches_nothing(
    app: App, broker: SqliteBroker, recorder: EventRecorder
) -> None:
    seen: list[bool] = []

    @app.task(name="endless")
    async def endless(*, ctx: Context = INJECTED) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(ctx.lease_lost)

    await endless.aenqueue()
    queue = broker.queue("default")
    async with app.worker(listeners=[recorder], lease=2):
        await recorder.wait_for(JobStarted)
        await queue.clear()
        await queue.put(encode(Job("other", "endless")), delay=60)
        await recorder.wait_for(LeaseLost)
    assert [True] == seen
    assert 1 == await queue.count()
    assert [] == recorder.of(JobReleased)


async def test_a_lease_that_ends_while_it_is_settled_is_told(app: App, broker: SqliteBroker) -> None:
    @app.task(name="loses")
    async def loses() -> None:
        await broker.queue("default").clear()
        raise ValueError

    await loses.aenqueue()
    happened = await arun_until_idle(app)
    assert 1 == len(happened.of(LeaseLost))
    assert [] == happened.of(JobRetried)


async def test_a_settlement_that_fails_is_told(app: App) -> None:
    @app.task(name="ok")
    async def ok() -> None: ...

    scripted = ScriptedBroker()
    scripted.queue("default").will("get", [message('{"task":"ok"}')])
    scripted.queue("default").will("delete", RuntimeError())
    app.use_broker(scripted)
    happened = await arun_until_idle(app)
    [failed] = happened.of(SettleFailed)
    assert ("delete", "RuntimeError") == (failed.action, failed.reason)


# The worker around


async def test_lifespan_surrounds_the_jobs(broker: SqliteBroker) -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[Mapping[str, Any]]:
        steps.append("opened")
        yield {"pool": 7}
        steps.append("closed")

    app = App(broker=broker, lifespan=lifespan)

    @app.task(name="uses")
    async def uses() -> None:
        steps.append(f"used {current().resources['pool']}")

    await uses.aenqueue()
    await arun_until_idle(app)
    assert ["opened", "used 7", "closed"] == steps


async def test_a_lifespan_may_yield_nothing(broker: SqliteBroker) -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield

    app = App(broker=broker, lifespan=lifespan)

    @app.task(name="looks")
    async def looks() -> None:
        assert {} == current().resources

    await looks.aenqueue()
    assert 1 == len((await arun_until_idle(app)).of(JobSucceeded))


async def test_a_lifespan_that_fails_is_the_callers_to_know(broker: SqliteBroker) -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        if not connected:
            raise ConnectionError("no database")
        yield

    connected = False

    with pytest.raises(ConnectionError, match="no database"):
        async with App(broker=broker, lifespan=lifespan).worker(queues="default"):
            raise AssertionError


async def test_a_stop_asked_for_during_start_up(broker: SqliteBroker, recorder: EventRecorder) -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        worker.request_stop("early")
        yield

    app = App(broker=broker, lifespan=lifespan, listeners=[recorder])
    from qworker.settings import Settings

    worker = app.make_worker(Settings(queues={"default": 1}))
    async with asyncio.timeout(5), worker:
        await worker.stop_requested()
    assert "early" == recorder.of(WorkerStopping)[0].reason


async def test_creates_missing_queues_and_says_what_it_does(recorder: EventRecorder) -> None:
    broker = SqliteBroker(None)
    app = App(broker=broker)

    @app.task(name="one", queue="first")
    async def one() -> None: ...

    async with app.worker(listeners=[recorder], concurrency=3, lease=7):
        assert ["first", "first-poison"] == await broker.list_queues()
    [started] = recorder.of(WorkerStarted)
    assert (("first",), 1, 3, 7) == (started.queues, started.tasks, started.concurrency, started.lease)
    assert "sqlite:// (in memory)" == started.broker
    await broker.aclose()


async def test_without_tasks_it_polls_the_default_queue(app: App, recorder: EventRecorder) -> None:
    async with app.worker(listeners=[recorder]):
        pass
    assert ("default",) == recorder.of(WorkerStarted)[0].queues


async def test_a_worker_without_the_right_to_create_queues_goes_on(recorder: EventRecorder) -> None:
    broker = ScriptedBroker()
    broker.create_answers.extend([AccessDenied("403"), BrokerBusy("503")])
    async with App(broker=broker).worker(listeners=[recorder]):
        pass
    assert 1 == len(recorder.of(WorkerStopped))


@pytest.mark.parametrize("error", [BrokerUnusable("corrupt"), RuntimeError("a bug")])
async def test_a_worker_does_not_start_on_a_broker_it_can_not_use(error: Exception) -> None:
    broker = ScriptedBroker()
    broker.create_answers.append(error)
    with pytest.raises(type(error)):
        async with App(broker=broker).worker():
            raise AssertionError


async def test_a_broker_that_fails_does_not_end_a_worker(app: App, recorder: EventRecorder) -> None:
    @app.task(name="ok")
    async def ok() -> None: ...

    scripted = ScriptedBroker()
    scripted.queue("default").will("get", BrokerBusy("503"), RuntimeError("a bug"), [message('{"task":"ok"}')])
    app.use_broker(scripted)
    async with app.worker(listeners=[recorder]):
        await recorder.wait_for(JobSucceeded)
    assert ["503", "RuntimeError: a bug"] == [event.reason for event in recorder.of(PollFailed)]


async def test_a_file_that_stays_unusable_ends_a_worker_when_its_jobs_have_ended(
    app: App, recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_UNUSABLE_FOR", 0.5)

    @app.task(name="long")
    async def long() -> None:
        await broken.wait()

    broken = asyncio.Event()
    scripted = ScriptedBroker()
    scripted.queue("default").will("get", [message('{"task":"long"}')], *[BrokerUnusable("corrupt")] * 10)
    app.use_broker(scripted)

    async def work() -> None:
        async with app.worker(listeners=[recorder], queues="default") as worker:
            await worker.stop_requested()
            assert [] == recorder.of(JobSucceeded)
            broken.set()

    with pytest.raises(BrokerUnusable, match="corrupt"):
        await work()
    assert ("corrupt", 1) == (recorder.of(WorkerStopping)[0].reason, len(recorder.of(JobSucceeded)))
    assert 1 < len(recorder.of(PollFailed)) < 10


async def test_a_file_that_is_unusable_for_a_moment_does_not_end_a_worker(
    app: App, recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_UNUSABLE_FOR", 0.1)

    @app.task(name="ok")
    async def ok() -> None: ...

    unusable = BrokerUnusable("unable to open database file")
    scripted = ScriptedBroker()
    scripted.queue("default").will("get", unusable, [], unusable, [message('{"task":"ok"}')])
    app.use_broker(scripted)
    async with app.worker(listeners=[recorder]):
        await recorder.wait_for(JobSucceeded)
    assert [True, True] == [event.unusable for event in recorder.of(PollFailed)]


async def test_why_a_program_fails_is_not_hidden_by_an_unusable_file(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_UNUSABLE_FOR", 0.0)
    scripted = ScriptedBroker()
    scripted.queue("default").will("get", BrokerUnusable("corrupt"))
    app.use_broker(scripted)

    async def work() -> None:
        async with app.worker() as worker:
            await worker.stop_requested()
            raise LookupError

    with pytest.raises(LookupError):
        await work()


async def test_a_right_that_will_be_missed_is_told_of_once_and_stops_nothing(app: App, recorder: EventRecorder) -> None:
    @app.task(name="ok")
    async def ok() -> None: ...

    scripted = ScriptedBroker()
    scripted.queue("default").will("check_right", AccessDenied("no update"), BrokerBusy("503"))
    scripted.queue("default-poison").will("check_right", AccessDenied("no put"))
    scripted.queue("default").will("get", [], [message('{"task":"ok"}')])
    app.use_broker(scripted)
    async with app.worker(listeners=[recorder]):
        await recorder.wait_for(JobSucceeded)
        await until(lambda: len(recorder.of(RightMissing)) == 2)
    assert [("default", "update", "no update"), ("default-poison", "put", "no put")] == [
        (event.queue, event.right, event.reason) for event in recorder.of(RightMissing)
    ]
    assert [["update"], ["delete"]] == scripted.queue("default").called("check_right")


async def test_the_right_to_renew_is_asked_for_as_renewals_are(app: App, recorder: EventRecorder) -> None:
    """The first renewal then finds an open connection, however short the lease."""
    threads: list[str] = []

    async def note() -> None:
        threads.append(threading.current_thread().name)

    scripted = ScriptedBroker()
    scripted.queue("default").will("check_right", note, note)
    app.use_broker(scripted)
    async with app.worker(listeners=[recorder]):
        await until(lambda: len(threads) == 2)
    assert ["qworker-lease-keeper", threading.current_thread().name] == threads


async def test_a_check_that_is_not_answered_holds_up_nothing(app: App, recorder: EventRecorder) -> None:
    @app.task(name="ok")
    async def ok() -> None: ...

    scripted = ScriptedBroker()
    scripted.queue("default").will("check_right", asyncio.Event().wait)
    scripted.queue("default").will("get", [message('{"task":"ok"}')])
    app.use_broker(scripted)
    async with asyncio.timeout(10), app.worker(listeners=[recorder]):
        await recorder.wait_for(JobSucceeded)
    assert 1 == len(recorder.of(WorkerStopped))


async def test_a_renewal_that_is_denied_is_told_of(app: App, recorder: EventRecorder) -> None:
    @app.task(name="long")
    async def long() -> None:
        await told.wait()

    told = asyncio.Event()
    scripted = ScriptedBroker()
    scripted.queue("default").will("get", [message('{"task":"long"}')])
    scripted.queue("default").will("update", AccessDenied("403"))
    app.use_broker(scripted)
    async with app.worker(listeners=[recorder], lease=3):
        failed = await recorder.wait_for(RenewalFailed)
        told.set()
        await recorder.wait_for(JobSucceeded)
    assert ("default", "m1", "403", True) == (failed.queue, failed.message_id, failed.reason, failed.denied)


class Denying(ScriptedQueue):
    """Denies everything while it is told to."""

    def __init__(self, name: str, asked: list[str]) -> None:
        super().__init__(name)
        self.granted = True
        self._asked = asked

    async def _answer(self, method: str, *arguments: Any, otherwise: Any) -> Any:
        self._asked.append(method)
        if not self.granted:
            raise AccessDenied("403")
        return await super()._answer(method, *arguments, otherwise=otherwise)


async def test_while_all_is_denied_queues_and_jobs_share_a_pause(
    app: App, recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qworker.engine.guard.access._PAUSE", 0.5)
    monkeypatch.setattr("qworker.engine.guard.access._TURN", 0.1)

    @app.task(name="long")
    async def long() -> None:
        await recovered.wait()

    recovered, asked = asyncio.Event(), list[str]()
    scripted = ScriptedBroker()
    queues = [Denying(name, asked) for name in ("one", "one-poison", "two", "two-poison")]
    scripted.queues = {queue.name: queue for queue in queues}
    for name in ("one", "two"):
        scripted.queue(name).will("get", [message('{"task":"long"}')])
    app.use_broker(scripted)
    async with app.worker(listeners=[recorder], queues="one,two", lease=6, poll_max=0.02) as worker:
        await until(lambda: {"one", "two"} == {event.queue for event in recorder.of(JobStarted)})
        for queue in queues:
            queue.granted = False
        await asyncio.sleep(2.5)
        asked.clear()
        began = time.monotonic()
        await asyncio.sleep(2.5)
        assert 2 <= len(asked) <= (time.monotonic() - began) / 0.5 + 1
        for queue in queues:
            queue.granted = True
        await until(lambda: {"one", "two"} == {event.queue for event in recorder.of(PollRecovered)})
        recovered.set()
        await until(lambda: len(recorder.of(JobSucceeded)) == 2)
        assert worker.failure is None
    assert [] == recorder.of(LeaseLost)


async def test_a_job_that_ends_while_all_is_denied_is_settled_once_it_is_not(
    app: App, recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qworker.engine.guard.access._PAUSE", 0.2)

    @app.task(name="ok")
    async def ok() -> None:
        queue.granted = False

    asked: list[str] = []
    scripted = ScriptedBroker()
    queue = scripted.queues["default"] = Denying("default", asked)
    queue.will("get", [message('{"task":"ok"}')])
    app.use_broker(scripted)
    async with app.worker(listeners=[recorder]):
        await until(lambda: asked.count("delete") >= 2)
        queue.granted = True
        await recorder.wait_for(JobSucceeded)
    assert [] == recorder.of(SettleFailed)


@pytest.mark.parametrize("refusal", [AccessDenied("403"), QueueNotFound("first")])
async def test_a_burst_ends_where_a_queue_can_not_be_polled(
    recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch, refusal: AccessDenied | QueueNotFound
) -> None:
    monkeypatch.setattr("qworker.engine.guard.access._PAUSE", 0.2)
    done: list[int] = []
    scripted = ScriptedBroker()
    app = App(broker=scripted)

    @app.task(name="ok")
    async def ok() -> None:
        done.append(1)

    scripted.queue("first").will("get", *[refusal] * 100)
    scripted.queue("second").will("get", [message('{"task":"ok"}')])
    async with asyncio.timeout(30), app.worker(listeners=[recorder], burst=True, queues="first,second") as worker:
        await worker.stop_requested()
    assert [1] == done
    assert str(refusal) == worker.failure == worker.stop_reason
    with pytest.raises(AssertionError, match=str(refusal)):
        await arun_until_idle(app, queues="first")


async def test_a_worker_that_is_no_burst_has_not_failed(app: App, recorder: EventRecorder) -> None:
    scripted = ScriptedBroker()
    scripted.queue("default").will("get", QueueNotFound("default"))
    app.use_broker(scripted)
    async with app.worker(listeners=[recorder]) as worker:
        assert (await recorder.wait_for(PollFailed)).lasting
        assert worker.failure is None
        await recorder.wait_for(PollRecovered)


async def test_a_stop_that_is_cancelled_leaves_nothing_running(app: App, recorder: EventRecorder) -> None:
    @app.task(name="endless")
    async def endless() -> None:
        await asyncio.Event().wait()

    async def work() -> Worker:
        async with app.worker(listeners=[recorder], grace=60) as worker:
            workers.append(worker)
            await recorder.wait_for(JobStarted)
        raise AssertionError

    workers: list[Worker] = []
    await endless.aenqueue()
    working = asyncio.create_task(work())
    await recorder.wait_for(WorkerStopping)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    [worker] = workers
    assert not worker._keeper._thread.is_alive()
    assert worker._runner._threads._shutdown
    assert ["default"] == [event.queue for event in recorder.of(JobReleased)]


async def test_a_job_given_up_while_its_poison_queue_refuses_keeps_its_reason_and_is_not_run_again(
    app: App, broker: SqliteBroker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []

    @app.task(name="no")
    async def no() -> None:
        runs.append(1)
        raise Reject("it makes no sense")

    async def refuse(*_: object, **__: object) -> None:
        raise AccessDenied("403")

    await no.aenqueue()
    [sent] = await broker.queue("default").peek()
    with monkeypatch.context() as patch:
        patch.setattr("qworker.engine.guard.access.GuardedQueue.put", refuse)
        happened = await arun_until_idle(app)
        assert ["poison"] == [event.action for event in happened.of(SettleFailed)]
        clock.advance(60)
        await arun_until_idle(app)
        clock.advance(60)
    happened = await arun_until_idle(app)
    assert ["it makes no sense"] == [event.failure.message for event in happened.of(JobPoisoned)]
    [record] = await poisoned(broker)
    assert (sent.body, "Reject", "it makes no sense") == (record.body, record.failure.type, record.failure.message)
    assert [1] == runs


async def test_a_listener_that_fails_costs_no_job(app: App, caplog: pytest.LogCaptureFixture) -> None:
    @app.task(name="ok")
    async def ok() -> None: ...

    def listener(event: Event) -> None:
        raise ValueError("a bug in a listener")

    recorder = EventRecorder()
    await ok.aenqueue()
    with caplog.at_level(logging.ERROR, "qworker"):
        async with app.worker(listeners=[listener, recorder]):
            await recorder.wait_for(JobSucceeded)
    assert "a listener failed on WorkerStarted" in caplog.messages


async def test_a_fetcher_that_ends_stops_the_worker(
    app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("qworker.engine.get.fetcher.Fetcher.run", broken)
    with caplog.at_level(logging.CRITICAL, "qworker"):
        async with app.worker() as worker:
            await asyncio.wait_for(worker.stop_requested(), 5)
    assert "its fetcher ended" == worker.stop_reason
    assert ["the fetcher ended, which is a bug in qworker"] == caplog.messages


async def test_no_more_jobs_run_at_once_than_there_are_slots(app: App) -> None:
    running = most = 0

    @app.task(name="counts")
    async def counts() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    await counts.aenqueue_many([()] * 50)
    happened = await arun_until_idle(app, concurrency=3)
    assert (50, 3) == (len(happened.of(JobSucceeded)), most)


async def test_an_asyncio_task_of_no_job_has_none(app: App) -> None:
    async with app.worker() as worker:
        assert worker._pipeline.job_of(asyncio.current_task()) is None
        assert worker._pipeline.job_of(None) is None
