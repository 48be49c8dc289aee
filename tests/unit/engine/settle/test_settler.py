import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from doubles import ScriptedBroker, ScriptedQueue, message
from qworker import App
from qworker.brokers.base import MAX_BODY_BYTES, Urgency
from qworker.engine.attempt import Attempt, Received
from qworker.engine.guard.access import Suspended
from qworker.engine.lease.lease import Lease
from qworker.engine.settle import persist as persist_module
from qworker.engine.settle import poisoner as poisoner_module
from qworker.engine.settle.settler import Settler
from qworker.errors import (
    AccessDenied,
    AnswerLost,
    BrokerBusy,
    BrokerError,
    BrokerFull,
    BrokerRefused,
    BrokerUnavailable,
    InvalidArguments,
    LeaseLost,
    MessageTooLarge,
    QueueNotFound,
)
from qworker.job import Job, Reason
from qworker.outcome import Abandon, Action, Delete, Failure, Poison, Reappear
from qworker.poison.record import decode_poison
from qworker.wire.envelope import decode, encode
from qworker.wire.notes import Notes, with_notes, without_notes

app = App(broker="sqlite://")


@app.task(name="counted", state=dict[str, int])
async def counted() -> None: ...


@app.task(name="loose")
async def loose() -> None: ...


WHY = Failure("ValueError", "no")
BODY = '{"task":"counted","from":"elsewhere","kwargs":{ }}'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persist_module, "_PAUSES", (0.001, 0.002))
    monkeypatch.setattr(poisoner_module, "_TRIES", 0.2)


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
def queue(broker: ScriptedBroker) -> ScriptedQueue:
    return broker.queue("work")


@pytest.fixture
def poison(broker: ScriptedBroker) -> ScriptedQueue:
    return broker.queue("work-poison")


@pytest.fixture
def settler(broker: ScriptedBroker) -> Settler:
    return Settler(broker, "host:1", "text")


@pytest.fixture
def attempt(queue: ScriptedQueue) -> Attempt:
    found = message(BODY, dequeue_count=3)
    lease = Lease(queue, found, length=60, began=time.monotonic())
    return Attempt(Received(found, lease, "work"), decode(BODY, message_id="m1"), counted)


async def test_delete(settler: Settler, attempt: Attempt, queue: ScriptedQueue) -> None:
    await settler.settle(attempt, Delete())
    assert [("delete", "m1", "r1")] == queue.calls


async def test_a_retry_is_the_same_message(settler: Settler, attempt: Attempt, queue: ScriptedQueue) -> None:
    await settler.settle(attempt, Reappear(7, counted=True))
    assert [("update", "m1", "r1", 7, None)] == queue.calls


async def test_a_retry_before_the_last_attempt_is_noted(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue
) -> None:
    """So that a crash in the last one is known from one in an earlier."""
    await settler.settle(attempt, Reappear(7, counted=True, one_left=True))
    assert [("update", "m1", "r1", 7, f'{{"noted":{{"in":"m1","last":true}},{BODY[1:]}')] == queue.calls


async def test_a_retry_before_the_last_attempt_keeps_a_state(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue
) -> None:
    await settler.save_state(attempt, {"page": 3})
    await settler.settle(attempt, Reappear(7, counted=True, one_left=True))
    noted = decode(queue.calls[-1][-1], message_id="m1")
    assert ({"page": 3}, True) == (noted.state, noted.last)


async def test_a_last_attempt_is_noted_once(settler: Settler, attempt: Attempt, queue: ScriptedQueue) -> None:
    await settler.note_last(attempt)
    assert [("update", "m1", "r1", 60, f'{{"noted":{{"in":"m1","last":true}},{BODY[1:]}')] == queue.calls
    await settler.settle(attempt, Reappear(7, counted=True, one_left=True))
    assert ("update", "m1", "r2", 7, None) == queue.calls[-1]


@pytest.mark.parametrize("alone", [True, False])
async def test_a_release_takes_back_that_a_last_attempt_has_begun(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue, *, alone: bool
) -> None:
    attempt.alone = alone
    await settler.note_last(attempt)
    await settler.settle(attempt, Reappear(0, counted=False))
    assert (not alone) == decode(queue.calls[-1][-1], message_id="m1").last


async def test_a_release_notes_that_the_attempt_is_not_spent(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue
) -> None:
    await settler.settle(attempt, Reappear(0, counted=False))
    [(_, _, _, after, body)] = queue.calls
    assert (0, 1) == (after, decode(body, message_id="m1").releases)


async def test_a_release_in_base64(settler: Settler, attempt: Attempt, queue: ScriptedQueue) -> None:
    attempt.body = base64.b64encode(BODY.encode()).decode()
    await settler.settle(attempt, Reappear(0, counted=False))
    body = queue.calls[0][-1]
    assert not body.startswith("{")
    assert 1 == decode(body, message_id="m1").releases


async def test_a_release_without_room_for_the_note(settler: Settler, attempt: Attempt, queue: ScriptedQueue) -> None:
    room = MAX_BODY_BYTES - len(encode(Job("m1", "counted", [""])))
    attempt.job = Job("m1", "counted", ["x" * room])
    attempt.body = encode(attempt.job)
    await settler.settle(attempt, Reappear(0, counted=False))
    assert [("update", "m1", "r1", 0, None)] == queue.calls


async def test_what_is_abandoned_is_not_touched(settler: Settler, attempt: Attempt, queue: ScriptedQueue) -> None:
    await settler.settle(attempt, Abandon())
    assert [] == queue.calls


# Poison


def log_calls(*queues: ScriptedQueue) -> list[tuple[str, str]]:
    """Note the order of calls to several queues."""
    order: list[tuple[str, str]] = []

    def note(queue: ScriptedQueue, method: str) -> Callable[[], Awaitable[Any]]:
        async def answer() -> str:
            order.append((queue.name, method))
            return "x"

        return answer

    for queue in queues:
        for method in ("put", "update", "delete"):
            queue.will(method, note(queue, method))
    return order


async def test_poisoning_puts_and_then_deletes(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue, poison: ScriptedQueue
) -> None:
    order = log_calls(queue, poison)
    await settler.settle(attempt, Poison(WHY))
    assert [("work-poison", "put"), ("work", "delete")] == order


async def test_the_poison_message_tells_all(settler: Settler, attempt: Attempt, poison: ScriptedQueue) -> None:
    await settler.settle(attempt, Poison(WHY))
    [(body, delay, ttl)] = [tuple(call) for call in poison.called("put")]
    assert (0, None) == (delay, ttl)
    record = decode_poison(body)
    assert BODY == record.body
    assert (WHY, 3, "host:1", "m1") == (record.failure, record.attempts, record.worker, record.message_id)
    assert ("work", "m1", "counted") == (record.queue, record.job_id, record.task)


async def test_the_poison_message_has_the_body_that_was_enqueued(
    settler: Settler, queue: ScriptedQueue, poison: ScriptedQueue
) -> None:
    found = message(with_notes(BODY, "m1", Notes(last=True)), dequeue_count=5)
    lease = Lease(queue, found, length=60, began=time.monotonic())
    last = Attempt(Received(found, lease, "work"), decode(found.body, message_id="m1"), counted)
    await settler.settle(last, Poison(WHY))
    assert BODY == decode_poison(poison.called("put")[0][0]).body


async def test_the_poison_message_has_the_last_checkpoint(
    settler: Settler, attempt: Attempt, poison: ScriptedQueue
) -> None:
    """So that a job that is put back goes on from there."""
    await settler.save_state(attempt, {"page": 3})
    await settler.settle(attempt, Poison(WHY))
    record = decode_poison(poison.called("put")[0][0])
    assert {"page": 3} == decode(record.body, message_id="m1").state


async def test_a_message_that_is_no_job_is_poisoned_as_it_is(
    broker: ScriptedBroker, settler: Settler, queue: ScriptedQueue, poison: ScriptedQueue
) -> None:
    found = message("no json", dequeue_count=1)
    lease = Lease(queue, found, length=60, began=time.monotonic())
    await settler.poison_message(Received(found, lease, "work"), WHY)
    record = decode_poison(poison.called("put")[0][0])
    assert ("no json", None, None, 1) == (record.body, record.job_id, record.task, record.attempts)
    assert ["m1", "r1"] == queue.called("delete")[0]


async def test_a_missing_poison_queue_is_created(
    broker: ScriptedBroker, settler: Settler, attempt: Attempt, queue: ScriptedQueue, poison: ScriptedQueue
) -> None:
    poison.will("put", QueueNotFound("work-poison"))
    await settler.settle(attempt, Poison(WHY))
    assert ["work-poison"] == broker.created
    assert 2 == len(poison.called("put"))
    assert 1 == len(queue.called("delete"))


@pytest.mark.parametrize("refusal", [AccessDenied("403"), BrokerRefused("400"), BrokerBusy("503"), AnswerLost("?")])
async def test_if_the_poison_queue_refuses_the_original_is_kept(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue, poison: ScriptedQueue, refusal: BrokerError
) -> None:
    poison.will("put", *[refusal] * 1000)
    with pytest.raises(type(refusal)):
        await settler.settle(attempt, Poison(WHY))
    [(_, message_id, receipt, after, body)] = queue.calls
    assert ("m1", "r1", attempt.lease.length) == (message_id, receipt, after)
    assert Reason("ValueError", "no") == decode(body, message_id="m1").given_up
    assert BODY == without_notes(body, "m1")


async def test_the_reason_is_noted_only_once_and_is_in_the_record_without_its_note(
    settler: Settler, queue: ScriptedQueue, poison: ScriptedQueue
) -> None:
    def delivered() -> Attempt:
        noted = message(with_notes(BODY, "m1", Notes(given_up=Reason("ValueError", "first"))), dequeue_count=5)
        lease = Lease(queue, noted, length=60, began=time.monotonic())
        return Attempt(Received(noted, lease, "work"), decode(noted.body, message_id="m1"), counted)

    assert not delivered().alone
    poison.will("put", AccessDenied("403"))
    with pytest.raises(AccessDenied):
        await settler.settle(delivered(), Poison(WHY))
    assert [("update", "m1", "r1", 60, None)] == queue.calls
    await settler.settle(delivered(), Poison(WHY))
    assert BODY == decode_poison(poison.called("put")[1][0]).body


async def test_a_message_without_room_for_the_reason_is_kept_as_it_is(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue, poison: ScriptedQueue
) -> None:
    attempt.body = BODY + " " * (MAX_BODY_BYTES - len(BODY))
    poison.will("put", AccessDenied("403"))
    with pytest.raises(AccessDenied):
        await settler.settle(attempt, Poison(WHY))
    assert [("update", "m1", "r1", 60, None)] == queue.calls


async def test_a_poison_queue_that_is_busy_for_a_moment(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue, poison: ScriptedQueue
) -> None:
    poison.will("put", BrokerBusy("503"), BrokerUnavailable("down"))
    await settler.settle(attempt, Poison(WHY))
    assert 3 == len(poison.called("put"))
    assert [("delete", "m1", "r1")] == queue.calls


# Persistence


async def test_a_settlement_is_tried_again(settler: Settler, attempt: Attempt, queue: ScriptedQueue) -> None:
    queue.will("delete", BrokerBusy("503"), BrokerUnavailable("down"), BrokerFull("full"), AnswerLost("?"))
    await settler.settle(attempt, Delete())
    assert 5 == len(queue.calls)


async def test_a_delete_that_was_applied_but_not_answered_is_done(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue
) -> None:
    queue.will("delete", AnswerLost("?"), LeaseLost("m1"))
    await settler.settle(attempt, Delete())
    assert 2 == len(queue.calls)


async def test_an_update_that_was_applied_but_not_answered_is_done(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue
) -> None:
    queue.will("update", AnswerLost("?"), LeaseLost("m1"))
    await settler.settle(attempt, Reappear(7, counted=True))
    assert 2 == len(queue.calls)


@pytest.mark.parametrize("action", [Delete(), Reappear(7, counted=True)])
async def test_what_was_not_answered_before_the_lease_ended_is_not_called_done(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue, action: Action
) -> None:
    async def late() -> None:
        attempt.lease.deadline = time.monotonic()
        raise AnswerLost("?")

    queue.will("delete", late)
    queue.will("update", late)
    with pytest.raises(LeaseLost):
        await settler.settle(attempt, action)
    assert 1 == len(queue.calls)


async def test_a_delete_with_a_receipt_that_a_lost_renewal_may_have_voided_is_not_called_done(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue
) -> None:
    queue.will("update", AnswerLost("?"))
    with pytest.raises(AnswerLost):
        await attempt.lease.renew()
    queue.will("delete", AnswerLost("?"), LeaseLost("m1"))
    with pytest.raises(LeaseLost):
        await settler.settle(attempt, Delete())


@pytest.mark.parametrize("refusal", [AccessDenied("403"), BrokerRefused("400"), LeaseLost("m1")])
async def test_a_refusal_for_good_is_not_tried_again(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue, refusal: BrokerError
) -> None:
    queue.will("update", refusal)
    with pytest.raises(type(refusal)):
        await settler.settle(attempt, Reappear(7, counted=True))
    assert 1 == len(queue.calls)


async def test_while_all_access_is_denied_a_settlement_is_tried_again(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue
) -> None:
    queue.will("delete", *[Suspended("403", 5, everywhere=True)] * 3, Suspended("403", 5, everywhere=False))
    await settler.settle(attempt, Delete())
    assert 5 == len(queue.calls)


async def test_where_just_this_right_is_missing_it_is_not(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue
) -> None:
    queue.will("delete", Suspended("403", 5, everywhere=False, missing=True))
    with pytest.raises(AccessDenied):
        await settler.settle(attempt, Delete())
    assert 1 == len(queue.calls)


async def test_trying_ends_with_the_lease(settler: Settler, queue: ScriptedQueue) -> None:
    found = message(BODY)
    lease = Lease(queue, found, length=1, began=time.monotonic() - 0.9)
    attempt = Attempt(Received(found, lease, "work"), decode(BODY, message_id="m1"), counted)
    queue.will("delete", *[BrokerBusy("503")] * 1000)
    with pytest.raises(LeaseLost):
        await settler.settle(attempt, Delete())
    assert 5 < len(queue.calls) < 1000


@pytest.mark.parametrize("failure", [BrokerUnavailable("down"), AnswerLost("?")])
async def test_what_may_be_wrong_for_long_is_tried_for_the_length_of_a_lease(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue, failure: BrokerError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt.lease, "length", 0.05)
    queue.will("delete", *[failure] * 1_000_000)
    with pytest.raises(type(failure)):
        await settler.settle(attempt, Delete())


async def test_a_broker_that_is_only_too_busy_is_tried_as_long_as_the_lease_is_kept(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt.lease, "length", 0.05)
    queue.will("delete", *[BrokerBusy("503")] * 200)
    await settler.settle(attempt, Delete())
    assert 201 == len(queue.calls)


async def test_room_in_a_poison_queue_is_waited_for_no_longer_than_it_is_tried(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue, poison: ScriptedQueue
) -> None:
    poison.will("admit", *[BrokerBusy("no room")] * 1000)
    with pytest.raises(BrokerBusy):
        await settler.settle(attempt, Poison(WHY))
    assert {(Urgency.SETTLEMENT, 0.2)} == set(poison.admissions)
    assert [] == poison.calls
    assert ["update"] == [method for method, *_ in queue.calls]


# Checkpoints


async def test_a_checkpoint_is_written_into_the_message(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue
) -> None:
    await settler.save_state(attempt, {"done": 3})
    [(_, _, _, visibility, body)] = queue.calls
    assert (60, {"done": 3}) == (visibility, json.loads(body)["state"])
    assert {"done": 3} == attempt.job.state
    await settler.settle(attempt, Reappear(0, counted=False))
    assert ("r2", {"done": 3}) == (queue.calls[-1][2], json.loads(queue.calls[-1][-1])["state"])


async def test_a_checkpoint_that_can_not_be_is_not_sent(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue
) -> None:
    with pytest.raises(MessageTooLarge):
        await settler.save_state(attempt, {"x" * MAX_BODY_BYTES: 1})
    attempt.task = loose
    with pytest.raises(InvalidArguments, match="over 200 levels deep"):
        await settler.save_state(attempt, json.loads("[" * 200 + "]" * 200))
    assert [] == queue.calls
    assert attempt.job.state is None


async def test_a_checkpoint_that_failed_leaves_the_old_state(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue
) -> None:
    queue.will("update", BrokerBusy("503"))
    with pytest.raises(BrokerBusy):
        await settler.save_state(attempt, {"done": 1})
    assert attempt.job.state is None


async def test_a_handler_cancelled_in_a_checkpoint_keeps_the_new_receipt(
    settler: Settler, attempt: Attempt, queue: ScriptedQueue
) -> None:
    go = asyncio.Event()

    async def slow() -> str:
        await go.wait()
        return "r9"

    queue.will("update", slow)
    saving = asyncio.create_task(settler.save_state(attempt, {"done": 1}))
    await asyncio.sleep(0.01)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    go.set()
    await settler.settle(attempt, Delete())
    assert ("delete", "m1", "r9") == queue.calls[-1]
