import asyncio
import io
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from qworker.errors import QworkerError
from qworker.produce.portal import Entangled, Portal


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
    room = portal._room
    assert room is not None
    monkeypatch.setattr(os, "getpid", lambda: 1)
    portal.close()
    assert [] == closing.loops, "it is the parent's to close"
    second, _ = portal.run(where())
    assert first is not second
    portal.close()
    assert [second] == closing.loops
    room.close(closing())


def test_a_child_is_not_held_up_by_a_thread_that_the_parent_had(portal: Portal) -> None:
    """Another thread was in the middle of a call at the moment of the fork; the child never calls."""
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with portal._lock:
            held.set()
            let_go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    if not (child := os.fork()):
        signal.alarm(10)
        portal.close()
        os._exit(0)
    assert 0 == os.waitpid(child, 0)[1]
    let_go.set()
    thread.join()


# Calls that would wait for themselves


@pytest.mark.parametrize("call", ["run", "close"])
def test_a_call_on_its_own_thread_raises(portal: Portal, call: str) -> None:
    async def inside() -> None:
        portal.close() if call == "close" else portal.run(where())

    with pytest.raises(Entangled, match="would wait for itself"):
        portal.run(inside())
    assert portal.run(where()), "and does no harm"


def test_a_call_while_it_closes_raises_on_its_own_thread() -> None:
    """What is closed logs, and a log handler enqueues."""

    async def close() -> None:
        with pytest.raises(Entangled):
            portal.run(where())
        closed.append(threading.get_ident())

    closed: list[int] = []
    portal = Portal(close)
    portal.open()
    portal.close()
    assert 1 == len(closed)


def test_another_portal_may_be_used_on_its_thread(portal: Portal) -> None:
    async def inside() -> object:
        return other.run(where())[0]

    other = Portal(where_nothing_is)
    assert portal.run(inside()) is not portal.run(where())[0]
    other.close()


async def where_nothing_is() -> None:
    pass


class Enqueuing(logging.Handler):
    """Hands each record to a portal, as a log handler that enqueues does."""

    def __init__(self, portal: Portal, then: Callable[[], Coroutine[Any, Any, object]]) -> None:
        super().__init__()
        self._portal, self._then = portal, then
        self.raised: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._portal.run(self._then())
        except QworkerError as error:
            self.raised.append(error)


@pytest.fixture
def loggers() -> Iterator[tuple[logging.Logger, logging.Logger]]:
    names = ("test_portal.shop", "test_portal.library")
    yield logging.getLogger(names[0]), logging.getLogger(names[1])
    for name in names:
        logging.getLogger(name).handlers.clear()


def test_a_log_handler_that_its_thread_waits_for_raises(
    portal: Portal, loggers: tuple[logging.Logger, logging.Logger]
) -> None:
    async def put() -> None:
        library.error("sending")

    shop, library = loggers
    handler = Enqueuing(portal, put)
    shop.addHandler(handler)
    library.addHandler(handler)
    shop.error("no stock")
    assert portal.run(where()), "it does no harm"
    assert ["Entangled", "Entangled"] == [type(error).__name__ for error in handler.raised], "on either thread"


def test_a_log_handler_that_hears_nothing_of_its_thread_works(
    portal: Portal, loggers: tuple[logging.Logger, logging.Logger]
) -> None:
    async def put() -> None:
        library.error("sending")
        await asyncio.sleep(3 * 0.1)  # longer than a look at the thread takes to come

    shop, library = loggers
    other = logging.StreamHandler(io.StringIO())
    handler = Enqueuing(portal, put)
    shop.addHandler(handler)
    library.addHandler(other)
    shop.error("no stock")
    assert [] == handler.raised


def test_what_a_coroutine_times_out_with_is_its_own(portal: Portal) -> None:
    async def late() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        portal.run(late())


def test_a_signal_may_call_in_the_middle_of_a_call(portal: Portal) -> None:
    async def put() -> int:
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.sleep(0)
        return 1

    answers: list[object] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: answers.append(portal.run(where())))
    try:
        with portal._lock:  # as if it came in the middle of a start
            assert 1 == portal.run(put())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert 1 == len(answers)


def test_no_call_is_lost_to_a_close_at_the_same_time() -> None:
    """Each is answered by the thread that closes, or by the next one."""

    async def number(n: int) -> int:
        await asyncio.sleep(0)
        return n

    portal = Portal(where_nothing_is)
    answers: list[int] = []
    callers = [
        threading.Thread(target=lambda: answers.extend(portal.run(number(n)) for n in range(200))) for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    while any(caller.is_alive() for caller in callers):
        portal.close()
    for caller in callers:
        caller.join()
    portal.close()
    assert sorted([*range(200)] * 4) == sorted(answers)


@pytest.mark.parametrize("patience", [5.0, 0.01])
def test_closing_leaves_no_caller_waiting(portal: Portal, patience: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call under way ends, or is cancelled."""
    monkeypatch.setattr("qworker.produce.portal._LAST_CALLS", patience)
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


async def leave() -> None:
    raise SystemExit(3)


async def fail_the_loop() -> None:
    def fail() -> None:
        raise OSError(9, "Bad file descriptor")

    asyncio.get_running_loop()._run_once = fail  # type: ignore[attr-defined]
    await asyncio.Event().wait()


def test_a_call_that_exits_tells_its_caller_and_others_go_on(portal: Portal) -> None:
    before = portal.run(where())
    with pytest.raises(SystemExit) as caught:
        portal.run(leave())
    assert caught.value.code == 3
    assert before == portal.run(where())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_call_whose_thread_ends_raises_and_the_next_one_has_another(portal: Portal) -> None:
    loop, _ = portal.run(where())
    with pytest.raises(QworkerError, match="own thread has ended"):
        portal.run(fail_the_loop())
    after, _ = portal.run(where())
    assert after is not loop


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_portal_whose_thread_has_ended_closes(portal: Portal) -> None:
    with pytest.raises(QworkerError):
        portal.run(fail_the_loop())
    portal.close()
