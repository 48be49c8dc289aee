import asyncio
import time

import pytest

from doubles import ScriptedQueue, message
from qworker.engine.attempt import Received
from qworker.engine.get import turns as turns_module
from qworker.engine.get.turns import Turns
from qworker.engine.lease.lease import Lease
from qworker.testing import FakeClock

PATIENCE = 60


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(turns_module, "time", clock)
    return clock


@pytest.fixture
async def turns(clock: FakeClock) -> Turns:
    return Turns(PATIENCE, lambda: None)


def wait(turns: Turns, count: int, *, alone: bool = False) -> list[Received]:
    """Have so many wait for their turn."""
    waiting = []
    for number in range(count):
        found = message(number=number)
        lease = Lease(ScriptedQueue(), found, length=PATIENCE, began=time.monotonic())
        waiting.append(Received(found, lease, "work"))
        turns.add(waiting[-1], alone=alone)
    return waiting


async def test_first_come_first_served(turns: Turns) -> None:
    assert turns.take() is None
    first, second = wait(turns, 2)
    assert (2, True) == (turns.waiting, turns.open)
    assert [first, second, None] == [turns.take(), turns.take(), turns.take()]
    assert 0 == turns.waiting


async def test_one_that_must_be_alone_waits_for_all_others(turns: Turns) -> None:
    [alone] = wait(turns, 1, alone=True)
    [first, second] = wait(turns, 2)
    assert not turns.open
    assert [first, second, None] == [turns.take(), turns.take(), turns.take()]
    turns.ended(first)
    assert turns.take() is None
    turns.ended(second)
    assert (alone, 0) == (turns.take(), turns.waiting)


async def test_nobody_starts_beside_one_that_is_alone(turns: Turns) -> None:
    [alone, later] = wait(turns, 2, alone=True)
    assert alone is turns.take()
    [other] = wait(turns, 1)
    assert turns.take() is None
    assert not turns.open
    turns.ended(alone)
    assert other is turns.take()
    assert turns.take() is None
    turns.ended(other)
    assert later is turns.take()
    turns.ended(later)
    assert turns.open


async def test_who_has_been_under_way_for_long_is_no_danger_and_in_none(turns: Turns, clock: FakeClock) -> None:
    [long] = wait(turns, 1)
    assert long is turns.take()
    clock.advance(PATIENCE - 1)
    [first, second, third] = wait(turns, 3, alone=True)
    assert turns.take() is None
    clock.advance(1)
    assert first is turns.take()
    turns.ended(first)
    assert second is turns.take()  # beside the long one, which has still been under way for long
    clock.advance(PATIENCE - 1)
    assert turns.take() is None
    clock.advance(1)
    assert third is turns.take()
    clock.advance(PATIENCE)
    [other] = wait(turns, 1)
    assert other is turns.take()
    assert turns.open


async def test_those_that_will_not_start_here(turns: Turns) -> None:
    waiting = [*wait(turns, 2), *wait(turns, 2, alone=True)]
    assert waiting == turns.take_all()
    assert (0, True) == (turns.waiting, turns.open)
    turns.ended(waiting[0])
    assert turns.take() is None


@pytest.mark.parametrize("first_alone", [True, False])
async def test_it_is_told_that_time_has_passed(*, first_alone: bool) -> None:
    passed = asyncio.Event()
    turns = Turns(0.02, passed.set)
    [first] = wait(turns, 1, alone=first_alone)
    assert first is turns.take()
    [second] = wait(turns, 1, alone=not first_alone)
    while (taken := turns.take()) is None:
        async with asyncio.timeout(10):
            await passed.wait()
        passed.clear()
    assert second is taken
