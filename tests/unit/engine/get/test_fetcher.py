import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from doubles import ScriptedQueue, message
from qworker.brokers.base import Message, Queue, Urgency
from qworker.engine.get import fetcher as fetcher_module
from qworker.engine.get.fetcher import Fetcher, Pace
from qworker.errors import AccessDenied, BrokerBusy, BrokerUnavailable
from qworker.events import Event, PollFailed, PollRecovered, QueueUnthrottled
from qworker.testing import EventRecorder
from waiting import until


class Room:
    """Has as much room as a test says."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.reserved = 0
        self.asked = 0
        self._change = asyncio.Event()

    def wanted(self) -> int:
        self.asked += 1
        return max(self.free - self.reserved, 0)

    def reserve(self, count: int) -> None:
        self.reserved += count

    def unreserve(self, count: int) -> None:
        self.reserved -= count
        self._change.set()

    def give(self, count: int) -> None:
        self.free += count
        self._change.set()

    async def changed(self) -> None:
        self._change.clear()
        await self._change.wait()


class Deliveries:
    def __init__(self) -> None:
        self.all: list[tuple[str, int, float]] = []
        self._change = asyncio.Event()

    def __call__(self, queue: Queue, messages: list[Message], began: float) -> None:
        self.all.append((queue.name, len(messages), began))
        self._change.set()

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.all) < count:
                self._change.clear()
                await self._change.wait()


@asynccontextmanager
async def fetching(
    queues: dict[Queue, int],
    room: Room,
    deliver: Callable[[Queue, list[Message], float], None],
    emit: Callable[[Event], None] = lambda _: None,
    pace: Pace = Pace(60, 0.001, 0.005),  # noqa: B008 — a frozen value
) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(Fetcher(queues, room, pace, deliver, emit).run())
    yield task
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def batch(count: int) -> list[Message]:
    return [message(number=number) for number in range(count)]


async def test_asks_for_what_fits_and_the_lease() -> None:
    queue, room, deliver = ScriptedQueue(), Room(5), Deliveries()
    async with fetching({queue: 1}, room, deliver):
        await deliver.wait(1)
    assert [5, 60] == queue.called("get")[0]
    assert ("work", 0) == deliver.all[0][:2]


async def test_never_asks_for_more_than_a_batch() -> None:
    queue, room, deliver = ScriptedQueue(), Room(100), Deliveries()
    async with fetching({queue: 1}, room, deliver):
        await deliver.wait(1)
    assert 32 == queue.called("get")[0][0]


async def test_asks_nothing_without_room() -> None:
    queue, room, deliver = ScriptedQueue(), Room(0), Deliveries()
    async with fetching({queue: 1}, room, deliver):
        for _ in range(5):
            await asyncio.sleep(0)
        assert [] == queue.calls
        room.give(3)
        await deliver.wait(1)
    assert 3 == queue.called("get")[0][0]


async def test_began_is_from_before_the_request() -> None:
    queue, room, deliver = ScriptedQueue(), Room(1), Deliveries()
    asked_at = []

    async def slow() -> list[Message]:
        asked_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.02)
        return batch(1)

    queue.will("get", slow)
    async with fetching({queue: 1}, room, deliver):
        await deliver.wait(1)
    assert deliver.all[0][2] <= asked_at[0]


def held(event: asyncio.Event, messages: list[Message]) -> Callable[[], Awaitable[list[Message]]]:
    async def answer() -> list[Message]:
        await event.wait()
        return messages

    return answer


async def test_several_gets_at_once_while_batches_are_full() -> None:
    queue, room, deliver = ScriptedQueue(), Room(200), Deliveries()
    go = asyncio.Event()
    queue.will("get", batch(32), *[held(go, [])] * 10)
    async with fetching({queue: 1}, room, deliver):
        await deliver.wait(1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert 1 + 4 == len(queue.calls)
        assert 4 * 32 == room.reserved
        go.set()


async def test_one_get_at_a_time_while_batches_are_not_full() -> None:
    queue, room, deliver = ScriptedQueue(), Room(200), Deliveries()
    go = asyncio.Event()
    queue.will("get", batch(31), *[held(go, [])] * 10)
    async with fetching({queue: 1}, room, deliver):
        await deliver.wait(1)
        await asyncio.sleep(0.02)
        assert 2 == len(queue.called("get"))
        go.set()


async def test_an_empty_answer_of_several_is_not_told_of() -> None:
    queue, room, deliver = ScriptedQueue(), Room(64), Deliveries()
    first, second = asyncio.Event(), asyncio.Event()
    queue.will("get", batch(32), held(first, batch(3)), held(second, []))
    async with fetching({queue: 1}, room, deliver):
        await deliver.wait(1)
        await until(lambda: len(queue.calls) == 3)
        second.set()
        await asyncio.sleep(0.01)
        assert [32] == [count for _, count, _ in deliver.all]
        first.set()
        await deliver.wait(3)
    assert [32, 3, 0] == [count for _, count, _ in deliver.all[:3]]


async def test_rests_longer_while_a_queue_is_empty() -> None:
    queue, room, rests = ScriptedQueue(), Room(4), list[float]()
    done = asyncio.Event()
    queue.will("get", *[[]] * 5, batch(1), [])

    def deliver(*_: object) -> None:
        rests.append(fetcher._polls[0].rest)
        if len(rests) == 7:
            done.set()

    fetcher = Fetcher({queue: 1}, room, Pace(60, 0.01, 0.08), deliver, lambda _: None)
    task = asyncio.create_task(fetcher.run())
    began = time.monotonic()
    await done.wait()
    task.cancel()
    assert [0.01, 0.02, 0.04, 0.08, 0.08, 0.01, 0.02] == rests
    # Each rest is shortened by up to a half, at random.
    assert time.monotonic() - began >= sum(rests[:-1]) / 2


async def test_a_rest_ends_when_there_may_be_something() -> None:
    """Were it not for the wait that ends, a second poll would be minutes away."""
    queue, room, deliver = ScriptedQueue(), Room(1), Deliveries()
    queue.will("wait", None)
    queue.will("get", [], batch(1))
    async with asyncio.timeout(30), fetching({queue: 1}, room, deliver, pace=Pace(60, 600, 600)):
        await deliver.wait(2)
    assert [0, 1] == [count for _, count, _ in deliver.all][:2]
    assert all(300 <= seconds <= 600 for [seconds] in queue.called("wait"))


async def test_a_wait_that_fails_is_a_rest() -> None:
    queue, room, deliver = ScriptedQueue(), Room(1), Deliveries()
    queue.will("wait", *[RuntimeError("broken")] * 100)
    async with asyncio.timeout(30), fetching({queue: 1}, room, deliver):
        await deliver.wait(3)
    assert len(queue.called("wait")) <= len(deliver.all) + 1


async def test_a_queue_that_fails_is_not_waited_for() -> None:
    queue, room, deliver = ScriptedQueue(), Room(1), Deliveries()
    queue.will("get", BrokerUnavailable("down"), [])
    queue.will("wait", *[None] * 3)
    async with asyncio.timeout(30), fetching({queue: 1}, room, deliver):
        while not queue.called("get"):  # noqa: ASYNC110 — until it has failed
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert [] == queue.called("wait")
        await deliver.wait(1)


async def test_weights_say_how_often_a_queue_is_asked() -> None:
    queues = [ScriptedQueue("often"), ScriptedQueue("rarely")]
    for queue in queues:
        queue.will("get", *[batch(1)] * 1000)
    room, deliver = Room(1), Deliveries()
    async with fetching({queues[0]: 9, queues[1]: 1}, room, deliver):
        await deliver.wait(400)
    asked = Counter(name for name, *_ in deliver.all[:400])
    assert 310 < asked["often"] < 390
    assert 10 < asked["rarely"]


async def test_an_idle_queue_does_not_hold_up_a_busy_one() -> None:
    idle, busy = ScriptedQueue("idle"), ScriptedQueue("busy")
    busy.will("get", *[batch(1)] * 100)
    room, deliver = Room(1), Deliveries()
    async with fetching({idle: 1, busy: 1}, room, deliver, pace=Pace(60, 10, 10)):
        await deliver.wait(101)
    assert 1 >= Counter(name for name, *_ in deliver.all)["idle"]


async def test_a_failing_queue_rests_longer_each_time_and_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher_module, "_FIRST_PAUSE", 0.002)
    monkeypatch.setattr(fetcher_module, "_LONGEST_PAUSE", 0.008)
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    queue, room, deliver, recorder = ScriptedQueue(), Room(4), Deliveries(), EventRecorder()
    queue.will("get", *[BrokerUnavailable("down")] * 4, OSError("a bug"), batch(1), BrokerUnavailable("again"))
    async with fetching({queue: 1}, room, deliver, recorder):
        recovered = await recorder.wait_for(PollRecovered)
        await recorder.wait_for(PollFailed, where=lambda event: event.reason == "again")
    failed = recorder.of(PollFailed)
    assert [0.002, 0.004, 0.008, 0.008, 0.008, 0.002] == [event.retry_in for event in failed]
    assert ["down"] * 4 + ["OSError: a bug", "again"] == [event.reason for event in failed]
    assert ("work", True) == (recovered.queue, 0.03 <= recovered.seconds < 5)
    assert 4 == room.wanted(), "failed gets keep no room"


async def test_retry_after_is_waited_for() -> None:
    queue, room, recorder = ScriptedQueue(), Room(4), EventRecorder()
    queue.will("get", BrokerBusy("throttled", retry_after=7), BrokerBusy("throttled"))
    async with fetching({queue: 1}, room, Deliveries(), recorder):
        failed = await recorder.wait_for(PollFailed)
    assert (7, 1) == (failed.retry_in, len(queue.calls))


async def test_busy_without_a_time_is_like_any_failure() -> None:
    queue, room, recorder = ScriptedQueue(), Room(4), EventRecorder()
    queue.will("get", BrokerBusy("throttled"))
    async with fetching({queue: 1}, room, Deliveries(), recorder):
        failed = await recorder.wait_for(PollFailed)
    assert 0.125 <= failed.retry_in <= 0.25


async def test_a_lease_begins_after_room_was_waited_for() -> None:
    queue, room, deliver = ScriptedQueue(), Room(4), Deliveries()
    queue.limit = 100.0
    admitted = list[float]()

    async def after_a_while() -> None:
        await asyncio.sleep(0.02)
        admitted.append(time.monotonic())

    queue.will("admit", after_a_while)
    queue.will("get", batch(1))
    async with fetching({queue: 1}, room, deliver):
        await deliver.wait(1)
    assert deliver.all[0][2] >= admitted[0]
    assert (Urgency.NEW_WORK, None) == queue.admissions[0]


async def test_a_get_that_waits_for_room_is_not_sent_any_more_at_the_end() -> None:
    held_back, room = ScriptedQueue(), Room(8)
    held_back.limit = 100.0
    held_back.will("admit", held(asyncio.Event(), []))
    async with fetching({held_back: 1}, room, Deliveries()) as task:
        await until(lambda: held_back.admissions)
        task.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait([task])
    assert [] == held_back.calls
    assert 0 == room.reserved


async def test_a_queue_that_waits_for_its_turn_leaves_the_room_to_others() -> None:
    held_back, other, room, deliver = ScriptedQueue("held"), ScriptedQueue("other"), Room(8), Deliveries()
    held_back.limit = 100.0
    turn = asyncio.Event()
    held_back.will("admit", held(turn, []))
    async with fetching({held_back: 1, other: 1}, room, deliver):
        await until(lambda: held_back.admissions)
        asked_before = len(other.calls)
        await until(lambda: len(other.calls) > asked_before)
        assert [] == held_back.calls
        turn.set()
        await until(lambda: held_back.calls)
    assert 0 == room.reserved


async def test_a_turn_that_comes_when_there_is_no_room_any_more_is_not_used() -> None:
    queue, room = ScriptedQueue(), Room(8)
    queue.limit = 100.0
    turn = asyncio.Event()
    queue.will("admit", held(turn, []))
    async with fetching({queue: 1}, room, Deliveries()):
        await until(lambda: queue.admissions)
        room.free = 0
        turn.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert [] == queue.calls
        room.give(3)
        await until(lambda: queue.calls)
    assert [3, 60] == queue.called("get")[0]


async def test_a_turn_that_is_refused_is_a_failed_poll() -> None:
    queue, room, recorder = ScriptedQueue(), Room(8), EventRecorder()
    queue.limit = 100.0
    queue.will("admit", OSError("a bug"))
    async with fetching({queue: 1}, room, Deliveries(), recorder):
        failed = await recorder.wait_for(PollFailed)
        await recorder.wait_for(PollRecovered)
    assert "OSError: a bug" == failed.reason
    assert 0 == room.reserved


async def test_a_single_refused_get_of_a_queue_at_its_limit_is_not_worth_a_word() -> None:
    queue, room, deliver, recorder = ScriptedQueue(), Room(4), Deliveries(), EventRecorder()
    queue.limit = 100.0
    busy = BrokerBusy("throttled")
    queue.will("get", busy, batch(1), busy, busy, batch(1))
    async with fetching({queue: 1}, room, deliver, recorder):
        await recorder.wait_for(PollRecovered)
    assert 2 == len([count for _, count, _ in deliver.all if count])
    assert [PollFailed, PollRecovered] == [type(event) for event in recorder.events]


async def test_a_rate_is_told_of() -> None:
    queue, room, recorder = ScriptedQueue(), Room(4), EventRecorder()
    queue.limit = 100.0
    async with fetching({queue: 1}, room, Deliveries(), recorder):
        await until(lambda: len(queue.calls) > 2)
        queue.limit = None
        unthrottled = await recorder.wait_for(QueueUnthrottled)
    assert "work" == unthrottled.queue


async def test_access_denied_is_not_asked_again_soon() -> None:
    queue, room, recorder = ScriptedQueue(), Room(4), EventRecorder()
    queue.will("get", AccessDenied("403"))
    async with fetching({queue: 1}, room, Deliveries(), recorder):
        failed = await recorder.wait_for(PollFailed)
    assert 5 == failed.retry_in


async def test_a_get_under_way_at_the_end_is_waited_for() -> None:
    queue, room, deliver = ScriptedQueue(), Room(4), Deliveries()
    go = asyncio.Event()
    queue.will("get", held(go, batch(2)))
    async with fetching({queue: 1}, room, deliver) as task:
        await until(lambda: queue.calls)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go.set()
    assert [2] == [count for _, count, _ in deliver.all]


# Whether it gets on, for probes


async def test_an_answer_that_does_not_come_is_late_from_its_asking_on() -> None:
    queue, asked = ScriptedQueue(), asyncio.Event()

    async def hang() -> list[Message]:
        asked.set()
        return await asyncio.Future()

    queue.will("get", hang)
    fetcher = Fetcher({queue: 1}, Room(1), Pace(60, 0.001, 0.005), Deliveries(), lambda _: None)
    running = asyncio.create_task(fetcher.run())
    await asyncio.wait_for(asked.wait(), 10)
    assert 99 == pytest.approx(fetcher.late(time.monotonic() + 99), abs=1)
    for get in fetcher._gets:
        get.cancel()
    await _ended(running)


async def test_a_poll_is_late_once_it_is_due() -> None:
    """Here the queue's own watch never ends."""
    queue, watched = ScriptedQueue(), asyncio.Event()

    async def hang() -> None:
        watched.set()
        await asyncio.Future()

    queue.will("wait", hang)
    fetcher = Fetcher({queue: 1}, Room(1), Pace(60, 20.0, 20.0), Deliveries(), lambda _: None)
    running = asyncio.create_task(fetcher.run())
    await asyncio.wait_for(watched.wait(), 10)
    assert 0 == fetcher.late(time.monotonic()) == fetcher.late(time.monotonic() + 9)
    assert 84 == pytest.approx(fetcher.late(time.monotonic() + 99), abs=6), "99, less a rest of 10 to 20"
    await _ended(running)


@pytest.mark.parametrize("why", ["no room", "a limit"])
async def test_a_poll_that_has_to_wait_is_not_late(why: str) -> None:
    queue, waits = ScriptedQueue(), asyncio.Event()

    async def hang() -> None:
        waits.set()
        await asyncio.Future()

    queue.limit = 10.0 if why == "a limit" else None
    queue.will("admit", hang)
    room = Room(int(why == "a limit"))
    fetcher = Fetcher({queue: 1}, room, Pace(60, 1.0, 1.0), Deliveries(), lambda _: None)
    running = asyncio.create_task(fetcher.run())
    await until(lambda: waits.is_set() if why == "a limit" else room.asked)
    assert 0 == fetcher.late(time.monotonic() + 99)
    assert [] == queue.called("get")
    await _ended(running)


async def _ended(running: asyncio.Task[None]) -> None:
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
