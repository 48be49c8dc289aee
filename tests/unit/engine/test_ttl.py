"""A ttl says until when a job is worth starting, by the broker's clock; once begun, it ends however late it is."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles import ScriptedQueue, message
from idle import arun_until_idle
from qworker import INJECTED, App, Backoff, Context, Job, Snooze
from qworker.brokers.base import MAX_TTL
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.clock import SYSTEM_CLOCK
from qworker.engine.attempt import Attempt, Received
from qworker.engine.lease.lease import Lease
from qworker.engine.run import runner as runner_module
from qworker.events import JobExpired, JobPoisoned, JobReleased, JobSnoozed, JobStarted, JobSucceeded
from qworker.poison.replay import replay
from qworker.poison.sweep import Pass, Progress
from qworker.produce import producer as producer_module
from qworker.testing import EventRecorder, FakeClock
from qworker.wire.bundle import bundled
from qworker.wire.envelope import decode, encode

HOUR = timedelta(hours=1)


async def queued(broker: SqliteBroker) -> list[Job]:
    return [decode(seen.body, message_id=seen.id) for seen in await broker.queue("default").peek(32)]


async def receive_and_die(broker: SqliteBroker, clock: FakeClock, times: int) -> None:
    """Lease what is there for a second, as workers do that are killed."""
    for _ in range(times):
        await broker.queue("default").get(32, visibility=1)
        clock.advance(1)


# Whatever the clocks of producers and workers say, and for whatever time


@pytest.mark.parametrize("behind", [timedelta(0), 10 * timedelta(minutes=1), -HOUR, 400 * 24 * HOUR])
async def test_a_producers_clock_does_not_matter(
    app: App, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, behind: timedelta
) -> None:
    @app.task(name="ok")
    async def ok() -> None: ...

    monkeypatch.setattr(producer_module, "utc_now", lambda: datetime.now(UTC) - behind)
    job = await ok.using(ttl=300).aenqueue()
    clock.advance(300)
    assert [job.id] == [event.job.id for event in (await arun_until_idle(app)).of(JobSucceeded)]
    late = await ok.using(ttl=300).aenqueue()
    clock.advance(301)
    assert [late.id] == [event.job.id for event in (await arun_until_idle(app)).of(JobExpired)]


async def test_no_broker_ends_a_job_by_its_ttl(app: App, broker: SqliteBroker) -> None:
    @app.task(name="ok")
    async def ok() -> None: ...

    await ok.using(ttl=timedelta(days=30)).aenqueue()
    [seen] = await broker.queue("default").peek()
    assert seen.expires_at is None
    assert 30 * 86_400 == decode(seen.body, message_id="m").ttl


async def test_the_longest_ttl_there_is(app: App, clock: FakeClock) -> None:
    @app.task(name="ok")
    async def ok() -> None: ...

    await ok.using(ttl=MAX_TTL).aenqueue()
    clock.advance(MAX_TTL)
    assert 1 == len((await arun_until_idle(app)).of(JobSucceeded))


async def test_another_programs_moment_is_judged_by_the_brokers_clock(
    app: App, broker: SqliteBroker, clock: FakeClock
) -> None:
    @app.task(name="ok")
    async def ok() -> None: ...

    await ok.aenqueue()  # makes the queue
    end = datetime.fromtimestamp(clock.time(), UTC) + HOUR
    for job_id in ("in time", "late"):
        await broker.queue("default").put(encode(Job(job_id, "ok", expires_at=end)))
        happened = await arun_until_idle(app)
        assert (job_id == "late") == bool(happened.of(JobExpired))
        clock.advance(3601)


def attempt_of(job: Job, *, age: timedelta, waited: float, dequeue_count: int = 1) -> Attempt:
    found = message(encode(job), dequeue_count=dequeue_count)
    found = replace(found, received_at=found.inserted_at + age)
    lease = Lease(ScriptedQueue(), found, length=60, began=time.monotonic())
    received = Received(found, lease, "work", answered=SYSTEM_CLOCK.monotonic() - waited)
    return Attempt(received, decode(found.body, message_id="m1"), None)


def test_time_in_a_workers_hands_counts() -> None:
    job = Job("j1", "t", ttl=60)
    assert not attempt_of(job, age=timedelta(seconds=50), waited=10.5).expired
    assert attempt_of(job, age=timedelta(seconds=50), waited=11.1).expired


@given(
    put_at=st.sampled_from([0, 0.1, 0.5, 0.9, 0.99]),
    ttl=st.integers(1, 60),
    waited=st.floats(0, 10),
    over=st.floats(-2, 3),
    as_broker_has=st.sampled_from([int, float]),
)
def test_no_job_is_dropped_before_its_ttl_has_passed_nor_started_two_seconds_after_it(
    put_at: float, ttl: int, waited: float, over: float, as_broker_has: type[float]
) -> None:
    """A service may cut its moments to whole seconds, as Azure does."""
    lived = max(0.0, ttl - waited + over)
    age = as_broker_has(put_at + lived) - as_broker_has(put_at)
    attempt = attempt_of(Job("j1", "t", ttl=ttl), age=timedelta(seconds=age), waited=waited)
    slack = 0.1  # what this test itself takes
    if attempt.expired:
        assert lived + waited + slack > ttl
    else:
        assert lived + waited < ttl + 2


# Once begun


@pytest.mark.parametrize("deaths", [1, 3])
async def test_what_its_worker_died_with_is_begun(
    app: App, broker: SqliteBroker, clock: FakeClock, deaths: int
) -> None:
    @app.task(name="ok")
    async def ok() -> None: ...

    await ok.using(ttl=300).aenqueue()
    await receive_and_die(broker, clock, deaths)
    clock.advance(301)
    assert [deaths + 1] == [event.attempt for event in (await arun_until_idle(app)).of(JobSucceeded)]


@pytest.mark.parametrize("bundle", [1, 10])
async def test_what_failed_is_begun(app: App, clock: FakeClock, bundle: int) -> None:
    @app.task(name="flaky", backoff=Backoff(base=400, jitter=0))
    async def flaky(*, ctx: Context = INJECTED) -> None:
        assert ctx.attempt > 1

    await flaky.using(ttl=300, bundle=bundle).aenqueue_many([()] * 2)
    await arun_until_idle(app)
    clock.advance(400)
    assert 2 == len((await arun_until_idle(app)).of(JobSucceeded))


@pytest.mark.parametrize("bundle", [1, 10])
@pytest.mark.parametrize("after", [0, 400])
async def test_what_was_snoozed_is_begun(app: App, clock: FakeClock, bundle: int, after: int) -> None:
    snoozed: list[str] = []

    @app.task(name="snoozing")
    async def snoozing(*, ctx: Context = INJECTED) -> None:
        if ctx.job_id not in snoozed:
            snoozed.append(ctx.job_id)
            clock.advance(200)
            raise Snooze(after=after)

    await snoozing.using(ttl=300, bundle=bundle).aenqueue_many([()] * 2)
    first = await arun_until_idle(app)
    clock.advance(400)
    second = await arun_until_idle(app)
    assert 2 == len(first.of(JobSnoozed))
    assert [1, 1] == [event.attempt for event in first.of(JobSucceeded) + second.of(JobSucceeded)]


@pytest.mark.parametrize("bundle", [1, 10])
async def test_what_was_running_at_a_stop_is_begun_what_was_waiting_is_not(
    app: App, broker: SqliteBroker, clock: FakeClock, recorder: EventRecorder, bundle: int
) -> None:
    stopped: list[str] = []

    @app.task(name="long")
    async def long(*, ctx: Context = INJECTED) -> None:
        if not stopped:
            stopped.append(ctx.job_id)
            await asyncio.Event().wait()

    jobs = await long.using(ttl=300, bundle=bundle).aenqueue_many([()] * 2)
    async with app.worker(listeners=[recorder], concurrency=1, grace=0):
        await recorder.wait_for(JobStarted)
    assert stopped[0] in {event.job.id for event in recorder.of(JobReleased)}
    clock.advance(301)
    happened = await arun_until_idle(app)
    assert [(stopped[0], 1)] == [(event.job.id, event.attempt) for event in happened.of(JobSucceeded)]
    assert {job.id for job in jobs} - {*stopped} == {event.job.id for event in happened.of(JobExpired)}
    assert 0 == await broker.queue("default").count()


async def test_only_what_has_a_ttl_is_noted_as_begun(app: App, broker: SqliteBroker, clock: FakeClock) -> None:
    @app.task(name="snoozing")
    async def snoozing() -> None:
        raise Snooze(after=1)

    for producer in (snoozing.using(ttl=300), snoozing.using()):
        await producer.aenqueue()
    await arun_until_idle(app)
    clock.advance(1)
    assert [(300, True), (None, False)] == [(job.ttl, job.begun) for job in await queued(broker)]


async def test_a_bundle_is_judged_job_by_job(app: App, broker: SqliteBroker, clock: FakeClock) -> None:
    @app.task(name="ok")
    async def ok() -> None: ...

    await broker.create_queue("default")
    jobs = [Job("short", "ok", ttl=5), Job("long", "ok", ttl=50), Job("endless", "ok")]
    await broker.queue("default").put(bundled([encode(job) for job in jobs], "text"))
    clock.advance(6)
    happened = await arun_until_idle(app)
    assert ["short"] == [event.job.id for event in happened.of(JobExpired)]
    assert ["long", "endless"] == [event.job.id for event in happened.of(JobSucceeded)]


# Histories


@settings(max_examples=60, deadline=None)
@given(
    behind=st.integers(-10_000_000, 10_000_000),
    ahead=st.integers(-10_000_000, 10_000_000),
    ttl=st.integers(1, 60),
    waits=st.lists(st.integers(0, 50), min_size=1, max_size=4),
    steps=st.lists(st.integers(-100_000, 100_000), min_size=4, max_size=4),
)
async def test_a_job_is_started_if_its_first_delivery_is_within_its_ttl(
    behind: int, ahead: int, ttl: int, waits: Sequence[int], steps: Sequence[int]
) -> None:
    """The clocks of producer and worker differ, the file's is set now and then, and all workers but the last die."""
    clock = FakeClock()
    app = App(broker=SqliteBroker(None, clock=clock))

    @app.task(name="ok", max_attempts=9)
    async def ok() -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(producer_module, "utc_now", lambda: datetime.now(UTC) - timedelta(seconds=behind))
        await ok.using(ttl=ttl).aenqueue()
        patch.setattr(runner_module, "utc_now", lambda: datetime.now(UTC) + timedelta(seconds=ahead))
        *deaths, last = waits
        for wait, step in zip(deaths, steps, strict=False):
            clock.advance(wait)
            clock.step(step)
            await app.broker.queue("default").get(visibility=1)
            clock.advance(1)
        clock.advance(last)
        clock.step(steps[-1])
        happened = await arun_until_idle(app)
    assert (waits[0] <= ttl or bool(deaths)) == bool(happened.of(JobSucceeded))
    assert bool(happened.of(JobSucceeded)) != bool(happened.of(JobExpired))
    await app.broker.aclose()
    app.close()


# Replayed


@pytest.mark.parametrize("bundle", [1, 10])
async def test_a_replay_counts_a_ttl_anew(app: App, clock: FakeClock, bundle: int) -> None:
    @app.task(name="once", max_attempts=1)
    async def once() -> None:
        raise ValueError("the server is away")

    await once.using(ttl=300, bundle=bundle).aenqueue_many([()] * 2)
    assert 2 == len((await arun_until_idle(app)).of(JobPoisoned))
    clock.advance(1000)
    told: list[Progress] = []
    assert 2 == await replay(app.broker, "default", Pass(told=told.append))
    assert 2 == told[-1].ttl_anew
    clock.advance(300)
    assert 2 == len((await arun_until_idle(app)).of(JobPoisoned)), "it was run, and given up"
    assert 2 == await replay(app.broker, "default")
    clock.advance(301)
    assert 2 == len((await arun_until_idle(app)).of(JobExpired))


async def test_a_replay_has_no_regard_to_a_moment(app: App, broker: SqliteBroker, clock: FakeClock) -> None:
    @app.task(name="once", max_attempts=1)
    async def once() -> None:
        raise ValueError("the server is away")

    end = datetime.fromtimestamp(clock.time(), UTC) + HOUR
    await broker.queue("default").put(encode(Job("j1", "once", expires_at=end)))
    assert 1 == len((await arun_until_idle(app)).of(JobPoisoned))
    clock.advance(7200)
    for _ in range(2):
        told: list[Progress] = []
        assert 1 == await replay(app.broker, "default", Pass(told=told.append))
        assert 1 == told[-1].ttl_anew
        assert [(True, end)] == [(job.begun, job.expires_at) for job in await queued(broker)]
        assert 1 == len((await arun_until_idle(app)).of(JobPoisoned)), "it was run, and given up"


async def test_a_replay_says_nothing_of_what_has_no_ttl(app: App) -> None:
    @app.task(name="once", max_attempts=1)
    async def once() -> None:
        raise ValueError("the server is away")

    await once.aenqueue()
    await arun_until_idle(app)
    told: list[Progress] = []
    assert 1 == await replay(app.broker, "default", Pass(told=told.append))
    assert 0 == told[-1].ttl_anew


async def test_a_job_that_leaves_its_bundle_unbegun_keeps_what_is_left_of_its_ttl(
    app: App, broker: SqliteBroker, clock: FakeClock
) -> None:
    jobs = [Job("j1", "not yet known", ttl=300), Job("j2", "not yet known", ttl=900)]
    await broker.queue("default").put(bundled([encode(job) for job in jobs], "text"))
    clock.advance(200)
    await arun_until_idle(app)
    clock.advance(60)
    assert {(300, 200, False), (900, 200, False)} == {(job.ttl, job.waited, job.begun) for job in await queued(broker)}

    @app.task(name="not yet known")
    async def known() -> None: ...

    clock.advance(60)
    happened = await arun_until_idle(app)
    assert ["j1"] == [event.job.id for event in happened.of(JobExpired)]
    assert ["j2"] == [event.job.id for event in happened.of(JobSucceeded)]
