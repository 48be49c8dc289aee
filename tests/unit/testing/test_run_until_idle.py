import time

import pytest

from qworker import App, Backoff
from qworker.events import JobRetried, JobStarted, JobSucceeded, WorkerStopped
from qworker.testing import arun_until_idle, run_until_idle


def test_runs_what_is_enqueued_and_what_that_enqueues() -> None:
    app = App(broker="sqlite://")
    done = []

    @app.task(name="count")
    def count_down(number: int) -> None:
        done.append(number)
        if number:
            count_down.enqueue(number - 1)

    count_down.enqueue(3)
    happened = run_until_idle(app)
    assert [3, 2, 1, 0] == done
    assert 4 == len(happened.of(JobSucceeded))
    assert 1 == len(happened.of(WorkerStopped))
    app.close()


async def test_runs_within_an_event_loop() -> None:
    app = App(broker="sqlite://")

    @app.task(name="flaky", backoff=Backoff(base=0))
    async def flaky() -> None:
        if not happened_before:
            happened_before.append(True)
            raise ValueError

    happened_before: list[bool] = []
    await flaky.aenqueue()
    happened = await arun_until_idle(app, concurrency=1)
    assert [1, 2] == [event.attempt for event in happened.of(JobStarted)]
    assert 1 == len(happened.of(JobRetried))
    await app.aclose()


async def test_polls_the_queues_it_is_told() -> None:
    app = App(broker="sqlite://")

    @app.task(name="quick")
    async def quick() -> None: ...

    await quick.using(queue="side").aenqueue()
    assert [] == (await arun_until_idle(app)).of(JobStarted)
    assert 1 == len((await arun_until_idle(app, queues="side")).of(JobSucceeded))
    await app.aclose()


def test_gives_up_in_time() -> None:
    app = App(broker="sqlite://")

    @app.task(name="slow")
    def slow() -> None:
        while True:
            time.sleep(0.01)

    slow.enqueue()
    with pytest.raises(AssertionError, match=r"not idle within 0.2 s; seen: 1 WorkerStarted, 1 JobStarted"):
        run_until_idle(app, within=0.2)
    app.close()
