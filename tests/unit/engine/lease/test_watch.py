import asyncio
import threading
import time

from qworker.engine.lease.watch import LoopWatch
from qworker.events import LoopBlocked
from qworker.job import Job

JOB = Job("j1", "t")


def look_until(watch: LoopWatch, end: threading.Event) -> threading.Thread:
    def look() -> None:
        while not end.wait(0.005):
            watch.look()

    thread = threading.Thread(target=look)
    thread.start()
    return thread


async def test_reports_a_blocked_loop_with_the_job_and_the_line() -> None:
    events: list[LoopBlocked] = []
    tasks: list[object] = []

    def job_of(task: object) -> Job:
        tasks.append(task)
        return JOB

    end = threading.Event()
    thread = look_until(LoopWatch(events.append, job_of, blocked_after=0.05), end)
    await asyncio.sleep(0.02)
    time.sleep(0.3)  # noqa: ASYNC251 — the subject
    await asyncio.sleep(0)
    end.set()
    thread.join()
    assert 2 <= len(events) <= 3, "each time that the wait doubles"
    assert 0.05 <= events[0].seconds < 0.1 <= events[1].seconds
    assert JOB is events[0].job
    assert asyncio.current_task() is tasks[0]
    assert events[0].where.startswith("test_watch.py:")
    assert events[0].where.endswith(" in test_reports_a_blocked_loop_with_the_job_and_the_line")


async def test_is_silent_while_the_loop_turns() -> None:
    events: list[LoopBlocked] = []
    end = threading.Event()
    thread = look_until(LoopWatch(events.append, lambda _: None, blocked_after=0.1), end)
    for _ in range(20):
        await asyncio.sleep(0.01)
    end.set()
    thread.join()
    assert [] == events


def test_is_silent_once_the_loop_has_closed() -> None:
    async def make() -> LoopWatch:
        return LoopWatch(events.append, lambda _: None, blocked_after=0)

    events: list[LoopBlocked] = []
    watch = asyncio.run(make())
    watch.look()
    assert [] == events


def test_a_thread_that_is_gone_is_nowhere() -> None:
    async def make() -> LoopWatch:
        watch = LoopWatch(events.append, lambda _: None, blocked_after=0)
        watch._thread = 0
        return watch

    events: list[LoopBlocked] = []
    loop = asyncio.new_event_loop()
    watch = loop.run_until_complete(make())
    watch.look()
    watch.look()
    loop.close()
    assert ["unknown"] == [event.where for event in events]
