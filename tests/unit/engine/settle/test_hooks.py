import logging
import time
import traceback

import pytest

import in_child
from doubles import ScriptedBroker, message
from idle import arun_until_idle
from qworker import App, Backoff, FailedAttempt, Reject, Retry, Snooze, current
from qworker.brokers.base import Queue
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.engine.run.runner import TimedOut
from qworker.errors import ConfigurationError, InvalidArguments
from qworker.events import JobPoisoned, JobRetried, JobSucceeded, SettleFailed
from qworker.failing import JobFailed
from qworker.job import Job
from qworker.wire.envelope import encode
from qworker.wire.notes import Notes, with_notes


@pytest.fixture
def told(app: App) -> list[FailedAttempt]:
    """Return what a hook was told of."""
    told: list[FailedAttempt] = []
    app.on_error(told.append)
    return told


def frames(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


async def test_what_a_handler_raises_is_told_with_its_traceback(app: App, told: list[FailedAttempt]) -> None:
    @app.task(max_attempts=2, backoff=Backoff(base=0))
    async def on_the_loop() -> None:
        raise ValueError("no")

    @app.task(max_attempts=2, backoff=Backoff(base=0))
    def in_a_thread() -> None:
        raise ValueError("no")

    for task in (on_the_loop, in_a_thread):
        job = await task.aenqueue()
        await arun_until_idle(app)
        first, last = told
        assert isinstance(first.error, ValueError)
        assert task.function.__name__ == frames(first.error)[-1]
        assert (job.id, "default", 1, 2, 0, False) == (
            first.job.id,
            first.queue,
            first.attempt,
            first.max_attempts,
            first.retry_in,
            first.given_up,
        )
        assert (2, None, True, "ValueError: no") == (last.attempt, last.retry_in, last.given_up, str(last.failure))
        told.clear()


async def test_of_a_child_process_what_is_known_is_told(app: App, told: list[FailedAttempt]) -> None:
    app._tasks["in_child.add"] = in_child.add
    queue = app.broker.queue("default")
    await queue.put(encode(Job("j1", "in_child.add", [1, 1])))
    await arun_until_idle(app)
    [failed] = told
    assert isinstance(failed.error, JobFailed)
    assert "AssertionError" == failed.error.failure.type
    assert "in add\n" in "".join(traceback.format_exception(failed.error)), "the child's traceback is shown with it"
    assert failed.retry_in is not None


async def test_a_timeout_is_told_with_where_the_handler_was(app: App, told: list[FailedAttempt]) -> None:
    @app.task(name="slow", timeout=0.05, max_attempts=1)
    def slow() -> None:
        while True:
            time.sleep(0.01)

    await slow.aenqueue()
    await arun_until_idle(app)
    [failed] = told
    assert isinstance(failed.error, TimedOut)
    assert "slow" in frames(failed.error)


async def test_what_a_handler_asks_for_is_no_error_before_it_is_given_up(app: App, told: list[FailedAttempt]) -> None:
    @app.task(name="ask", max_attempts=2)
    async def ask(what: str) -> None:
        match what, current().job.releases + current().attempt:
            case "retry", _:
                raise Retry("again", after=0)
            case "reject", _:
                raise Reject("never")
            case "snooze", 1:
                raise Snooze("soon", after=0)

    await ask.aenqueue_many([("retry",), ("reject",), ("snooze",)])
    happened = await arun_until_idle(app)
    assert 1 == len(happened.of(JobRetried)) == len(happened.of(JobSucceeded))
    assert {("Reject", 1, True), ("Retry", 2, True)} == {
        (type(failed.error).__name__, failed.attempt, failed.given_up) for failed in told
    }
    assert 2 == len(told)


async def test_a_hook_is_told_the_arguments_by_name_and_how_many_attempts_were_made(
    app: App, broker: SqliteBroker, told: list[FailedAttempt]
) -> None:
    @app.task(name="known", max_attempts=2, backoff=Backoff(base=0))
    async def known(left: int, right: int = 5, *rest: int, **more: int) -> None:
        raise ValueError("no")

    await known.aenqueue(1, right=2)
    await broker.queue("default").put(encode(Job("j1", "known", [1, 2, 3], {"up": 4})))
    await broker.queue("default").put(encode(Job("j2", "known", [], {"right": "x"})))
    await arun_until_idle(app)
    seen = {(failed.job.id[:2], failed.attempt): failed for failed in told}
    first, last = next(seen[key] for key in seen if key[0] == "01"), seen["j1", 2]
    assert {"left": 1, "right": 2} == first.arguments
    assert {"left": 1, "right": 2, "rest": (3,), "more": {"up": 4}} == last.arguments
    assert {"right": "x"} == seen["j2", 1].arguments
    assert (1, None, 2, "no") == (
        first.job.attempts,
        first.job.given_up,
        last.job.attempts,
        getattr(last.job.given_up, "message", ""),
    )
    assert "'x'" not in repr(seen["j2", 1])


async def _deliver_to_others(queue: Queue, times: int) -> None:
    """Have a message say that so many workers gave it back, and did not know its task."""
    for number in range(times):
        [got] = await queue.get(1, visibility=60)
        noted = with_notes(got.body, got.id, Notes(releases=number + 1, unknown=number + 1))
        await queue.update(got.id, got.receipt, visibility=0, body=noted)


async def test_what_is_given_up_without_a_handler_is_told(
    app: App, broker: SqliteBroker, told: list[FailedAttempt]
) -> None:
    @app.task(name="known")
    async def known(number: int) -> None: ...

    queue = broker.queue("default")
    await queue.put(encode(Job("j3", "unknown")))
    await _deliver_to_others(queue, 99)
    await queue.put(encode(Job("j1", "known", ["x"])))
    await queue.put(encode(Job("j2", "unknown")))
    await queue.put("no job")
    await arun_until_idle(app)
    by_job = {failed.job.id: failed for failed in told}
    assert {"j1", "j3"} == set(by_job), "an unknown task may be known in a moment; what is no job is none that failed"
    assert isinstance(by_job["j1"].error, InvalidArguments)
    assert isinstance(by_job["j3"].error, JobFailed)
    assert (0, "UnknownTask") == (by_job["j3"].max_attempts, by_job["j3"].failure.type)


@pytest.mark.parametrize("raised", [RuntimeError("the hook's own bug"), SystemExit(3)])
async def test_a_hook_that_raises_breaks_nothing(
    app: App, told: list[FailedAttempt], caplog: pytest.LogCaptureFixture, raised: BaseException
) -> None:
    @app.on_error
    def broken(_: FailedAttempt) -> None:
        raise raised

    app.on_error(told.append)

    @app.task(name="fails", max_attempts=1)
    async def fails() -> None:
        raise ValueError

    @app.task(name="works")
    async def works() -> None: ...

    await fails.aenqueue()
    await works.aenqueue()
    with caplog.at_level(logging.ERROR, "qworker"):
        happened = await arun_until_idle(app)
    assert 1 == len(happened.of(JobPoisoned)) == len(happened.of(JobSucceeded))
    assert 2 == len(told), "both others were told"
    assert ["an error hook failed on a job of fails"] == [record.message for record in caplog.records]


async def test_an_error_is_told_whatever_becomes_of_its_message() -> None:
    broker = ScriptedBroker()
    app = App(broker=broker)
    told: list[FailedAttempt] = []
    app.on_error(told.append)

    @app.task(name="fails", max_attempts=3)
    async def fails() -> None:
        raise ValueError

    queue = broker.queue("default")
    queue.will("get", [message(encode(Job("j1", "fails")))])
    queue.will("update", ValueError("a bug of the broker"))
    happened = await arun_until_idle(app)
    assert 1 == len(happened.of(SettleFailed)) == len(told)


async def test_a_hook_must_be_a_plain_function(app: App) -> None:
    async def hook(failed: FailedAttempt) -> None: ...

    with pytest.raises(ConfigurationError, match=r"^on_error: .*hook is 'async def', but nothing waits for it"):
        app.on_error(hook)
