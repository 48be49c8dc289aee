import time
from collections.abc import Iterator

import pytest

from qworker import App, Backoff, QworkerError, Reject, Retry, Snooze, current
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


@pytest.fixture
def app() -> Iterator[App]:
    app = App(broker="sqlite://")
    yield app
    app.close()


def test_it_lists_what_was_enqueued_and_what_became_of_it(app: App) -> None:
    @app.task(name="parent")
    def parent() -> None:
        child.enqueue(1)
        child.using(delay=60).enqueue(2)

    @app.task(name="child", max_attempts=2, backoff=Backoff(base=0))
    async def child(number: int) -> None:
        if current().attempt == 1:
            raise ValueError(number)
        await broken.aenqueue()

    @app.task(name="broken", max_attempts=1)
    async def broken() -> None:
        raise KeyError("secret")

    made = parent.enqueue()
    happened = run_until_idle(app, raise_failures=False)
    assert ["child", "child", "broken"] == [job.task for job in happened.enqueued]
    assert [made.id, happened.enqueued[0].id] == [job.id for job in happened.succeeded]
    [failed] = happened.failed
    assert (happened.enqueued[2].id, 1, "KeyError: 'secret'") == (failed.job.id, failed.attempt, str(failed.failure))
    broken.enqueue()
    assert [] == happened.enqueued[3:], "that was after it"


def fails(what: str) -> None:
    match what:
        case "error":
            raise ValueError("no")
        case "reject":
            raise Reject("never")
        case "retry":
            raise Retry("soon", after=60)
        case "snooze":
            raise Snooze("soon", after=60)


@pytest.mark.parametrize(
    ("what", "max_attempts", "text"),
    [
        ("error", 1, "ValueError: no"),
        ("error", 2, "ValueError: no"),  # it rests
        ("reject", 2, "Reject: never"),
        ("retry", 1, "Retry: soon"),
        ("retry", 2, None),
        ("snooze", 1, None),
        ("nothing", 1, None),
    ],
)
def test_a_failure_fails_the_test_unless_it_was_asked_for(
    app: App, what: str, max_attempts: int, text: str | None
) -> None:
    task = app.task(name="fails", max_attempts=max_attempts)(fails)
    for raise_failures in (False, True):
        job = task.enqueue(what)
        if text is None or not raise_failures:
            happened = run_until_idle(app, raise_failures=raise_failures)
            assert ([] if text is None else [text]) == [str(failed.failure) for failed in happened.failed]
            continue
        with pytest.raises(AssertionError) as caught:
            run_until_idle(app)
        assert str(caught.value).startswith(f"1 job failed: fails {job.id}: {text}")
        assert text.endswith(str(caught.value.__cause__).removeprefix("ValueError: "))


async def test_what_is_no_job_and_what_no_task_is_for_fails_it_too(app: App) -> None:
    queue = app.broker.queue("default")
    await app.broker.create_queue("default")
    for body in ("no job", '{"task": "unknown"}'):
        await queue.put(body)
    with pytest.raises(AssertionError, match=r"^2 jobs failed: unknown 2: UnknownTask: .*; no job 1: Inv"):
        await arun_until_idle(app)
    await app.aclose()


async def test_in_a_running_loop_it_names_the_other(app: App) -> None:
    with pytest.raises(QworkerError, match=r"^an event loop is running here: use 'await arun_until_idle\(…\)'$"):
        run_until_idle(app)


def test_it_leaves_nothing_in_the_app(app: App) -> None:
    run_until_idle(app)
    assert [] == app._sent_hooks
    assert [] == app._error_hooks
