import asyncio
import gc
import weakref

import pytest

from qworker.engine.lease.within import Within


async def test_what_takes_too_long_is_cancelled() -> None:
    with pytest.raises(TimeoutError), Within(0.05):
        await asyncio.sleep(60)
    await asyncio.sleep(0.3)  # nothing of it comes later


async def test_what_ends_in_time_is_left_alone() -> None:
    for _ in range(3):
        with Within(0.2):
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.4)


async def test_each_block_has_its_own_time() -> None:
    async def ends_after(seconds: float) -> str:
        try:
            with Within(seconds):
                await asyncio.sleep(0.5)
        except TimeoutError:
            return "late"
        return "in time"

    assert ["late", "in time", "late"] == await asyncio.gather(*map(ends_after, (0.1, 30, 0.2)))


async def test_an_error_of_the_block_is_passed_on() -> None:
    async def fails() -> None:
        with Within(30):
            await asyncio.sleep(0)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await fails()


async def test_who_cancels_from_outside_is_heard() -> None:
    async def waits() -> None:
        with Within(30):
            await asyncio.sleep(60)

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_from_outside_and_late_it_is_cancelled() -> None:
    async def waits() -> None:
        with Within(0.0):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                current = asyncio.current_task()
                assert current is not None
                current.cancel()
                raise

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(waits())


def test_no_event_loop_is_kept() -> None:
    async def once() -> weakref.ref[asyncio.AbstractEventLoop]:
        with Within(30):
            await asyncio.sleep(0)
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(once())
    gc.collect()
    assert loop() is None
