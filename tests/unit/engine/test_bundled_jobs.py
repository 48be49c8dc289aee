"""Jobs that share a message: each is run and settled by itself, and the message once for all."""

import asyncio
import contextlib
import json
import time
from datetime import timedelta

import pytest

from doubles import ScriptedBroker, ScriptedQueue, message
from idle import arun_until_idle
from qworker import INJECTED, App, Backoff, Context, Job, Reject, Retry, Snooze
from qworker.brokers.base import PeekedMessage
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.engine.settle import persist as persist_module
from qworker.engine.settle import poisoner as poisoner_module
from qworker.errors import BrokerRefused, MessageTooLarge
from qworker.errors import LeaseLost as LostLease
from qworker.events import (
    BundleSplit,
    JobExpired,
    JobPoisoned,
    JobReleased,
    JobRetried,
    JobSnoozed,
    JobSucceeded,
    LeaseLost,
    MessagePoisoned,
    SettleFailed,
)
from qworker.job import Reason, utc_now
from qworker.poison.record import PoisonRecord, decode_poison
from qworker.poison.replay import replay
from qworker.testing import EventRecorder, FakeClock
from qworker.wire.bundle import TASK, bundled, contents_of
from qworker.wire.envelope import decode, encode
from waiting import until


async def poisoned(broker: SqliteBroker) -> list[PoisonRecord]:
    return [decode_poison(found.body) for found in await broker.queue("default-poison").peek(32)]


async def left_in(broker: SqliteBroker) -> list[PeekedMessage]:
    return await broker.queue("default").peek(32)


async def test_many_jobs_take_one_message(app: App, broker: SqliteBroker) -> None:
    done: list[int] = []

    @app.task(name="ok", bundle=100)
    async def ok(number: int) -> None:
        done.append(number)

    jobs = await ok.aenqueue_many([(number,) for number in range(250)])
    assert 3 == await broker.queue("default").count()
    happened = await arun_until_idle(app)
    assert list(range(250)) == sorted(done)
    assert {job.id for job in jobs} == {event.job.id for event in happened.of(JobSucceeded)}
    assert {1} == {event.attempt for event in happened.of(JobSucceeded)}
    assert 0 == await broker.queue("default").count()


async def test_only_enqueue_many_bundles_and_using_has_the_last_word(app: App, broker: SqliteBroker) -> None:
    @app.task(name="ok", bundle=100)
    async def ok() -> None: ...

    await ok.aenqueue()
    await ok.using(bundle=1).aenqueue_many([()] * 3)
    assert 4 == await broker.queue("default").count()
    await ok.using(bundle=2).aenqueue_many([()] * 3)
    assert 6 == await broker.queue("default").count()


async def test_plain_functions_and_base64(broker: SqliteBroker) -> None:
    app, done = App(broker=broker, encoding="base64"), list[int]()

    @app.task(name="plain", bundle=10)
    def plain(number: int) -> None:
        done.append(number)

    await plain.aenqueue_many([(number,) for number in range(20)])
    await arun_until_idle(app)
    assert list(range(20)) == sorted(done)


async def test_a_failed_job_has_a_message_of_its_own_from_then_on(
    app: App, broker: SqliteBroker, clock: FakeClock
) -> None:
    attempts: list[tuple[int, int]] = []

    @app.task(name="flaky", bundle=10, max_attempts=3, backoff=Backoff(base=7, factor=1, jitter=0))
    async def flaky(number: int, *, ctx: Context = INJECTED) -> None:
        attempts.append((number, ctx.attempt))
        if number == 3:
            raise ValueError("no")

    jobs = await flaky.aenqueue_many([(number,) for number in range(5)])
    happened = await arun_until_idle(app)
    [retried] = happened.of(JobRetried)
    assert (jobs[3].id, 1, 7) == (retried.job.id, retried.attempt, retried.after)
    assert 4 == len(happened.of(JobSucceeded))
    assert (1, []) == (await broker.queue("default").count(), await left_in(broker))
    clock.advance(7)
    [alone] = await left_in(broker)
    assert (jobs[3].id, 1, False) == ((job := decode(alone.body, message_id="m")).id, job.attempts, job.last)
    assert [2] == [event.attempt for event in (await arun_until_idle(app)).of(JobRetried)]
    clock.advance(7)
    [given_up] = (await arun_until_idle(app)).of(JobPoisoned)
    assert (jobs[3].id, 3) == (given_up.job.id, given_up.attempt)
    assert [(3, 1), (3, 2), (3, 3)] == [each for each in attempts if each[0] == 3]
    assert [3] == [record.attempts for record in await poisoned(broker)]
    assert 0 == await broker.queue("default").count()


async def test_a_retry_before_the_last_attempt_says_so(app: App, broker: SqliteBroker, clock: FakeClock) -> None:
    @app.task(name="twice", bundle=10, max_attempts=2, backoff=Backoff(base=0))
    async def twice() -> None:
        raise Retry(after=3)

    await twice.aenqueue_many([()] * 2)
    await arun_until_idle(app)
    clock.advance(3)
    assert [True, True] == [decode(found.body, message_id="m").last for found in await left_in(broker)]


async def test_a_rejected_job_is_given_up_alone_and_can_be_replayed(app: App, broker: SqliteBroker) -> None:
    refusing = True

    @app.task(name="picky", bundle=10)
    async def picky(number: int) -> None:
        if number == 1 and refusing:
            raise Reject("never")

    jobs = await picky.aenqueue_many([(number,) for number in range(3)])
    happened = await arun_until_idle(app)
    assert [jobs[1].id] == [event.job.id for event in happened.of(JobPoisoned)]
    assert 2 == len(happened.of(JobSucceeded))
    [record] = await poisoned(broker)
    assert (jobs[1].id, "picky", 1) == (record.job_id, record.task, record.attempts)
    refusing = False
    assert 1 == await replay(broker, "default")
    assert [1] == [event.attempt for event in (await arun_until_idle(app)).of(JobSucceeded)]


async def test_bad_members_are_given_up_alone(app: App, broker: SqliteBroker) -> None:
    @app.task(name="ok")
    async def ok(number: int) -> None: ...

    good = encode(Job("j1", "ok", [1]))
    bad = ['{"id":"j2","task":"ok","args":["x"]}', '{"id":"j3"}', "7", '{"id":"j4","task":"ok","args":[1],"v":2}']
    await broker.queue("default").put(bundled([*bad, good], "text"))
    happened = await arun_until_idle(app)
    assert ["j1"] == [event.job.id for event in happened.of(JobSucceeded)]
    assert ["j2"] == [event.job.id for event in happened.of(JobPoisoned)]
    reasons = sorted(event.failure.message for event in happened.of(MessagePoisoned))
    assert ["'task' is missing", "it is a JSON int in a bundle, not an object"] == reasons[:2]
    assert "version is 2" in reasons[2]
    assert sorted(["7", *(json.dumps(json.loads(each), separators=(",", ":")) for each in bad if each != "7")]) == (
        sorted(record.body for record in await poisoned(broker))
    )
    assert 0 == await broker.queue("default").count()


async def test_a_bundle_that_is_none_is_given_up_whole(app: App, broker: SqliteBroker) -> None:
    await broker.queue("default").put(f'{{"task":"{TASK}"}}')
    [given_up] = (await arun_until_idle(app)).of(MessagePoisoned)
    assert "'jobs' must be an array" == given_up.failure.message


async def test_a_bundle_of_junk_is_given_up_once(app: App, broker: SqliteBroker) -> None:
    junk = f'{{"task":"{TASK}","jobs":[{",".join(["1"] * 32_000)}]}}'
    await broker.queue("default").put(junk)
    [given_up] = (await arun_until_idle(app)).of(MessagePoisoned)
    assert "it has 32000 jobs, the limit is 1024" == given_up.failure.message
    [record] = await poisoned(broker)
    assert (junk, 1, None) == (record.body, record.attempts, record.job_id)
    assert 0 == await broker.queue("default").count()


async def test_a_bundle_that_says_it_was_released_often_is_split_at_its_second_delivery(
    app: App, broker: SqliteBroker, clock: FakeClock
) -> None:
    """Its jobs would be run again and again, and with each crash of a worker no attempt be spent."""

    @app.task(name="ok")
    async def ok() -> None: ...

    await broker.queue("default").put(f'{{"task":"{TASK}","releases":1000000,"jobs":[{{"task":"ok"}}]}}')
    await broker.queue("default").get(visibility=1)
    clock.advance(1)
    happened = await arun_until_idle(app)
    assert [1] == [event.jobs for event in happened.of(BundleSplit)]


async def test_the_ttl_of_a_job_that_ends_in_thousands_of_years_is_its_own_business(
    app: App, broker: SqliteBroker
) -> None:
    """No broker takes it as a message's, and the job has to get a message of its own all the same."""

    @app.task(name="failing")
    async def failing() -> None:
        raise Retry(after=60)

    end = "9999-12-31T23:59:59Z"
    await broker.queue("default").put(f'{{"task":"{TASK}","jobs":[{{"task":"failing","expires_at":"{end}"}}]}}')
    happened = await arun_until_idle(app)
    assert 1 == len(happened.of(JobRetried))
    assert [] == happened.of(SettleFailed)
    assert 1 == await broker.queue("default").count()


async def test_an_empty_bundle_is_deleted(app: App, broker: SqliteBroker) -> None:
    await broker.queue("default").put(f'{{"task":"{TASK}","jobs":[]}}')
    assert [0] == [event.jobs for event in (await arun_until_idle(app)).of(BundleSplit)]
    assert 0 == await broker.queue("default").count()


async def test_a_snoozed_job_comes_back_alone_and_spends_no_attempt(
    app: App, broker: SqliteBroker, clock: FakeClock
) -> None:
    seen: list[int] = []

    @app.task(name="early", bundle=10)
    async def early(number: int, *, ctx: Context = INJECTED) -> None:
        seen.append(ctx.attempt)
        if number == 0 and len(seen) <= 2:
            raise Snooze(after=5)

    await early.aenqueue_many([(0,), (1,)])
    assert 1 == len((await arun_until_idle(app)).of(JobSnoozed))
    clock.advance(5)
    assert 1 == len((await arun_until_idle(app)).of(JobSucceeded))
    assert [1, 1, 1] == seen


async def test_what_expired_is_not_run(app: App, broker: SqliteBroker) -> None:
    @app.task(name="ok", bundle=10)
    async def ok() -> None: ...

    past = Job("j1", "ok", expires_at=utc_now() - timedelta(hours=1))
    await broker.queue("default").put(bundled([encode(past), encode(Job("j2", "ok"))], "text"))
    happened = await arun_until_idle(app)
    assert ["j1"] == [event.job.id for event in happened.of(JobExpired)]
    assert ["j2"] == [event.job.id for event in happened.of(JobSucceeded)]


async def test_a_retry_keeps_its_time_to_live(app: App, broker: SqliteBroker, clock: FakeClock) -> None:
    @app.task(name="flaky", bundle=10, backoff=Backoff(base=5, jitter=0))
    async def flaky() -> None:
        raise ValueError

    await flaky.using(ttl=3600).aenqueue_many([()] * 2)
    await arun_until_idle(app)
    clock.advance(5)
    left = [decode(found.body, message_id="m") for found in await left_in(broker)]
    assert [(3600, 1)] * 2 == [(job.ttl, job.attempts) for job in left]


# What comes back


async def test_a_bundle_that_comes_back_is_split(app: App, broker: SqliteBroker, clock: FakeClock) -> None:
    """One of its jobs may have ended the worker: together, all would go to the poison queue with it."""
    attempts: list[int] = []

    @app.task(name="ok", bundle=100)
    async def ok(*, ctx: Context = INJECTED) -> None:
        attempts.append(ctx.attempt)

    jobs = await ok.aenqueue_many([()] * 50)
    await broker.queue("default").get(visibility=30)  # by a worker that died
    clock.advance(30)
    happened = await arun_until_idle(app)
    [split] = happened.of(BundleSplit)
    assert (50, 2, "default") == (split.jobs, split.dequeue_count, split.queue)
    assert [] == attempts, "none of them runs before the bundle is gone"
    assert 50 == await broker.queue("default").count()
    clock.advance(2)
    happened = await arun_until_idle(app)
    assert {job.id for job in jobs} == {event.job.id for event in happened.of(JobSucceeded)}
    assert [2] * 50 == attempts
    assert 0 == await broker.queue("default").count()


async def test_a_stopped_worker_gives_back_what_is_left(
    app: App, broker: SqliteBroker, recorder: EventRecorder
) -> None:
    seen: list[tuple[int, int]] = []

    @app.task(name="slow", bundle=100)
    async def slow(number: int, *, ctx: Context = INJECTED) -> None:
        seen.append((number, ctx.attempt))
        if number == 3 and len(seen) < 5:
            await asyncio.Event().wait()

    await slow.aenqueue_many([(number,) for number in range(10)])
    async with app.worker(listeners=[recorder], concurrency=1, grace=0):
        await until(lambda: len(seen) == 4)
    assert 3 == len(recorder.of(JobSucceeded))
    assert 7 == len(recorder.of(JobReleased))
    [left] = await left_in(broker)
    contents = contents_of(left.body, message_id=left.id)
    assert contents is not None
    assert (7, 1) == (len(contents.members), contents.releases)
    happened = await arun_until_idle(app)
    assert [] == happened.of(BundleSplit)
    assert [(number, 1) for number in range(3, 10)] == sorted(seen[4:])


async def test_a_stopped_worker_gives_back_a_bundle_that_was_to_be_split(
    app: App, broker: SqliteBroker, clock: FakeClock, recorder: EventRecorder
) -> None:
    @app.task(name="ok", bundle=100)
    async def ok() -> None: ...

    @app.task(name="endless")
    async def endless() -> None:
        await asyncio.Event().wait()

    await ok.aenqueue_many([()] * 3)
    await broker.queue("default").get(visibility=30)
    clock.advance(30)
    await broker.queue("default").put(encode(Job("j", "endless")))
    async with app.worker(listeners=[recorder], concurrency=1, grace=0, max_jobs=1):
        await until(lambda: recorder.of(JobReleased) or recorder.of(BundleSplit))
    assert await broker.queue("default").count()


async def test_a_checkpoint_is_kept_in_the_bundle(app: App, broker: SqliteBroker) -> None:
    states: list[object] = []
    stopping = asyncio.Event()

    @app.task(name="paged", bundle=10)
    async def paged(number: int, *, ctx: Context = INJECTED) -> None:
        states.append(ctx.state)
        if ctx.state is None:
            await ctx.acheckpoint({"page": number})
            stopping.set()
            await asyncio.Event().wait()

    await paged.aenqueue_many([(number,) for number in range(3)])
    async with app.worker(concurrency=3, grace=0):
        await until(lambda: len(states) == 3)
        await asyncio.sleep(0.05)
    await arun_until_idle(app)
    assert [{"page": 0}, {"page": 1}, {"page": 2}] == sorted(states[3:], key=str)


async def test_a_checkpoint_that_does_not_fit_is_refused_and_all_else_goes_on(app: App, broker: SqliteBroker) -> None:
    refused: list[MessageTooLarge] = []

    @app.task(name="large", bundle=10)
    async def large(text: str, *, ctx: Context = INJECTED) -> None:
        try:
            await ctx.acheckpoint("y" * 60_000)
        except MessageTooLarge as error:
            refused.append(error)

    await large.aenqueue_many([("x" * 10_000,)] * 2)
    assert 2 == len((await arun_until_idle(app)).of(JobSucceeded))
    assert refused


# With a broker that does what it is told


def scripted(*jobs: Job, dequeue_count: int = 1) -> tuple[App, ScriptedBroker, ScriptedQueue]:
    broker = ScriptedBroker()
    queue = broker.queue("default")
    queue.will("get", [message(bundled([encode(job) for job in jobs], "text"), dequeue_count=dequeue_count)])
    return App(broker=broker), broker, queue


async def test_one_get_and_one_delete_for_all(recorder: EventRecorder) -> None:
    app, _, queue = scripted(*(Job(f"j{number}", "ok") for number in range(100)))

    @app.task(name="ok")
    async def ok() -> None: ...

    async with app.worker(listeners=[recorder]):
        await until(lambda: queue.called("delete"))
    assert 100 == len(recorder.of(JobSucceeded))
    assert [["m1", "r1"]] == queue.called("delete")
    assert [] == queue.called("update") + queue.called("put")


async def test_a_renewal_writes_what_is_left(recorder: EventRecorder) -> None:
    app, _, queue = scripted(Job("j0", "quick"), Job("j1", "slow"), Job("j2", "slow"))
    go = asyncio.Event()

    @app.task(name="quick")
    async def quick() -> None: ...

    @app.task(name="slow")
    async def slow() -> None:
        await go.wait()

    async with app.worker(listeners=[recorder], lease=2):
        await until(lambda: len(queue.called("update")) > 1)
        go.set()
        await until(lambda: queue.called("delete"))
    for id_, _, visibility, body in queue.called("update"):
        contents = contents_of(body, message_id="m1")
        assert contents is not None
        assert ("m1", 2, ["j1", "j2"]) == (id_, visibility, [member.said["id"] for member in contents.members])
    assert 1 == len(queue.called("delete"))


async def test_a_renewal_writes_nothing_while_nothing_is_settled() -> None:
    app, _, queue = scripted(Job("j1", "slow"), Job("j2", "slow"))

    @app.task(name="slow")
    async def slow() -> None:
        await until(lambda: queue.called("update"))

    async with app.worker(lease=2):
        await until(lambda: queue.called("delete"))
    assert [None] == [body for *_, body in queue.called("update")]


async def test_a_lost_lease_stops_all_of_its_handlers_and_touches_nothing(recorder: EventRecorder) -> None:
    app, _, queue = scripted(Job("j0", "quick"), Job("j1", "slow"), Job("j2", "slow"))
    queue.will("update", LostLease("m1"))

    @app.task(name="quick")
    async def quick() -> None: ...

    @app.task(name="slow")
    async def slow() -> None:
        await asyncio.Event().wait()

    async with app.worker(listeners=[recorder], lease=2):
        await until(lambda: len(recorder.of(LeaseLost)) == 2)
    assert {"j1", "j2"} == {event.job.id for event in recorder.of(LeaseLost)}
    assert [] == queue.called("delete") + queue.called("put")
    assert 1 == len(queue.called("update"))


async def test_what_ends_after_the_lease_was_lost_has_not_succeeded(recorder: EventRecorder) -> None:
    app, _, queue = scripted(Job("j1", "stubborn"), Job("j2", "failing"))
    queue.will("update", LostLease("m1"))

    @app.task(name="stubborn")
    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    @app.task(name="failing")
    async def failing() -> None:
        await asyncio.Event().wait()

    async with app.worker(listeners=[recorder], lease=2):
        await until(lambda: len(recorder.of(LeaseLost)) == 2)
    assert [] == recorder.of(JobSucceeded)
    assert [] == queue.called("delete") + queue.called("put")


async def test_a_bundle_that_can_not_be_deleted_is_told_of_once(recorder: EventRecorder) -> None:
    app, _, queue = scripted(Job("j1", "ok"), Job("j2", "ok"))
    queue.will("delete", BrokerRefused("400"))

    @app.task(name="ok")
    async def ok() -> None: ...

    async with app.worker(listeners=[recorder]):
        failed = await recorder.wait_for(SettleFailed)
    assert (TASK, "delete") == (failed.job.task, failed.action)
    assert 2 == len(recorder.of(JobSucceeded))


async def test_a_retry_that_can_not_be_put_stays_in_the_bundle(recorder: EventRecorder) -> None:
    app, _, queue = scripted(Job("j1", "ok"), Job("j2", "bad"))
    queue.will("put", BrokerRefused("400"))

    @app.task(name="ok")
    async def ok() -> None: ...

    @app.task(name="bad")
    async def bad() -> None:
        raise ValueError

    async with app.worker(listeners=[recorder], lease=30):
        await until(lambda: queue.called("update"))
    [failed] = recorder.of(SettleFailed)
    assert ("j2", "reappear") == (failed.job.id, failed.action)
    [[_, _, after, body]] = queue.called("update")
    contents = contents_of(body, message_id="m1")
    assert contents is not None
    assert (30, ["j2"], 0) == (after, [member.said["id"] for member in contents.members], contents.releases)
    assert [] == queue.called("delete")


async def test_a_job_whose_poison_queue_does_not_take_it_comes_back_with_its_reason(
    recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poisoner_module, "_TRIES", 0.01)
    app, broker, queue = scripted(Job("j1", "bad"), Job("j2", "ok"))
    broker.queue("default-poison").will("put", BrokerRefused("400"))

    @app.task(name="ok")
    async def ok() -> None: ...

    @app.task(name="bad")
    async def bad() -> None:
        raise Reject("never")

    async with app.worker(listeners=[recorder], lease=30):
        await until(lambda: queue.called("delete"))
    [[body, delay, ttl]] = queue.called("put")
    job = decode(body, message_id="m")
    assert (30, None, "j1") == (delay, ttl, job.id)
    assert job.given_up is not None
    assert Reason("GivenUp", "so its message says; because of Reject: never") == job.given_up
    assert ["j1"] == [event.job.id for event in recorder.of(SettleFailed)]


async def test_a_split_that_fails_keeps_the_rest(recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persist_module, "_PAUSES", (0.001,))
    app, _, queue = scripted(*(Job(f"j{number}", "ok") for number in range(3)), dequeue_count=2)
    queue.will("put", "p1", BrokerRefused("400"), "p2")

    @app.task(name="ok")
    async def ok() -> None: ...

    async with app.worker(listeners=[recorder], lease=30):
        failed = await recorder.wait_for(SettleFailed)
    assert (TASK, "split") == (failed.job.task, failed.action)
    [[_, _, after, body]] = queue.called("update")
    contents = contents_of(body, message_id="m1")
    assert contents is not None
    assert 30 == after
    assert "j1" in [member.said["id"] for member in contents.members]
    assert [] == queue.called("delete")


async def test_jobs_of_a_bundle_run_at_the_same_time(recorder: EventRecorder) -> None:
    app, _, queue = scripted(*(Job(f"j{number}", "rest") for number in range(16)))
    running, most = 0, 0

    @app.task(name="rest")
    async def rest() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    began = time.monotonic()
    async with app.worker(listeners=[recorder], concurrency=4):
        await until(lambda: queue.called("delete"))
    assert 4 == most
    assert time.monotonic() - began < 10
