import asyncio

import pytest

from doubles import ScriptedBroker, ScriptedQueue
from qworker.brokers.base import MAX_BODY_BYTES, Urgency
from qworker.errors import (
    AccessDenied,
    AnswerLost,
    BrokerBusy,
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    EnqueueUncertain,
    InvalidArguments,
    MessageTooLarge,
    PartlyEnqueued,
    QueueNotFound,
)
from qworker.job import Job
from qworker.produce import enqueuer as enqueue_module
from qworker.produce.enqueuer import Enqueuer, Now
from qworker.produce.producer import Sending
from qworker.wire.envelope import decode, encode

JOB = Job("j1", "mail.send", ["a@b.c"])
SENDING = Sending("mail", delay=5, ttl=60)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enqueue_module, "_PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(enqueue_module, "_PATIENCE", 0.5)


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
def queue(broker: ScriptedBroker) -> ScriptedQueue:
    return broker.queue("mail")


@pytest.fixture
def enqueuer(broker: ScriptedBroker) -> Enqueuer:
    return Enqueuer(broker, "text")


async def put(enqueuer: Enqueuer, *jobs: Job) -> None:
    await enqueuer.put(enqueuer.cargo_of(jobs), SENDING)


def many(count: int) -> list[Job]:
    return [Job(f"j{number}", "mail.send", [number]) for number in range(count)]


class Slow:
    """An answer that takes a turn of the event loop, and knows how many took theirs at once."""

    def __init__(self) -> None:
        self.running = self.most = 0

    async def __call__(self) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        return "m1"


# One


async def test_puts_the_envelope(enqueuer: Enqueuer, queue: ScriptedQueue) -> None:
    await put(enqueuer, JOB)
    assert [("put", encode(JOB), 5, None)] == queue.calls


async def test_nothing_is_nothing(enqueuer: Enqueuer, queue: ScriptedQueue) -> None:
    await put(enqueuer)
    assert [] == queue.calls


def test_bodies_can_be_base64(broker: ScriptedBroker) -> None:
    cargo = Enqueuer(broker, "base64").cargo_of([JOB])
    assert encode(JOB, "base64") == cargo.bodies[0]


def test_a_body_of_exactly_64_kib_is_taken(enqueuer: Enqueuer) -> None:
    room = MAX_BODY_BYTES - len(encode(Job("j1", "mail.send", [""])))
    assert MAX_BODY_BYTES == len(enqueuer.cargo_of([Job("j1", "mail.send", ["x" * room])]).bodies[0])
    with pytest.raises(MessageTooLarge) as caught:
        enqueuer.cargo_of([Job("j1", "mail.send", ["x" * (room + 1)])])
    assert (65_537, 65_536) == (caught.value.size, caught.value.limit)


def test_headers_that_are_no_text_are_refused(enqueuer: Enqueuer) -> None:
    with pytest.raises(InvalidArguments, match="can't be sent as JSON"):
        enqueuer.cargo_of([Job("j1", "mail.send", headers={"name": "\ud800"})])


async def test_a_missing_queue_is_created(enqueuer: Enqueuer, broker: ScriptedBroker, queue: ScriptedQueue) -> None:
    queue.will("put", QueueNotFound("mail"))
    await put(enqueuer, JOB)
    assert ["mail"] == broker.created
    assert 2 == len(queue.calls)


async def test_a_producer_may_have_no_right_to_create_a_queue(
    enqueuer: Enqueuer, broker: ScriptedBroker, queue: ScriptedQueue
) -> None:
    queue.will("put", QueueNotFound("mail"))
    broker.create_answers.append(AccessDenied("403"))
    with pytest.raises(QueueNotFound):
        await put(enqueuer, JOB)


async def test_what_was_not_done_is_tried_again(enqueuer: Enqueuer, queue: ScriptedQueue) -> None:
    down = BrokerUnavailable("down")
    queue.will("put", down, down, down)
    await put(enqueuer, JOB)
    assert 4 == len(queue.calls)
    queue.will("put", *[down] * 4)
    with pytest.raises(BrokerUnavailable):
        await put(enqueuer, JOB)


async def test_a_broker_that_is_too_busy_is_tried_for_longer(enqueuer: Enqueuer, queue: ScriptedQueue) -> None:
    queue.will("put", *[BrokerBusy("503")] * 20)
    await put(enqueuer, JOB)
    assert 21 == len(queue.calls)


async def test_a_broker_that_stays_too_busy_is_given_up(
    enqueuer: Enqueuer, queue: ScriptedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueue_module, "_PATIENCE", 0.5)
    queue.will("put", *[BrokerBusy("503")] * 1_000_000)
    with pytest.raises(BrokerBusy):
        await put(enqueuer, JOB)
    assert len(queue.calls) > 4


async def test_room_for_a_put_is_waited_for_no_longer_than_for_the_put(
    enqueuer: Enqueuer, queue: ScriptedQueue
) -> None:
    queue.will("admit", BrokerBusy("no room"))
    await put(enqueuer, JOB)
    assert [Urgency.NEW_WORK] * 2 == [urgency for urgency, _ in queue.admissions]
    for _, within in queue.admissions:
        assert within is not None
        assert 0 < within <= 0.5
    assert 1 == len(queue.calls)


async def test_retry_after_is_waited_for(
    enqueuer: Enqueuer, queue: ScriptedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(enqueue_module, "_PATIENCE", 30.0)
    queue.will("put", BrokerBusy("503", retry_after=7), BrokerBusy("503", retry_after=700), BrokerBusy("503"))
    await put(enqueuer, JOB)
    assert [7, 10, 0] == waits


async def test_a_lost_answer_is_tried_again(enqueuer: Enqueuer, queue: ScriptedQueue) -> None:
    queue.will("put", AnswerLost("?"))
    await put(enqueuer, JOB)
    assert [encode(JOB)] * 2 == [body for body, *_ in queue.called("put")]


@pytest.mark.parametrize("last", [AnswerLost("?"), BrokerBusy("503"), BrokerUnavailable("down")])
async def test_uncertainty_is_told_with_the_job_id(
    enqueuer: Enqueuer, queue: ScriptedQueue, last: BrokerError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueue_module, "_PATIENCE", 0.02)
    queue.will("put", AnswerLost("?"), *[last] * 1_000_000)
    with pytest.raises(EnqueueUncertain, match="job j1 may or may not be queued") as caught:
        await put(enqueuer, JOB)
    assert ("j1", "mail.send") == (caught.value.job_id, caught.value.task)


async def test_a_refusal_for_good_is_raised(enqueuer: Enqueuer, queue: ScriptedQueue) -> None:
    queue.will("put", BrokerRefused("400"))
    with pytest.raises(BrokerRefused):
        await put(enqueuer, JOB)
    assert 1 == len(queue.calls)


# Many


async def test_many_are_all_put(enqueuer: Enqueuer, queue: ScriptedQueue) -> None:
    jobs = many(200)
    await put(enqueuer, *jobs)
    ids = [decode(body, message_id="").id for body, *_ in queue.called("put")]
    assert sorted(job.id for job in jobs) == sorted(ids)


async def test_many_create_a_missing_queue_once(
    enqueuer: Enqueuer, broker: ScriptedBroker, queue: ScriptedQueue
) -> None:
    queue.will("put", QueueNotFound("mail"))
    await put(enqueuer, *many(100))
    assert ["mail"] == broker.created
    assert 101 == len(queue.calls)


async def test_many_are_put_side_by_side_within_limits(enqueuer: Enqueuer, queue: ScriptedQueue) -> None:
    slow = Slow()
    queue.will("put", *[slow] * 300)
    await put(enqueuer, *many(300))
    assert 64 == slow.most


async def test_if_the_first_of_many_fails_no_other_is_tried(enqueuer: Enqueuer, queue: ScriptedQueue) -> None:
    queue.will("put", *[BrokerUnavailable("down")] * 4)
    with pytest.raises(BrokerUnavailable):
        await put(enqueuer, *many(100))
    assert 4 == len(queue.calls)


async def test_partly_enqueued_tells_which(enqueuer: Enqueuer, queue: ScriptedQueue) -> None:
    jobs = many(3)
    queue.will("put", "m1", "m2", BrokerRefused("400"))
    with pytest.raises(PartlyEnqueued) as caught:
        await put(enqueuer, *jobs)
    error = caught.value
    assert (["j0", "j1"], [], ["j2"]) == (error.accepted, error.uncertain, error.refused)
    assert isinstance(error.__cause__, BrokerRefused)
    assert "2 of 3 jobs are queued, 0 may be, 1 are not: 400" == str(error)


async def test_partly_enqueued_stops_soon_and_forgets_none(enqueuer: Enqueuer, queue: ScriptedQueue) -> None:
    jobs = many(1000)
    queue.will("put", *["m"] * 100, *[AnswerLost("?")] * 500)
    with pytest.raises(PartlyEnqueued) as caught:
        await put(enqueuer, *jobs)
    error = caught.value
    assert error.uncertain
    assert error.refused
    assert sorted(job.id for job in jobs) == sorted([*error.accepted, *error.uncertain, *error.refused])
    put_ids = {decode(body, message_id="").id for body, *_ in queue.called("put")}
    assert not put_ids & set(error.refused)


@pytest.mark.parametrize("last", [AccessDenied("403"), BrokerRefused("400")])
async def test_uncertainty_outlives_a_refusal(enqueuer: Enqueuer, queue: ScriptedQueue, last: BrokerError) -> None:
    queue.will("put", AnswerLost("?"), last)
    with pytest.raises(EnqueueUncertain):
        await put(enqueuer, JOB)


async def test_of_many_whose_first_is_uncertain_the_others_are_not_queued(
    enqueuer: Enqueuer, queue: ScriptedQueue
) -> None:
    queue.will("put", *[AnswerLost("?")] * 4)
    with pytest.raises(PartlyEnqueued) as caught:
        await put(enqueuer, *many(3))
    assert ([], ["j0"], ["j1", "j2"]) == (caught.value.accepted, caught.value.uncertain, caught.value.refused)
    assert 4 == len(queue.calls)


# Many, in a queue that takes many at once


@pytest.fixture
def roomy(queue: ScriptedQueue) -> ScriptedQueue:
    queue.put_limit = 3
    return queue


async def test_many_are_put_as_many_at_once_as_the_queue_takes(enqueuer: Enqueuer, roomy: ScriptedQueue) -> None:
    jobs = many(7)
    await put(enqueuer, *jobs)
    bodies = [encode(job) for job in jobs]
    assert [("put_many", bodies[:3], 5, None), ("put_many", bodies[3:6], 5, None)] == roomy.calls[:2]
    assert [("put", bodies[6], 5, None)] == roomy.calls[2:]


async def test_a_missing_queue_is_created_for_many_too(
    enqueuer: Enqueuer, broker: ScriptedBroker, roomy: ScriptedQueue
) -> None:
    roomy.will("put_many", QueueNotFound("mail"))
    await put(enqueuer, *many(6))
    assert ["mail"] == broker.created
    assert 3 == len(roomy.called("put_many"))


async def test_what_is_put_at_once_is_accepted_or_not_at_once(enqueuer: Enqueuer, roomy: ScriptedQueue) -> None:
    roomy.will("put_many", None, BrokerRefused("400"))
    with pytest.raises(PartlyEnqueued) as caught:
        await put(enqueuer, *many(6))
    error = caught.value
    assert (["j0", "j1", "j2"], [], ["j3", "j4", "j5"]) == (error.accepted, error.uncertain, error.refused)


async def test_what_is_put_at_once_is_uncertain_at_once(enqueuer: Enqueuer, roomy: ScriptedQueue) -> None:
    roomy.will("put_many", *[AnswerLost("?")] * 4)
    with pytest.raises(PartlyEnqueued) as caught:
        await put(enqueuer, *many(6))
    error = caught.value
    assert ([], ["j0", "j1", "j2"], ["j3", "j4", "j5"]) == (error.accepted, error.uncertain, error.refused)


async def test_few_puts_of_many_are_under_way_at_once(enqueuer: Enqueuer, roomy: ScriptedQueue) -> None:
    slow = Slow()
    roomy.will("put_many", *[slow] * 10)
    await put(enqueuer, *many(30))
    assert 2 == slow.most


# From plain code


@pytest.fixture
def ready(queue: ScriptedQueue) -> ScriptedQueue:
    queue.puts_now = True
    return queue


def put_now(enqueuer: Enqueuer, *jobs: Job) -> Now:
    return enqueuer.put_now(enqueuer.cargo_of(jobs), SENDING)


def test_one_is_put_without_an_event_loop(enqueuer: Enqueuer, ready: ScriptedQueue) -> None:
    assert Now.DONE is put_now(enqueuer, JOB)
    assert [("put_now", encode(JOB), 5, None)] == ready.calls


def test_many_are_not(enqueuer: Enqueuer, ready: ScriptedQueue) -> None:
    assert Now.NOT_DONE is put_now(enqueuer, *many(2))
    assert Now.NOT_DONE is enqueuer.put_now(enqueuer.cargo_of(many(2), bundle=2), SENDING)
    assert [] == ready.calls


def test_where_a_broker_needs_an_event_loop_nothing_is_done(enqueuer: Enqueuer, queue: ScriptedQueue) -> None:
    assert Now.NOT_DONE is put_now(enqueuer, JOB)
    assert [] == queue.calls


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BrokerBusy("503"), Now.NOT_DONE),
        (BrokerUnavailable("down"), Now.NOT_DONE),
        (QueueNotFound("mail"), Now.NOT_DONE),
        (AnswerLost("?"), Now.MAYBE_DONE),
    ],
)
def test_what_patience_may_mend_is_left_to_it(
    enqueuer: Enqueuer, ready: ScriptedQueue, error: BrokerError, expected: Now
) -> None:
    ready.will("put_now", error)
    assert expected is put_now(enqueuer, JOB)


def test_what_it_may_not_is_raised(enqueuer: Enqueuer, ready: ScriptedQueue) -> None:
    ready.will("put_now", BrokerRefused("400"))
    with pytest.raises(BrokerRefused):
        put_now(enqueuer, JOB)


async def test_what_may_be_done_is_uncertain_to_the_end(enqueuer: Enqueuer, queue: ScriptedQueue) -> None:
    queue.will("put", BrokerRefused("400"))
    with pytest.raises(EnqueueUncertain):
        await enqueuer.put(enqueuer.cargo_of([JOB]), SENDING, Now.MAYBE_DONE)
