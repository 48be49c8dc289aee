import asyncio
import os
import threading
from collections.abc import Iterator

import pytest

from qworker.portal import Portal


class Closing:
    def __init__(self) -> None:
        self.loops: list[asyncio.AbstractEventLoop] = []

    async def __call__(self) -> None:
        self.loops.append(asyncio.get_running_loop())


@pytest.fixture
def closing() -> Closing:
    return Closing()


@pytest.fixture
def portal(closing: Closing) -> Iterator[Portal]:
    portal = Portal(closing)
    yield portal
    portal.close()


async def where() -> tuple[asyncio.AbstractEventLoop, int]:
    return asyncio.get_running_loop(), threading.get_ident()


async def fail() -> None:
    raise ValueError("no")


def test_runs_in_one_loop_on_a_thread_of_its_own(portal: Portal) -> None:
    assert portal.run(where()) == portal.run(where())
    assert threading.get_ident() != portal.run(where())[1]


def test_raises_what_the_coroutine_raises(portal: Portal) -> None:
    with pytest.raises(ValueError, match="no"):
        portal.run(fail())


async def test_works_within_a_running_loop(portal: Portal) -> None:
    loop, _ = portal.run(where())
    assert asyncio.get_running_loop() is not loop


def test_serves_many_threads(portal: Portal) -> None:
    places: list[object] = []
    threads = [threading.Thread(target=lambda: places.append(portal.run(where()))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 20 == len(places)
    assert 1 == len(set(places))


def test_closes_what_was_opened_in_its_loop_and_starts_again(portal: Portal, closing: Closing) -> None:
    portal.close()
    assert [] == closing.loops, "nothing was opened"
    first, _ = portal.run(where())
    portal.close()
    portal.close()
    assert [first] == closing.loops
    assert first.is_closed()
    second, _ = portal.run(where())
    assert first is not second


def test_ends_its_thread_even_if_closing_fails() -> None:
    portal = Portal(fail)
    loop, _ = portal.run(where())
    with pytest.raises(ValueError, match="no"):
        portal.close()
    assert loop.is_closed()


def test_a_forked_child_has_its_own(portal: Portal, closing: Closing, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = portal.run(where())
    thread = portal._thread
    monkeypatch.setattr(os, "getpid", lambda: 1)
    portal.close()
    assert [] == closing.loops, "it is the parent's to close"
    second, _ = portal.run(where())
    assert first is not second
    portal.close()
    assert [second] == closing.loops
    first.call_soon_threadsafe(first.stop)
    assert thread is not None
    thread.join()
    first.close()


@pytest.mark.parametrize("patience", [5.0, 0.01])
def test_closing_leaves_no_caller_waiting(portal: Portal, patience: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call under way ends, or is cancelled."""
    monkeypatch.setattr("qworker.portal._LAST_CALLS", patience)
    begun, ended = threading.Event(), list[str]()

    async def call() -> str:
        begun.set()
        await asyncio.sleep(0.2 if patience > 1 else 3600)
        return "done"

    def caller() -> None:
        try:
            ended.append(portal.run(call()))
        except BaseException as error:  # noqa: BLE001 — whatever it is, it is not waiting any more
            ended.append(type(error).__name__)

    thread = threading.Thread(target=caller)
    thread.start()
    begun.wait()
    portal.close()
    thread.join(10)
    assert ["done" if patience > 1 else "CancelledError"] == ended
