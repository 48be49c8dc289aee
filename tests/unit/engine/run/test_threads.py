import asyncio
import contextvars
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from qworker.engine.run.threads import Interrupt, ThreadCall


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Busy:
    """Runs Python code until it is interrupted, or told to end."""

    def __init__(self) -> None:
        self.begun, self.end, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.cleaned_up = False

    def __call__(self) -> str:
        self.begun.set()
        try:
            while not self.end.is_set():
                time.sleep(0.001)
        finally:
            self.cleaned_up = True
            self.ended.set()
        return "done"


async def test_returns_what_the_function_returns(executor: ThreadPoolExecutor) -> None:
    assert 3 == await ThreadCall(lambda: 3).run(executor)


async def test_the_function_sees_the_callers_context(executor: ThreadPoolExecutor) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    variable.set(7)
    assert 7 == await ThreadCall(variable.get).run(executor)


def raising(error: BaseException) -> ThreadCall:
    def function() -> None:
        raise error

    return ThreadCall(function)


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError(), GeneratorExit(), MemoryError()],
    ids=repr,
)
async def test_raises_what_the_function_raises(executor: ThreadPoolExecutor, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        await raising(error).run(executor)
    assert error is caught.value
    assert 3 == await ThreadCall(lambda: 3).run(executor)


async def test_stop_iteration_is_a_runtime_error_as_in_any_coroutine(executor: ThreadPoolExecutor) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await raising(StopIteration()).run(executor)


async def test_an_interrupt_ends_the_function_and_lets_it_clean_up(executor: ThreadPoolExecutor) -> None:
    busy = Busy()
    call = ThreadCall(busy)
    running = asyncio.create_task(call.run(executor))
    await asyncio.to_thread(busy.begun.wait)
    call.interrupt()
    with pytest.raises(Interrupt):
        await running
    assert busy.cleaned_up
    assert 3 == await ThreadCall(lambda: 3).run(executor)


async def test_an_interrupt_before_it_began_does_not_begin_it(executor: ThreadPoolExecutor) -> None:
    busy = Busy()
    call = ThreadCall(busy)
    call.interrupt()
    with pytest.raises(Interrupt):
        await call.run(executor)
    assert not busy.begun.is_set()


async def test_a_function_may_refuse_and_be_interrupted_again(executor: ThreadPoolExecutor) -> None:
    first, second = Busy(), Busy()

    def stubborn() -> None:
        try:
            first()
        except Interrupt:
            second()

    call = ThreadCall(stubborn)
    running = asyncio.create_task(call.run(executor))
    for busy in (first, second):
        await asyncio.to_thread(busy.begun.wait)
        call.interrupt()
    with pytest.raises(Interrupt):
        await running


async def test_an_interrupt_after_the_end_is_no_one_elses(executor: ThreadPoolExecutor) -> None:
    call = ThreadCall(lambda: 3)
    assert 3 == await call.run(executor)
    call.interrupt()
    assert 4 == await ThreadCall(lambda: sum([1] * 4)).run(executor)


async def test_interrupts_around_the_end_never_hit_the_next_call(executor: ThreadPoolExecutor) -> None:
    def count(to: int) -> int:
        return sum(1 for _ in range(to))

    chance = random.Random(7)
    ends: set[type[object]] = set()
    for _ in range(1500):
        call = ThreadCall(lambda: count(chance.randrange(1000)))
        running = asyncio.create_task(call.run(executor))
        await asyncio.sleep(0)
        count(chance.randrange(1500))
        call.interrupt()
        call.interrupt()
        ends.update(map(type, await asyncio.gather(running, return_exceptions=True)))
        call.interrupt()
        assert 50 == await ThreadCall(lambda: count(50)).run(executor)
    assert {Interrupt} <= ends <= {int, Interrupt}


async def test_cancelling_the_wait_interrupts_the_function(executor: ThreadPoolExecutor) -> None:
    busy = Busy()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await ThreadCall(busy).run(executor)
    assert await asyncio.to_thread(busy.ended.wait, 5)
    assert busy.cleaned_up


async def test_being_cancelled_waits_for_the_end_of_the_function(executor: ThreadPoolExecutor) -> None:
    first, second = Busy(), Busy()

    def clean_up_slowly() -> None:
        try:
            first()
        finally:
            second()

    running = asyncio.create_task(ThreadCall(clean_up_slowly).run(executor))
    await asyncio.to_thread(first.begun.wait)
    running.cancel()
    await asyncio.to_thread(second.begun.wait)
    assert not running.done()
    second.end.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert second.ended.is_set()


async def test_being_cancelled_twice_gives_up_the_wait(executor: ThreadPoolExecutor) -> None:
    first, second = Busy(), Busy()

    def clean_up_for_ever() -> None:
        try:
            first()
        finally:
            second()

    running = asyncio.create_task(ThreadCall(clean_up_for_ever).run(executor))
    await asyncio.to_thread(first.begun.wait)
    running.cancel()
    await asyncio.to_thread(second.begun.wait)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not second.ended.is_set()
    second.end.set()
