import gc
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qworker import INJECTED, Backoff, ConfigurationError, Context, InvalidArguments, Job, Retry, Snooze, Task
from qworker._queue_names import poison_queue_of
from qworker.brokers.base import MAX_TTL
from qworker.errors import InvalidQueueName
from qworker.produce.producer import Call, Sending


class Outbox:
    """Takes what would be sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[list[Job], Sending]] = []

    def send(self, jobs: Sequence[Job], sending: Sending) -> Sequence[Job]:
        self.sent.append((list(jobs), sending))
        return jobs

    async def asend(self, jobs: Sequence[Job], sending: Sending) -> Sequence[Job]:
        return self.send(jobs, sending)

    def check(self, job: Job) -> None:
        """Take any."""


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


def thumbnail(path: str, width: int = 320, *, ctx: Context = INJECTED) -> str:
    """Make a small picture."""
    return f"{path} at {width}"


@pytest.fixture
def task(outbox: Outbox) -> Task[..., str]:
    return Task(thumbnail, outbox, name="thumbnail", queue="pictures")


def test_is_still_the_function(task: Task[..., str]) -> None:
    assert "a.png at 7" == task("a.png", width=7)
    assert ("thumbnail", "Make a small picture.") == (vars(task)["__name__"], task.__doc__)
    assert thumbnail is task.function
    assert "<Task thumbnail(path: str, width: int = 320)>" == repr(task)


def test_enqueue_sends_one_job(task: Task[..., str], outbox: Outbox) -> None:
    before = datetime.now(UTC)
    job = task.enqueue("a.png", width=7)
    assert [([job], Sending("pictures"))] == outbox.sent
    assert ("thumbnail", ["a.png"], {"width": 7}) == (job.task, job.args, job.kwargs)
    assert job.enqueued_at is not None
    assert before <= job.enqueued_at <= datetime.now(UTC)
    assert (None, 0, None, {}) == (job.expires_at, job.releases, job.state, job.headers)


async def test_aenqueue_is_its_twin(task: Task[..., str], outbox: Outbox) -> None:
    job = await task.aenqueue("a.png")
    assert [([job], Sending("pictures"))] == outbox.sent


def test_each_job_has_an_id_of_its_own(task: Task[..., str]) -> None:
    assert task.enqueue("a").id != task.enqueue("a").id


async def test_many_calls_of_both_kinds(task: Task[..., str], outbox: Outbox) -> None:
    calls: list[Call] = [("a.png",), {"path": "b.png", "width": 9}, ["c.png", 3]]
    jobs = task.enqueue_many(calls)
    assert [["a.png"], [], ["c.png", 3]] == [job.args for job in jobs]
    assert {"path": "b.png", "width": 9} == jobs[1].kwargs
    assert [(jobs, Sending("pictures"))] == outbox.sent
    again = await task.aenqueue_many(iter(calls))
    assert [job.args for job in jobs] == [job.args for job in again]
    assert [] == task.enqueue_many([])


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(task: Task[..., str], *, enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    try:
        task.enqueue_many([("a.png",), ("b.png",)])
        assert enabled == gc.isenabled()
        with pytest.raises(InvalidArguments):
            task.enqueue_many([("a.png", "wide")])
        assert enabled == gc.isenabled()
    finally:
        gc.enable()


async def test_nothing_is_sent_if_any_call_is_wrong(task: Task[..., str], outbox: Outbox) -> None:
    with pytest.raises(InvalidArguments, match="thumbnail: call number 1: width: Input should be a valid integer"):
        task.enqueue_many([("a",), ("b", "wide"), ("c",)])
    with pytest.raises(InvalidArguments, match=r"thumbnail: call number 0: a call is a tuple .*, not a str"):
        await task.aenqueue_many(["a.png"])
    with pytest.raises(InvalidArguments, match="not a int"):
        task.enqueue_many([3])  # type: ignore[list-item] # the point
    with pytest.raises(InvalidArguments):
        task.enqueue()
    with pytest.raises(InvalidArguments):
        await task.aenqueue("a", "wide")
    assert [] == outbox.sent


def test_using_changes_where_and_when(task: Task[..., str], outbox: Outbox) -> None:
    producer = task.using(delay=timedelta(minutes=5), queue="slow", ttl=600, headers={"trace": "7"})
    job = producer.enqueue("a.png")
    [(_, sending)] = outbox.sent
    assert Sending("slow", 300, 600, {"trace": "7"}) == sending
    assert {"trace": "7"} == job.headers
    assert 600 == job.ttl
    task.enqueue("a.png")
    assert Sending("pictures") == outbox.sent[-1][1]


async def test_using_can_be_used_again(task: Task[..., str], outbox: Outbox) -> None:
    producer = task.using(delay=1.5, ttl=60).using(queue="slow")
    jobs = [
        producer.enqueue("a"),
        await producer.aenqueue("a"),
        *producer.enqueue_many([("a",)]),
        *await producer.aenqueue_many([("a",)]),
    ]
    assert 4 == len(jobs)
    assert [Sending("slow", 2, 60)] * 4 == [sending for _, sending in outbox.sent]
    assert Sending("slow", 5, 60) == producer.using(delay=5)._sending


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [(0.001, 1), (1.5, 2), (timedelta(days=30), 30 * 86_400), (2**31 - 1.5, MAX_TTL), (MAX_TTL, MAX_TTL)],
)
def test_a_ttl_is_kept_as_it_is_in_whole_seconds(
    task: Task[..., str], outbox: Outbox, ttl: timedelta | float, seconds: int
) -> None:
    assert seconds == task.using(ttl=ttl).enqueue("a.png").ttl
    assert seconds == outbox.sent[-1][1].ttl


def test_a_ttl_need_only_be_more_than_the_delay(task: Task[..., str]) -> None:
    sending = task.using(delay=timedelta(days=7), ttl=timedelta(days=8))._sending
    assert (7 * 86_400, 8 * 86_400) == (sending.delay, sending.ttl)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"delay": timedelta(days=8)}, "task thumbnail: delay must be from 0 seconds to 7 days, not 691,200 s"),
        ({"delay": -1}, "task thumbnail: delay must be from 0 seconds to 7 days, not -1 s"),
        ({"delay": float("inf")}, "task thumbnail: delay: a time span is a number of seconds or a timedelta, not inf"),
        ({"delay": True}, "task thumbnail: delay: a time span is a number of seconds or a timedelta, not True"),
        ({"delay": 60, "ttl": 60}, "task thumbnail: a ttl of 60 s must be more than the delay of 60 s"),
        ({"delay": timedelta(days=7), "ttl": timedelta(days=7)}, "must be more than the delay of 604,800 s"),
        ({"ttl": 0}, "task thumbnail: ttl must be more than 0 seconds and at most 2,147,483,647 s (68 years), not 0 s"),
        ({"ttl": -1}, "task thumbnail: ttl must be more than 0 seconds"),
        ({"ttl": 2**31}, "at most 2,147,483,647 s (68 years), not 2,147,483,648 s"),
        ({"ttl": math.inf}, "task thumbnail: ttl: a time span is a number of seconds or a timedelta, not inf"),
        ({"ttl": timedelta.max}, "at most 2,147,483,647 s (68 years), not 8.64e+13 s"),
        ({"queue": "No"}, "queue name 'No'"),
        ({"queue": "x" * 57}, "queue name"),
        ({"headers": {"trace": 7}}, "headers must be a mapping of texts, names and values"),
        ({"headers": {7: "trace"}}, "headers must be a mapping of texts, names and values"),
        ({"headers": ["trace"]}, "headers must be a mapping of texts, names and values"),
        ({"headers": {str(n): "" for n in range(33)}}, "headers are 33, the limit is 32"),
        ({"headers": {"h" * 256: ""}}, "headers have a name of over 255 characters"),
        ({"headers": {"h": "x" * 8193}}, "headers have a text of over 8192 characters"),
        ({"delay": "5"}, "a time span is a number of seconds or a timedelta, not '5'"),
        ({"ttl": "5"}, "a time span is a number of seconds or a timedelta, not '5'"),
        ({"queue": 7}, "queue name 7 is not a text"),
    ],
)
def test_using_refuses_what_can_not_be(task: Task[..., str], options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        task.using(**options)


async def coroutine() -> None: ...


def plain() -> None: ...


def test_options(outbox: Outbox) -> None:
    task = Task(plain, outbox, name="t", max_attempts=3, backoff=Backoff(1), timeout=timedelta(minutes=1))
    assert (3, Backoff(1)) == (task.options.policy.max_attempts, task.options.policy.backoff)
    assert (60.0, "thread") == (task.options.timeout, task.options.executor)
    assert "process" == Task(plain, outbox, name="t", executor="process").options.executor
    assert Task(coroutine, outbox, name="t").options.executor is None
    assert ("default", 5, None) == (
        Task(plain, outbox, name="t").queue,
        Task(plain, outbox, name="t").options.policy.max_attempts,
        Task(plain, outbox, name="t").options.timeout,
    )


@pytest.mark.parametrize(
    ("function", "options", "problem"),
    [
        (plain, {"timeout": 0}, "task t: timeout must be more than 0 seconds and at most 365 days, not 0 s"),
        (plain, {"timeout": timedelta(0)}, "task t: timeout must be more than 0 seconds"),
        (plain, {"timeout": -1}, "task t: timeout must be more than 0 seconds and at most 365 days, not -1 s"),
        (plain, {"timeout": 1e300}, "task t: timeout must be more than 0 seconds and at most 365 days, not 1e.300 s"),
        (
            plain,
            {"timeout": float("inf")},
            "task t: timeout: a time span is a number of seconds or a timedelta, not inf",
        ),
        (plain, {"timeout": True}, "task t: timeout: a time span is a number of seconds or a timedelta, not True"),
        (plain, {"executor": "fiber"}, "task t: executor must be 'thread' or 'process', not 'fiber'"),
        (coroutine, {"executor": "thread"}, "task t: it is 'async def' and runs on the event loop"),
        (plain, {"timeout": "5"}, "task t: timeout: a time span is a number of seconds or a timedelta, not '5'"),
        (plain, {"max_attempts": 0}, "task t: max_attempts must be a whole number, 1 or more, not 0"),
        (plain, {"backoff": 5}, "task t: backoff must be a Backoff"),
        (plain, {"backoff": 0}, "task t: backoff must be a Backoff"),
        (plain, {"middleware": plain}, "task t: middleware must be a list of async functions, not <function plain"),
        (plain, {"middleware": ["plain"]}, "task t: middleware must be a list of async functions"),
        (plain, {"state": 7}, "task t: state must be a type that pydantic can check"),
        (plain, {"name": 7}, "a task's name must be a text, not 7"),
        (plain, {"name": ""}, "a task's name must be a text, not ''"),
        (plain, {"queue": "No"}, "queue name 'No'"),
        (plain, {"bundle": 0}, "task t: bundle must be a whole number of jobs, 1 or more, not 0"),
        (plain, {"bundle": True}, "task t: bundle must be a whole number of jobs, 1 or more, not True"),
        (plain, {"retry_on": "ValueError"}, "task t: retry_on takes exception classes"),
        (plain, {"give_up_on": ()}, "task t: give_up_on names no exception"),
        (plain, {"retry_on": Retry}, "task t: retry_on can't name Retry, which says itself what becomes of the job"),
        (plain, {"give_up_on": Snooze}, "task t: give_up_on can't name Snooze"),
        (plain, {"retry_on": KeyError, "give_up_on": KeyError}, "task t: retry_on and give_up_on can't both name Key"),
    ],
)
def test_options_that_can_not_be(outbox: Outbox, function: Any, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        Task(function, outbox, **{"name": "t", **options})


def test_a_queue_leaves_room_for_its_poison_queue(outbox: Outbox) -> None:
    longest = "q" * 56
    assert 63 == len(poison_queue_of(Task(plain, outbox, name="t", queue=longest).queue))
    with pytest.raises(InvalidQueueName):
        Task(plain, outbox, name="t", queue=longest + "q")


def a_generator() -> Any:
    yield 1


async def an_async_generator() -> Any:
    yield 1


@pytest.mark.parametrize("function", [a_generator, an_async_generator])
def test_a_generator_is_no_task(outbox: Outbox, function: Any) -> None:
    with pytest.raises(ConfigurationError, match="task a: it is a generator"):
        Task(function, outbox, name="a")


def test_a_job_can_be_made_now_and_sent_later(task: Task[..., str], outbox: Outbox) -> None:
    producer = task.using(queue="slow", headers={"by": "me"})
    made = [producer.make(["a.png"], {"width": "7"}), producer.make([], {"path": "b.png"})]
    assert [] == outbox.sent
    producer.send_made(made)
    [(sent, sending)] = outbox.sent
    assert (made, "slow") == (sent, sending.queue)
    assert [(["a.png"], {"width": 7}, {"by": "me"}), ([], {"path": "b.png"}, {"by": "me"})] == [
        (job.args, job.kwargs, job.headers) for job in sent
    ]
