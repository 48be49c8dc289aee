import asyncio

import pytest

from qworker.brokers.base import MAX_BATCH
from qworker.engine.get import slots as slots_module
from qworker.engine.get.slots import Slots
from qworker.testing import FakeClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(slots_module, "time", clock)
    return clock


def start(slots: Slots, count: int) -> None:
    slots.waiting += count
    for _ in range(count):
        slots.started()


def end(slots: Slots, count: int) -> None:
    for _ in range(count):
        slots.ended()
        slots.settled()


def test_asks_for_what_can_run(clock: FakeClock) -> None:
    slots = Slots(4)
    assert (4, 4) == (slots.wanted(), slots.free)
    start(slots, 3)
    assert (1, 1) == (slots.wanted(), slots.free)
    start(slots, 1)
    assert (0, 0) == (slots.wanted(), slots.free)


def test_asks_for_no_more_than_may_be_started(clock: FakeClock) -> None:
    slots = Slots(100, most=5)
    assert 5 == slots.wanted()
    slots.received(messages=2, jobs=2)
    assert 0 == slots.wanted()  # as the others are: too few for another request beside these
    slots.started()
    slots.started()
    assert 3 == slots.wanted()
    start(slots, 3)
    end(slots, 5)
    assert (0, 0) == (slots.wanted(), slots.left)


def test_asks_for_no_more_than_a_batch(clock: FakeClock) -> None:
    assert MAX_BATCH == Slots(1000).wanted()


def test_does_not_ask_twice_for_the_same_room(clock: FakeClock) -> None:
    slots = Slots(4)
    slots.reserve(4)
    assert 0 == slots.wanted()
    slots.unreserve(4)
    assert 4 == slots.wanted()


def test_asks_for_full_batches_only_while_others_are_on_their_way(clock: FakeClock) -> None:
    slots = Slots(100)
    for _ in range(3):
        assert MAX_BATCH == slots.wanted()
        slots.reserve(MAX_BATCH)
    assert 0 == slots.wanted()
    slots.waiting += 5
    slots.unreserve(MAX_BATCH)
    assert 0 == slots.wanted()


def test_what_waits_is_room_that_is_taken(clock: FakeClock) -> None:
    slots = Slots(4)
    slots.waiting = 1
    assert 0 == slots.wanted()


def test_slow_jobs_are_not_prefetched(clock: FakeClock) -> None:
    slots = Slots(4)
    start(slots, 4)
    for _ in range(10):
        clock.advance(1)
        end(slots, 1)
        assert 1 == slots.wanted()
        start(slots, 1)
        assert 0 == slots.wanted()


def test_quick_jobs_are_prefetched_up_to_two_batches(clock: FakeClock) -> None:
    slots = Slots(4)
    start(slots, 4)
    for _ in range(20):
        end(slots, 4)
        start(slots, 4)
    clock.advance(1)  # 80 a second: 40 within half a second
    assert MAX_BATCH == slots.wanted()
    slots.reserve(MAX_BATCH)
    assert 0 == slots.wanted()
    slots.unreserve(MAX_BATCH)
    for _ in range(2000):
        end(slots, 4)
        start(slots, 4)
    clock.advance(1)
    slots.wanted()
    slots.waiting = MAX_BATCH
    assert MAX_BATCH == slots.wanted()
    slots.waiting = 2 * MAX_BATCH
    assert 0 == slots.wanted()


def test_the_first_jobs_count_before_a_rate_is_known(clock: FakeClock) -> None:
    slots = Slots(4)
    start(slots, 4)
    end(slots, 4)
    start(slots, 4)
    assert 8 == slots.wanted()


def test_prefetching_ends_when_jobs_become_slow(clock: FakeClock) -> None:
    slots = Slots(4)
    start(slots, 4)
    for _ in range(100):
        end(slots, 1)
        start(slots, 1)
    clock.advance(0.25)
    assert 0 < slots.wanted()
    clock.advance(1)
    assert 0 == slots.wanted()


async def test_asks_for_nothing_while_it_is_closed() -> None:
    slots = Slots(4)
    slots.set_open(to_more=False)
    assert 0 == slots.wanted()
    waiting = asyncio.create_task(slots.changed())
    await asyncio.sleep(0)
    slots.set_open(to_more=True)
    await waiting
    assert 4 == slots.wanted()


def test_less_is_prefetched_while_settling_lags_behind(clock: FakeClock) -> None:
    slots = Slots(4)
    start(slots, 4)
    for _ in range(40):
        slots.ended()
        start(slots, 1)
    clock.advance(0.25)  # 160 a second, of which none is settled
    slots.waiting = 8
    assert 0 == slots.wanted()
    for _ in range(40):
        slots.settled()
    assert MAX_BATCH == slots.wanted()


def test_what_is_not_settled_takes_no_free_slot(clock: FakeClock) -> None:
    slots = Slots(4)
    start(slots, 4)
    for _ in range(4):
        slots.ended()
    clock.advance(10)
    assert 4 == slots.wanted()


def test_a_message_of_many_jobs_fills_the_room_of_many(clock: FakeClock) -> None:
    slots = Slots(16)
    assert 16 == slots.wanted()
    slots.received(messages=2, jobs=200)
    assert (200, 0) == (slots.waiting, slots.wanted())
    slots.waiting = 0
    assert 1 == slots.wanted()
    slots.reserve(1)
    assert 0 == slots.wanted()


def test_quick_jobs_of_bundles_are_prefetched_for_as_long(clock: FakeClock) -> None:
    slots = Slots(4)
    slots.received(messages=1, jobs=100)
    start(slots, 4)
    for _ in range(2000):
        end(slots, 1)
        start(slots, 1)
    clock.advance(0.25)  # 8,000 a second: 4,000 within half a second
    assert MAX_BATCH == slots.wanted()
    slots.waiting = 2000
    assert 20 == slots.wanted()


@pytest.mark.parametrize("change", ["unreserve", "started", "ended", "settled"])
async def test_tells_of_room(change: str) -> None:
    slots = Slots(4)
    slots.waiting = slots.running = 1
    slots.reserve(1)
    waiting = asyncio.create_task(slots.changed())
    await asyncio.sleep(0)
    assert not waiting.done()
    if change == "unreserve":
        slots.unreserve(1)
    else:
        getattr(slots, change)()
    await asyncio.wait_for(waiting, 5)
