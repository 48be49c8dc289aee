import asyncio
import threading

import pytest

from qworker.events import JobExpired, JobStarted, PollRecovered
from qworker.job import Job
from qworker.testing import EventRecorder


def started(attempt: int) -> JobStarted:
    return JobStarted(job=Job("j1", "t"), queue="default", attempt=attempt)


def test_keeps_events_in_order() -> None:
    recorder = EventRecorder()
    recovered = PollRecovered(queue="default", seconds=1)
    for event in (started(1), recovered, started(2)):
        recorder(event)
    assert (started(1), recovered, started(2)) == recorder.events
    assert [started(1), started(2)] == recorder.of(JobStarted)
    assert [] == recorder.of(JobExpired)


async def test_waits_for_an_event_that_is_past() -> None:
    recorder = EventRecorder()
    recorder(started(1))
    recorder(started(2))
    assert started(1) == await recorder.wait_for(JobStarted)
    assert started(2) == await recorder.wait_for(JobStarted, where=lambda event: event.attempt > 1)


async def test_waits_for_an_event_of_another_thread() -> None:
    recorder = EventRecorder()
    waiting = asyncio.create_task(recorder.wait_for(JobStarted, where=lambda event: event.attempt == 3))
    await asyncio.sleep(0)
    thread = threading.Thread(target=lambda: list(map(recorder, map(started, (1, 2, 3, 4)))))
    thread.start()
    assert started(3) == await waiting
    thread.join()
    assert [1, 2, 3, 4] == [event.attempt for event in recorder.of(JobStarted)]


async def test_two_may_wait_for_the_same_event() -> None:
    recorder = EventRecorder()
    both = asyncio.gather(recorder.wait_for(JobStarted), recorder.wait_for(JobStarted))
    await asyncio.sleep(0)
    recorder(started(1))
    assert [started(1), started(1)] == list(await both)


async def test_says_what_came_instead() -> None:
    recorder = EventRecorder()
    recorder(started(1))
    recorder(started(2))
    recorder(PollRecovered(queue="default", seconds=1))
    with pytest.raises(AssertionError) as caught:
        await recorder.wait_for(JobExpired, within=0.01)
    assert "no such JobExpired within 0.01 s; seen: 2 JobStarted, 1 PollRecovered" == str(caught.value)
    assert "<EventRecorder, seen: nothing>" == repr(EventRecorder())


async def test_raises_a_mistake_of_the_condition() -> None:
    recorder = EventRecorder()
    waiting = asyncio.create_task(recorder.wait_for(JobStarted, where=lambda event: 1 / (event.attempt - 1) > 0))
    await asyncio.sleep(0)
    recorder(started(1))
    with pytest.raises(ZeroDivisionError):
        await waiting


async def test_a_wait_that_was_given_up_is_forgotten() -> None:
    recorder = EventRecorder()
    with pytest.raises(AssertionError):
        await recorder.wait_for(JobStarted, within=0.01)
    recorder(started(1))
    assert started(1) == await recorder.wait_for(JobStarted)
