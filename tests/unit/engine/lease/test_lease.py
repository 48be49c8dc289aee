import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from doubles import ScriptedQueue, message
from qworker.brokers.base import Urgency
from qworker.brokers.sqlite.broker import SqliteBroker
from qworker.engine.lease.lease import Lease, LeaseKeeper
from qworker.engine.lease.watch import LoopWatch
from qworker.errors import AccessDenied, AnswerLost, BrokerBusy, LeaseLost
from waiting import until


@pytest.fixture
def queue() -> ScriptedQueue:
    return ScriptedQueue()


@pytest.fixture
def lease(queue: ScriptedQueue) -> Lease:
    return Lease(queue, message(), length=60, began=time.monotonic())


def held_until(event: asyncio.Event, then: str = "held") -> Callable[[], Awaitable[str]]:
    async def answer() -> str:
        await event.wait()
        return then

    return answer


async def never() -> str:
    await asyncio.Event().wait()
    return "never"


# The lease


async def test_begins_before_it_was_asked_for(queue: ScriptedQueue) -> None:
    began = time.monotonic() - 7
    lease = Lease(queue, message(), length=60, began=began)
    assert (began + 60, began + 20, False) == (lease.deadline, lease.due, lease.lost)


async def test_each_renewal_has_the_newest_receipt(lease: Lease, queue: ScriptedQueue) -> None:
    first = lease.deadline
    await lease.renew()
    await lease.renew()
    await lease.complete()
    assert [("update", "m1", "r1", 60, None), ("update", "m1", "r2", 60, None), ("delete", "m1", "r3")] == queue.calls
    assert first < lease.deadline <= time.monotonic() + 60
    assert lease.deadline - 40 == pytest.approx(lease.due)


async def test_saving_renews_and_keeps_the_receipt(lease: Lease, queue: ScriptedQueue) -> None:
    first = lease.deadline
    await lease.save("body")
    assert first < lease.deadline
    await lease.reappear(7, body="other")
    assert [("update", "m1", "r1", 60, "body"), ("update", "m1", "r2", 7, "other")] == queue.calls


async def test_a_renewal_never_waits_and_never_follows_a_settlement(lease: Lease, queue: ScriptedQueue) -> None:
    go = asyncio.Event()
    queue.will("delete", held_until(go))
    completing = asyncio.create_task(lease.complete())
    await asyncio.sleep(0)
    await lease.renew()
    go.set()
    await completing
    await lease.renew()
    assert [("delete", "m1", "r1")] == queue.calls


async def test_a_settlement_waits_for_the_renewal_under_way(lease: Lease, queue: ScriptedQueue) -> None:
    go = asyncio.Event()
    queue.will("update", held_until(go, "r9"))
    renewing = asyncio.create_task(lease.renew())
    await asyncio.sleep(0)
    completing = asyncio.create_task(lease.complete())
    await asyncio.sleep(0.01)
    assert 1 == len(queue.calls)
    go.set()
    await asyncio.gather(renewing, completing)
    assert [("update", "m1", "r1", 60, None), ("delete", "m1", "r9")] == queue.calls


async def test_a_settlement_waits_for_a_renewal_of_another_thread(lease: Lease, queue: ScriptedQueue) -> None:
    begun, go = threading.Event(), threading.Event()

    async def slow() -> str:
        begun.set()
        await asyncio.to_thread(go.wait)
        return "r9"

    queue.will("update", slow)
    thread = threading.Thread(target=lambda: asyncio.run(lease.renew()))
    thread.start()
    await asyncio.to_thread(begun.wait)
    completing = asyncio.create_task(lease.complete())
    await asyncio.sleep(0.01)
    assert 1 == len(queue.calls)
    go.set()
    await completing
    thread.join()
    assert ("delete", "m1", "r9") == queue.calls[-1]


async def test_one_that_gave_up_waiting_is_passed_over(lease: Lease, queue: ScriptedQueue) -> None:
    go = asyncio.Event()
    queue.will("update", held_until(go))
    renewing = asyncio.create_task(lease.renew())
    await asyncio.sleep(0)
    impatient, patient = asyncio.create_task(lease.save("a")), asyncio.create_task(lease.save("b"))
    await asyncio.sleep(0)
    impatient.cancel()
    go.set()
    await asyncio.gather(renewing, patient)
    assert ["b"] == [body for *_, body in queue.calls[1:]]


async def test_renewals_and_settlements_of_threads_never_meet() -> None:
    """A renewal takes the receipt that a delete would use: with both at once, one would fail."""
    broker = SqliteBroker(None)
    await broker.create_queue("work")
    for _ in range(32):
        await broker.queue("work").put("{}")
    messages = await broker.queue("work").get(32, visibility=60)
    leases = [Lease(broker.queue("work"), found, length=60, began=time.monotonic()) for found in messages]
    done = threading.Event()

    async def renew_all() -> None:
        while not done.is_set():
            await asyncio.gather(*(lease.renew() for lease in leases))

    thread = threading.Thread(target=lambda: asyncio.run(renew_all()))
    thread.start()
    try:
        for lease in leases:
            await lease.save('{"a":1}')
            await lease.complete()
    finally:
        done.set()
        thread.join()
    assert [False] * 32 == [lease.lost for lease in leases]
    assert 0 == await broker.queue("work").count()
    await broker.aclose()


async def test_a_stale_receipt_loses_the_lease(lease: Lease, queue: ScriptedQueue) -> None:
    told: list[bool] = []
    queue.will("update", LeaseLost("m1"))
    with lease.when_lost(lambda: told.append(True)):
        with pytest.raises(LeaseLost):
            await lease.renew()
        assert lease.lost
        lease.lose()
    assert [True] == told
    with pytest.raises(LeaseLost):
        await lease.complete()
    assert 1 == len(queue.calls)


async def test_nothing_is_settled_after_the_deadline(lease: Lease, queue: ScriptedQueue) -> None:
    told: list[bool] = []
    lease.deadline = time.monotonic()
    assert lease.lost
    with lease.when_lost(lambda: told.append(True)):
        for settle in (lease.complete, lambda: lease.reappear(0), lambda: lease.save("x")):
            with pytest.raises(LeaseLost):
                await settle()
    assert [] == queue.calls
    assert [True] == told


async def test_nothing_is_saved_after_it_was_settled(lease: Lease, queue: ScriptedQueue) -> None:
    await lease.reappear(1)
    with pytest.raises(LeaseLost):
        await lease.save("x")
    assert 1 == len(queue.calls)


async def test_a_lease_that_is_lost_already_says_so_at_once(lease: Lease) -> None:
    told: list[bool] = []
    lease.lose()
    with lease.when_lost(lambda: told.append(True)):
        assert [True] == told


async def test_a_message_that_is_gone_is_deleted(lease: Lease, queue: ScriptedQueue) -> None:
    queue.will("delete", AnswerLost("?"), LeaseLost("m1"))
    with pytest.raises(AnswerLost):
        await lease.complete()
    await lease.complete()
    assert not lease.lost


@pytest.mark.parametrize("unanswered", [AnswerLost("?"), never])
async def test_after_an_uncertain_renewal_a_refused_delete_is_no_delete(
    queue: ScriptedQueue, unanswered: AnswerLost | Callable[[], Awaitable[str]]
) -> None:
    lease = Lease(queue, message(), length=1, began=time.monotonic())
    queue.will("update", unanswered)
    queue.will("delete", LeaseLost("m1"))
    with pytest.raises(AnswerLost):
        await lease.renew()
    with pytest.raises(LeaseLost):
        await lease.complete()


async def test_an_update_that_was_applied_but_not_answered_has_settled_the_message(
    lease: Lease, queue: ScriptedQueue
) -> None:
    queue.will("update", AnswerLost("?"), LeaseLost("m1"))
    with pytest.raises(AnswerLost):
        await lease.reappear(7)
    await lease.reappear(7)
    await lease.renew()
    assert 2 == len(queue.calls)


async def test_after_an_uncertain_renewal_a_refused_update_settles_nothing(lease: Lease, queue: ScriptedQueue) -> None:
    queue.will("update", AnswerLost("a renewal's"), AnswerLost("a settlement's"), LeaseLost("m1"))
    with pytest.raises(AnswerLost):
        await lease.renew()
    with pytest.raises(AnswerLost):
        await lease.reappear(7)
    with pytest.raises(LeaseLost):
        await lease.reappear(7)


@pytest.mark.parametrize("method", ["update", "delete"])
async def test_what_may_be_settled_is_not_renewed(lease: Lease, queue: ScriptedQueue, method: str) -> None:
    queue.will(method, AnswerLost("?"))
    with pytest.raises(AnswerLost):
        await (lease.complete() if method == "delete" else lease.reappear(7))
    await lease.renew()
    assert [method] == [name for name, *_ in queue.calls]


async def test_a_renewal_that_succeeds_ends_the_uncertainty(lease: Lease, queue: ScriptedQueue) -> None:
    queue.will("update", AnswerLost("?"), "r7")
    queue.will("delete", LeaseLost("m1"))
    with pytest.raises(AnswerLost):
        await lease.renew()
    await lease.renew()
    await lease.complete()
    assert ("delete", "m1", "r7") == queue.calls[-1]


async def test_an_unanswered_renewal_is_given_up_in_a_sixth_of_the_length(queue: ScriptedQueue) -> None:
    lease = Lease(queue, message(), length=3, began=time.monotonic())
    queue.will("update", never)
    began = time.monotonic()
    with pytest.raises(AnswerLost, match="update was not answered in time"):
        await lease.renew()
    assert 3 / 6 <= time.monotonic() - began < 3 / 2  # where a settlement is given up
    assert not lease.lost


async def test_an_unanswered_delete_is_given_up_in_half_of_the_length(queue: ScriptedQueue) -> None:
    lease = Lease(queue, message(), length=1, began=time.monotonic())
    queue.will("delete", never)
    with pytest.raises(AnswerLost, match="delete was not answered in time"):
        await lease.complete()
    assert not lease.lost


async def test_a_refusal_keeps_the_lease(lease: Lease, queue: ScriptedQueue) -> None:
    queue.will("update", BrokerBusy("503"), AccessDenied("403"))
    for refusal in (BrokerBusy, AccessDenied):
        with pytest.raises(refusal):
            await lease.reappear(0)
    assert not lease.lost
    await lease.renew()
    assert "r1" == queue.calls[-1][2]


async def test_a_settlement_waits_for_room_without_the_leases_turn(lease: Lease, queue: ScriptedQueue) -> None:
    go, queue.limit = asyncio.Event(), 10.0
    queue.will("admit", held_until(go))
    completing = asyncio.create_task(lease.complete())
    await until(lambda: queue.admissions)
    await lease.renew()
    go.set()
    await completing
    assert [("update", "m1", "r1", 60, None), ("delete", "m1", "r2")] == queue.calls
    assert [Urgency.SETTLEMENT, Urgency.RENEWAL] == [urgency for urgency, _ in queue.admissions]


@pytest.mark.parametrize("act", [lambda lease: lease.renew(), lambda lease: lease.reappear(3), Lease.complete])
async def test_what_found_no_room_was_not_sent_and_leaves_no_doubt(
    lease: Lease, queue: ScriptedQueue, act: Callable[[Lease], Awaitable[None]]
) -> None:
    queue.limit = 10.0
    queue.will("admit", BrokerBusy("no room"))
    with pytest.raises(BrokerBusy):
        await act(lease)
    assert [] == queue.calls
    await lease.renew()
    queue.will("delete", LeaseLost("m1"))
    await lease.complete()  # the receipt is known to be the newest, so the message is gone
    assert not lease.lost


async def test_room_is_waited_for_no_longer_than_the_lease_lasts(lease: Lease, queue: ScriptedQueue) -> None:
    queue.limit = 10.0
    await lease.renew()
    lease.deadline = time.monotonic() + 7
    await lease.save("body")
    for (_, within), longest in zip(queue.admissions, (60, 7), strict=True):
        assert within is not None
        assert longest - 1 < within <= longest


async def test_a_lease_that_is_lost_needs_no_room(lease: Lease, queue: ScriptedQueue) -> None:
    lease.deadline = 0
    with pytest.raises(LeaseLost):
        await lease.complete()
    assert [] == queue.admissions


# Its keeper


@pytest.fixture
async def keeper() -> AsyncIterator[LeaseKeeper]:
    keeper = LeaseKeeper(1, LoopWatch(lambda _: None, lambda _: None, blocked_after=60), lambda: None)
    keeper.start()
    yield keeper
    await keeper.stop()


async def test_renews_every_third_while_the_main_loop_is_blocked(keeper: LeaseKeeper, queue: ScriptedQueue) -> None:
    leases = [Lease(queue, message(number=number), length=1, began=time.monotonic()) for number in (1, 2)]
    keeper.keep(leases)
    time.sleep(1.5)  # noqa: ASYNC251 — a handler that blocks the loop is the subject
    assert [False, False] == [lease.lost for lease in leases]
    for number in ("m1", "m2"):
        receipts = [receipt for _, message_id, receipt, *_ in queue.calls if message_id == number]
        assert 3 <= len(receipts) <= 5
        assert len(set(receipts)) == len(receipts)


async def test_renews_no_more_what_was_dropped(keeper: LeaseKeeper, queue: ScriptedQueue) -> None:
    dropped, kept = (Lease(queue, message(number=number), length=60, began=time.monotonic()) for number in (1, 2))
    keeper.keep([dropped, kept])
    keeper.drop(dropped)
    dropped.due = kept.due = 0
    await until(lambda: queue.calls)
    assert ["m2"] == [message_id for _, message_id, *_ in queue.calls]


async def test_loses_what_could_not_be_renewed_in_time(keeper: LeaseKeeper, queue: ScriptedQueue) -> None:
    lease = Lease(queue, message(), length=60, began=time.monotonic())
    told: list[bool] = []
    lease.deadline = 0
    with lease.when_lost(lambda: told.append(True)):
        keeper.keep([lease])
        await until(lambda: told)
    assert [True] == told
    assert [] == queue.calls


async def test_a_lost_lease_is_not_renewed_again(keeper: LeaseKeeper, queue: ScriptedQueue) -> None:
    lost, other = (Lease(queue, message(number=number), length=60, began=time.monotonic()) for number in (1, 2))
    queue.will("update", LeaseLost("m1"))
    lost.due = 0
    keeper.keep([lost])
    await until(lambda: lost.lost)
    lost.due = other.due = 0
    keeper.keep([other])
    await until(lambda: len(queue.calls) > 1)
    assert ["m1", "m2"] == [message_id for _, message_id, *_ in queue.calls]


@pytest.mark.parametrize("failure", [BrokerBusy("503"), AnswerLost("?"), RuntimeError("a bug"), OSError("network")])
async def test_a_failed_renewal_is_tried_again_well_before_the_deadline(
    keeper: LeaseKeeper, queue: ScriptedQueue, failure: Exception
) -> None:
    queue.will("update", failure, failure)
    lease = Lease(queue, message(), length=1, began=time.monotonic())
    lease.due = 0
    deadline = lease.deadline
    keeper.keep([lease])
    await until(lambda: len(queue.calls) == 3)
    assert time.monotonic() < deadline
    await until(lambda: lease.deadline > deadline)
    assert not lease.lost


async def test_a_failed_renewal_is_told_of(queue: ScriptedQueue) -> None:
    told: list[tuple[Lease, Exception, float]] = []
    watch = LoopWatch(lambda _: None, lambda _: None, blocked_after=60)
    keeper = LeaseKeeper(60, watch, lambda: None, lambda *failed: told.append(failed))
    denied = AccessDenied("403")
    queue.will("update", denied)
    lease = Lease(queue, message(), length=60, began=time.monotonic())
    lease.due = 0
    keeper.start()
    keeper.keep([lease])
    await until(lambda: told)
    await keeper.stop()
    assert [(lease, denied, 5)] == told
    assert not lease.lost


async def test_a_lease_that_is_being_settled_is_renewed_after(keeper: LeaseKeeper, queue: ScriptedQueue) -> None:
    lease = Lease(queue, message(), length=60, began=time.monotonic())
    go = asyncio.Event()
    queue.will("update", held_until(go, "r8"))
    saving = asyncio.create_task(lease.save("body"))
    await asyncio.sleep(0)
    keeper.keep([lease])
    lease.due = 0
    await asyncio.sleep(0.2)  # the keeper looks, and finds it taken
    go.set()
    await saving
    lease.due = 0
    await until(lambda: len(queue.calls) == 2)
    assert ["r1", "r8"] == [receipt for _, _, receipt, *_ in queue.calls]


async def test_a_lease_lost_while_its_renewal_is_under_way_is_told_of(
    keeper: LeaseKeeper, queue: ScriptedQueue
) -> None:
    lease = Lease(queue, message(), length=60, began=time.monotonic())
    told = threading.Event()
    queue.will("update", never)
    lease.due = 0
    with lease.when_lost(told.set):
        keeper.keep([lease])
        await until(lambda: queue.calls)
        lease.deadline = time.monotonic()
        await until(told.is_set)


async def test_leases_are_renewed_by_urgency_where_not_all_can_be_at_once(
    keeper: LeaseKeeper, queue: ScriptedQueue
) -> None:
    began = time.monotonic()
    leases = [Lease(queue, message(number=number), length=60, began=began) for number in range(100)]
    for number, lease in enumerate(leases):
        lease.due, lease.deadline = 0, began + 60 + (number * 37) % 100

    async def slow() -> str:
        await asyncio.sleep(0.001)
        return "r2"

    queue.will("update", *[slow] * 100)
    keeper.keep(leases)
    await until(lambda: len(queue.calls) == 100)
    urgency = {f"m{number}": (number * 37) % 100 for number in range(100)}
    assert list(range(100)) == [urgency[message_id] for _, message_id, *_ in queue.calls]


async def test_no_more_renewals_are_under_way_than_a_broker_bears(keeper: LeaseKeeper, queue: ScriptedQueue) -> None:
    queue.will("update", *[never] * 100)
    leases = [Lease(queue, message(number=number), length=60, began=time.monotonic()) for number in range(40)]
    for lease in leases:
        lease.due = 0
    keeper.keep(leases)
    await until(lambda: len(queue.calls) == 32)
    await asyncio.sleep(0.3)  # the keeper looks again, three times
    assert 32 == len(queue.calls)


async def test_stopping_does_not_wait_for_renewals_nor_hold_up_the_loop(queue: ScriptedQueue) -> None:
    keeper = LeaseKeeper(60, LoopWatch(lambda _: None, lambda _: None), lambda: None)
    lease = Lease(queue, message(), length=60, began=time.monotonic())
    lease.due = 0
    queue.will("update", never)
    keeper.start()
    keeper.keep([lease])
    await until(lambda: queue.calls)
    await asyncio.wait_for(keeper.stop(), 5)


async def test_stops_at_once_however_early() -> None:
    for _ in range(50):
        keeper = LeaseKeeper(60, LoopWatch(lambda _: None, lambda _: None), lambda: None)
        keeper.start()
        await asyncio.wait_for(keeper.stop(), 5)


async def test_closes_its_connections_in_its_own_loop() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def close() -> None:
        loops.append(asyncio.get_running_loop())

    keeper = LeaseKeeper(1, LoopWatch(lambda _: None, lambda _: None), close)
    keeper.start()
    await keeper.stop()
    await keeper.stop()
    [loop] = loops
    assert loop is not asyncio.get_running_loop()
    assert loop.is_closed()


async def test_it_is_late_when_its_own_loop_stands_still() -> None:
    keeper = LeaseKeeper(60, LoopWatch(lambda _: None, lambda _: None), lambda: None)
    keeper.start()
    await keeper.run(_nothing)
    assert 0 == keeper.late(time.monotonic())
    assert 98.5 == pytest.approx(keeper.late(time.monotonic() + 99), abs=1)
    await keeper.stop()


async def _nothing() -> None: ...


async def test_each_renewal_is_told_unless_its_message_is_being_settled() -> None:
    told: list[Lease] = []
    queue = ScriptedQueue()
    lease = Lease(queue, message(), length=60, began=time.monotonic())
    assert await lease.renew()
    await lease.complete()
    assert not await lease.renew()
    assert 1 == len(queue.called("update"))

    watch = LoopWatch(lambda _: None, lambda _: None)
    keeper = LeaseKeeper(1, watch, lambda: None, on_renewed=told.append)
    keeper.start()
    kept = Lease(ScriptedQueue(), message(), length=1, began=time.monotonic())
    keeper.keep([kept])
    await until(lambda: told)
    await keeper.stop()
    assert kept is told[0]
