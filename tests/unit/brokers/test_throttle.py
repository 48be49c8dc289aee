import asyncio
import math
import threading
import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qworker.brokers.base import Urgency
from qworker.brokers.throttle import Throttle
from throttled_service import Bucket, Changing, EachSecond, OutOfOrder, Service, Unlucky, simulate

RENEWAL, SETTLEMENT, NEW_WORK = Urgency


def exhausted(rate: float) -> Throttle:
    """Return a throttle of a known rate that has just let through all that it may; it is time 0."""
    throttle = Throttle(0.0)
    throttle.refused(0.0, retry_after=0)
    throttle._limit.rate = rate
    while not throttle.wait(0.0, throttle.join(0.0, RENEWAL), RENEWAL):
        pass
    throttle._line.clear()
    throttle._seen.clear()
    return throttle


# What is learnt

limits = st.floats(50, 1_500)
services = st.one_of(
    st.builds(Bucket, limits, st.floats(5, 100)),
    st.builds(lambda limit: Bucket(limit, limit), limits),
    st.builds(EachSecond, limits, st.floats(0, 1)),
)


def limit_of(service: Service) -> float:
    assert isinstance(service, Bucket | EachSecond)
    return service._limit


@settings(max_examples=20, deadline=None)
@given(service=services, seed=st.integers(0, 1_000))
def test_throughput_settles_near_the_limit_and_little_is_refused(service: Service, seed: int) -> None:
    course = simulate(service, seconds=20, seed=seed)
    assert course.accepted(4, 20) >= 0.85 * limit_of(service)
    assert course.refused_share(4, 20) <= 0.12


@pytest.mark.parametrize("limit", [100, 500])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_that_know_nothing_of_each_other_share_a_limit(limit: int, processes: int) -> None:
    course = simulate(Bucket(limit, limit / 10), seconds=40, processes=processes)
    assert course.accepted(5, 40) >= 0.9 * limit
    shares = [course.accepted(5, 40, process) / limit for process in range(processes)]
    assert min(shares) >= 0.25 / processes, shares
    assert course.refused_share(5, 40) <= 0.3


def test_without_refusals_nothing_is_held_back() -> None:
    course = simulate(Bucket(10_000, 10_000), seconds=5, demand=1_000)
    assert [None] == [throttle.rate for throttle in course.throttles]
    assert 1.0 == course.accepted(1, 5) / course.asked(1, 5)


def test_a_few_refusals_are_no_limit() -> None:
    throttle = Throttle(0.0)
    for _ in range(5):
        throttle.refused(0.1)
    assert throttle.rate is None
    throttle.refused(0.1)
    assert throttle.rate is not None


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
def test_refusals_that_do_not_depend_on_the_rate_do_not_slow_down_for_long(share: float) -> None:
    course = simulate(Unlucky(share, Random(7)), seconds=30, demand=500)
    assert course.asked(15, 30) >= 0.8 * course.asked(0, 0.5)


@pytest.mark.parametrize("limit", [100, 500])
def test_in_an_outage_little_is_asked_and_afterwards_soon_as_much_as_before(limit: int) -> None:
    well = Bucket(limit, limit / 10)
    course = simulate(Changing((10, well), (70, OutOfOrder()), (math.inf, well)), seconds=85)
    assert course.asked(20, 70) <= 10.5
    assert course.asked(10, 70) <= 25
    assert course.accepted(70, 74) * 4 >= 0.3 * limit, "resumes"
    assert course.accepted(76, 85) >= 0.85 * limit


def test_a_limit_that_falls_is_found_again() -> None:
    course = simulate(Changing((10, Bucket(500, 50)), (math.inf, Bucket(50, 5))), seconds=40)
    assert course.accepted(20, 40) >= 0.85 * 50
    assert course.refused_share(25, 40) <= 0.3


def test_a_limit_that_rises_is_found_again() -> None:
    course = simulate(Changing((10, Bucket(50, 5)), (math.inf, Bucket(500, 50))), seconds=30)
    assert course.accepted(22, 30) >= 0.85 * 500


def test_without_refusals_for_half_a_minute_nothing_is_held_back_any_more() -> None:
    course = simulate(Changing((5, Bucket(100, 10)), (math.inf, Bucket(5_000, 5_000))), seconds=40, demand=400)
    assert [None] == [throttle.rate for throttle in course.throttles]
    assert course.accepted(37, 40) >= 0.8 * 400


# What the queue asks for


def test_when_the_queue_asks_to_be_left_alone_only_renewals_are_let_through() -> None:
    throttle = Throttle(0.0)
    throttle.refused(0.0, retry_after=7)
    for urgency in (SETTLEMENT, NEW_WORK):
        assert 6 == pytest.approx(throttle.wait(1.0, throttle.join(0.5, urgency), urgency))
    assert 0 == throttle.wait(1.0, throttle.join(1.0, RENEWAL), RENEWAL)
    assert 0 == throttle.wait(7.0, throttle.join(7.0, NEW_WORK), NEW_WORK)


def test_the_longest_of_several_requests_to_be_left_alone_counts() -> None:
    throttle = Throttle(0.0)
    for seconds in (7, 3):
        throttle.refused(0.0, retry_after=seconds)
    assert 7 == throttle.wait(0.0, throttle.join(0.0, NEW_WORK), NEW_WORK)


# Whose turn it is


def turns(throttle: Throttle, waiting: list[tuple[float, Urgency]], *, rate: float) -> list[int]:
    """Return who was let through, in order: the numbers of those that wait, each with the time of its coming."""
    places = {number: (throttle.join(at, urgency), urgency) for number, (at, urgency) in enumerate(waiting)}
    order, now = list[int](), max(at for at, _ in waiting)
    for number, (place, urgency) in places.items():  # all line up while there is no room yet
        assert throttle.wait(now, place, urgency), number
    while places:
        now += 0.5 / rate
        for number, (place, urgency) in sorted(places.items(), reverse=True):
            if not throttle.wait(now, place, urgency):
                order.append(number)
                del places[number]
    return order


@pytest.mark.parametrize("rate", [10, 100])
def test_renewals_go_first_then_what_settles_then_new_work(rate: float) -> None:
    throttle = exhausted(rate)
    waiting = [(0.0, NEW_WORK), (0.0, SETTLEMENT), (0.0, SETTLEMENT), (0.001, RENEWAL), (0.001, NEW_WORK)]
    assert [3, 1, 2, 0, 4] == turns(throttle, waiting, rate=rate)


def test_new_work_is_overtaken_only_by_what_came_soon_after() -> None:
    throttle = exhausted(10)
    waiting = [(-1.0, NEW_WORK), (-0.6, SETTLEMENT), (-0.4, SETTLEMENT)]
    assert [1, 0, 2] == turns(throttle, waiting, rate=10)


def test_a_place_whose_owner_is_absent_holds_nobody_up() -> None:
    throttle = exhausted(10)
    absent, present = throttle.join(0.0, SETTLEMENT), throttle.join(0.0, SETTLEMENT)
    assert throttle.wait(0.0, absent, SETTLEMENT)
    assert throttle.wait(0.9, present, SETTLEMENT), "it is the other's turn"
    assert 0 == throttle.wait(1.1, present, SETTLEMENT)
    assert 0 == throttle.wait(1.3, absent, SETTLEMENT), "it is back, and first"


def test_a_place_that_was_given_up_holds_nobody_up() -> None:
    throttle = exhausted(10)
    first, second = throttle.join(0.0, SETTLEMENT), throttle.join(0.0, SETTLEMENT)
    assert throttle.wait(0.0, first, SETTLEMENT)
    throttle.leave(first)
    assert 0 == throttle.wait(0.2, second, SETTLEMENT)
    throttle.leave(second)


# Waiting


async def test_a_wait_ends_when_its_time_is_over_or_it_is_cancelled() -> None:
    throttle = Throttle(time.monotonic())
    throttle.refused(time.monotonic(), retry_after=60)
    assert not await throttle.admit(NEW_WORK, within=0.01)
    waiting = asyncio.create_task(throttle.admit(NEW_WORK, within=None))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert [] == throttle._line


async def test_a_wait_ends_soon_when_nothing_is_held_back_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    throttle = Throttle(time.monotonic())
    throttle.refused(time.monotonic(), retry_after=60)
    waiting = asyncio.create_task(throttle.admit(NEW_WORK, within=None))
    await asyncio.sleep(0.01)
    monkeypatch.setattr(throttle._limit, "rate", None)
    async with asyncio.timeout(10):
        assert await waiting


def test_threads_together_are_not_let_through_faster_than_one() -> None:
    throttle = Throttle(time.monotonic())
    throttle.refused(time.monotonic(), retry_after=0)
    rate = throttle._limit.rate = 500.0
    until, admitted = time.monotonic() + 0.6, list[bool]()

    async def ask() -> None:
        while time.monotonic() < until:
            admitted.append(await throttle.admit(NEW_WORK, within=None))

    async def ask_at_once() -> None:
        await asyncio.gather(*(ask() for _ in range(20)))

    began = time.monotonic()
    threads = [threading.Thread(target=lambda: asyncio.run(ask_at_once())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < len(admitted) <= rate * (time.monotonic() - began + 0.05) + 1
    assert [] == throttle._line
