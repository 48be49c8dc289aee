"""Whatever is in a message, it ends as done, as one poison record, or comes back, and its neighbours run."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from idle import arun_until_idle
from odd_records import SOUND, messages
from qworker import App, Backoff
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.events import Event, JobPoisoned, JobReleased, MessagePoisoned, SettleFailed
from qworker.poison.selection import GivenUp
from qworker.testing import FakeClock
from qworker.wire.bounds import MAX_JOBS
from qworker.wire.bundle import TASK

_ROUNDS = 12
"""More than any job here has deliveries."""


async def ended(bodies: list[str]) -> tuple[list[int], list[Event], list[GivenUp]]:
    """Put messages between two jobs, and have all of them run to their ends, however often they come back."""
    clock = FakeClock()
    broker = SqliteBroker(None, clock=clock)
    app = App(broker=broker)
    ran: list[int] = []

    @app.task(name="neighbour")
    async def neighbour(number: int) -> None:
        ran.append(number)

    @app.task(name="t", max_attempts=2, backoff=Backoff(base=1, jitter=0))
    async def t(*args: object, **named: object) -> None:
        raise ValueError

    @app.task(name="u", max_attempts=2, backoff=Backoff(base=1, jitter=0))
    async def u() -> None: ...

    try:
        await neighbour.aenqueue(1)
        for body in bodies:
            await broker.queue("default").put(body)
        await neighbour.aenqueue(2)
        events: list[Event] = []
        for _ in range(_ROUNDS):
            happened = await arun_until_idle(app)
            events += happened.events
            if not await broker.queue("default").count():
                break
            clock.advance(1000)
        assert 0 == await broker.queue("default").count()
        poisoned = [GivenUp.of(found) for found in await broker.queue("default-poison").peek(32)]
        return ran, events, poisoned
    finally:
        await broker.aclose()


@settings(deadline=None, max_examples=60)
@given(st.lists(messages(), max_size=4))
async def test_any_message_comes_to_an_end_and_its_neighbours_run(bodies: list[str]) -> None:
    ran, events, poisoned = await ended(bodies)
    assert [1, 2] == sorted(ran)
    assert [] == [event for event in events if isinstance(event, SettleFailed | JobReleased)]
    told = [event for event in events if isinstance(event, MessagePoisoned | JobPoisoned)]
    assert len(told) == len(poisoned)
    assert all(given_up.record is not None and not given_up.problem for given_up in poisoned)


async def test_a_producer_can_not_have_its_job_run_more_often() -> None:
    for words in ({"releases": 1_000_000}, {"noted": {"in": "2", "releases": 1}}, {"noted": SOUND["noted"]}):
        _, events, [given_up] = await ended([json.dumps({"task": "t"} | words)])
        assert given_up.record is not None
        assert (2, "ValueError") == (given_up.record.attempts, given_up.record.failure.type)
        assert 1 == sum(isinstance(event, JobPoisoned) for event in events)


async def test_a_producer_can_not_speak_for_a_worker() -> None:
    """It says which error its job had, which never ran."""
    lie = {"type": "smtplib.SMTPException", "message": "try again later"}
    for words, kind in (({"noted": {"in": "2", "given_up": lie}}, "ValueError"), ({"given_up": lie}, "GivenUp")):
        _, _, [given_up] = await ended([json.dumps({"task": "t"} | words)])
        assert given_up.record is not None
        assert kind == given_up.record.failure.type


async def test_a_bundle_of_bad_jobs_hinders_nobody() -> None:
    for jobs in (["1"] * 32_000, ["{}"] * MAX_JOBS, ["1"] * 33 + ['{"task":"u"}'], ["[]"]):
        ran, _, poisoned = await ended([f'{{"task":"{TASK}","jobs":[{",".join(jobs)}]}}'])
        assert [1, 2] == sorted(ran)
        assert 1 == len(poisoned)
